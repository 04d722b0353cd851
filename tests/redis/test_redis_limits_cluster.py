"""Limits of one request in several slots of a real cluster: groups, refunds, and no admission by
mistake."""

import asyncio
from dataclasses import replace
from itertools import count

import pytest
from limits_kit import DAY, HOUR, calls, charge, limits_on, variant
from redis.crc import key_slot

from proxy.core.limits.decision import Rate
from proxy.store.keys import LimitKeys
from proxy.store.ports import StoreError

KEYS = LimitKeys("t")
# Keys by number: LOW, MIDDLE and HIGH are in slots of three different servers, in this order.
BY_THIRD = {third: next(n for n in count() if key_slot(KEYS.name(n.to_bytes(16, "big"), b"}"))
                        * 3 // 16_384 == third) for third in range(3)}  # fmt: skip
LOW, MIDDLE, HIGH = BY_THIRD[0], BY_THIRD[1], BY_THIRD[2]


@pytest.fixture
async def store(redis_cluster):
    async with limits_on(*redis_cluster, kind="cluster", forgetful=False) as made:
        yield made


def window(space, amount):
    return variant("fixed_window", Rate(amount, DAY), space=space)


async def left(store, *charges):
    return [(await store.peek(charge(c.variant, int.from_bytes(c.key, "big"), 0))).remaining
            for c in charges]  # fmt: skip


async def allowed(store, *charges):
    return [decision.allowed for decision in await store.admit(charges)]


async def test_limits_of_one_key_are_one_call(redis_cluster, store):
    one, two = charge(window("a", 5), LOW), charge(window("b", 5), LOW)
    await store.admit([one, two])
    before = sum(calls(server) for server in redis_cluster)
    await store.admit([one, two])
    assert sum(calls(server) for server in redis_cluster) - before == 1


async def test_all_groups_are_charged_where_all_admit(store):
    charges = [charge(window("a", 5), key) for key in (HIGH, LOW, MIDDLE, LOW)]
    decisions = await store.admit(charges)
    assert [d.remaining for d in decisions] == [4, 4, 4, 3]
    assert await left(store, *charges) == [4, 3, 4, 3]


@pytest.mark.parametrize("narrow", [LOW, MIDDLE, HIGH])
async def test_a_refused_request_charges_no_group(store, narrow):
    wide = {key: window(f"wide{key}", 9) for key in (LOW, MIDDLE, HIGH)}
    small = window("small", 1)
    await store.admit([charge(small, narrow)])
    charges = [charge(limit, key, 2) for key, limit in wide.items()]
    decisions = await store.admit([*charges, charge(small, narrow)])
    assert [d.allowed for d in decisions] == [True, True, True, False]
    # Each says what it has uncharged.
    assert [d.remaining for d in decisions[:3]] == [9, 9, 9]
    assert await left(store, *charges) == [9, 9, 9]


@pytest.mark.parametrize("name", ["fixed_window", "sliding_window", "sliding_log", "token_bucket"])
async def test_what_is_refunded_is_as_if_never_charged(store, name):
    wide = variant(name, Rate(300, DAY), space="wide")
    small = window("small", 1)
    await store.admit([charge(small, HIGH), charge(wide, LOW, 7)])
    before = await store.peek(charge(wide, LOW))
    for _ in range(5):
        assert await allowed(store, charge(wide, LOW, 3), charge(small, HIGH)) == [True, False]
    after = await store.peek(charge(wide, LOW))
    assert after.remaining == before.remaining


async def test_all_that_denied_are_reported_over_groups(store):
    short, long = variant("sliding_log", Rate(1, HOUR)), window("long", 1)
    await store.admit([charge(short, LOW), charge(long, HIGH)])
    decisions = await store.admit([charge(short, LOW), charge(window("a", 5), MIDDLE),
                                   charge(long, HIGH)])  # fmt: skip
    assert [d.allowed for d in decisions] == [False, True, False]
    assert decisions[0].retry_after > 0 < decisions[2].retry_after
    assert decisions[1].remaining == 5


async def test_a_leaky_bucket_is_asked_last(store):
    """It cannot be refunded: were it asked in the order of slots, its place would be spent."""
    leaky = variant("leaky_bucket", Rate(1, HOUR), 3)
    small = window("small", 1)
    await store.admit([charge(small, HIGH)])
    for _ in range(3):
        assert await allowed(store, charge(leaky, LOW), charge(small, HIGH)) == [True, False]
    (decision,) = await store.admit([charge(leaky, LOW)])
    assert (decision.remaining, decision.delay) == (3, 0)


async def test_a_leaky_bucket_that_denies_has_the_others_refunded(store):
    leaky = variant("leaky_bucket", Rate(1, HOUR))
    wide = window("wide", 5)
    await store.admit([charge(leaky, LOW)])
    assert await allowed(store, charge(leaky, LOW), charge(wide, HIGH)) == [False, True]
    assert await left(store, charge(wide, HIGH)) == [5]


@pytest.mark.parametrize("place", [LOW, HIGH])
async def test_shadow_limits_in_other_slots(store, place):
    shadow = variant("fixed_window", Rate(1, DAY), space="shadow", shadow=True)
    enforced = window("enforced", 2)
    other = LOW + HIGH - place
    for expected in ([True, True], [False, True], [False, False]):
        assert await allowed(store, charge(shadow, place), charge(enforced, other)) == expected


@pytest.mark.parametrize("place", [LOW, HIGH])
async def test_a_shadow_limit_is_not_charged_by_a_refused_request(store, place):
    shadow = variant("fixed_window", Rate(5, DAY), space="shadow", shadow=True)
    small = window("small", 1)
    await store.admit([charge(small, MIDDLE)])
    charges = [charge(window("wide", 5), HIGH), charge(shadow, place), charge(small, MIDDLE)]
    assert await allowed(store, *charges) == [True, True, False]
    assert await left(store, *charges) == [5, 5, 0]


async def test_no_more_than_the_limit_under_contention(redis_cluster, store):
    """Two limits in two slots, and requests that take them in both orders, from two stores."""
    a, b = window("a", 30), variant("sliding_log", Rate(30, DAY), space="b")
    async with limits_on(*redis_cluster, kind="cluster") as second:
        wanted = [
            made.admit([charge(a, LOW), charge(b, HIGH)] if turn % 2 else
                       [charge(b, HIGH), charge(a, LOW)])
            for turn in range(40)
            for made in (store, second)
        ]  # fmt: skip
        answers = await asyncio.gather(*wanted)
    passed = sum(all(d.allowed for d in decisions) for decisions in answers)
    # Refunds may refuse others for a moment, so less may pass, and never more.
    assert 15 <= passed <= 30
    assert await left(store, charge(a, LOW), charge(b, HIGH)) == [30 - passed] * 2


async def test_a_denial_that_may_be_refunded_is_not_remembered(store):
    both = replace(window("both", 1), refundable=True)
    await store.admit([charge(both, LOW)])
    assert not (await store.admit([charge(both, LOW)]))[0].allowed
    assert not store._denials
    alone = window("alone", 1)
    await store.admit([charge(alone, LOW)])
    assert not (await store.admit([charge(alone, LOW)]))[0].allowed
    assert len(store._denials) == 1


async def test_a_slot_that_cannot_be_asked_is_an_error_and_gives_the_others_back(redis_cluster):
    wide, far = window("wide", 5), window("far", 5)
    async with limits_on(*redis_cluster, kind="cluster", timeout=0.5) as store:
        await store.admit([charge(far, HIGH), charge(wide, LOW)])
        owner = redis_cluster[2]
        with owner.paused():
            with pytest.raises(StoreError):
                await store.admit([charge(wide, LOW), charge(far, HIGH)])
            async with asyncio.timeout(5):
                while (await left(store, charge(wide, LOW))) != [4]:
                    await asyncio.sleep(0.005)
    # What the paused server was sent counts there: it may not be forgotten, nor given back.


async def test_crossslot_is_an_error_and_never_an_admission(redis_cluster):
    """A cluster that is taken for a single server."""
    async with limits_on(redis_cluster[0]) as store:
        for keys in ((LOW, HIGH), (LOW, MIDDLE), (HIGH, MIDDLE)):
            with pytest.raises(StoreError) as error:
                await store.admit([charge(window("a", 5), key) for key in keys])
            assert error.value.reason == "refused"
