"""Real processes: gateways of two workers, a Redis server, and an origin in the test's process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvloop
from gateways import Fleet, Gateway, StartFleet
from load_client import Origin
from redisservers import RedisServers, free_port


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The tests' own loop carries the load and the origin."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def origin_port() -> int:
    """Where the gateways of a session expect the origin; each test starts its own there."""
    return free_port()


@pytest.fixture
async def origin(origin_port: int) -> AsyncIterator[Origin]:
    async with Origin(origin_port) as running:
        yield running


@pytest.fixture(scope="module")
def start_fleet(tmp_path_factory: pytest.TempPathFactory, origin_port: int) -> Iterator[StartFleet]:
    """Starts gateways that the module's tests share: `start_fleet(count, store, limits, routes)`,
    and what else `Gateway` takes."""
    fleets: list[Fleet] = []

    def start(
        count: int, store: str, limits: str, routes: dict[str, str], **options: str | int
    ) -> Fleet:
        folder: Path = tmp_path_factory.mktemp("fleet")
        gateways = [
            Gateway(folder / f"gateway{n}", store, origin_port, limits, routes, **options)  # type: ignore[arg-type]
            for n in range(count)
        ]
        fleets.append(Fleet(gateways))
        return fleets[-1].start()

    yield start
    for fleet in fleets:
        fleet.stop()


@pytest.fixture(scope="module")
def redis_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServers]:
    servers = RedisServers(tmp_path_factory.mktemp("redis"))
    yield servers
    servers.stop()
