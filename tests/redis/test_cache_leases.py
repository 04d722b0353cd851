"""Leases over the fleet: one fetches, the others are woken, and nobody who dies holds them up."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redisservers import RedisServer
from relay import Relay
from road_kit import blocking, eventually, outcome
from shared_kit import KEY, a_cache

from proxy.store.redis.cache_names import CacheNames

NAMES = CacheNames("t")
OTHER = bytes(16)


async def test_one_has_it_at_a_time(redis_server):
    async with a_cache(redis_server) as one, a_cache(redis_server) as two:
        token = await one.lease(KEY, 5_000)
        assert token is not None
        assert await two.lease(KEY, 5_000) is None
        assert await one.lease(KEY, 5_000) is None
        assert await two.lease(OTHER, 5_000) is not None
        await one.release(KEY, token)
        assert await two.lease(KEY, 5_000) is not None


async def test_many_at_once_get_one(redis_server):
    async with a_cache(redis_server) as one, a_cache(redis_server) as two:
        tokens = await asyncio.gather(*(c.lease(KEY, 5_000) for c in (one, two) * 100))
        assert len([token for token in tokens if token]) == 1


async def test_only_the_owner_holds_it_on_and_lets_it_go(redis_server):
    async with a_cache(redis_server) as cache:
        token = await cache.lease(KEY, 5_000)
        assert not await cache.renew(KEY, b"somebody els", 5_000)
        await cache.release(KEY, b"somebody els")
        assert await cache.renew(KEY, token, 60_000)
        assert 50_000 < redis_server.call("PTTL", NAMES.lease(KEY)) <= 60_000
        assert await cache.lease(KEY, 5_000) is None  # who asks meanwhile changes neither
        assert await cache.renew(KEY, token, 70_000)
        await cache.release(KEY, token)
        assert not await cache.renew(KEY, token, 5_000)


async def test_a_late_owner_does_not_let_go_of_another_s(redis_server):
    async with a_cache(redis_server) as cache:
        late = await cache.lease(KEY, 1)
        await eventually(lambda: redis_server.call("EXISTS", NAMES.lease(KEY)) == 0)
        token = await cache.lease(KEY, 5_000)
        await cache.release(KEY, late)
        assert not await cache.renew(KEY, late, 5_000)
        assert await cache.renew(KEY, token, 5_000)


@pytest.mark.parametrize("kind", ["standalone", "cluster"])
async def test_who_waits_is_woken(request, kind):
    found = request.getfixturevalue("redis_cluster" if kind == "cluster" else "redis_server")
    servers = found if kind == "cluster" else [found]
    async with a_cache(*servers, kind=kind) as one, a_cache(*servers, kind=kind) as two:
        token = await one.lease(KEY, 60_000)
        assert await two.lease(KEY, 60_000) is None
        waiting = [asyncio.ensure_future(two.released(KEY, 60)) for _ in range(3)]
        await asyncio.sleep(0.02)
        assert not any(task.done() for task in waiting)
        await one.release(KEY, token)
        assert await asyncio.gather(*waiting) == [b""] * 3
        assert await two.lease(KEY, 60_000) is not None


async def test_who_was_refused_and_waits_too_late_is_woken_at_once(redis_server):
    async with a_cache(redis_server) as one, a_cache(redis_server) as two:
        token = await one.lease(KEY, 60_000)
        assert await two.lease(KEY, 60_000) is None
        await one.release(KEY, token)
        await eventually(lambda: two._leases._refused[KEY].done.is_set())
        assert await two.released(KEY, 60) == b""


async def test_nobody_is_told_where_nobody_waits(redis_server):
    heard: list[bytes] = []
    async with a_cache(redis_server) as one, a_cache(redis_server) as two:
        two._leases._hear = heard.append
        two._heads.road._subscriptions._channels[NAMES.released.encode()] = [heard.append]
        await one.release(KEY, await one.lease(KEY, 60_000))
        token = await one.lease(OTHER, 60_000)
        assert await one.lease(OTHER, 60_000) is None
        await one.release(OTHER, token)
        await eventually(lambda: heard)
        assert heard == [OTHER]


async def test_a_wait_has_an_end(redis_server):
    async with a_cache(redis_server) as one:
        await one.lease(KEY, 60_000)
        assert await one.lease(KEY, 60_000) is None
        began = time.monotonic()
        assert await one.released(KEY, 0.05) is None
        assert 0.04 < time.monotonic() - began < 10
        assert await one.released(KEY, 60) is None  # nothing was refused since


HOLDER = """
import asyncio, sys
sys.path[:0] = sys.argv[2:]
from shared_kit import KEY, a_cache
from redisservers import RedisServer
from pathlib import Path

