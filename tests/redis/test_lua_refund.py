"""A refund never gives back more than the charge still weighs: whoever is admitted after it would
have been admitted without the charge, too. And it is that of the algorithm's Python twin."""

import random
import struct
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from limits_kit import DAY, HOUR, SECOND, charge, limits_on, variant

from proxy.core.limits.decision import Rate
from proxy.store.scripts import script

FRESH = count()
PERIOD = 100
LIMITS = {
    "fixed_window": variant("fixed_window", Rate(6, PERIOD)),
    "sliding_window": variant("sliding_window", Rate(6, PERIOD)),
    "sliding_log": variant("sliding_log", Rate(6, PERIOD)),
    "long log": variant("sliding_log", Rate(300, PERIOD)),
    "token_bucket": variant("token_bucket", Rate(3, PERIOD), 6),
    "month": variant("fixed_window", Rate(6, 0, True)),
}


@pytest.fixture
async def turned(redis_server):
    clock = SimpleNamespace(now=0)
    async with limits_on(redis_server, now=lambda: clock.now) as store:
        clock.store = store

        async def refund(asked, at):
            spelling = store._spelling
            names, words = spelling.names([asked]), spelling.words([asked])
            return (await store._ask(script("refund"), at, names, words))[0][0]

        clock.refund = refund
        yield clock


MOVES = st.lists(
    st.tuples(st.one_of(st.integers(0, 80), st.sampled_from([-20, 99, 100, 199])),
              st.integers(1, 4)),
    max_size=6,
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(LIMITS))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    before=MOVES,
    cost=st.integers(1, 6),
    between=MOVES,
    wait=st.sampled_from([0, 0, 0, 5, 60, 120, -20]),
)
@example(before=[(0, 4), (1, 3)], cost=1, between=[(-20, 2)], wait=0)
@example(before=[(0, 4), (-20, 1), (54, 3)], cost=1, between=[], wait=-20)
async def test_nobody_is_admitted_for_it(turned, name, before, cost, between, wait):
    limit = replace(LIMITS[name], space=f"{name}/{next(FRESH)}")
    scale = {"long log": 50}.get(name, 1)
    step, params = limit.algorithm.step, limit.params
    turned.now = 1_750_000_000 * SECOND
    counted = without = None  # the state; and that of those admitted, had the charge never been

    async def others(moves):
        nonlocal counted, without
        for jump, units in moves:
            turned.now += jump
            (decision,) = await turned.store.admit([charge(limit, cost=units * scale)])
            if decision.allowed:
                without, same = step(without, params, turned.now, units * scale)
                assert same.allowed
                counted, _ = step(counted, params, turned.now, units * scale)

    await others(before)
    asked = charge(limit, cost=cost * scale)
    at = turned.now
    (charged,) = await turned.store.admit([asked])
    if not charged.allowed:
        return
    counted, _ = step(counted, params, at, asked.cost)
    await others(between)
    turned.now += wait
    await turned.refund(asked, at)
    counted = limit.algorithm.refund(counted, params, at, turned.now, asked.cost)
    for later in (0, 1, 7, 33, 50, 99, 150):
        turned.now += later
        for units in range(1, limit.capacity + 1, scale):
            decision = await turned.store.peek(charge(limit, cost=units))
            assert decision == step(counted, params, turned.now, units)[1]
            if decision.allowed:
                # A clock that was set back since has still shown the time of the charge.
                assert step(without, params, max(at, turned.now), units)[1].allowed


@pytest.mark.parametrize("name", sorted(LIMITS))
async def test_at_once_it_gives_all_back(turned, name):
    limit = LIMITS[name]
    turned.now = 1_750_000_000 * SECOND
    await turned.store.admit([charge(limit, cost=2)])
    before = await turned.store.peek(charge(limit, cost=0))
    turned.now += 3
    asked = charge(limit, cost=3)
    at = turned.now
    await turned.store.admit([asked])
    told = await turned.refund(asked, at)
    assert told == await turned.store.peek(charge(limit, cost=0))
    assert told.remaining == before.remaining
    assert before.reset - told.reset == 3


