"""Circuits that replicas share: two gateways on one real Redis, each with an origin of its own, so
that what a gateway knows it has from its own requests or from the other."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from rawhttp import Wire
from redisservers import RedisServer, RedisServers
from resilience_kit import (
    BREAKER,
    BRIEF,
    Origin,
    Running,
    Settings,
    StartGateway,
    StartOrigin,
    ill,
    refused,
    until,
)

CHANNEL = "sg:circuits"
SHARED: Settings = BREAKER | {"shared": True}
SOON = 1.0
"""Seconds within which a replica hears of the other."""


class Ear:
    """Hears what is said on the channel, beside the gateways."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.heard: list[dict[str, Any]] = []

    async def listen(self) -> None:
        """Takes in what has been said by now: all that came before an answer to our own word."""
        await self._wire.send("PING here\r\n")
        while True:
            kind, *rest = await self._push()
            if kind == b"pong":
                return
            self.heard.append(json.loads(rest[1]))

    async def _push(self) -> list[bytes]:
        count = int((await self._line())[1:])
        parts = []
        for _ in range(count):
            line = await self._line()
            if line[:1] == b"$":
                parts.append((await self._wire.exactly(int(line[1:]) + 2))[:-2])
            else:
                parts.append(line)
        return parts

    async def _line(self) -> bytes:
        return (await self._wire.reader.readline())[:-2]

    @classmethod
    async def at(cls, port: int) -> "Ear":
        ear = cls(await Wire.open(port))
        await ear._wire.send(f"SUBSCRIBE {CHANNEL}\r\n")
        assert (await ear._push())[0] == b"subscribe"
        return ear

    async def close(self) -> None:
        await self._wire.close()


class Pair(NamedTuple):
    a: Running
    a_origin: Origin
    b: Running
    b_origin: Origin


StartPair = Callable[..., Awaitable[Pair]]


@pytest.fixture(scope="module")
def server(redis_servers: RedisServers) -> RedisServer:
    return redis_servers.start()


@pytest.fixture
async def ear(server: RedisServer) -> AsyncIterator[Ear]:
    ear = await Ear.at(server.port)
    yield ear
    await ear.close()


@pytest.fixture
def start_pair(
    start_gateway: StartGateway, start_origin: StartOrigin, server: RedisServer
) -> StartPair:
    """Two gateways that both hear what is told: `start_pair(breaker, …)`."""

    async def start(
        breaker: Settings = SHARED, other: Settings | None = None, *, on: RedisServer = server
    ) -> Pair:
        config = {"store": {"url": on.url, "timeout": "1s"}}
        before = listeners(on)
        a_origin, b_origin = await start_origin(), await start_origin()
        a = await start_gateway(a_origin, breaker, config=config)
        b = await start_gateway(b_origin, other or breaker, config=config)
        await until(lambda: listeners(on) == before + 2)
        return Pair(a, a_origin, b, b_origin)

    return start


def listeners(server: RedisServer) -> int:
    return int(server.call("PUBSUB", "NUMSUB", CHANNEL)[1])


async def settled(ear: Ear, count: int) -> None:
    """So much has been said, and no more follows: an echo would be there in a moment."""
    await until(lambda: heard(ear, count), SOON)
    for _ in range(10):
        await asyncio.sleep(0.01)
        await ear.listen()
    assert len(ear.heard) == count, ear.heard


async def heard(ear: Ear, count: int) -> bool:
    await ear.listen()
    return len(ear.heard) >= count


async def test_one_opens_and_the_other_refuses(start_pair: StartPair, ear: Ear) -> None:
    pair = await start_pair()
    await pair.a.trip(pair.a_origin)
    await until(lambda: pair.b.is_("open"), SOON)
    assert 50 < refused(await pair.b.ask()) <= 66
    assert pair.b_origin.asked == 0
    circuit = await pair.b.circuit()
    assert (circuit["reason"], circuit["forced"]) == ("another replica opened its circuit", False)
    assert abs(circuit["retry_in_s"] - (await pair.a.circuit())["retry_in_s"]) < SOON
    await settled(ear, 1)  # who heard it does not tell it again
    (said,) = ear.heard
    assert (said["upstream"], said["state"]) == ("origin", "open")
    assert 60 <= said["for"] <= 66


async def test_one_closes_and_the_other_asks_again(start_pair: StartPair, ear: Ear) -> None:
    """The other is open for longer by itself: only the news can close it."""
    pair = await start_pair(BRIEF | {"shared": True, "open_max": "200ms"}, SHARED)
    await pair.b.trip(pair.b_origin)
    await until(lambda: pair.a.is_("open"), SOON)
    await pair.a.until_due()
    assert await pair.b.is_("open")
    assert (await pair.a.ask()).status == 200
    assert await pair.a.is_("closed")
    await until(lambda: pair.b.is_("closed"), SOON)
    assert (await pair.b.circuit())["reason"] == "another replica closed its circuit"
    assert (await pair.b.ask()).status == 200
    await settled(ear, 2)
    assert [said["state"] for said in ear.heard] == ["open", "closed"]
    assert (await pair.b.transitions())["half-open"] == 0


