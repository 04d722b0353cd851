"""Redis servers for the tests of this folder: real ones, each test with an empty one."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop
from redisservers import BINARIES, RedisServer, RedisServers


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """asyncio's own loop; the road's calls and troubles on uvloop, which production uses."""
    loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    if item.path.name == "test_road_calls.py":
        return loops
    if item.path.name.startswith(("test_road", "test_trouble")):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="session")
def session_redis(tmp_path_factory):
    """One plain server for the whole session. Ask for `redis_server`, which is empty."""
    servers = RedisServers(tmp_path_factory.mktemp("redis"))
    yield servers.start(unix=True)
    servers.stop()


@pytest.fixture
def redis_server(session_redis) -> RedisServer:
    """The session's server, without data, scripts and left-over settings of earlier tests.
    Tests that kill, pause or reconfigure a server start their own: `redis_servers.start()`."""
    session_redis.call("FLUSHALL")
    session_redis.call("SCRIPT", "FLUSH")
    return session_redis


@pytest.fixture
def redis_servers(tmp_path):
    """Starts servers for one test: `.start(unix=…, tls=…, options=…)`, `.start_cluster(3)`."""
    servers = RedisServers(tmp_path)
    yield servers
    servers.stop()


@pytest.fixture(scope="session")
def session_cluster(tmp_path_factory):
    """Three masters for the whole session. Ask for `redis_cluster`, which is empty."""
    servers = RedisServers(tmp_path_factory.mktemp("cluster"))
    yield servers.start_cluster(3)
    servers.stop()


@pytest.fixture(scope="session")
def session_frail_cluster(tmp_path_factory):
    """Three masters that go on without one another: tests may kill them, and start them again."""
    servers = RedisServers(tmp_path_factory.mktemp("frail"))
    yield servers.start_cluster(3, options={"cluster-require-full-coverage": "no"})
    servers.stop()


@pytest.fixture
def frail_cluster(session_frail_cluster) -> list[RedisServer]:
    for server in session_frail_cluster:
        server.call("FLUSHALL")
    return session_frail_cluster


@pytest.fixture
def redis_cluster(session_cluster) -> list[RedisServer]:
    for server in session_cluster:
        server.call("FLUSHALL")
        server.call("SCRIPT", "FLUSH")
    return session_cluster


@pytest.fixture(scope="session", params=sorted(BINARIES))
def every_redis(request, tmp_path_factory):
    """Each kind of server that this machine has, in turn; empty at first."""
    binary = BINARIES[request.param]
    if binary is None:
        pytest.skip(f"no server for {request.param} here")
    servers = RedisServers(tmp_path_factory.mktemp(request.param))
    yield servers.start(binary=binary)
    servers.stop()
