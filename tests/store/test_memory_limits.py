"""The memory store alone: bounded, never suspending, and a flood of keys resets nobody."""

import random
from dataclasses import replace

import pytest
from facts_kit import interpreted_only

from proxy.core.limits import ALGORITHMS
from proxy.store.memory.limits import MemoryLimits

SECOND = 1_000_000
NAMES = sorted(ALGORITHMS)


def store_of(clock, metrics, max_keys):
    return MemoryLimits(clock, metrics, max_keys=max_keys)


def admit(store, *charges):
    """Runs the coroutine by hand: it must end in its first step."""
    coroutine = store.admit(charges)
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


def test_no_call_suspends(clock, metrics, make):
    store = store_of(clock, metrics, 10)
    one = make.limit("fixed_window", 1, name="one")
    two = make.limit("leaky_bucket", 1, burst=5, name="two")
    assert [d.allowed for d in admit(store, make.charge(one), make.charge(two))] == [True, True]
    assert not admit(store, make.charge(one))[0].allowed
    assert admit(store, make.charge(two))[0].delay > 0
    for coroutine in (
        store.peek(make.charge(one)),
        store.reset(one.space, bytes(16)),
        store.close(),
    ):
        with pytest.raises(StopIteration):
            coroutine.send(None)


@pytest.mark.parametrize("name", NAMES)
def test_at_the_cap_an_idle_key_makes_room(clock, metrics, make, name):
    store = store_of(clock, metrics, 3)
    variant = make.limit(name, 1, 10 * SECOND)
    clock.turn(9)
    for value in (1, 2, 3):
        assert admit(store, make.charge(variant, value))[0].allowed
    clock.turn(25)
    assert admit(store, make.charge(variant, 4))[0].allowed
    assert metrics.limit("a").overflow == 0
    assert len(store) <= 3


@pytest.mark.parametrize("name", NAMES)
def test_without_idle_keys_new_ones_share_one_bucket(clock, metrics, make, name):
    store = store_of(clock, metrics, 3)
    variant = make.limit(name, 1, 3600 * SECOND)
    for value in (1, 2, 3):
        assert admit(store, make.charge(variant, value))[0].allowed
    assert admit(store, make.charge(variant, 4))[0].allowed
    assert not admit(store, make.charge(variant, 5))[0].allowed
    assert not admit(store, make.charge(variant, 1))[0].allowed
    assert metrics.limit("a").overflow == 2
    assert len(store) == 4


def test_the_same_rule_in_a_request_of_several_limits(clock, metrics, make):
    store = store_of(clock, metrics, 4)
    a = make.limit("fixed_window", 2, 3600 * SECOND, name="a")
    b = make.limit("fixed_window", 2, 3600 * SECOND, name="b")
    for value in range(6):
        admit(store, make.charge(a, value), make.charge(b, value))
    assert metrics.limit("a").overflow == metrics.limit("b").overflow == 4
    # Two of the four fitted into the overflow buckets.
    assert not admit(store, make.charge(a, 7), make.charge(b, 8))[0].allowed
    assert len(store) == 6


def test_new_keys_of_one_request_count_each_other(clock, metrics, make):
    store = store_of(clock, metrics, 3)
    a, b = (make.limit("fixed_window", 9, 3600 * SECOND, name=name) for name in "ab")
    admit(store, make.charge(a, 1), make.charge(b, 1))
    admit(store, make.charge(a, 2), make.charge(b, 2))
    assert (metrics.limit("a").overflow, metrics.limit("b").overflow) == (0, 1)


def test_an_idle_key_found_first_keeps_the_others(clock, metrics, make):
    store = store_of(clock, metrics, 3)
    variant = make.limit("token_bucket", 10, 10 * SECOND)
    admit(store, make.charge(variant, 1, 10))
    admit(store, make.charge(variant, 2, 1))
    admit(store, make.charge(variant, 3, 10))
    clock.turn(1)
    assert admit(store, make.charge(variant, 4, 10))[0].allowed
    assert not admit(store, make.charge(variant, 1, 2))[0].allowed
    assert not admit(store, make.charge(variant, 3, 2))[0].allowed