async def test_each_sends_its_own_probes(start_pair: StartPair, ear: Ear) -> None:
    pair = await start_pair(BRIEF | {"shared": True})
    await pair.a.trip(pair.a_origin)
    await until(lambda: pair.b.is_("open"), SOON)
    await pair.b.until_due()
    await pair.a.until_due()
    pair.b_origin.script = ill
    assert (await pair.b.ask()).body == b"ill"  # its probe: what it finds, the other is told
    assert (await pair.b.circuit())["reason"] == "a probe failed: status 503"
    await until(lambda: pair.a.is_("open"), SOON)
    assert pair.a_origin.asked == 2
    await settled(ear, 2)
    # The time that doubled there is doubled here.
    assert ear.heard[1]["for"] > 1.5 * ear.heard[0]["for"]


async def test_not_where_it_is_not_shared(start_pair: StartPair, ear: Ear) -> None:
    """Neither who does not tell nor who does not listen."""
    pair = await start_pair(BREAKER, SHARED)
    await pair.b.trip(pair.b_origin)
    await settled(ear, 1)
    assert await pair.a.is_("closed")
    assert (await pair.a.ask()).status == 200
    await pair.b.force("closed")
    await pair.b.force("auto")
    await pair.a.trip(pair.a_origin)
    await settled(ear, 1)
    assert await pair.b.is_("closed")


async def test_a_forced_state_is_not_told_and_listens_to_nobody(
    start_pair: StartPair, ear: Ear
) -> None:
    pair = await start_pair()
    await pair.b.force("closed")
    await pair.a.force("open")
    await settled(ear, 0)
    assert (await pair.b.ask()).status == 200
    await pair.a.force("auto")
    await pair.a.trip(pair.a_origin)
    await settled(ear, 1)
    assert (await pair.b.ask()).status == 200
    circuit = await pair.b.circuit()
    assert (circuit["state"], circuit["forced"]) == ("closed", True)


SENSELESS = (
    "not JSON", "[]", "null", '"open"', "{}", '{"from": "x", "upstream": "origin"}', "\xff\xfe",
    '{"from": "x", "upstream": "origin", "state": "half_open", "for": 5}',
    '{"from": "x", "upstream": "origin", "state": ["open"], "for": 5}',
    '{"from": "x", "upstream": "origin", "state": "open", "for": "long"}',
    '{"from": "x", "upstream": "origin", "state": "open", "for": NaN}',
    '{"from": "x", "upstream": "origin", "state": "open", "for": 1e999}',
    '{"from": "x", "upstream": ["origin"], "state": "open", "for": 5}',
    '{"from": "x", "upstream": "another", "state": "open", "for": 5}',
)  # fmt: skip


async def test_what_makes_no_sense_changes_nothing(
    start_gateway: StartGateway, origin: Origin, server: RedisServer
) -> None:
    before = listeners(server)
    gateway = await start_gateway(origin, SHARED, config={"store": {"url": server.url}})
    await until(lambda: listeners(server) == before + 1)
    known = {"from": "x", "upstream": "origin", "for": 1e9}
    for message in SENSELESS:
        server.call("PUBLISH", CHANNEL, message.encode("latin-1"))
        await gateway.ask()
        assert (await gateway.transitions())["open"] == 0, message
    server.call("PUBLISH", CHANNEL, json.dumps(known | {"state": "open"}))
    await until(lambda: gateway.is_("open"), SOON)
    assert (await gateway.transitions())["open"] == 1
    assert (await gateway.circuit())["retry_in_s"] <= 330  # open_max and its jitter, at most


async def test_without_redis_each_is_on_its_own(
    start_pair: StartPair, redis_servers: RedisServers
) -> None:
    own = redis_servers.start()
    pair = await start_pair(on=own)
    own.kill()
    await pair.a.trip(pair.a_origin)
    refused(await pair.a.ask())
    for _ in range(3):
        assert (await pair.b.ask()).status == 200
    await pair.b.trip(pair.b_origin)
    refused(await pair.b.ask())
    assert (await pair.b.circuit())["reason"] == "2 failures in a row, the last: status 503"
    # And when it is there again, they hear each other again.
    own.start()
    await until(lambda: listeners(own) == 2)
    for gateway in (pair.a, pair.b):
        await gateway.force("closed")
        await gateway.force("auto")
    await pair.a.trip(pair.a_origin)
    await until(lambda: pair.b.is_("open"), SOON)
