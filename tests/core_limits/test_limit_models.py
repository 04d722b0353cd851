"""Each algorithm against a slow model that is correct by looking: logs of events and fractions.

And laws that all five keep: waits are exact to the microsecond, an idle key answers like a new
one, a reload of rate and burst keeps a state valid, states may be forked.
"""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.limits import ALGORITHMS
from proxy.core.limits.decision import Rate

SECOND = 1_000_000
EPOCH = 1_750_000_000 * SECOND + 123_457

# Small periods let few events fill windows; 2 h counts in ticks of 1 ms.
PERIODS = [7, 1000, SECOND, 7200 * SECOND]
NAMES = sorted(ALGORITHMS)


def tick_of(period):
    return 1 if period <= 3600 * SECOND else 1000


@st.composite
def histories(draw, burst=False):
    """(rate, burst, [(now, cost)]) with steps from nothing to a few periods."""
    period = draw(st.sampled_from(PERIODS))
    amount = draw(st.integers(1, 9))
    size = draw(st.one_of(st.none(), st.integers(1, 12))) if burst else None
    now = EPOCH
    events = []
    for _ in range(draw(st.integers(1, 25))):
        now += draw(
            st.one_of(
                st.just(0),
                st.integers(0, period // 3 + 2),
                st.integers(0, 3 * period),
                st.sampled_from([1, period // amount, period - 1, period, period + 1, 2 * period]),
            )
        )
        events.append((now, draw(st.integers(0, 4))))
    return Rate(amount, period), size, events


class WindowModel:
    """Every admitted event, counted again for each request."""

    def __init__(self, rate):
        self.n = rate.amount
        self.tick = tick_of(rate.period)
        self.period = rate.period // self.tick
        self.log = []

    def ask(self, now, cost):
        at = now // self.tick
        allowed = cost == 0 or self.used(at) + cost <= self.n
        if allowed:
            self.log += [at] * cost
        return allowed, max(0, self.n - ceil(self.used(at))) if allowed else 0, 0


class FixedModel(WindowModel):
    def used(self, at):
        return sum(t // self.period == at // self.period for t in self.log)


class LogModel(WindowModel):
    def used(self, at):
        return sum(t + self.period > at for t in self.log)


class SlidingModel(WindowModel):
    def used(self, at):
        window = at // self.period
        previous = sum(t // self.period == window - 1 for t in self.log)
        current = sum(t // self.period == window for t in self.log)
        return previous * (1 - Fraction(at % self.period, self.period)) + current


class TokenModel:
    """A level that fills without steps."""

    def __init__(self, rate, burst):
        self.tick = tick_of(rate.period)
        self.per_tick = Fraction(rate.amount * self.tick, rate.period)
        self.size = rate.amount if burst is None else burst
        self.level = Fraction(self.size)
        self.last = 0

    def ask(self, now, cost):
        at = now // self.tick
        self.level = min(Fraction(self.size), self.level + (at - self.last) * self.per_tick)
        self.last = at
        if cost > self.level:
            return False, 0, 0
        self.level -= cost
        return True, int(self.level), 0


class QueueModel:
    """A list of leaving times, one slot apart. A newcomer waits in line or is turned away."""

    def __init__(self, rate, burst):
        self.tick = tick_of(rate.period)
        self.slot = Fraction(rate.period, rate.amount * self.tick)
        self.burst = burst or 0
        self.leaving = []

    def free(self, at):
        """Places: at the head (one, if nobody left within the last slot), and in the line."""
        end = self.leaving[-1] + self.slot if self.leaving else Fraction(at)
        behind = max(Fraction(0), end - at) / self.slot
        return int(self.burst + 1 - behind), max(Fraction(at), end)

    def ask(self, now, cost):
        at = now // self.tick
        free, leaves = self.free(at)
        if cost > free:
            return False, 0, 0
        self.leaving += [leaves + i * self.slot for i in range(cost)]
        delay = 0
        if cost and ceil(leaves) > at:
            delay = ceil(leaves) * self.tick - now
        return True, self.free(at)[0], delay


def compare(name, model, rate, burst, events):
    algorithm = ALGORITHMS[name]
    params = algorithm.compile(rate, burst)
    state = None
    for now, cost in events:
        cost = min(cost, algorithm.capacity(params))
        before = state
        state, decision = algorithm.step(state, params, now, cost)
        expected = model.ask(now, cost)
        assert (decision.allowed, decision.remaining, decision.delay) == expected
        if not decision.allowed:
            state = before


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("fixed_window", FixedModel),
        ("sliding_window", SlidingModel),
        ("sliding_log", LogModel),
    ],
)
@settings(max_examples=80, deadline=None)
@given(history=histories())
def test_windows_equal_their_models(name, model, history):
    rate, burst, events = history
    compare(name, model(rate), rate, burst, events)


@pytest.mark.parametrize(
    ("name", "model"), [("token_bucket", TokenModel), ("leaky_bucket", QueueModel)]
)
@settings(max_examples=120, deadline=None)
@given(history=histories(burst=True))
def test_buckets_equal_their_models(name, model, history):
    rate, burst, events = history
    compare(name, model(rate, burst), rate, burst, events)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=80, deadline=None)
@given(history=histories(), other=st.integers(1, 9), burst=st.integers(1, 9))
def test_waits_are_exact(name, history, other, burst):
    """A retry after `retry_after` passes and one a microsecond earlier does not; more units are
    left after `reset` and not a microsecond earlier. Also under a state of other parameters."""
    rate, _, events = history
    algorithm = ALGORITHMS[name]
    size = burst if name.endswith("bucket") else None
    before = algorithm.compile(rate, size)
    after = algorithm.compile(Rate(other, rate.period), None)
    state = None
    for count, (now, wanted) in enumerate(events):
        params = before if count < len(events) // 2 else after
        cost = min(wanted, algorithm.capacity(params))
        new, decision = algorithm.step(state, params, now, cost)

        def ask(wait, asked, state=new, params=params, now=now):
            return algorithm.step(state, params, now + wait, asked)[1]

        assert 0 <= decision.remaining <= algorithm.capacity(params)
        left = ask(0, 0).remaining
        if decision.allowed:
            assert (left, decision.retry_after) == (decision.remaining, 0)
            state = new
        else:
            assert ask(decision.retry_after, cost).allowed
            assert not ask(decision.retry_after - 1, cost).allowed
            assert 0 < decision.reset <= decision.retry_after
            assert decision.remaining == decision.delay == 0
        if decision.reset:
            assert ask(decision.reset, 0).remaining > left
            assert ask(decision.reset - 1, 0).remaining == left
        else:
            assert left == algorithm.capacity(params)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=50, deadline=None)
@given(history=histories(), later=st.integers(0, 3 * SECOND), cost=st.integers(0, 4))
def test_idle_keys_answer_like_new_ones(name, history, later, cost):
    rate, _, events = history
    algorithm = ALGORITHMS[name]
    params = algorithm.compile(rate, None)
    cost = min(cost, algorithm.capacity(params))
    state = None
    for now, wanted in events:
        if wanted == 0 or wanted > algorithm.capacity(params):
            continue
        new, decision = algorithm.step(state, params, now, wanted)
        if not decision.allowed:
            continue
        state = new
        idle_at = algorithm.idle_at(state, params, now)
        at = idle_at + later
        assert (
            algorithm.step(state, params, at, cost)[1] == algorithm.step(None, params, at, cost)[1]
        )
        assert algorithm.step(state, params, idle_at - 1, 0)[1].remaining < algorithm.capacity(
            params
        )


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(history=histories(), share=st.integers(1, 1000))
def test_time_never_runs_backwards(name, history, share):
    """A clock that steps back by up to a period admits nothing that it would not have admitted
    standing still."""
    rate, _, events = history
    back = max(tick_of(rate.period), rate.period * share // 1000)
    algorithm = ALGORITHMS[name]
    params = algorithm.compile(rate, None)
    state = None
    for now, wanted in events:
        cost = min(wanted, algorithm.capacity(params))
        new, decision = algorithm.step(state, params, now, cost)
        if not (cost and decision.allowed):
            continue
        state = new
        for asked in range(1, algorithm.capacity(params) + 1):
            there = algorithm.step(state, params, now, asked)[1]
            earlier = algorithm.step(state, params, now - back, asked)[1]
            assert there.allowed or not earlier.allowed


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(history=histories(), jump=st.integers(2, 10**6), cost=st.integers(0, 4))
def test_a_clock_set_back_far_finds_the_key_as_if_never_seen(name, history, jump, cost):
    """A jump ahead of more than two periods, and back: nothing is frozen until it comes true."""
    rate, _, events = history
    algorithm = ALGORITHMS[name]
    params = algorithm.compile(rate, None)
    cost = min(cost, algorithm.capacity(params))
    state = None
    for now, wanted in events:
        wanted = min(wanted, algorithm.capacity(params))
        new, decision = algorithm.step(state, params, now + jump * rate.period, wanted)
        if wanted and decision.allowed:
            state = new
            # Sliding windows begin up to a period before their charges.
            at = now - rate.period
            assert algorithm.idle_at(state, params, at) <= at
            asked = algorithm.step(state, params, at, cost)
            assert asked[1] == algorithm.step(None, params, at, cost)[1]
            again = algorithm.step(asked[0], params, at + 1, cost)[1]
            fresh = algorithm.step(None, params, at, cost)[0]
            assert again == algorithm.step(fresh, params, at + 1, cost)[1]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(
    moves=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 400_000), st.integers(1, 3)), max_size=60
    )
)
def test_states_may_be_forked(name, moves):
    """A step from any state ever returned answers as if the others had never been taken."""
    algorithm = ALGORITHMS[name]
    params = algorithm.compile(Rate(40, SECOND), None)
    states = [(None, EPOCH, ())]
    for which, wait, cost in moves:
        state, last, past = states[which % len(states)]
        cost = min(cost, algorithm.capacity(params))
        new, decision = algorithm.step(state, params, last + wait, cost)
        history = (*past, (last + wait, cost))
        again = None
        for now, charged in history[:-1]:
            again = algorithm.step(again, params, now, charged)[0]
        assert algorithm.step(again, params, *history[-1])[1] == decision
        if decision.allowed:
            states.append((new, last + wait, history))


