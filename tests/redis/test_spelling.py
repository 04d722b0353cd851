"""Calls of lua/admit.lua as they go over the wire: spelt in parts, and yet what packing gives."""

import pytest
from limits_kit import NAMES, SECOND, charge, variant

from proxy.core.limits.decision import Rate
from proxy.store.charge import Charge
from proxy.store.keys import LimitKeys
from proxy.store.redis.connection import pack
from proxy.store.redis.spelling import CHARGE, SERVERS_CLOCK, Spelling
from proxy.store.scripts import script

LIMITS = [variant(name, Rate(7, 3 * SECOND), space=f"{name}:{n}") for n, name in enumerate(NAMES)]
SHADOW = variant("token_bucket", Rate(1, SECOND), shadow=True, space="")


def packed(spelling: Spelling, charges: list[Charge]) -> bytes:
    names, words = spelling.names(charges), spelling.words(charges)
    argument = spelling.argument(CHARGE, SERVERS_CLOCK, words)
    return pack((b"EVALSHA", script("admit").sha, len(names), *names, argument))


@pytest.mark.parametrize(
    "charges",
    [
        [charge(LIMITS[0])],
        [charge(limit, key=2**128 - 1 - n, cost=n) for n, limit in enumerate(LIMITS)],
        [charge(LIMITS[1], cost=10**15), charge(SHADOW)],
        [charge(LIMITS[n % len(LIMITS)], key=n, cost=n % 3) for n in range(12)],
    ],
    ids=["one", "one of each", "in shadow", "more than nine"],
)
@pytest.mark.parametrize("prefix", ["sg", "", "a long\r\nprefix é"])
def test_a_command_is_what_packing_gives(charges: list[Charge], prefix: str) -> None:
    spelling = Spelling(LimitKeys(prefix), script("admit"))
    for _ in range(2):  # the second time from what was spelt before
        assert spelling.command(charges) == packed(spelling, charges)


def test_what_a_limit_cost_last_is_not_what_it_costs_now() -> None:
    spelling = Spelling(LimitKeys("sg"), script("admit"))
    for cost in (1, 2, 2, 1):
        for shadow in (False, True):
            charges = [Charge(LIMITS[0], cost.to_bytes(16), cost, shadow)]
            assert spelling.command(charges) == packed(spelling, charges)


def test_what_stood_beside_a_limit_last_does_not_stand_there_now() -> None:
    spelling = Spelling(LimitKeys("sg"), script("admit"))
    again = variant(NAMES[1], Rate(8, 3 * SECOND), space=f"{NAMES[1]}:1")  # as after a reload
    others = [
        [], [charge(LIMITS[1])], [charge(LIMITS[2])], [charge(LIMITS[2], cost=2)],
        [charge(LIMITS[1]), charge(LIMITS[2])], [charge(LIMITS[2]), charge(LIMITS[1])],
        [charge(again)], [Charge(LIMITS[1], b"b" * 16, 1, True)], [charge(LIMITS[0])],
    ]  # fmt: skip
    for beside in others:
        for then in others:
            for charges in ([charge(LIMITS[0]), *beside], [charge(LIMITS[0], 7), *then]):
                assert spelling.command(charges) == packed(spelling, charges)


def test_routes_that_begin_with_the_same_limit_each_have_their_call() -> None:
    spelling = Spelling(LimitKeys("sg"), script("admit"))
    routes = [[LIMITS[0]], [LIMITS[0], LIMITS[1]], [LIMITS[0], LIMITS[2]]]
    for _ in range(2):
        for route in routes:
            spelling.command([charge(limit) for limit in route])
    known = dict(spelling._calls)
    assert len(known) == len(routes)
    for route in routes:
        spelling.command([charge(limit, key=9) for limit in route])
    assert spelling._calls == known, "none of them was spelt anew"


def test_calls_are_kept_in_bounds() -> None:
    """Costs come from headers, and limits of an earlier configuration are of no use any more."""
    spelling = Spelling(LimitKeys("sg"), script("admit"))
    for cost in range(3000):
        charges = [charge(LIMITS[0], cost=cost)]
        assert spelling.command(charges) == packed(spelling, charges)
        assert len(spelling._calls) <= 1000
    for number in range(50):
        fresh = variant(NAMES[1], Rate(1 + number, SECOND), space="again")
        charges = [charge(fresh), charge(LIMITS[0])]
        assert spelling.command(charges) == packed(spelling, charges)
        del fresh, charges