@pytest.mark.parametrize("amount", [6, 300])
async def test_the_only_charge_of_a_log_leaves_no_key(turned, redis_server, amount):
    limit = variant("sliding_log", Rate(amount, DAY))
    turned.now = 1_750_000_000 * SECOND
    await turned.store.admit([charge(limit)])
    told = await turned.refund(charge(limit), turned.now)
    assert (told.remaining, told.reset) == (amount, 0)
    assert redis_server.call("KEYS", "*") == []


async def test_a_leaky_bucket_stays_charged(turned):
    limit = variant("leaky_bucket", Rate(1, HOUR), 2)
    turned.now = 1_750_000_000 * SECOND
    await turned.store.admit([charge(limit)])
    told = await turned.refund(charge(limit), turned.now)
    assert (told.allowed, told.remaining) == (True, 2)


@pytest.mark.parametrize("name", sorted(LIMITS))
async def test_what_is_not_there_is_not_refunded(turned, redis_server, name):
    turned.now = 1_750_000_000 * SECOND
    told = await turned.refund(charge(LIMITS[name], cost=2), turned.now)
    assert (told.allowed, told.remaining) == (True, LIMITS[name].capacity)
    assert redis_server.call("KEYS", "*") == []


def stored(server):
    """The only state that is stored, as numbers; None where there is none."""
    (key,) = server.call("KEYS", "*") or [None]
    text = server.call("GET", key) if key else None
    return text and list(struct.unpack(f"<{len(text) // 8}d", text))


async def interleaved(turned, server, limit, moves):
    """Charges and refunds (cost 0: of one of those before) here and in the twin: each answer, and
    what is stored after it."""
    algorithm, params = limit.algorithm, limit.params
    turned.now = 1_750_000_000 * SECOND
    state, kept = None, []
    for wait, cost, which in moves:
        turned.now += wait
        if cost:
            asked = charge(limit, cost=min(cost, limit.capacity))
            after, expected = algorithm.step(state, params, turned.now, asked.cost)
            assert await turned.store.admit([asked]) == [expected]
            if expected.allowed:
                state = after
                kept.append((asked, turned.now))
        elif kept:
            asked, at = kept.pop(which % len(kept))
            told = await turned.refund(asked, at)
            state = algorithm.refund(state, params, at, turned.now, asked.cost)
            assert told == algorithm.step(state, params, turned.now, 0)[1]
        if state is not None and limit.algorithm.name != "sliding_log":
            assert stored(server) == list(state)
        asked = charge(limit, cost=1 + which % limit.capacity)
        expected = algorithm.step(state, params, turned.now, asked.cost)[1]
        assert await turned.store.peek(asked) == expected


ORDERS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 40), st.sampled_from([0, 0, 1, 99, -20, 250])),
        st.sampled_from([0, 0, 1, 1, 2, 4]),
        st.integers(0, 50),
    ),
    max_size=40,
)


@pytest.mark.parametrize("name", sorted(set(LIMITS) - {"long log", "month"}))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(moves=ORDERS)
async def test_any_order_of_charges_and_refunds_is_that_of_the_twin(
    turned, redis_server, name, moves
):
    limit = replace(LIMITS[name], space=f"{name}/{next(FRESH)}")
    redis_server.call("FLUSHALL")
    await interleaved(turned, redis_server, limit, moves)


@pytest.mark.parametrize("size", [40, 400])
async def test_more_minima_than_are_kept_are_joined_as_the_twin_does(turned, redis_server, size):
    """Twice the rate for long: each charge begins a stretch. Some are given back, late."""
    limit = variant("token_bucket", Rate(50, SECOND), size)
    chance = random.Random(size)
    moves = [
        (chance.choice([10_000, 21_000]), chance.choice([1, 2, 2, 0]), chance.randrange(50))
        for _ in range(400)
    ]
    await interleaved(turned, redis_server, limit, moves)


async def test_a_burst_of_refused_misses_does_not_drain_a_bucket(turned):
    """300 at once, each given back 100 ms later: 400 are left, where 105 were."""
    limit = variant("token_bucket", Rate(50, SECOND), 400)
    turned.now = 1_750_000_000 * SECOND
    kept = []
    for _ in range(300):
        turned.now += 167
        kept.append((charge(limit), turned.now))
        assert (await turned.store.admit([kept[-1][0]]))[0].allowed
    for asked, at in kept:
        turned.now += 333
        told = await turned.refund(asked, at)
    assert told.remaining == 400
