"""Every fault on the way to Redis: no client pays for it but where a limit says `deny`, none gets a
5xx of any other kind, nothing stays behind, and counting is shared again by itself.

What takes time is the gateways' own: they connect again after a while. So the rows run side
by side, on a few gateways that each have a relay in front of the one Redis; the tests only judge.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import pytest_asyncio
from faults_kit import Gateway, Origin, still_held, until
from outcomes_kit import SHED
from redisservers import RedisServer, RedisServers, free_port
from relay import Fault, Relay

pytestmark = pytest.mark.asyncio(loop_scope="module")

OK: Final = "ok"
GATEWAYS: Final = 4
AGAIN_WITHIN: Final = 5.0
"""Seconds until all is shared again, and leases that nobody could let go of have ended."""


class Row(NamedTuple):
    name: str
    fault: Fault | float
    """Or the seconds that every reply takes: a quarter of a second is too much."""
    deny: str
    """What comes of a request whose limit says `deny`. Any other is answered as ever."""


MATRIX: Final = [
    Row("latency", 0.03, OK),
    Row("too-much-latency", 0.6, SHED),
    Row("refused", Fault("connect", "refuse"), SHED),
    Row("not-accepted", Fault("connect", "ignore"), SHED),
    Row("blackhole", Fault("accept", "silence"), SHED),
    Row("reset-unread", Fault("accept", "reset"), SHED),
    Row("read-and-silent", Fault("request", "silence"), SHED),
    Row("reset-in-the-call", Fault("request", "reset"), SHED),
    Row("half-closed", Fault("request", "half-close"), SHED),
    Row("garbage", Fault("request", "garbage"), SHED),
    Row("reset-unanswered", Fault("answer", "reset"), SHED),
    Row("closed-in-the-reply", Fault("answer", "close", 2), SHED),
    Row("reset-in-the-reply", Fault("answer", "reset", 2), SHED),
    Row("silent-in-the-reply", Fault("answer", "silence", 2), SHED),
    Row("garbage-in-the-reply", Fault("answer", "garbage", 2), SHED),
    Row("reply-drips", Fault("answer", "drip", pace=0.1), SHED),
]


class Report(NamedTuple):
    """What came of a row: cells that are not as they should be, by feature, and what was held."""

    struck: dict[str, str]
    shared: bool
    """Whether limits and cache use Redis again."""
    afterwards: dict[str, str]
    held: dict[str, int]


class Bench:
    """A gateway that may be broken, and its relay in front of Redis."""

    def __init__(self, folder: Path, redis: RedisServer, origin: int, prefix: str) -> None:
        self.relay = Relay(redis.port, free_port())
        store = f"redis://127.0.0.1:{self.relay.port}"
        ports = dict.fromkeys(("local", "deny", "cached", "stale"), origin)
        self.gateway = Gateway(folder / prefix, ports, store, prefix=prefix)
        self._leases = redis, f"{prefix}:f:*"

    async def run(self, row: Row) -> Report:
        if isinstance(row.fault, float):
            self.relay.delay = row.fault
        else:
            self.relay.suffer(row.fault)
        struck = await self._asked(f"{row.name}-1", row.deny)
        struck |= await self._asked(f"{row.name}-2", row.deny)
        self.relay.delay = 0.0
        self.relay.recover()
        shared = await until(self._shares, AGAIN_WITHIN)
        afterwards = await self._asked(row.name, OK)
        held = await still_held([self.gateway], AGAIN_WITHIN)
        if not await until(self._no_leases, AGAIN_WITHIN):
            held["leases in Redis"] = 1
        return Report(struck, shared, afterwards, held)

    async def _asked(self, name: str, deny: str) -> dict[str, str]:
        """What is not as it should be, in either lane. `hit` asks for what is in the process's
        memory."""
        asked = {
            "local": ("local", name),
            "deny": ("deny", name),
            "miss": ("cached", name),
            "hit": ("cached", "first"),
            "stale": ("stale", "first"),
        }
        cells = [(one, stays) for one in asked for stays in (True, False)]
        said = await asyncio.gather(*(self.gateway.ask(*asked[one], stays) for one, stays in cells))
        return {
            f"{one}, {'express' if stays else 'queue'}": word
            for (one, stays), word in zip(cells, said, strict=True)
            if word != (deny if one == "deny" else OK)
        }

    async def _shares(self) -> bool:
        status = await self.gateway.status()
        store, cache = status["store"], status["cache"]
        return bool(
            store["connected"]
            and store["healthy"]
            and cache["shared"]["healthy"]
            and not cache["blind"]
        )

    async def _no_leases(self) -> bool:
        redis, names = self._leases
        return not await asyncio.to_thread(redis.call, "KEYS", names)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reports(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[dict[str, "asyncio.Task[Report]"]]:
    """What comes of each row, by name."""
    folder = tmp_path_factory.mktemp("redis-faults")
    servers = RedisServers(folder)
    async with AsyncExitStack() as stack:
        stack.callback(servers.stop)
        redis = await asyncio.to_thread(servers.start)
        origin = Origin()
        await origin.start()
        stack.push_async_callback(origin.stop)
        benches = [Bench(folder, redis, origin.port, f"sg{n}") for n in range(GATEWAYS)]
        for bench in benches:
            await stack.enter_async_context(bench.relay)
            stack.push_async_callback(bench.gateway.stop)
        await asyncio.gather(*(bench.gateway.start() for bench in benches))
        free: asyncio.Queue[Bench] = asyncio.Queue()
        for bench in benches:
            free.put_nowait(bench)

        async def report(row: Row) -> Report:
            bench = await free.get()
            try:
                return await bench.run(row)
            finally:
                free.put_nowait(bench)

        tasks = {row.name: asyncio.create_task(report(row)) for row in MATRIX}
        yield tasks
        for task in tasks.values():
            task.cancel()
        await asyncio.wait(tasks.values())


@pytest.mark.parametrize("row", MATRIX, ids=[row.name for row in MATRIX])
async def test_faults_of_redis(row: Row, reports: dict[str, "asyncio.Task[Report]"]) -> None:
    assert await reports[row.name] == Report(struck={}, shared=True, afterwards={}, held={})
