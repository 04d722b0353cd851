"""What every LimitStore must do, whatever it counts in."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.core.limits import ALGORITHMS

SECOND = 1_000_000
NAMES = sorted(ALGORITHMS)


async def allowed(store, *charges):
    return [decision.allowed for decision in await store.admit(charges)]


@pytest.mark.parametrize("name", NAMES)
async def test_counts_and_denies(limit_store, clock, make, name):
    variant = make.limit(name, 1, 60 * SECOND)
    assert await allowed(limit_store, make.charge(variant)) == [True]
    (denied,) = await limit_store.admit([make.charge(variant)])
    assert not denied.allowed
    clock.now += denied.retry_after - 1
    assert await allowed(limit_store, make.charge(variant)) == [False]
    clock.now += 1
    assert await allowed(limit_store, make.charge(variant)) == [True]


@pytest.mark.parametrize("name", NAMES)
async def test_a_refused_request_charges_none(limit_store, make, name):
    wide = make.limit(name, 5, burst=4 if name.endswith("bucket") else None, name="wide")
    narrow = make.limit("fixed_window", 1, 60 * SECOND, name="narrow")
    assert await allowed(limit_store, make.charge(narrow)) == [True]
    before = await limit_store.peek(make.charge(wide, cost=0))
    for order in ([wide, narrow], [narrow, wide]):
        decisions = await limit_store.admit([make.charge(variant) for variant in order])
        assert [d.allowed for d in decisions] == [variant is wide for variant in order]
        # Not charged, so what it says is left is what was left before.
        assert decisions[order.index(wide)].remaining == before.remaining
    assert await limit_store.peek(make.charge(wide, cost=0)) == before


async def test_all_that_denied_are_reported(limit_store, make):
    short = make.limit("fixed_window", 1, 10 * SECOND, name="short")
    long = make.limit("sliding_log", 1, 60 * SECOND, name="long")
    open_ = make.limit("token_bucket", 9, name="open")
    await limit_store.admit([make.charge(short), make.charge(long)])
    decisions = await limit_store.admit([make.charge(v) for v in (short, open_, long)])
    assert [d.allowed for d in decisions] == [False, True, False]
    assert decisions[0].retry_after <= 10 * SECOND
    assert decisions[2].retry_after == 60 * SECOND


async def test_a_shadow_limit_never_blocks(limit_store, make):
    shadow = make.limit("fixed_window", 1, name="shadow", shadow=True)
    enforced = make.limit("fixed_window", 3, name="enforced")
    for expected in ([True, True], [False, True], [False, True], [False, False]):
        assert await allowed(limit_store, make.charge(shadow), make.charge(enforced)) == expected


async def test_a_shadow_limit_is_charged_only_if_the_enforced_admit(limit_store, make):
    shadow = make.limit("fixed_window", 5, name="shadow", shadow=True)
    enforced = make.limit("fixed_window", 1, name="enforced")
    for _ in range(3):
        await limit_store.admit([make.charge(shadow), make.charge(enforced)])
    assert (await limit_store.peek(make.charge(shadow, cost=0))).remaining == 4


async def test_a_shadow_limit_that_does_not_fit_is_not_charged(limit_store, make):
    shadow = make.limit("fixed_window", 3, name="shadow", shadow=True)
    enforced = make.limit("fixed_window", 9, name="enforced")
    await limit_store.admit([make.charge(shadow, cost=2), make.charge(enforced)])
    await limit_store.admit([make.charge(shadow, cost=2), make.charge(enforced)])
    assert (await limit_store.peek(make.charge(shadow, cost=0))).remaining == 1
    assert (await limit_store.peek(make.charge(enforced, cost=0))).remaining == 7


@pytest.mark.parametrize("name", NAMES)
async def test_the_same_key_twice_is_charged_twice(limit_store, make, name):
    burst = 2 if name == "leaky_bucket" else None
    variant = make.limit(name, 3, 60 * SECOND, burst)
    decisions = await limit_store.admit([make.charge(variant), make.charge(variant)])
    assert [d.remaining for d in decisions] == [2, 1]
    # One more fits, two do not: neither is charged.
    assert await allowed(limit_store, make.charge(variant), make.charge(variant)) == [True, False]
    assert (await limit_store.peek(make.charge(variant, cost=0))).remaining == 1


@pytest.mark.parametrize("name", NAMES)
async def test_a_cost_of_0_asks_without_charging(limit_store, make, name):
    variant = make.limit(name, 1, 60 * SECOND)
    for expected in (1, 1):
        (decision,) = await limit_store.admit([make.charge(variant, cost=0)])
        assert (decision.allowed, decision.remaining) == (True, expected)
    await limit_store.admit([make.charge(variant)])
    (decision,) = await limit_store.admit([make.charge(variant, cost=0)])
    assert (decision.allowed, decision.remaining) == (True, 0)


@pytest.mark.parametrize("name", NAMES)
async def test_peek_says_what_admit_would(limit_store, make, name):
    variant = make.limit(name, 2, 60 * SECOND, 3 if name.endswith("bucket") else None)
    for _ in range(6):
        seen = await limit_store.peek(make.charge(variant))
        assert await limit_store.peek(make.charge(variant)) == seen
        assert await limit_store.admit([make.charge(variant)]) == [seen]


async def test_reset_forgets_one_key_of_one_space(limit_store, make):
    a = make.limit("fixed_window", 1, 60 * SECOND, name="a")
    b = make.limit("fixed_window", 1, 60 * SECOND, name="b")
    for variant, value in ((a, 1), (a, 2), (b, 1)):
        assert await allowed(limit_store, make.charge(variant, value)) == [True]
    await limit_store.reset(a.space, make.key(1))
    await limit_store.reset(a.space, make.key(99))
    await limit_store.reset("unknown", make.key(1))
    assert await allowed(limit_store, make.charge(a, 1)) == [True]
    assert await allowed(limit_store, make.charge(a, 1)) == [False]
    assert await allowed(limit_store, make.charge(a, 2)) == [False]
    assert await allowed(limit_store, make.charge(b, 1)) == [False]


async def test_a_reload_of_the_rate_keeps_counting(limit_store, make):
    old = make.limit("fixed_window", 2, 60 * SECOND)
    new = make.limit("fixed_window", 5, 60 * SECOND)
    await limit_store.admit([make.charge(old, cost=2)])
    (decision,) = await limit_store.admit([make.charge(new)])
    assert (decision.allowed, decision.remaining) == (True, 2)


async def test_no_limits_at_all(limit_store):
    assert await limit_store.admit([]) == []


LIMITS = [
    ("fixed_window", 3, 7, None, False),
    ("sliding_window", 4, 5, None, False),
    ("sliding_log", 3, 6, None, True),
    ("token_bucket", 2, 3, 5, False),
    ("leaky_bucket", 3, 4, 2, True),
]
REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.lists(
            st.tuples(st.integers(0, 4), st.integers(1, 2), st.integers(0, 3)),
            min_size=1,
            max_size=4,
        ),
    ),
    max_size=30,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(requests=REQUESTS)
async def test_equals_a_plain_dict(limit_store, clock, make, requests):
    """Random requests of several limits, with the same key more than once, against the rule
    written down plainly: all enforced or none, then each shadow that still fits."""
    variants = [
        make.limit(name, amount, period * SECOND, burst, name=name, shadow=shadow)
        for name, amount, period, burst, shadow in LIMITS
    ]
    clock.turn(1000)  # whatever an earlier example charged is idle
    states = {}
    for wait, asked in requests:
        clock.turn(wait)
        charges = [
            make.charge(variants[which], value, min(cost, variants[which].capacity))
            for which, value, cost in asked
        ]
        trial = dict(states)
        expected = {}
        for shadow in (False, True):
            for place, item in enumerate(charges):
                if item.shadow is shadow:
                    name = (item.variant.space, item.key)
                    step = item.variant.algorithm.step
                    new, decision = step(trial.get(name), item.variant.params, clock.now, item.cost)
                    expected[place] = decision
                    if decision.allowed and item.cost:
                        trial[name] = new
        refused = any(not expected[p].allowed and not c.shadow for p, c in enumerate(charges))
        if not refused:
            states = trial
        for place, decision in enumerate(await limit_store.admit(charges)):
            if refused and expected[place].allowed:
                assert decision.allowed
            else:
                assert decision == expected[place]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "leaky_bucket"])
async def test_what_is_given_back_can_be_spent_again(limit_store, make, name):
    limit = make.limit(name, 2, 60 * SECOND)
    other = make.limit("fixed_window", 9, 60 * SECOND, name="other")
    one, two = make.charge(limit, cost=2), make.charge(other)
    assert await allowed(limit_store, one, two) == [True, True]
    assert await allowed(limit_store, make.charge(limit)) == [False]
    await limit_store.give_back([one, two])
    assert (await limit_store.peek(make.charge(other, cost=0))).remaining == 9
    assert await allowed(limit_store, make.charge(limit, cost=2)) == [True]


async def test_what_was_refused_is_not_given_back(limit_store, make):
    limit = make.limit("fixed_window", 3, 60 * SECOND)
    shadow = make.limit("fixed_window", 2, 60 * SECOND, name="shadow", shadow=True)
    assert await allowed(limit_store, make.charge(limit), make.charge(shadow)) == [True, True]
    refused = [make.charge(limit, cost=3), make.charge(shadow)]
    assert await allowed(limit_store, *refused) == [False, True]
    await limit_store.give_back(refused)
    kept = [make.charge(limit), make.charge(shadow, cost=2)]
    assert await allowed(limit_store, *kept) == [True, False]
    await limit_store.give_back(kept)
    left = [await limit_store.peek(make.charge(v, cost=0)) for v in (limit, shadow)]
    assert [decision.remaining for decision in left] == [2, 1]


async def test_refused_misses_do_not_drain_what_hits_pay(limit_store, make, clock):
    """300 within 50 ms at 50/s, each given back 100 ms later: 400 are left, where 221 were in
    memory and 105 in Redis."""
    limit = make.limit("token_bucket", 50, burst=400)
    charges = []
    for _ in range(300):
        clock.turn(0.000167)
        charges.append(make.charge(limit))
        assert await allowed(limit_store, charges[-1]) == [True]
    for charge in charges:
        clock.turn(0.000333)
        await limit_store.give_back([charge])
    assert (await limit_store.peek(make.charge(limit, cost=0))).remaining == 400


@pytest.mark.parametrize("name", NAMES)
async def test_a_clock_set_back_freezes_nothing(limit_store, make, clock, name):
    """It was an hour ahead. A key that was charged then counts from the start; one that was
    charged a moment ahead stays as it is."""
    limit = make.limit(name, 2, 10 * SECOND)
    clock.turn(3600)
    while (await limit_store.admit([make.charge(limit)]))[0].allowed:
        pass
    clock.turn(-1)
    assert await allowed(limit_store, make.charge(limit)) == [False]
    clock.turn(-3600)
    assert await allowed(limit_store, make.charge(limit)) == [True]
    clock.turn(25)
    assert (await limit_store.peek(make.charge(limit, cost=0))).reset == 0