@pytest.mark.parametrize("name", NAMES)
def test_a_flood_resets_nobody(clock, metrics, make, name):
    store = store_of(clock, metrics, 200)
    variant = make.limit(name, 2, 3600 * SECOND, 1 if name == "leaky_bucket" else None)
    while admit(store, make.charge(variant, 1))[0].allowed:
        pass
    chance = random.Random(1)
    for _ in range(3000):
        admit(store, make.charge(variant, chance.getrandbits(100)))
        clock.turn(0.01)
    assert not admit(store, make.charge(variant, 1))[0].allowed
    assert len(store) <= 201


def test_a_flood_on_one_limit_leaves_room_for_another(clock, metrics, make):
    store = store_of(clock, metrics, 2000)
    flooded = make.limit("fixed_window", 1, 3600 * SECOND, name="flooded")
    small = make.limit("fixed_window", 1, 3600 * SECOND, name="small")
    for value in range(2500):
        admit(store, make.charge(flooded, value))
    assert admit(store, make.charge(small, 1))[0].allowed
    assert admit(store, make.charge(small, 2))[0].allowed
    assert metrics.limit("small").overflow == 0
    assert metrics.limit("flooded").overflow > 0


def test_idle_keys_go_without_a_flood_too(clock, metrics, make):
    store = store_of(clock, metrics, 1_000_000)
    variant = make.limit("token_bucket", 100)
    for value in range(500):
        admit(store, make.charge(variant, value))
    assert len(store) == 500
    for _ in range(600):
        clock.turn(0.01)
        admit(store, make.charge(variant, 1))
    assert len(store) == 1


def test_a_key_in_use_is_kept_over_many_periods(clock, metrics, make):
    store = store_of(clock, metrics, 5)
    variant = make.limit("fixed_window", 3, 10 * SECOND)
    for tenth in range(1000):
        clock.turn(0.1)
        allowed = admit(store, make.charge(variant, 1))[0].allowed
        assert allowed == ((tenth + 1) % 100 < 3 or tenth < 3)
        if tenth % 7 == 0:
            admit(store, make.charge(variant, 1000 + tenth))
    assert len(store) <= 6


class Counted:
    """An algorithm that counts how often its states are looked at."""

    def __init__(self, inner):
        self.inner = inner
        self.looks = 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def idle_at(self, state, params, now):
        self.looks += 1
        return self.inner.idle_at(state, params, now)


@interpreted_only
@pytest.mark.parametrize("busy", [True, False], ids=["all busy", "all touched again"])
def test_no_call_looks_at_many_keys(clock, metrics, make, busy):
    store = store_of(clock, metrics, 3000)
    variant = make.limit("token_bucket", 10, 100 * SECOND)
    counted = Counted(variant.algorithm)
    variant = replace(variant, algorithm=counted)
    for value in range(3000):
        admit(store, make.charge(variant, value))
    if not busy:
        clock.turn(9)
        for value in range(3000):
            admit(store, make.charge(variant, value))
        clock.turn(8)  # every bucket is due, and every key in it has been charged since
    counted.looks = worst = 0
    for value in range(5000, 8000):
        admit(store, make.charge(variant, value))
        worst = max(worst, counted.looks)
        counted.looks = 0
    assert worst <= 20


def test_reset_keeps_one_place_in_the_wheel(clock, metrics, make):
    store = store_of(clock, metrics, 10)
    variant = make.limit("fixed_window", 1, 10 * SECOND)
    for _ in range(50):
        assert admit(store, make.charge(variant, 1))[0].allowed
        with pytest.raises(StopIteration):
            store.reset(variant.space, make.key(1)).send(None)
    assert len(store) == 1
    clock.turn(15)
    admit(store, make.charge(variant, 2))
    assert len(store) == 1


async def test_a_reload_drops_spaces_no_longer_named(clock, metrics, make):
    store = store_of(clock, metrics, 10)
    kept = make.limit("fixed_window", 1, 3600 * SECOND, name="kept")
    gone = make.limit("fixed_window", 1, 3600 * SECOND, name="gone")
    for variant in (kept, gone):
        await store.admit([make.charge(variant, 1), make.charge(variant, 2)])
    store.retain({kept.space})
    assert len(store) == 2
    assert not (await store.admit([make.charge(kept, 1)]))[0].allowed
    assert (await store.admit([make.charge(gone, 1)]))[0].allowed
    await store.close()
    assert len(store) == 0


def refused(store, *charges):
    """The denial of charges that are refused."""
    decisions = store.decide(charges)
    assert not all(decision.allowed for decision in decisions)
    return store.denial(charges, decisions)


