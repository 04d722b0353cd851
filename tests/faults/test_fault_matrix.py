"""Every fault on the way to an origin against every feature: what the client gets, and that nothing
of it stays behind.

All features of a row run at once, in both lanes, each with an upstream and a relay of its own.
Faults last while the row runs, but for those of the last rows, which strike one connection of each.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import pytest_asyncio
from faults_kit import HEAD, Gateway, Origin, still_held
from outcomes_kit import SMALL
from redisservers import RedisServer, RedisServers, free_port
from relay import Fault, Relay

pytestmark = pytest.mark.asyncio(loop_scope="module")

OK, CUT, STALE, OPEN = "ok", "cut", "stale", "open"
LATE, DEAD, BAD = "504 upstream-timeout", "502 upstream-unreachable", "502 upstream-invalid"

GONE: Final = f"{DEAD} or {BAD}"
"""A reset that comes at once may or may not overtake the end of connecting."""

ONCE: Final = f"{GONE} or {OK}"
"""A write that finds its connection gone before the first byte goes out on a new one."""

MEMORY: Final = ("plain", "retried", "guarded", "deny", "cached", "stale", "up", "down", "tunnel")
REDIS: Final = ("deny", "cached", "stale")
"""Features of gateways that count in themselves, and of those that have a Redis."""
STORES: Final = {"memory": MEMORY, "redis": REDIS}
LANES: Final = ("express", "queue")


class Row(NamedTuple):
    """What is expected of each feature; `get` is for plain, limited (`deny`), cached and guarded
    ones. What is guarded is asked again as the probe of the breaker that the fault has opened."""

    name: str
    fault: Fault | float
    """Or the seconds that every answer takes."""
    get: str
    retried: str
    stale: str
    up: str
    down: str
    tunnel: str
    strikes: str = "always"
    """`always`; `once`, a new connection; `pooled`, one that has carried a request before."""


MIDDLE: Final = HEAD + SMALL // 2
END: Final = HEAD + SMALL

MATRIX: Final = [
    #    fault                                              get   retried stale up   down  tunnel
    Row("latency", 0.1,                                     OK,   OK,   OK,    OK,   OK,   OK),
    Row("too-much-latency", 0.8,                            LATE, LATE, STALE, LATE, LATE, LATE),
    Row("refused", Fault("connect", "refuse"),              DEAD, DEAD, STALE, DEAD, DEAD, DEAD),
    Row("not-accepted", Fault("connect", "ignore"),         DEAD, DEAD, STALE, DEAD, DEAD, DEAD),
    Row("blackhole", Fault("accept", "silence"),            LATE, LATE, STALE, LATE, LATE, LATE),
    Row("reset-unread", Fault("accept", "reset"),           GONE, GONE, STALE, GONE, GONE, GONE),
    Row("closed-unread", Fault("accept", "close"),          BAD,  BAD,  STALE, BAD,  BAD,  BAD),
    Row("half-closed-unread", Fault("accept", "half-close"),
                                                            BAD,  BAD,  STALE, BAD,  BAD,  BAD),
    Row("read-and-silent", Fault("request", "silence"),     LATE, LATE, STALE, LATE, LATE, LATE),
    Row("reset-in-the-request", Fault("request", "reset"),  BAD,  BAD,  STALE, BAD,  BAD,  BAD),
    Row("half-closed", Fault("request", "half-close"),      BAD,  BAD,  STALE, BAD,  BAD,  BAD),
    Row("garbage", Fault("request", "garbage"),             BAD,  BAD,  STALE, BAD,  BAD,  BAD),
    Row("reset-unanswered", Fault("answer", "reset"),       BAD,  BAD,  STALE, BAD,  BAD,  BAD),
    Row("closed-in-the-head", Fault("answer", "close", 20), BAD,  BAD,  STALE, BAD,  BAD,  BAD),
    Row("reset-in-the-head", Fault("answer", "reset", 20),  BAD,  BAD,  STALE, BAD,  BAD,  BAD),
    Row("silent-in-the-head", Fault("answer", "silence", 20),
                                                            LATE, LATE, STALE, LATE, LATE, LATE),
    Row("garbage-in-the-head", Fault("answer", "garbage", 20),
                                                            BAD,  BAD,  STALE, BAD,  BAD,  BAD),
    Row("head-drips", Fault("answer", "drip", 20),          LATE, LATE, STALE, LATE, LATE, LATE),
    Row("body-drips", Fault("answer", "drip", MIDDLE, .005, 20),
                                                            OK,   OK,   OK,    OK,   OK,   OK),
    Row("closed-in-the-body", Fault("answer", "close", MIDDLE),
                                                            CUT,  CUT,  CUT,   CUT,  CUT,  CUT),
    Row("reset-in-the-body", Fault("answer", "reset", MIDDLE),
                                                            CUT,  CUT,  CUT,   CUT,  CUT,  CUT),
    Row("silent-in-the-body", Fault("answer", "silence", MIDDLE),
                                                            CUT,  CUT,  CUT,   CUT,  CUT,  OPEN),
    Row("half-closed-in-the-body", Fault("answer", "half-close", MIDDLE),
                                                            CUT,  CUT,  CUT,   CUT,  CUT,  CUT),
    Row("half-closed-behind-what-is-small", Fault("answer", "half-close", END),
                                                            OK,   OK,   OK,    OK,   CUT,  OK),
    Row("garbage-behind-what-is-small", Fault("answer", "garbage", END),
                                                            OK,   OK,   OK,    OK,   CUT,  OK),
    Row("one-reset-unread", Fault("accept", "reset"),       GONE, OK,   STALE, ONCE, GONE, GONE,
        "once"),
    Row("one-reset-unanswered", Fault("answer", "reset"),   BAD,  OK,   STALE, BAD,  BAD,  BAD,
        "once"),
    Row("pooled-reset-in-the-request", Fault("request", "reset"),
                                                            OK,   OK,   OK,    BAD,  OK,   OK,
        "pooled"),
    Row("pooled-silent", Fault("request", "silence"),       LATE, LATE, STALE, LATE, LATE, LATE,
        "pooled"),
    Row("pooled-half-closed", Fault("request", "half-close"),
                                                            OK,   OK,   OK,    BAD,  OK,   OK,
        "pooled"),
]  # fmt: skip


class World:
    """A gateway for each store and lane, and a relay in front of the origin for each of their
    upstreams."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self.redis = redis
        self.relays: dict[str, dict[str, Relay]] = {}
        self.gateways: dict[str, Gateway] = {}
        self._folder = folder
        self._origin = Origin()

    async def start(self, stack: AsyncExitStack) -> None:
        """What is started is stopped by the stack."""
        await self._origin.start()
        stack.push_async_callback(self._origin.stop)
        urls = {"memory": "memory://", "redis": self.redis.url}
        for store, lane in product(STORES, LANES):
            name = f"{store}-{lane}"
            relays = self.relays[name] = {}
            for feature in STORES[store]:
                relay = relays[feature] = Relay(self._origin.port, free_port())
                await stack.enter_async_context(relay)
            ports = {feature: relay.port for feature, relay in relays.items()}
            gateway = self.gateways[name] = Gateway(
                self._folder / name, ports, urls[store], prefix=f"sg-{lane}"
            )
            gateway.stays = lane == "express"
            stack.push_async_callback(gateway.stop)
        await asyncio.gather(*(gateway.start() for gateway in self.gateways.values()))

    def all_relays(self) -> list[Relay]:
        return [relay for relays in self.relays.values() for relay in relays.values()]

    def strike(self, row: Row) -> None:
        for relay in self.all_relays():
            if isinstance(row.fault, float):
                relay.delay = row.fault
            else:
                times = None if row.strikes == "always" else 1
                relay.suffer(row.fault, times=times, drop=row.strikes != "pooled")

    def recover(self) -> None:
        for relay in self.all_relays():
            relay.delay = 0.0
            relay.recover()

    async def asked(self, name: str, *, clean: bool = False) -> dict[tuple[str, str], str]:
        """What comes of one request per gateway and feature, all at once, and of probes."""
        ask = Gateway.clean if clean else Gateway.ask
        cells = [
            (gateway, feature) for gateway in self.gateways for feature in self.relays[gateway]
        ]
        # What may be stale has been stored since the gateway began.
        names = ["first" if feature == "stale" else name for _, feature in cells]

        async def probed(gateway: str) -> str:
            await done[cells.index((gateway, "guarded"))]
            return await self.gateways[gateway].probe("guarded", name)

        done = [
            asyncio.ensure_future(ask(self.gateways[gateway], feature, one))
            for (gateway, feature), one in zip(cells, names, strict=True)
        ]
        guarded = [gateway for gateway, feature in cells if feature == "guarded"]
        said = await asyncio.gather(*done, *map(probed, guarded))
        probes = [(gateway, "probe") for gateway in guarded]
        return dict(zip([*cells, *probes], said, strict=True))

    async def held(self) -> dict[str, int]:
        """What the gateways hold, and the leases that stand in Redis."""
        held = await still_held(list(self.gateways.values()))
        leases = await asyncio.to_thread(self.redis.call, "KEYS", "sg-*:f:*")
        return held | ({"leases in Redis": len(leases)} if leases else {})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("faults")
    servers = RedisServers(folder)
    async with AsyncExitStack() as stack:
        stack.callback(servers.stop)
        world = World(folder, await asyncio.to_thread(servers.start))
        await world.start(stack)
        yield world


