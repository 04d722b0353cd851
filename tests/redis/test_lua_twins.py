"""Each algorithm and its Lua twin, driven by the same requests: every field of every answer.

Times are given, so they jump as they like: backwards, by whole periods, by centuries. Parameters
change under a state as a reload changes them.
"""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from redisservers import store_plan

from proxy.core.limits import ALGORITHMS
from proxy.core.limits.decision import Decision, Rate
from proxy.metrics import Metrics
from proxy.policy.limit_plans import LimitVariant
from proxy.store.charge import Charge
from proxy.store.redis.limits import RedisLimits
from proxy.store.redis.road import open_road

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
NEVER_RUNS_OUT = 2**52  # µs since the epoch: the year 2112
NAMES = sorted(ALGORITHMS)
FRESH = count()


class Model:
    """The rule in plain words over a dict: check all, then charge all or none."""

    def __init__(self):
        self.states = {}

    def admit(self, charges, now):
        trial = dict(self.states)
        decisions = []
        for charge in charges:
            name = (charge.variant.space, charge.key)
            step = charge.variant.algorithm.step
            state, decision = step(trial.get(name), charge.variant.params, now, charge.cost)
            decisions.append(decision)
            if decision.allowed and charge.cost:
                trial[name] = state
        if all(d.allowed or c.shadow for c, d in zip(charges, decisions, strict=True)):
            self.states = trial
            return decisions
        return [
            self.ask(c, now) if d.allowed else d for c, d in zip(charges, decisions, strict=True)
        ]

    def ask(self, charge, now, cost=0):
        state = self.states.get((charge.variant.space, charge.key))
        return charge.variant.algorithm.step(state, charge.variant.params, now, cost)[1]


def variant(name, space, rate, burst=None, shadow=False):
    algorithm = ALGORITHMS[name]
    params = algorithm.compile(rate, burst)
    quota = algorithm.quota(params)
    return LimitVariant(
        name, space, algorithm, params, algorithm.capacity(params), quota.q, quota.w, "", 1, None,
        shadow,
    )  # fmt: skip


@pytest.fixture
async def twin(every_redis):
    """Redis under a clock that is turned by hand. Nothing is remembered between two calls: by
    this clock they are seconds apart."""
    every_redis.call("FLUSHALL")
    road = open_road(store_plan(every_redis, timeout=5.0), Metrics())
    assert await road.up(5)
    turned = SimpleNamespace(now=0)
    seconds = count(0, 10)
    turned.store = RedisLimits(road, "t", monotonic=lambda: next(seconds), now=lambda: turned.now)
    yield turned
    await turned.store.close()


AMOUNTS = st.one_of(st.integers(1, 6), st.sampled_from([100, 255, 256, 257, 300, 10_000, 10**9]))
PERIODS = st.one_of(
    st.sampled_from([1, 7, 1000, SECOND, 10 * SECOND, HOUR, HOUR + 1000, DAY, 36_500 * DAY]),
    st.integers(1, 100),
)


@st.composite
def limits(draw, name):
    """A limit, and what it may become by a reload: the period stays."""
    monthly = name == "fixed_window" and draw(st.integers(0, 3)) == 0
    period = draw(PERIODS)
    made = []
    for _ in range(2):
        burst = draw(st.one_of(st.none(), AMOUNTS)) if name.endswith("bucket") else None
        try:
            made.append(variant(name, "", Rate(draw(AMOUNTS), period, monthly), burst))
        except ValueError:
            assume(False)
    return period, made


