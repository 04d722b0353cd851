"""Giving a charge back: what it still weighs and no more, so that nobody is admitted beyond."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.limits import ALGORITHMS
from proxy.core.limits.decision import Rate

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
RATE = Rate(10, SECOND)
REFUNDABLE = sorted(set(ALGORITHMS) - {"leaky_bucket"})


@pytest.mark.parametrize("name", REFUNDABLE)
@given(before=st.integers(0, 7), cost=st.integers(1, 3), after=st.integers(0, 400_000))
@settings(max_examples=30, deadline=None)
def test_within_its_window_all_of_it_comes_back(
    name: str, before: int, cost: int, after: int
) -> None:
    if name == "token_bucket":
        before = 0  # what has been paid off since is not given back, whoever owed it first
    algorithm = ALGORITHMS[name]
    params = algorithm.compile(RATE, None)
    state = None
    for _ in range(before):
        state, _ = algorithm.step(state, params, START, 1)
    charged, decision = algorithm.step(state, params, START + 1000, cost)
    assert decision.allowed
    now = START + 1000 + after
    refunded = algorithm.refund(charged, params, START + 1000, now, cost)
    _, without = algorithm.step(state, params, now, 0)
    _, given_back = algorithm.step(refunded, params, now, 0)
    assert given_back.remaining == without.remaining


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
@given(
    costs=st.lists(st.tuples(st.integers(0, 700_000), st.integers(1, 4)), max_size=12),
    place=st.integers(0, 11),
    after=st.integers(0, 3 * SECOND),
)
@settings(max_examples=60, deadline=None)
def test_a_refund_never_leaves_more_than_if_it_had_not_been_charged(
    name: str, costs: list[tuple[int, int]], place: int, after: int
) -> None:
    algorithm = ALGORITHMS[name]
    params = algorithm.compile(RATE, None if name != "leaky_bucket" else 9)
    charged = without = None
    now, taken = START, None
    for turn, (elapsed, cost) in enumerate(costs):
        now += elapsed
        charged, decision = algorithm.step(charged, params, now, cost)
        if turn == place and decision.allowed:
            taken = now, cost
        elif decision.allowed:
            # Whoever was admitted beside it is admitted without it, too.
            without, alone = algorithm.step(without, params, now, cost)
            assert alone.allowed
    now += after
    if taken is None or charged is None:
        return
    refunded = algorithm.refund(charged, params, taken[0], now, taken[1])
    _, with_refund = algorithm.step(refunded, params, now, 0)
    _, never = algorithm.step(without, params, now, 0)
    assert with_refund.remaining <= never.remaining


@pytest.mark.parametrize("name", REFUNDABLE)
def test_a_window_that_is_over_gives_nothing_back(name: str) -> None:
    algorithm = ALGORITHMS[name]
    params = algorithm.compile(RATE, None)
    state, _ = algorithm.step(None, params, START, 5)
    later = START + 2 * SECOND
    state, _ = algorithm.step(state, params, later, 3)
    refunded = algorithm.refund(state, params, START, later, 5)
    assert algorithm.step(refunded, params, later, 0)[1].remaining == 7


def test_a_place_in_a_line_is_taken_for_good() -> None:
    algorithm = ALGORITHMS["leaky_bucket"]
    params = algorithm.compile(RATE, 3)
    state, _ = algorithm.step(None, params, START, 1)
    assert algorithm.refund(state, params, START, START, 1) == state