@pytest.mark.parametrize("name", NAMES)
def test_a_denial_stands_while_it_would_be_told_the_same(clock, metrics, make, name):
    store = store_of(clock, metrics, 10)
    variant = make.limit(name, 1, 10 * SECOND)
    assert store.decide([make.charge(variant)])[0].allowed
    clock.turn(0.25)
    asked = make.charge(variant)
    told = store.decide([asked])[0]
    denial = refused(store, asked)

    def words(decision):
        return decision.allowed, -(-decision.reset // SECOND), -(-decision.retry_after // SECOND)

    stood = 0
    while words(store.decide([make.charge(variant)])[0]) == words(told):
        assert denial.stands()
        stood += 1
        clock.turn(0.01)
    assert not denial.stands()
    assert 10 < stood <= 100
    clock.turn(-2)
    assert not denial.stands()


@pytest.mark.parametrize("name", NAMES)
async def test_a_denial_falls_with_the_state_that_it_is_of(clock, metrics, make, name):
    store = store_of(clock, metrics, 10)
    variant = make.limit(name, 2, 10 * SECOND)

    def full():
        taken = [make.charge(variant) for _ in range(2)]
        store.decide(taken[:1])
        store.decide(taken[1:])
        return taken

    taken = full()
    denial = refused(store, make.charge(variant))
    assert denial.stands()
    if name != "leaky_bucket":  # whose slots are not given back
        store.refund(taken[:1])
        assert not denial.stands()
    await store.reset(variant.space, make.charge(variant).key)
    assert not denial.stands()
    full()
    assert not denial.stands()


def test_a_cheaper_request_that_passes_ends_a_denial(clock, metrics, make):
    store = store_of(clock, metrics, 10)
    variant = make.limit("token_bucket", 1, 10 * SECOND, burst=4)
    store.decide([make.charge(variant, cost=2)])
    denial = refused(store, make.charge(variant, cost=3))
    assert denial.stands()
    store.decide([make.charge(variant, cost=1)])
    assert not denial.stands()


def test_what_others_share_denies_nobody_for_long(clock, metrics, make):
    """The overflow bucket, and what a request has charged itself."""
    store = store_of(clock, metrics, 1)
    variant = make.limit("fixed_window", 1)
    for value in (1, 2):
        assert store.decide([make.charge(variant, value)])[0].allowed
    assert refused(store, make.charge(variant, 3)) is None
    other = store_of(clock, metrics, 10)
    assert refused(other, make.charge(variant), make.charge(variant)) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_denial_stands_while_the_others_still_allow(clock, metrics, make, name):
    """Whether what another request charges them comes to that is looked at, not guessed."""
    burst = {"token_bucket": 3, "leaky_bucket": 2}.get(name)
    store = store_of(clock, metrics, 100)
    tight = make.limit("fixed_window", 1, 3600 * SECOND, name="tight")
    wide = make.limit(name, 3, 3600 * SECOND, burst, name="wide")
    asked = make.charge(tight), make.charge(wide)
    assert all(decision.allowed for decision in admit(store, *asked))
    denial = refused(store, *asked)
    assert denial.stands()
    assert admit(store, make.charge(wide))[0].allowed
    assert denial.stands(), "one unit is left"
    assert admit(store, make.charge(wide))[0].allowed
    assert not denial.stands(), "it would refuse, too"


def test_of_what_others_share_nothing_is_known(clock, metrics, make):
    store = store_of(clock, metrics, 1)
    tight = make.limit("fixed_window", 1, 3600 * SECOND, name="tight")
    wide = make.limit("fixed_window", 2, 3600 * SECOND, name="wide")
    asked = make.charge(tight), make.charge(wide)
    assert all(decision.allowed for decision in admit(store, *asked))
    assert refused(store, *asked) is None
    assert metrics.limit("wide").overflow > 0


def test_no_denial_keeps_a_long_log(clock, metrics, make):
    """It would hold the old one, when the key has a new one."""
    store = store_of(clock, metrics, 1000)
    short, long = (
        make.limit("sliding_log", most, 10 * SECOND, name=str(most)) for most in (50, 500)
    )
    for variant in (short, long):
        for _ in range(variant.params.amount):
            store.decide([make.charge(variant)])
            clock.turn(0.001)
    assert refused(store, make.charge(short)).stands()
    assert refused(store, make.charge(long)) is None
    assert refused(store, make.charge(short), make.charge(long)) is None
