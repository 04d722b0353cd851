"""Two lanes, one gateway: whatever clients send, it is answered, told and counted alike in both."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from edge_kit import StartGateway, StartOrigin
from lanes_kit import TCP, Gate, Way, ask, start
from lanes_talk_kit import GET, POST, Listening, same, taken
from rawhttp import Wire
from redisservers import RedisServer, RedisServers

from proxy.edge.protocol import GatewayProtocol


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    servers = RedisServers(tmp_path_factory.mktemp("redis"))
    yield servers.start()
    servers.stop()


@pytest.fixture
def listening(tmp_path: Path, start_gateway: StartGateway, start_origin: StartOrigin) -> Listening:
    return Listening(tmp_path, start_gateway, start_origin)


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> str:
    """Where the limits are counted, and answers shared."""
    if request.param == "memory":
        return "memory://"
    server: RedisServer = request.getfixturevalue("redis_server")
    server.call("FLUSHALL")
    return f"redis://127.0.0.1:{server.port}"


async def test_both_lanes_say_the_same(
    listening: Listening, capfd: pytest.CaptureFixture[str], store: str
) -> None:
    """Bytes to clients and to the origin, the access log, and the counts."""
    express = await listening.to(True, capfd, store, TCP)
    same(express, await listening.to(False, capfd, store, TCP))


@pytest.mark.parametrize("name", ["tls", "unix"])
async def test_both_lanes_say_the_same_by_other_ways(
    listening: Listening, capfd: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    """TLS brings a request as one read, too, and what it is forwarded with is the same."""
    way = Way(name, tmp_path)
    express = await listening.to(True, capfd, "memory://", way)
    same(express, await listening.to(False, capfd, "memory://", way))
    schemes = {seen.get("x-forwarded-proto") for seen in express.upstream}
    assert schemes == {"https" if name == "tls" else "http"}


@pytest.mark.parametrize(
    ("data", "express"),
    [
        (GET, True),
        (ask("/none"), True),
        (ask("/o/a", "Content-Length: 0", method="POST"), True),
        (GET + GET, False),
        (POST, False),
        (ask("/o/a", "Connection: close"), False),
        (GET.replace(b"1.1", b"1.0"), False),
        (ask("/o/a", "Host: a"), False),
    ],
)
async def test_what_is_simple(
    tmp_path: Path,
    start_gateway: StartGateway,
    start_origin: StartOrigin,
    monkeypatch: pytest.MonkeyPatch,
    data: bytes,
    express: bool,
) -> None:
    running = await start(start_gateway, await start_origin(Gate()), tmp_path)
    async with await Wire.open(running.port) as client:
        await client.ask(GET)
        took = taken(monkeypatch)
        await client.ask(data)
    assert took[0] is express


async def test_what_waits_for_nothing_needs_no_task(
    tmp_path: Path,
    start_gateway: StartGateway,
    start_origin: StartOrigin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hit, a 304, a 429 and a refusal of our own: neither a task nor a future."""
    running = await start(start_gateway, await start_origin(Gate()), tmp_path)
    async with await Wire.open(running.port) as client:
        for target in ("/c/a", "/l/a", "/l/a"):
            assert (await client.ask(ask(target))).status == 200

        def fails(*args: object, **kwargs: object) -> None:
            raise AssertionError("a task or a future")

        requests = {
            ask("/c/a"): 200,
            ask("/c/a", 'If-None-Match: "v1"'): 304,
            ask("/l/a"): 429,
            ask("/none"): 404,
            ask("/-/ready"): 200,
        }
        whole = GatewayProtocol._takes_express

        def takes(self: GatewayProtocol, data: bytes) -> bool:
            before = len(asyncio.all_tasks())
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(asyncio, "create_task", fails)
                if isinstance(self._loop, asyncio.BaseEventLoop):  # uvloop's cannot be patched
                    patched.setattr(self._loop, "create_future", fails)
                    patched.setattr(self._loop, "create_task", fails)
                took = whole(self, data)
            assert len(asyncio.all_tasks()) == before
            assert not self._express.busy
            return took

        monkeypatch.setattr(GatewayProtocol, "_takes_express", takes)
        took = taken(monkeypatch)
        for data, status in requests.items():
            assert (await client.ask(data)).status == status
        assert took == [True] * len(requests)
