"""What the scripts leave in Redis: a time to live on every key, in the right unit and just long
enough; little memory; and nothing where nothing was charged."""

import struct
from contextlib import asynccontextmanager
from itertools import count

import pytest
from redisservers import store_plan, wait_for

from proxy.core.limits import ALGORITHMS
from proxy.core.limits.decision import Rate
from proxy.metrics import Metrics
from proxy.policy.limit_plans import LimitVariant
from proxy.store.charge import Charge
from proxy.store.ports import StoreError
from proxy.store.redis.limits import RedisLimits
from proxy.store.redis.road import open_road

SECOND = 1_000_000
DAY = 24 * 3600 * SECOND
NAMES = sorted(ALGORITHMS)


def variant(name, rate, burst=None, shadow=False, space=None):
    algorithm = ALGORITHMS[name]
    params = algorithm.compile(rate, burst)
    return LimitVariant(
        name, space or name, algorithm, params, algorithm.capacity(params), rate.amount, None, "",
        1, None, shadow,
    )  # fmt: skip


def charge(limit, key=1, cost=1):
    return Charge(limit, bytes([key]) * 16, cost, limit.shadow)


@asynccontextmanager
async def limits_on(server, **options):
    road = open_road(store_plan(server, timeout=5.0), Metrics())
    assert await road.up(5)
    seconds = count(0, 10)  # nothing is remembered from call to call
    store = RedisLimits(road, "t", monotonic=lambda: next(seconds), **options)
    try:
        yield store
    finally:
        await store.close()


