"""Giving a charge back: afterwards the limit answers as if the charge had never been.

The model has no refunds: it is the same algorithm, run again over the requests that were admitted
and not refunded. A limit is never fuller than that, whatever the order of charges and refunds. A
token_bucket is at most one unit emptier, the others are the same.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.limits import ALGORITHMS
from proxy.core.limits.decision import Rate
from proxy.core.limits.token_bucket import MOST

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
RATE = Rate(10, SECOND)
REFUNDABLE = sorted(set(ALGORITHMS) - {"leaky_bucket"})


class Interleaved:
    """One key: charges and refunds in any order, beside what is left of them."""

    def __init__(self, name, rate, burst):
        self.name = name
        self.algorithm = ALGORITHMS[name]
        self.params = self.algorithm.compile(rate, burst)
        self.capacity = self.algorithm.capacity(self.params)
        self.state = None
        self.kept = []
        self.now = START

    def charge(self, cost):
        cost = min(cost, self.capacity)
        after, decision = self.algorithm.step(self.state, self.params, self.now, cost)
        if decision.allowed:
            self.state = after
            self.kept.append((self.now, cost))

    def refund(self, which):
        at, cost = self.kept.pop(which % len(self.kept))
        self.state = self.algorithm.refund(self.state, self.params, at, self.now, cost)

    def never_refunded(self, now):
        """What is left at `now` where only what was kept had ever been charged."""
        state = None
        for at, cost in self.kept:
            state, decision = self.algorithm.step(state, self.params, at, cost)
            assert decision.allowed, "who was admitted beside it is admitted without it"
        return self.algorithm.step(state, self.params, now, 0)[1].remaining

    def check(self, short):
        for now in (self.now, self.now + 13, self.now + 40, self.now + 130):
            left = self.algorithm.step(self.state, self.params, now, 0)[1].remaining
            exact = self.never_refunded(now)
            assert exact - short <= left <= exact


PERIODS = [7, 30, 100]


@st.composite
def interleavings(draw, charges):
    """(rate, burst, [(wait, cost or None for a refund, which)])"""
    period = draw(st.sampled_from(PERIODS))
    amount = draw(st.integers(1, 6))
    wait = st.one_of(
        st.integers(0, 3), st.integers(0, period // amount + 2), st.integers(0, 2 * period)
    )
    charge = st.tuples(wait, st.integers(1, 3), st.none())
    refund = st.tuples(wait, st.none(), st.integers(0, 50))
    moves = draw(st.lists(st.one_of(charge, refund), max_size=2 * charges))
    return Rate(amount, period), draw(st.integers(1, 30)), moves


def run(key, moves, charges, short):
    for wait, cost, which in moves:
        key.now += wait
        if cost is not None:
            charges -= 1
            if charges >= 0:
                key.charge(cost)
        elif key.kept:
            key.refund(which)
        key.check(short)


@pytest.mark.parametrize("name", REFUNDABLE)
@settings(max_examples=400, deadline=None)
@given(interleaving=interleavings(MOST))
def test_no_order_of_charges_and_refunds_costs_more_than_a_unit(name, interleaving):
    rate, burst, moves = interleaving
    bucket = name == "token_bucket"
    key = Interleaved(name, rate, burst if bucket else None)
    run(key, moves, MOST, 1 if bucket else 0)


@settings(max_examples=60, deadline=None)
@given(interleaving=interleavings(60))
def test_a_bucket_that_has_forgotten_low_points_is_never_fuller(interleaving):
    """More charges than low points are kept, so refunds may be short, but never too much."""
    rate, burst, moves = interleaving
    key = Interleaved("token_bucket", rate, burst)
    run(key, moves, 10**6, key.capacity)
    assert key.state is None or len(key.state) <= 2 + 2 * MOST


@pytest.mark.parametrize("name", REFUNDABLE)
@given(before=st.integers(0, 7), cost=st.integers(1, 3), after=st.integers(0, 2 * SECOND))
@settings(max_examples=50, deadline=None)
def test_the_newest_charge_comes_back_whole(name, before, cost, after):
    """Across the end of a window, too."""
    key = Interleaved(name, RATE, None if name != "token_bucket" else 10)
    for _ in range(before):
        key.charge(1)
    key.now += 1000
    key.charge(cost)
    key.now += after
    key.refund(-1)
    key.check(0)


def test_a_burst_of_refused_misses_does_not_drain_a_bucket():
    """300 at once within 50 ms, each given back 100 ms later, as the policy `charge: miss` refused
    it: 400 are left, where refunds that each took off the time since the charge left 221."""
    key = Interleaved("token_bucket", Rate(50, SECOND), 400)
    for _ in range(300):
        key.now += 167
        key.charge(1)
    for _ in range(300):
        key.now += 333
        key.refund(0)
    assert key.algorithm.step(key.state, key.params, key.now, 0)[1].remaining == 400


def test_refunds_do_not_get_short_by_waiting():
    """The same with hits in between that keep the bucket from filling: they alone are charged."""
    key = Interleaved("token_bucket", Rate(50, SECOND), 400)
    waiting = []
    for turn in range(600):
        key.now += SECOND // 100
        key.charge(1)
        if turn % 2:
            waiting.append(key.kept[-1])
        if len(waiting) > 10:  # 0.2 s later, when 10 units have been refilled
            key.refund(key.kept.index(waiting.pop(0)))
    key.check(1)


def test_another_state_than_was_charged_gives_nothing_back():
    """The charge lies in a time that the clock was set back from."""
    key = Interleaved("token_bucket", RATE, 10)
    key.now += 3600 * SECOND
    key.charge(5)
    key.now -= 3600 * SECOND
    key.charge(2)
    key.refund(0)
    key.check(0)


@pytest.mark.parametrize("name", REFUNDABLE)
def test_a_window_that_is_over_gives_nothing_back(name):
    algorithm = ALGORITHMS[name]
    params = algorithm.compile(RATE, None)
    state, _ = algorithm.step(None, params, START, 5)
    later = START + 2 * SECOND
    state, _ = algorithm.step(state, params, later, 3)
    refunded = algorithm.refund(state, params, START, later, 5)
    assert algorithm.step(refunded, params, later, 0)[1].remaining == 7


def test_a_window_cut_by_a_reload_refunds_what_was_charged():
    """8 charged, then N = 4: with 2 given back, 6 are counted, and the window is still full."""
    algorithm = ALGORITHMS["sliding_window"]
    old, new = algorithm.compile(RATE, None), algorithm.compile(Rate(4, SECOND), None)
    state, _ = algorithm.step(None, old, START, 8)
    state = algorithm.refund(state, new, START, START + 1, 2)
    assert algorithm.step(state, new, START + 1, 0)[1].remaining == 0
    assert algorithm.step(state, old, START + 1, 0)[1].remaining == 4


def test_a_place_in_a_line_is_taken_for_good() -> None:
    algorithm = ALGORITHMS["leaky_bucket"]
    params = algorithm.compile(RATE, 3)
    state, _ = algorithm.step(None, params, START, 1)
    assert algorithm.refund(state, params, START, START, 1) == state
