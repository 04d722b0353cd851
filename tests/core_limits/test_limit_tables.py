"""Worked clock examples, one row per rule, and what cannot be compiled."""

from datetime import UTC, datetime, timedelta

import pytest

from proxy.core.limits import ALGORITHMS, fixed_window
from proxy.core.limits.decision import Quota, Rate

MS = 1000
S = 1_000_000
M = 60 * S
H = 3600 * S
D = 24 * H
MONTH = 0


def at(text):
    """UTC wall clock → µs since the epoch."""
    moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def rate(text, period=S):
    return Rate(int(text), period, monthly=period == MONTH)


DAY = "2025-06-15 "
YES, NO = True, False

# rule: (algorithm, rate, burst, [(clock, cost, allowed, remaining, reset, retry_after, delay)])
TABLE = {
    "fixed_window: N pass, the next waits for the window's end": (
        "fixed_window", rate(2, M), None,
        [
            ("12:00:50", 1, YES, 1, 10 * S, 0, 0),
            ("12:00:51", 1, YES, 0, 9 * S, 0, 0),
            ("12:00:52", 1, NO, 0, 8 * S, 8 * S, 0),
            ("12:01:00", 1, YES, 1, 60 * S, 0, 0),
        ],
    ),
    "fixed_window: a minute begins at :00, whatever the first request's second": (
        "fixed_window", rate(1, M), None,
        [("12:00:59.999999", 1, YES, 0, 1, 0, 0), ("12:01:00", 1, YES, 0, M, 0, 0)],
    ),
    "fixed_window: a period that divides no day counts from the epoch": (
        # 2025-06-15 12:01:00 is 1,749,988,860 s, and that is 4 s into a window of 7 s.
        "fixed_window", rate(1, 7 * S), None, [("12:01:00", 1, YES, 0, 3 * S, 0, 0)],
    ),
    "fixed_window: a day begins at midnight UTC": (
        "fixed_window", rate(1, D), None, [("18:00:00", 1, YES, 0, 6 * H, 0, 0)],
    ),
    "fixed_window: a month is the calendar's": (
        "fixed_window", rate(1, MONTH), None,
        [("12:00:00", 1, YES, 0, 15 * D + 12 * H, 0, 0),
         ("12:00:00", 1, NO, 0, 15 * D + 12 * H, 15 * D + 12 * H, 0)],
    ),
    "fixed_window: a cost that does not fit leaves the rest to smaller ones": (
        "fixed_window", rate(3, M), None,
        [
            ("12:00:30", 2, YES, 1, 30 * S, 0, 0),
            ("12:00:30", 2, NO, 0, 30 * S, 30 * S, 0),
            ("12:00:30", 1, YES, 0, 30 * S, 0, 0),
        ],
    ),
    "fixed_window: a cost of 0 asks, and passes even where nothing is left": (
        "fixed_window", rate(1, M), None,
        [
            ("12:00:30", 0, YES, 1, 0, 0, 0),
            ("12:00:30", 1, YES, 0, 30 * S, 0, 0),
            ("12:00:30", 0, YES, 0, 30 * S, 0, 0),
        ],
    ),
    "sliding_window: the last window fades evenly": (
        # 4 in the last minute; at :15 three quarters of them count, so one more fits.
        "sliding_window", rate(4, M), None,
        [
            ("12:00:30", 4, YES, 0, 45 * S, 0, 0),
            ("12:01:14.999999", 1, NO, 0, 1, 1, 0),
            ("12:01:15", 1, YES, 0, 15 * S, 0, 0),
            ("12:01:29", 1, NO, 0, 1 * S, 1 * S, 0),
            ("12:01:30", 1, YES, 0, 15 * S, 0, 0),
        ],
    ),
    "sliding_window: a full window asks for its own fading, not only its end": (
        "sliding_window", rate(4, M), None,
        [("12:00:30", 4, YES, 0, 45 * S, 0, 0), ("12:00:30", 4, NO, 0, 45 * S, 90 * S, 0)],
    ),
    "sliding_window: after an empty window nothing counts": (
        "sliding_window", rate(2, M), None,
        [("12:00:59", 2, YES, 0, 31 * S, 0, 0), ("12:02:00", 2, YES, 0, 90 * S, 0, 0)],
    ),
    "sliding_log: a unit counts for exactly one period": (
        "sliding_log", rate(2, M), None,
        [
            ("12:00:10", 1, YES, 1, 60 * S, 0, 0),
            ("12:00:40", 1, YES, 0, 30 * S, 0, 0),
            ("12:01:09.999999", 1, NO, 0, 1, 1, 0),
            ("12:01:10", 1, YES, 0, 30 * S, 0, 0),
        ],
    ),
    "sliding_log: a cost waits for as many units as it needs": (
        "sliding_log", rate(3, M), None,
        [
            ("12:00:00", 1, YES, 2, 60 * S, 0, 0),
            ("12:00:10", 1, YES, 1, 50 * S, 0, 0),
            ("12:00:20", 1, YES, 0, 40 * S, 0, 0),
            ("12:00:30", 2, NO, 0, 30 * S, 40 * S, 0),
            ("12:00:30", 3, NO, 0, 30 * S, 50 * S, 0),
            ("12:01:10", 2, YES, 0, 10 * S, 0, 0),
        ],
    ),
    "token_bucket: refills all the time, not at a window's end": (
        "token_bucket", rate(60, M), None,
        [
            ("12:00:00", 60, YES, 0, 1 * S, 0, 0),
            ("12:00:00.999999", 1, NO, 0, 1, 1, 0),
            ("12:00:01", 1, YES, 0, 1 * S, 0, 0),
            ("12:00:11", 1, YES, 9, 1 * S, 0, 0),
        ],
    ),
    "token_bucket: burst is the bucket's size, the rate its refill": (
        "token_bucket", rate(1), 5,
        [
            ("12:00:00", 5, YES, 0, 1 * S, 0, 0),
            ("12:00:03", 4, NO, 0, 1 * S, 1 * S, 0),
            ("12:00:03", 3, YES, 0, 1 * S, 0, 0),
            ("12:00:30", 5, YES, 0, 1 * S, 0, 0),
        ],
    ),
    "token_bucket: 3/s is not rounded to a refill every 333,333 µs": (
        "token_bucket", rate(3), 2,
        [
            ("12:00:00.000000", 2, YES, 0, 333_334, 0, 0),
            ("12:00:00.333333", 1, NO, 0, 1, 1, 0),
            ("12:00:00.333334", 1, YES, 0, 333_333, 0, 0),
            ("12:00:00.666666", 1, NO, 0, 1, 1, 0),
            ("12:00:00.666667", 1, YES, 0, 333_333, 0, 0),
            ("12:00:01.000000", 1, YES, 0, 333_334, 0, 0),
        ],
    ),
    "token_bucket: over an hour a tick is 1 ms, and a wait ends on one": (
        # One in 7.2 s; asked in the middle of a millisecond.
        "token_bucket", rate(1000, 2 * H), 1,
        [
            ("12:00:00.000400", 1, YES, 0, 7_199_600, 0, 0),
            ("12:00:07.199999", 1, NO, 0, 1, 1, 0),
            ("12:00:07.200000", 1, YES, 0, 7_200_000, 0, 0),
        ],
    ),
    "leaky_bucket: without burst nobody waits: the second is refused": (
        "leaky_bucket", rate(10), None,
        [
            ("12:00:00", 1, YES, 0, 100 * MS, 0, 0),
            ("12:00:00.099999", 1, NO, 0, 1, 1, 0),
            ("12:00:00.100000", 1, YES, 0, 100 * MS, 0, 0),
        ],
    ),
    "leaky_bucket: the first leaves at once, burst wait their turn, more are refused": (
        "leaky_bucket", rate(10), 2,
        [
            ("12:00:00", 1, YES, 2, 100 * MS, 0, 0),
            ("12:00:00", 1, YES, 1, 100 * MS, 0, 100 * MS),
            ("12:00:00", 1, YES, 0, 100 * MS, 0, 200 * MS),
            ("12:00:00", 1, NO, 0, 100 * MS, 100 * MS, 0),
            ("12:00:00.100000", 1, YES, 0, 100 * MS, 0, 200 * MS),
            ("12:00:00.150000", 0, YES, 0, 50 * MS, 0, 0),
        ],
    ),
    "leaky_bucket: a cost holds its slots, and leaves at the first": (
        "leaky_bucket", rate(10), 4,
        [
            ("12:00:00", 3, YES, 2, 100 * MS, 0, 0),
            ("12:00:00", 1, YES, 1, 100 * MS, 0, 300 * MS),
        ],
    ),
    "leaky_bucket: a clock that steps back stands still": (
        "leaky_bucket", rate(10), 4,
        [
            ("12:00:05", 1, YES, 4, 100 * MS, 0, 0),
            ("12:00:04", 1, YES, 3, 100 * MS, 0, 100 * MS),
        ],
    ),
    "leaky_bucket: a clock that steps back by more than a period finds nobody in the line": (
        "leaky_bucket", rate(10), 4,
        [
            ("12:00:05", 3, YES, 2, 100 * MS, 0, 0),
            ("12:00:03.999999", 1, YES, 4, 100 * MS, 0, 0),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", TABLE)
def test_clock_examples(rule):
    name, per, burst, rows = TABLE[rule]
    algorithm = ALGORITHMS[name]
    params = algorithm.compile(per, burst)
    state = None
    for clock, cost, *expected in rows:
        before = state
        state, decision = algorithm.step(state, params, at(DAY + clock), cost)
        assert list(decision.members()) == expected, clock
        if not decision.allowed:
            state = before


RELOADS = {
    "a raised rate counts at once": ("fixed_window", (2, M), None, 2, (5, M), None, 3),
    "a lowered rate refuses what is above it": ("fixed_window", (5, M), None, 4, (2, M), None, 0),
    "a full sliding window is full under a lower N": (
        "sliding_window", (9, M), None, 9, (2, M), None, 0),
    "a log keeps its units": ("sliding_log", (9, M), None, 4, (6, M), None, 2),
    "a raised burst is there at once": ("token_bucket", (5, M), 5, 2, (5, M), 20, 18),
    "a lowered burst is an empty bucket at worst": ("token_bucket", (5, M), 20, 18, (5, M), 5, 0),
    "a longer line has places at once": ("leaky_bucket", (5, M), 0, 1, (5, M), 3, 3),
}  # fmt: skip


@pytest.mark.parametrize("rule", RELOADS)
def test_state_survives_a_reload(rule):
    name, old, burst, charged, new, new_burst, left = RELOADS[rule]
    algorithm = ALGORITHMS[name]
    now = at(DAY + "12:00:00")
    state, decision = algorithm.step(None, algorithm.compile(Rate(*old), burst), now, charged)
    assert decision.allowed
    params = algorithm.compile(Rate(*new), new_burst)
    assert algorithm.step(state, params, now, 0)[1].remaining == left


def test_a_lowered_burst_refills_within_its_own_time():
    algorithm = ALGORITHMS["token_bucket"]
    now = at(DAY + "12:00:00")
    state, _ = algorithm.step(None, algorithm.compile(rate(1), 100), now, 100)
    params = algorithm.compile(rate(1), 2)
    assert algorithm.step(state, params, now + 2 * S, 2)[1].allowed
    assert algorithm.idle_at(state, params, now) == now + 2 * S


ALL = tuple(sorted(ALGORITHMS))
REFUSED = {
    "a rate of nothing": (ALL, rate(0), None, "at least 1"),
    "a period of nothing": (ALL, Rate(1, 0), None, "at least 1 µs"),
    "more than RateLimit can say": (ALL, rate(10**15), None, "at most"),
    "a month elsewhere than in fixed_window": (
        ("sliding_window", "sliding_log", "token_bucket", "leaky_bucket"),
        rate(5, MONTH), None, "only fixed_window"),
    "a burst where there is none": (
        ("fixed_window", "sliding_window", "sliding_log"), rate(5), 5, "has no burst"),
    "a log of more than 10,000": (("sliding_log",), rate(10_001), None, "take sliding_window"),
    "a bucket of nothing": (("token_bucket",), rate(5), 0, "at least 1"),
    "a negative burst": (("token_bucket", "leaky_bucket"), rate(5), -1, "at least"),
    "a burst above RateLimit's integers": (
        ("token_bucket", "leaky_bucket"), rate(10**14), 10**15, "RateLimit"),
    "a product above 2^53": (("sliding_window",), rate(2_600_000, H), None, "2^53"),
    "a bucket above 2^53": (("token_bucket", "leaky_bucket"), rate(1000, H), 2_600_000, "2^53"),
    "a bucket that takes centuries": (("token_bucket",), rate(1, D), 40_000, "century"),
    "a period of more than a century": (ALL, rate(1, 40_000 * D), None, "century"),
    "a long period in broken milliseconds": (ALL, rate(1, H + 1), None, "whole milliseconds"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "rule"), [(name, rule) for rule, row in REFUSED.items() for name in row[0]]
)
def test_refused_when_compiled(name, rule):
    _, per, burst, words = REFUSED[rule]
    with pytest.raises(ValueError, match=words.replace("^", r"\^")):
        ALGORITHMS[name].compile(per, burst)


ACCEPTED = {
    "a million an hour": (ALL[:2] + ALL[3:], rate(1_000_000, H), None),
    "a hundred million a day": (("sliding_window", "token_bucket"), rate(100_000_000, D), None),
    "a log of 10,000": (("sliding_log",), rate(10_000), None),
    "a line of nobody": (("leaky_bucket",), rate(5), 0),
    "more than one per tick": (("token_bucket",), rate(5_000_000), None),
}


@pytest.mark.parametrize(
    ("name", "rule"), [(name, rule) for rule, row in ACCEPTED.items() for name in row[0]]
)
def test_accepted_and_exact_at_the_edge(name, rule):
    _, per, burst = ACCEPTED[rule]
    if name == "sliding_log" and per.amount > 10_000:
        pytest.skip("a log is at most 10,000")
    algorithm = ALGORITHMS[name]
    params = algorithm.compile(per, burst)
    capacity = algorithm.capacity(params)
    now = at(DAY + "12:00:00")
    state, decision = algorithm.step(None, params, now, capacity)
    assert decision.allowed
    assert decision.remaining == 0
    assert not algorithm.step(state, params, now, 1)[1].allowed


# (algorithm, rate, burst): (capacity, q, w)
QUOTAS = {
    ("fixed_window", rate(100, M), None): (100, 100, 60),
    ("fixed_window", rate(100, MONTH), None): (100, 100, None),
    ("fixed_window", rate(100, 500 * MS), None): (100, 100, None),
    ("sliding_window", rate(100, H), None): (100, 100, 3600),
    ("sliding_log", rate(5, 10 * S), None): (5, 5, 10),
    ("sliding_log", rate(5, 1500 * MS), None): (5, 5, 2),
    ("token_bucket", rate(100), None): (100, 100, 1),
    ("token_bucket", rate(100), 250): (250, 250, 3),
    ("token_bucket", rate(3, D), 1): (1, 1, 28_800),
    ("token_bucket", rate(10, 500 * MS), 100): (100, 100, None),
    ("leaky_bucket", rate(10), None): (1, 1, 1),
    ("leaky_bucket", rate(10, M), 4): (5, 5, 30),
}


@pytest.mark.parametrize("row", QUOTAS, ids=str)
def test_capacity_and_quota(row):
    name, per, burst = row
    capacity, q, w = QUOTAS[row]
    algorithm = ALGORITHMS[name]
    params = algorithm.compile(per, burst)
    assert algorithm.capacity(params) == capacity
    assert algorithm.quota(params) == Quota(q, w)


def test_month_ends_are_the_calendars():
    """Every day of 1970 to 2400, against the standard library."""
    day = datetime(1970, 1, 1, tzinfo=UTC)
    epoch = day
    while day.year < 2400:
        first = (day.replace(day=28) + timedelta(days=4)).replace(day=1)
        now = (day - epoch) // timedelta(microseconds=1)
        end = (first - epoch) // timedelta(microseconds=1)
        assert fixed_window.month_end(now) == end, day
        assert fixed_window.month_end(now + D - 1) == end, day
        day += timedelta(days=1)


def test_every_word_names_its_module():
    for name, algorithm in ALGORITHMS.items():
        assert algorithm.name == name
        assert type(algorithm).__module__ == f"proxy.core.limits.{name}"


def test_a_lowered_sliding_window_fades_from_its_own_n():
    """9 counted, then N = 2: half a window later it is as if 2 had been, not 9."""
    algorithm = ALGORITHMS["sliding_window"]
    begun = at(DAY + "12:00:00")
    state, _ = algorithm.step(None, algorithm.compile(rate(9, M), None), begun, 9)
    params = algorithm.compile(rate(2, M), None)
    assert algorithm.step(state, params, begun + 90 * S, 0)[1].remaining == 1