@pytest.fixture
def world(started: World) -> Iterator[World]:
    """All is well afterwards, whatever the test came to."""
    yield started
    started.recover()


def wrong(said: dict[tuple[str, str], str], row: Row | None) -> dict[tuple[str, str], str]:
    """What differs from what the row says, or from OK."""
    columns = dict.fromkeys(("plain", "guarded", "deny", "cached", "probe"), "get")

    def right(cell: tuple[str, str]) -> list[str]:
        if row is None or (cell[1] == "probe" and row.strikes != "always"):
            return [OK]
        return str(getattr(row, columns.get(cell[1], cell[1]))).split(" or ")

    return {cell: word for cell, word in said.items() if word not in right(cell)}


@pytest.mark.parametrize("row", MATRIX, ids=[row.name for row in MATRIX])
async def test_faults_of_the_origin(row: Row, world: World) -> None:
    if row.strikes == "pooled":
        assert wrong(await world.asked(f"{row.name}-before", clean=True), None) == {}
    world.strike(row)
    assert wrong(await world.asked(row.name), row) == {}
    if row.get == OK and row.strikes == "always":
        # What the fault left of a connection is no use to the next request either.
        assert wrong(await world.asked(f"{row.name}-again"), row) == {}
    assert await world.held() == {}  # while the fault lasts: what it struck is let go of
    world.recover()
    assert wrong(await world.asked(row.name, clean=True), None) == {}
    assert await world.held() == {}