# Full after one charge of everything: idle again after…
IDLE_AFTER = [
    ("fixed_window", Rate(5, DAY), None, (1, DAY // 1000)),
    ("fixed_window", Rate(5, 0, True), None, (1, 31 * DAY // 1000)),
    ("fixed_window", Rate(5, 1000), None, (1, 2)),
    ("sliding_window", Rate(5, DAY), None, (DAY // 1000, 2 * DAY // 1000)),
    ("sliding_log", Rate(5, 10 * SECOND), None, (10_000, 10_000)),
    ("sliding_log", Rate(5, DAY), None, (DAY // 1000, DAY // 1000)),
    ("sliding_log", Rate(500, DAY), None, (DAY // 1000, DAY // 1000)),
    ("token_bucket", Rate(5, 10 * SECOND), 20, (40_000, 40_000)),
    ("token_bucket", Rate(5, DAY), None, (DAY // 1000, DAY // 1000)),
    ("leaky_bucket", Rate(5, 10 * SECOND), 4, (10_000, 10_000)),
    ("leaky_bucket", Rate(1_000_000, SECOND), None, (0, 0)),
]


@pytest.mark.parametrize(("name", "rate", "burst", "idle"), IDLE_AFTER)
async def test_a_key_lives_until_just_after_it_is_idle(redis_server, name, rate, burst, idle):
    limit = variant(name, rate, burst)
    async with limits_on(redis_server) as store:
        assert (await store.admit([charge(limit, cost=limit.capacity)]))[0].allowed
    # PTTL itself reads a few milliseconds later; a limit of microseconds may be gone already.
    (left,) = {redis_server.call("PTTL", key) for key in redis_server.call("KEYS", "*")} or {0}
    assert idle[0] - 1000 <= left <= idle[1] + 2
    assert left != -1


async def test_a_long_log_keeps_its_time_to_live_as_it_grows(redis_server):
    limit = variant("sliding_log", Rate(500, DAY))
    async with limits_on(redis_server) as store:
        for _ in range(3):
            await store.admit([charge(limit)])
    (key,) = redis_server.call("KEYS", "*")
    assert redis_server.call("STRLEN", key) == 3 * 8
    assert DAY // 1000 - 5000 < redis_server.call("PTTL", key) <= DAY // 1000 + 2


@pytest.mark.parametrize("name", NAMES)
async def test_a_key_goes_when_it_is_idle(redis_server, name):
    limit = variant(name, Rate(1, 20_000))
    async with limits_on(redis_server) as store:
        await store.admit([charge(limit)])
    wait_for(lambda: redis_server.call("KEYS", "*") == [], "the key's end", patience=1)


@pytest.mark.parametrize("name", NAMES)
async def test_nothing_is_stored_where_nothing_is_charged(redis_server, name):
    limit = variant(name, Rate(2, DAY), 1 if name.endswith("bucket") else None)
    full = variant("fixed_window", Rate(1, DAY), space="full")
    async with limits_on(redis_server) as store:
        await store.admit([charge(full)])
        await store.admit([charge(limit, cost=0)])
        await store.peek(charge(limit))
        refused = await store.admit([charge(limit), charge(full)])
    assert [d.allowed for d in refused] == [True, False]
    assert len(redis_server.call("KEYS", "*")) == 1


NOW = 1_750_000_003 * SECOND
STORED = [
    ("fixed_window", Rate(500, 10 * SECOND), (1_750_000_010 * SECOND, 2)),
    ("sliding_window", Rate(500, 10 * SECOND), (1_750_000_000 * SECOND, 0, 2)),
    ("sliding_log", Rate(5, 10 * SECOND), (NOW, NOW)),
    ("sliding_log", Rate(500, 10 * SECOND), (NOW, NOW)),
    ("token_bucket", Rate(500, 10 * SECOND), (20 * SECOND, NOW)),
    ("leaky_bucket", Rate(500, 10 * SECOND), (20 * SECOND, NOW)),
]


@pytest.mark.parametrize(("name", "rate", "state"), STORED)
async def test_states_are_those_of_the_last_version(redis_server, name, rate, state):
    """A fleet is upgraded one process after the other, and both versions count in the same keys."""
    limit = variant(name, rate, 499 if name == "leaky_bucket" else None)
    text = struct.pack(f"<{len(state)}d", *state)
    async with limits_on(redis_server, now=lambda: NOW) as store:
        await store.admit([charge(limit, cost=2)])
        (key,) = redis_server.call("KEYS", "*")
        assert redis_server.call("GET", key) == text
        redis_server.call("DEL", key)
        redis_server.call("SET", key, text)
        assert (await store.peek(charge(limit, cost=0))).remaining == limit.capacity - 2


@pytest.mark.parametrize("amount", [200, 400])
async def test_a_log_does_not_grow_with_its_history(redis_server, amount):
    clock = count(1_750_000_000 * SECOND, SECOND // amount)
    limit = variant("sliding_log", Rate(amount, SECOND))
    longest = 0
    async with limits_on(redis_server, now=lambda: next(clock)) as store:
        for place in range(amount * 4):
            await store.admit([charge(limit)])
            if place % 50 == 0:
                (key,) = redis_server.call("KEYS", "*")
                longest = max(longest, redis_server.call("STRLEN", key))
    assert amount * 8 <= longest <= (amount * 3 // 2 + 2) * 8


@pytest.mark.parametrize("name", NAMES)
async def test_a_key_of_another_kind_is_an_error_and_charges_none(redis_server, name):
    limit = variant(name, Rate(300, DAY))
    other = variant("fixed_window", Rate(5, DAY), space="other")
    async with limits_on(redis_server) as store:
        await store.admit([charge(limit)])
        (key,) = redis_server.call("KEYS", "*")
        redis_server.call("DEL", key)
        redis_server.call("LPUSH", key, "a")
        with pytest.raises(StoreError) as error:
            await store.admit([charge(other), charge(limit)])
    assert error.value.reason == "refused"
    assert redis_server.call("KEYS", "*") == [key]


async def test_out_of_memory_is_an_error_and_charges_none(redis_servers):
    server = redis_servers.start(options={"maxmemory-policy": "noeviction"})
    a, b = (variant("token_bucket", Rate(5, DAY), space=space) for space in "ab")
    async with limits_on(server) as store:
        await store.admit([charge(a), charge(b)])
        server.call("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreError) as error:
            await store.admit([charge(a), charge(b)])
        assert error.value.reason == "refused"
        server.call("CONFIG", "SET", "maxmemory", "0")
        decisions = await store.admit([charge(a, cost=0), charge(b, cost=0)])
    assert [d.remaining for d in decisions] == [4, 4]


async def test_scripts_that_were_flushed_come_again(redis_server):
    limit = variant("fixed_window", Rate(5, DAY))
    async with limits_on(redis_server) as store:
        await store.admit([charge(limit)])
        redis_server.call("SCRIPT", "FLUSH")
        (decision,) = await store.admit([charge(limit)])
        assert decision.remaining == 3
        redis_server.call("SCRIPT", "FLUSH")
        assert (await store.peek(charge(limit))).remaining == 2
