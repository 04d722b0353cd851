"""Under `ulimit -n 256`: whoever opens connections and sends nothing, on whichever port, keeps
nobody else from that port nor from the others."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from fleet_kit import BIG, Fleet, until
from rawhttp import Answer, RawOrigin, Wire, echo, free_port
from redisservers import RedisServer, RedisServers

FILES = 256
HALF_OPEN = 400
LIVEZ = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    servers = RedisServers(tmp_path_factory.mktemp("redis"))
    yield servers.start()
    servers.stop()


class Limited:
    """A gateway with few descriptors, and the half-open connections to it."""

    def __init__(self, fleet: Fleet, probes: int) -> None:
        self.fleet = fleet
        self.probes = probes
        self._half_open: list[Wire] = []

    async def flood(self, port: int) -> None:
        for _ in range(HALF_OPEN):
            wire = await Wire.open(port)
            self._half_open.append(wire)
            wire.writer.write(b"GET /livez HT")

    async def relent(self) -> None:
        for wire in self._half_open:
            wire.writer.transport.abort()
        self._half_open.clear()

    async def livez(self, port: int) -> int:
        async with await Wire.open(port) as wire:
            return (await wire.ask(LIVEZ)).status

    async def reload(self) -> Answer:
        return await self.fleet.ask_admin("/config/reload", "POST")

    def descriptors(self) -> int:
        assert self.fleet.process is not None
        return len(os.listdir(f"/proc/{self.fleet.process.pid}/fd"))

    async def serves(self) -> bool:
        try:
            return (await self.fleet.get()).status == 200
        except (ConnectionError, EOFError):
            return False


@pytest.fixture(params=[1, 2], ids=["one-worker-memory", "two-workers-redis"])
async def limited(
    tmp_path: Path, request: pytest.FixtureRequest, redis: RedisServer
) -> AsyncIterator[Limited]:
    async with AsyncExitStack() as stack:
        origin = await RawOrigin(echo).start()
        stack.push_async_callback(origin.stop)
        workers, probes = request.param, free_port()
        fleet = Fleet(tmp_path, origin.port, workers, f"  workers: {workers}", BIG)
        store = f"store: {{url: {redis.url}, timeout: 2s}}" if workers > 1 else ""
        fleet.write("first", more=store, probes=f', probes: "127.0.0.1:{probes}"')
        stack.push_async_callback(fleet.stop)
        await fleet.start_by_file(FILES)
        await until(fleet.is_ready, "the gateway is ready", 30)
        limited = Limited(fleet, probes)
        stack.push_async_callback(limited.relent)
        yield limited


async def test_half_open_probes_stop_nobody(limited: Limited) -> None:
    before = limited.descriptors()
    await limited.flood(limited.probes)
    assert await limited.livez(limited.probes) == 200
    assert await limited.livez(limited.fleet.admin) == 200
    assert (await limited.reload()).status == 200
    for _ in range(20):
        assert (await limited.fleet.get()).status == 200
    await limited.relent()

    async def as_before() -> bool:
        return limited.descriptors() <= before + 4

    await until(as_before, "the descriptors are free again")
    assert await limited.livez(limited.probes) == 200


async def test_half_open_clients_stop_neither_admin_nor_reload(limited: Limited) -> None:
    await limited.flood(limited.fleet.port)
    assert await limited.livez(limited.probes) == 200
    assert await limited.livez(limited.fleet.admin) == 200
    assert (await limited.reload()).status == 200
    await limited.relent()
    await until(limited.serves, "the data port serves again")


async def test_a_cap_above_the_limit_is_a_warning(limited: Limited) -> None:
    limited.fleet.signal(signal.SIGTERM)
    _, log = await limited.fleet.end()
    assert log.count("server.max_connections: 10000 does not fit") == 1
