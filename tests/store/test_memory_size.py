"""What the memory store holds, by its size: long logs count as the keys whose memory they take."""

import gc
import random
import tracemalloc

import pytest

from proxy.core.limits import ALGORITHMS
from proxy.core.limits.decision import UNIT
from proxy.store.memory.limits import MemoryLimits

SECOND = 1_000_000
HOUR = 3600 * SECOND
NAMES = sorted(ALGORITHMS)
KEY = 300
"""Bytes that a key takes, at most: its name, its state, its places in dict and wheel."""


def held(store, run):
    """Bytes that are kept when `run` is over."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        run()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("name", "units", "keys"), [
    *((name, 1, 3000) for name in NAMES), ("sliding_log", 10, 1000), ("sliding_log", 100, 200),
    ("sliding_log", 1000, 30), ("token_bucket", 40, 500),
])  # fmt: skip
def test_a_key_weighs_what_it_takes(clock, metrics, make, name, units, keys):
    """The token_bucket with 40 units keeps what refunds need, and has no room for more of it."""
    store = MemoryLimits(clock, metrics)
    refills = name == "token_bucket" and units > 1
    limit = make.limit(name, 10_000, 10_000 * SECOND if refills else HOUR)

    def charge():
        for _ in range(units):
            clock.turn(1.01 if refills else 0.01)
            for value in range(keys):
                store.decide([make.charge(limit, value, 2 if refills else 1)])

    taken = held(store, charge)
    assert 0.5 * UNIT * len(store) < taken < 1.7 * UNIT * len(store)
    assert (units >= 40) == (len(store) > 2 * keys)


def test_logs_are_held_to_the_bound(clock, metrics, make):
    """Ten times as many units as there is memory for: the real memory stays, and what had no room
    is limited all the same, in the bucket that they share."""
    store = MemoryLimits(clock, metrics, max_keys=300)
    limit = make.limit("sliding_log", 400, HOUR)
    keys, passed = 120, [0] * 120

    def charge():
        for turn in range(400):
            clock.turn(0.01)
            for value in range(turn % 3, keys, 3):
                passed[value] += store.decide([make.charge(limit, value)])[0].allowed

    taken = held(store, charge)
    assert len(store) <= 300 + 30  # the overflow bucket, which one limit has
    assert taken < 330 * KEY + 60_000  # the 256 dicts of a space
    assert metrics.limit("a").overflow > 0
    # What the logs remember, and once more N for all together.
    remembered = [
        400 - store.decide([make.charge(limit, value, 0)])[0].remaining for value in range(keys)
    ]
    assert sum(passed) == sum(remembered) + 400


def test_a_log_that_has_no_room_gets_some_where_another_is_idle(clock, metrics, make):
    store = MemoryLimits(clock, metrics, max_keys=20)
    limit = make.limit("sliding_log", 1000, 100 * SECOND)
    for _ in range(500):
        store.decide([make.charge(limit, 1)])
        clock.turn(0.001)
    assert len(store) == 19
    for _ in range(500):
        store.decide([make.charge(limit, 2)])
        clock.turn(0.001)
    assert metrics.limit("a").overflow > 0
    clock.turn(150)
    overflow = metrics.limit("a").overflow
    for _ in range(500):
        assert store.decide([make.charge(limit, 3)])[0].allowed
        clock.turn(0.001)
    assert metrics.limit("a").overflow == overflow
    assert len(store) <= 20


def test_a_bucket_that_has_no_room_counts_on_without_what_refunds_need(clock, metrics, make):
    store = MemoryLimits(clock, metrics, max_keys=10)
    limit = make.limit("token_bucket", 100, 100 * SECOND)
    other = make.limit("token_bucket", 100, 100 * SECOND)
    for _ in range(40):
        clock.turn(1.01)
        for value in range(9):
            assert store.decide([make.charge(limit, value, 2)])[0].allowed
    assert len(store) <= 10
    assert metrics.limit("a").overflow == 0
    for value in range(9):
        assert 55 <= store.decide([make.charge(other, value, 0)])[0].remaining <= 65


def test_the_overflow_bucket_denies_nobody_for_long(clock, metrics, make):
    """A log that has no room is not remembered as the one that refused; and what it was charged
    there is not taken out of it."""
    store = MemoryLimits(clock, metrics, max_keys=1)
    limit = make.limit("sliding_log", 30, HOUR)
    taken = []
    while True:
        clock.turn(0.01)
        taken.append(make.charge(limit))
        if not store.decide(taken[-1:])[0].allowed:
            break
    own = 30 - store.decide([make.charge(limit, cost=0)])[0].remaining
    assert own < 30
    assert len(taken) == own + 30 + 1
    assert store.denial(taken[-1:], store.decide(taken[-1:])) is None
    store.refund(taken[own:])
    assert 30 - store.decide([make.charge(limit, cost=0)])[0].remaining == own


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("max_keys", [30, 10_000])
async def test_nothing_is_left_of_what_is_gone(clock, metrics, make, name, max_keys):
    """Charges, refusals of several limits, refunds and resets in any order: when all is idle, the
    store counts nothing."""
    store = MemoryLimits(clock, metrics, max_keys=max_keys)
    limit = make.limit(name, 60, 10 * SECOND, 60 if name.endswith("bucket") else None)
    narrow = make.limit("fixed_window", 40, 10 * SECOND, name="narrow")
    chance = random.Random(max_keys)
    kept = []
    for _ in range(3000):
        clock.turn(chance.choice([0, 0.001, 0.1, 0.3]))
        value = chance.randrange(6)
        move = chance.randrange(12)
        if move == 0:
            await store.reset(limit.space, make.key(value))
        elif move < 4 and kept:
            store.refund(kept.pop(chance.randrange(len(kept))))
        else:
            charges = [make.charge(limit, value, chance.randrange(4)), make.charge(narrow, value)]
            if all(decision.allowed for decision in store.decide(charges)):
                kept.append(charges)
    clock.turn(1000)
    for _ in range(60):
        store.decide([make.charge(narrow, 77)])
        store.decide([make.charge(limit, 78)])
        clock.turn(30)
    assert len(store) <= 2
    store.retain([])
    assert len(store) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_clock_set_back_leaves_no_keys_in_the_way(clock, metrics, make, name):
    """Keys of a time that is now far ahead are idle: they make room, and they go."""
    store = MemoryLimits(clock, metrics, max_keys=50)
    limit = make.limit(name, 1, 10 * SECOND)
    other = make.limit("fixed_window", 1, 10 * SECOND, name="other")
    clock.turn(3)
    clock.turn(24 * 3600)
    for value in range(25):
        store.decide([make.charge(limit, value), make.charge(other, value)])
    assert len(store) == 50
    clock.turn(-24 * 3600)
    for value in range(100, 120):
        assert store.decide([make.charge(limit, value)])[0].allowed
        assert store.decide([make.charge(other, value)])[0].allowed
    assert metrics.limit("a").overflow == metrics.limit("other").overflow == 0
    for value in range(200, 300):
        clock.turn(1)
        store.decide([make.charge(limit, value)])
        store.decide([make.charge(other, value)])
    assert len(store) <= 60


@pytest.mark.parametrize("name", NAMES)
def test_a_clock_set_back_freezes_no_key_and_no_denial(clock, metrics, make, name):
    store = MemoryLimits(clock, metrics)
    limit = make.limit(name, 2, 10 * SECOND)
    clock.turn(24 * 3600)
    while store.decide([make.charge(limit)])[0].allowed:
        pass
    asked = [make.charge(limit)]
    denial = store.denial(asked, store.decide(asked))
    assert denial.stands()
    clock.turn(-24 * 3600)
    assert not denial.stands()
    passed = 0
    for _ in range(100):
        passed += store.decide([make.charge(limit)])[0].allowed
        clock.turn(1)
    assert 10 <= passed <= 22  # fewest where a window fades while it is asked