@pytest.mark.parametrize("name", NAMES)
def test_branches_of_history_do_not_see_each_other(name):
    """Two futures of one state, charged in turns: each answers as if it were alone."""
    algorithm = ALGORITHMS[name]
    params = algorithm.compile(Rate(12, SECOND), 12 if name.endswith("bucket") else None)
    trunk = [EPOCH, EPOCH + 10, EPOCH + 20]
    branches = [[*trunk, *(EPOCH + 50 + shift + 20 * i for i in range(6))] for shift in (0, 7, 11)]
    root = None
    for now in trunk:
        root = algorithm.step(root, params, now, 1)[0]
    states = [root] * len(branches)
    for place in range(len(trunk), len(branches[0])):
        for which, times in enumerate(branches):
            states[which] = algorithm.step(states[which], params, times[place], 1)[0]
    end = EPOCH + SECOND // 2
    for state, times in zip(states, branches, strict=True):
        alone = None
        for now in times:
            alone = algorithm.step(alone, params, now, 1)[0]
        for cost in range(13):
            asked = algorithm.step(state, params, end, cost)[1]
            assert asked == algorithm.step(alone, params, end, cost)[1]


def test_sliding_log_forgets_what_is_old():
    """At most 2N cells and some slack, however long a key lives."""
    algorithm = ALGORITHMS["sliding_log"]
    params = algorithm.compile(Rate(10, SECOND), None)
    state = None
    for turn in range(1000):
        new, decision = algorithm.step(state, params, EPOCH + turn * 130_000, 1)
        assert decision.allowed
        state = new
        assert len(state[0]) <= 2 * 10 + 20