@st.composite
def histories(draw, name):
    """A limit and its reload; a start; then (jump, cost as a share of the capacity, key, which).
    A jump is µs, or to where an answer should change: ("after", n, d) is a period and d µs after
    the n-th last request, ("reset", d) and ("retry_after", d) what the last answer said."""
    period, made = draw(limits(name))
    near = st.integers(-1, 1)
    jump = st.one_of(
        st.integers(-3, 3),
        st.integers(-period, period),
        st.integers(0, 12).map(lambda tenths: period * tenths // 5),
        st.sampled_from([-DAY, 40 * DAY, 30_000 * DAY]),
        st.tuples(st.just("after"), st.integers(1, 4), near),
        st.tuples(st.sampled_from(["reset", "retry_after"]), near),
    )
    cost = st.one_of(st.integers(0, 4), st.sampled_from(["half", "most", "all"]))
    operation = st.tuples(
        jump, cost, st.sampled_from([0, 0, 0, 1]), st.integers(0, 5).map(lambda n: n == 5)
    )
    start = draw(st.integers(0, 2**51))
    return period, made, start, draw(st.lists(operation, min_size=1, max_size=25))


def cost_of(cost, capacity):
    shares = {"half": capacity // 2, "most": max(capacity - 1, 1), "all": capacity}
    return shares[cost] if isinstance(cost, str) else min(cost, capacity)


def jump_to(jump, period, times, decision):
    """When the next request comes; `times` are those of the earlier ones."""
    if isinstance(jump, int):
        return times[-1] + jump
    if jump[0] == "after":
        return times[-min(jump[1], len(times))] + period + jump[2]
    return times[-1] + getattr(decision, jump[0]) + jump[1]


def within(now):
    return min(max(0, now), NEVER_RUNS_OUT)


@pytest.mark.parametrize("name", NAMES)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
async def test_the_twin_says_the_same(twin, name, data):
    period, (old, new), start, operations = data.draw(histories(name))
    space = f"{name}/{next(FRESH)}"
    old, new = replace(old, space=space), replace(new, space=space)
    model = Model()
    times = [start]
    decision = Decision(True, 0, 0, 0, 0)
    for jump, cost, key, reloaded in operations:
        twin.now = within(jump_to(jump, period, times, decision))
        times.append(twin.now)
        held = new if reloaded else old
        charge = Charge(held, bytes([key]) * 16, cost_of(cost, held.capacity), False)
        if cost == 3:
            decision = model.ask(charge, twin.now, charge.cost)
            assert await twin.store.peek(charge) == decision
        else:
            (decision,) = model.admit([charge], twin.now)
            assert await twin.store.admit([charge]) == [decision]


SMALL = [
    ("fixed_window", Rate(3, 7 * SECOND), None, False),
    ("fixed_window", Rate(5, 0, True), None, False),
    ("sliding_window", Rate(4, 5 * SECOND), None, False),
    ("sliding_log", Rate(3, 6 * SECOND), None, True),
    ("sliding_log", Rate(300, 2 * HOUR), None, False),
    ("token_bucket", Rate(2, 3 * SECOND), 5, False),
    ("leaky_bucket", Rate(3, 4 * SECOND), 2, True),
    ("leaky_bucket", Rate(9, 4 * SECOND), 20, False),
]
REQUESTS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, SECOND, 2 * SECOND, 5 * SECOND, -SECOND, DAY]),
        st.lists(
            st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 1), st.integers(0, 3)),
            min_size=1,
            max_size=5,
        ),
    ),
    max_size=25,
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(requests=REQUESTS)
async def test_requests_of_several_limits_say_the_same(twin, requests):
    """All or none, the same key more than once, shadow limits, and what a refused request is
    told of the others."""
    fresh = next(FRESH)
    variants = [
        variant(name, f"{place}/{fresh}", rate, burst, shadow)
        for place, (name, rate, burst, shadow) in enumerate(SMALL)
    ]
    model = Model()
    twin.now = 1_750_000_000 * SECOND
    for jump, asked in requests:
        twin.now = within(twin.now + jump)
        charges = [
            Charge(variants[which], bytes([key]) * 16, cost, variants[which].shadow)
            for which, key, cost in asked
        ]
        assert await twin.store.admit(charges) == model.admit(charges, twin.now)


MONTH_EDGES = [
    (2024, 2, 29), (2023, 2, 28), (2000, 2, 29), (1970, 1, 1), (2100, 3, 1), (2038, 1, 19),
    (2025, 12, 31), (2026, 1, 1), (2096, 2, 29), (2099, 12, 31), (2111, 2, 28),
]  # fmt: skip


@pytest.mark.parametrize(("year", "month", "day"), MONTH_EDGES)
async def test_months_end_where_the_calendar_says(twin, year, month, day):
    limit = variant("fixed_window", "month", Rate(2, 0, True))
    for hour in (0, 23):
        begun = datetime(year, month, day, hour, 59, 59, tzinfo=UTC)
        turned = (year + month // 12, month % 12 + 1)
        end = datetime(*turned, 1, tzinfo=UTC)
        twin.now = round(begun.timestamp()) * SECOND
        key = bytes([hour]) * 16
        (decision,) = await twin.store.admit([Charge(limit, key, 2, False)])
        assert decision.members() == (True, 0, round((end - begun).total_seconds()) * SECOND, 0, 0)
        await twin.store.reset("month", key)


@pytest.mark.parametrize("amount", [40, 300])
async def test_a_log_forgets_unit_by_unit(twin, amount):
    """Around the end of every unit, in a log that is read whole and in one that is read in
    places."""
    limit = variant("sliding_log", f"log/{amount}", Rate(amount, SECOND))
    model = Model()
    twin.now = 1_750_000_000 * SECOND
    charged = []
    for place in range(amount):
        twin.now += 1000 + place * place % 700
        charge = Charge(limit, b"k" * 16, 1 + place % 2 * 2, False)
        assert await twin.store.admit([charge]) == model.admit([charge], twin.now)
        charged.append(twin.now)
    for end in charged:
        for twin.now in (end + SECOND - 1, end + SECOND, end + SECOND + 1):
            for cost in (0, amount, end % 3):
                charge = Charge(limit, b"k" * 16, cost, False)
                assert await twin.store.admit([charge]) == model.admit([charge], twin.now)


QUOTIENTS = st.one_of(
    st.tuples(st.integers(0, 2**53), st.integers(1, 2**53)),
    st.tuples(st.integers(1, 2**53), st.integers(1, 2**53), st.integers(-1, 1)).map(
        # As close to a whole quotient as it gets, and as large.
        lambda t: (min(max(0, 2**53 // t[0] * t[0] + t[2]), 2**53), t[0])
    ),
)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pairs=st.lists(QUOTIENTS, min_size=50, max_size=50))
def test_quotients_are_exact(every_redis, pairs):
    """As lua/include/charges.lua says that they are written, where it says so."""
    source = """
        local answers = {}
        for place = 1, #ARGV, 2 do
          local a, b = tonumber(ARGV[place]), tonumber(ARGV[place + 1])
          answers[#answers + 1] = string.format(
            '%.0f %.0f %.0f', (a - a % b) / b, (a + -a % b) / b, a % b)
        end
        return answers"""
    pairs = [(a, b) for a, b in pairs if -(-a // b) * b <= 2**53]
    numbers = [number for pair in pairs for number in pair]
    answers = every_redis.call("EVAL", source, 0, *numbers)
    assert answers == [f"{a // b} {-(-a // b)} {a % b}".encode() for a, b in pairs]
