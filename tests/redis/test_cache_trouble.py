"""The shared tier while Redis is gone, slow or full: StoreErrors at once, and back by itself."""

import asyncio
import time

import pytest
from redisservers import RedisServer
from relay import Relay
from road_kit import blocking, eventually, outcome
from shared_kit import HOUR, KEY, LARGE, Listener, a_cache, kept, now

from proxy.metrics import Metrics
from proxy.store.ports import Mark, Purge, StoreError


async def everything(cache) -> list[object]:
    """The outcome of each thing that can be asked."""
    one = kept(1, LARGE, tags=("a",))
    one.place = b"12345678"
    calls = [
        cache.lookup(KEY), cache.body(KEY, one), cache.put(KEY, one, HOUR), cache.drop(KEY, one),
        cache.mark(KEY, Mark((), "", 2**43)), cache.lease(KEY, 1000), cache.renew(KEY, b"t", 1000),
        cache.awaited(KEY, b"t", 1000), cache.release(KEY, b"t"), cache.purge(Purge(("a",))),
    ]  # fmt: skip
    return [await outcome(call) for call in calls]


async def test_without_a_server_everything_fails_at_once(redis_servers):
    server = redis_servers.create()
    async with a_cache(server, up=False) as cache:
        began = time.monotonic()
        assert await everything(cache) == ["down"] * 10
        assert await cache.released(KEY, 60) is None
        assert time.monotonic() - began < 5  # which is one deadline
        assert cache.status()["healthy"] is False
        await blocking(server.start)
        await eventually(lambda: cache.status()["healthy"])
        await cache.put(KEY, kept(await now(cache)), HOUR)
        assert len((await cache.lookup(KEY)).variants) == 1


async def test_killed_and_back(redis_servers):
    server = redis_servers.start()
    listener = Listener("a")
    async with a_cache(server, listener=listener) as cache:
        await cache.put(KEY, kept(await now(cache), tags=("a",)), HOUR)
        last = await cache.purge(Purge(("b",)))
        await blocking(server.kill)
        await eventually(lambda: listener.states == ["back", "lost"])
        assert set(await everything(cache)) == {"down"}
        await blocking(server.start)
        await eventually(lambda: listener.states == ["back", "lost", "back"])
        await eventually(lambda: cache.status()["healthy"])
        # Its data are lost, and purges may have been among them: all that is known is asked for.
        assert listener.number > last
        assert (Purge(prefix="", soft=True), listener.number) in listener.heard
        assert (await cache.lookup(KEY)).variants == []
        assert await cache.purge(Purge(("a",))) > listener.number


async def test_a_server_that_hangs_costs_a_few_deadlines_and_then_nothing(redis_servers):
    server = redis_servers.start()
    metrics = Metrics()
    async with a_cache(server, timeout=0.2, metrics=metrics) as cache:
        with server.paused():
            outcomes = {await outcome(cache.lookup(KEY)) for _ in range(40)}
            assert outcomes <= {"timeout", "down"}
        assert 1 <= metrics.store("cache_look").errors <= 20, "most were not asked"
        await eventually(lambda: cache.lookup(KEY))
        await eventually(lambda: cache.status()["healthy"])


async def test_a_slow_server_is_asked_by_probes_alone(redis_server):
    async with Relay(redis_server.port) as relay:
        slow = RedisServer(redis_server.folder, port=relay.port)
        metrics = Metrics()
        async with a_cache(slow, timeout=0.05, metrics=metrics) as cache:
            await eventually(lambda: now(cache))
            relay.delay = 0.08
            while cache._heads.well:
                assert await outcome(cache.lookup(KEY)) == "timeout"
            asked = metrics.store("cache_look").errors
            assert {await outcome(cache.lookup(KEY)) for _ in range(50)} <= {"down", "timeout"}
            assert metrics.store("cache_look").errors - asked <= 10
            relay.delay = 0.0
            await eventually(lambda: cache.lookup(KEY))
            assert cache._heads.well


async def test_a_full_server_refuses_and_still_answers(redis_servers):
    server = redis_servers.start(options={"maxmemory": "3mb", "maxmemory-policy": "noeviction"})
    async with a_cache(server) as cache:
        began = await now(cache)
        await cache.put(KEY, kept(began, tags=("a",)), HOUR)
        server.call("CONFIG", "SET", "maxmemory", "1")
        assert await outcome(cache.put(KEY, kept(began, LARGE), HOUR)) == "refused"
        assert await outcome(cache.purge(Purge(("a",)))) == "refused"
        server.call("CONFIG", "SET", "maxmemory", "0")
        assert len((await cache.lookup(KEY)).variants) == 1
        await cache.purge(Purge(("a",)))
        assert (await cache.lookup(KEY)).variants == []


async def test_a_server_that_evicts_brings_nothing_back(redis_servers):
    """What was purged stays purged, whichever keys go."""
    server = redis_servers.start(options={"maxmemory": "4mb", "maxmemory-policy": "allkeys-random"})
    async with a_cache(server) as cache:
        purged: set[int] = set()
        for number in range(600):
            key = number.to_bytes(16, "big")
            began = await now(cache, key)
            body = b"x" * (12_000 if number % 3 else 2_000)
            await cache.put(key, kept(began, body, tags=(f"tag-{number}",)), HOUR)
            if number % 2:
                await cache.purge(Purge((f"tag-{number}",)))
                purged.add(number)
        there = [n for n in range(600) if (await cache.lookup(n.to_bytes(16, "big"))).variants]
        assert not purged & set(there)
        assert int(server.call("INFO", "stats")["evicted_keys"]) > 100


async def test_a_body_that_takes_longer_than_a_head_may(redis_server):
    """At the speed of a slow network: 60 KB take 8 times a head's deadline."""
    async with Relay(redis_server.port) as relay:
        slow = RedisServer(redis_server.folder, port=relay.port)
        async with a_cache(slow, timeout=0.25) as cache:
            began = await now(cache)
            relay.delay = 0.2
            one = kept(began, b"x" * 4_000_000)
            await cache.put(KEY, one, HOUR)
            (found,) = (await cache.lookup(KEY)).variants
            relay.delay = 0.4
            assert await cache.body(KEY, found) == one.body


async def test_a_node_of_a_cluster_that_is_gone_is_the_trouble_of_its_keys(redis_servers):
    nodes = await blocking(redis_servers.start_cluster, 3)
    async with a_cache(*nodes, kind="cluster") as cache:
        keys = [number.to_bytes(16, "big") for number in range(40)]
        began = await now(cache)
        for key in keys:
            await cache.put(key, kept(began), HOUR)
        road = cache._heads.road
        numbers = road.slot(cache._names.numbers)
        lost = next(n for n in range(3) if not 16_384 * n // 3 <= numbers < 16_384 * (n + 1) // 3)
        await blocking(nodes[lost].kill)
        await eventually(lambda: not road.status()["connected"])

        async def look(key: bytes) -> object:
            try:
                return len((await cache.lookup(key)).variants)
            except StoreError as error:
                return error.reason

        outcomes = await asyncio.gather(*map(look, keys))
        assert outcomes.count(1) > 15
        assert cache._heads.well


@pytest.mark.parametrize("purge", [Purge(("a",)), Purge(prefix="/")])
async def test_a_purge_is_tried_whatever_went_before(redis_servers, purge):
    server = redis_servers.start()
    async with a_cache(server, timeout=0.2) as cache:
        with server.paused():
            while cache._heads.well:
                await outcome(cache.lookup(KEY))
        await eventually(lambda: cache.purge(purge))
        await eventually(lambda: cache.status()["healthy"])