async def hold():
    async with a_cache(RedisServer(Path("."), port=int(sys.argv[1]))) as cache:
        assert await cache.lease(KEY, 400)
        print("held", flush=True)
        await asyncio.sleep(60)

asyncio.run(hold())
"""


async def test_a_holder_that_is_killed_is_followed_when_its_lease_ends(redis_server: RedisServer):
    here = Path(__file__).parent
    command = [sys.executable, "-c", HOLDER, str(redis_server.port), str(here), str(here.parent)]
    async with a_cache(redis_server) as cache:
        holder = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        try:
            assert await holder.stdout.readline() == b"held\n"
            began = time.monotonic()
            assert await cache.lease(KEY, 60_000) is None
        finally:
            holder.kill()
            await holder.wait()
        assert await cache.released(KEY, 60) is None
        assert time.monotonic() - began < 5
        assert await cache.lease(KEY, 60_000) is not None


async def test_a_lease_that_comes_too_late_is_given_back(redis_server):
    async with Relay(redis_server.port) as relay:
        slow = RedisServer(redis_server.folder, port=relay.port)
        async with a_cache(slow, timeout=0.4) as cache:
            assert await cache.lease(OTHER, 60_000)
            relay.delay = 0.6  # within the deadline of its release
            assert await outcome(cache.lease(KEY, 60_000)) == "timeout"
            relay.delay = 0.0
            await eventually(lambda: redis_server.call("EXISTS", NAMES.lease(KEY)) == 0)
            assert KEY not in cache._leases._refused


async def test_a_lease_that_nobody_waits_for_any_more_is_given_back(redis_server):
    async with a_cache(redis_server) as cache:
        asking = asyncio.ensure_future(cache.lease(KEY, 60_000))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        await eventually(lambda: not cache._leases._background)
        assert redis_server.call("EXISTS", NAMES.lease(KEY)) == 0


async def test_while_nothing_is_heard_nobody_waits_long(redis_server):
    async with a_cache(redis_server) as one:
        await one.lease(KEY, 60_000)
        assert await one.lease(KEY, 60_000) is None
        waiting = asyncio.ensure_future(one.released(KEY, 60))
        await asyncio.sleep(0.01)
        one._heads.road._subscriptions._find = _nowhere
        await blocking(redis_server.call, "CLIENT", "KILL", "TYPE", "pubsub")
        assert await waiting is None
        assert await one.lease(KEY, 60_000) is None
        began = time.monotonic()
        assert await one.released(KEY, 60) is None
        assert time.monotonic() - began < 10


async def _nowhere():
    raise OSError("nowhere")


async def test_those_that_never_wait_are_forgotten(redis_server):
    async with a_cache(redis_server) as one:
        keys = [number.to_bytes(16, "big") for number in range(1_024)]
        for _ in range(2):
            await asyncio.gather(*(one.lease(key, 60_000) for key in keys))
        assert len(one._leases._refused) == 1_024
        one._leases._clock = lambda: time.monotonic() + 61
        await one.lease(KEY, 5_000)
        assert await one.lease(KEY, 5_000) is None
        assert len(one._leases._refused) <= 2
