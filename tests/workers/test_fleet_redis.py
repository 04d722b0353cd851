"""Gateways of several workers that count in one Redis: never more than the limit, whoever serves,
and one answer to the operator."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from fleet_kit import GET, Fleet, until
from rawhttp import RawOrigin, Wire, echo
from redisservers import RedisServer, RedisServers

RATE = 300


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    servers = RedisServers(tmp_path / "redis")
    yield servers.start()
    servers.stop()


@pytest.fixture
async def fleets(tmp_path: Path, redis: RedisServer) -> AsyncIterator[list[Fleet]]:
    """Two gateways of two workers each, as `sluicegate run` starts them."""
    async with AsyncExitStack() as stack:
        origin = await RawOrigin(echo).start()
        stack.push_async_callback(origin.stop)
        fleets = []
        for number in range(2):
            folder = tmp_path / f"gateway{number}"
            folder.mkdir()
            fleet = Fleet(folder, origin.port, 2, "  workers: 2", RATE)
            fleet.write("first", more=f"store: {{url: {redis.url}, timeout: 2s}}")
            stack.push_async_callback(fleet.stop)
            fleets.append(await fleet.start_by_file())
        for fleet in fleets:
            await until(fleet.is_ready, "a gateway is ready", 30)
        yield fleets


async def hammer(fleet: Fleet, clients: int, each: int) -> Counter[int]:
    """The statuses of so many clients that ask one after another."""
    seen: Counter[int] = Counter()

    async def client() -> None:
        async with await Wire.open(fleet.port) as wire:
            for _ in range(each):
                seen[(await wire.ask(GET.format("/"))).status] += 1

    await asyncio.gather(*(client() for _ in range(clients)))
    return seen


async def decisions(fleets: list[Fleet]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for fleet in fleets:
        for sample in await fleet.samples("sluicegate_limit_decisions_total"):
            total[sample.labels["decision"]] += sample.value
    return dict(total)


async def shown(fleet: Fleet) -> str:
    """A key as /limits shows it, which is how explain does."""
    question = json.dumps({"method": "GET", "target": "/"})
    explained = (await fleet.ask_admin("/explain", "POST", question)).json()["limits"][0]
    limit = (await fleet.ask_admin("/limits/counted")).json()
    assert limit["key"] == explained["key"]
    return str(limit["key"])


async def test_keys_are_shown_alike_by_all_gateways(
    fleets: list[Fleet], redis: RedisServer
) -> None:
    """By a salt from the store; by the YAML's own once it names one, from the reload on."""
    salt = redis.call("GET", "sg:key_salt")
    assert salt is None, "nobody has asked yet"
    first = await shown(fleets[0])
    assert await shown(fleets[1]) == first
    redis.call("DEL", "sg:key_salt")
    assert await shown(fleets[1]) == first

    store = f"store: {{url: {redis.url}, timeout: 2s}}"
    fleets[0].write("first", more=f"{store}\nlog: {{key_salt: a-salt-of-some-length}}")
    assert (await fleets[0].ask_admin("/config/reload", "POST")).status == 200
    second = await shown(fleets[0])
    assert second != first
    for page in ("/status", "/metrics"):
        assert b"a-salt-of-some-length" not in (await fleets[0].ask_admin(page)).body


async def test_two_gateways_of_two_workers_are_one(fleets: list[Fleet], redis: RedisServer) -> None:
    seen = await asyncio.gather(*(hammer(fleet, 8, 30) for fleet in fleets))
    assert sum(seen, Counter()) == {200: RATE, 429: 2 * 8 * 30 - RATE}
    assert all(one[200] for one in seen)
    assert await decisions(fleets) == {
        "allowed": RATE,
        "denied": 2 * 8 * 30 - RATE,
        "shadow_denied": 0,
        "degraded": 0,
    }
    status = (await fleets[0].ask_admin("/status")).json()["store"]
    assert (status["kind"], status["healthy"], status["connected"]) == ("redis", True, True)
    key = (await fleets[1].ask_admin("/limits/counted")).json()
    assert (key["remaining"], key["retry_after_s"] > 0) == (0, True)

    # Asked of one gateway, forgotten by all of them and in Redis, at once where it was asked.
    assert (await fleets[0].ask_admin("/limits/counted", "DELETE")).status == 204
    assert await hammer(fleets[0], 8, 1) == {200: 8}

    async def forgotten() -> bool:
        return (await hammer(fleets[1], 8, 1))[429] == 0

    await until(forgotten, "the reset is heard of elsewhere", 2)

    # Without Redis each process counts alone, and says so.
    redis.kill()
    assert set(await hammer(fleets[0], 16, 2)) == {200}
    ready = await fleets[0].ready()
    assert (ready["ready"], ready["store"]["degraded"]) == (True, True)
    assert (await fleets[0].ask_admin("/limits/counted")).status == 503
    redis.start()

    async def shared() -> bool:
        return "store" not in await fleets[0].ready()

    await until(shared, "shared again", 5)
