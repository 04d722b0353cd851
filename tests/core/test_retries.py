"""Retries, as pure decisions: what is sent again, how soon, and how much of it."""

import math
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.core.dates import imf_fixdate
from proxy.core.retries import (
    IDEMPOTENT,
    SPARE,
    Budget,
    Failure,
    RetryTerms,
    Stop,
    Wait,
    backoff,
    decide,
    retry_after,
)
from proxy.metrics import REGISTERED_METHODS

TERMS = RetryTerms()
UNSENT = Failure("connect_error", sent=False)
RESET = Failure("reset", sent=True)
ODD = RetryTerms(
    on=frozenset(("connect_error", "reset", "timeout", "500")),
    methods=frozenset(("GET", "POST", "PATCH", "PROPFIND", "MADE-UP")),
)
NOW = 1_700_000_000.0


def asked(seconds: float, status: str = "503") -> Failure:
    return Failure(status, sent=True, retry_after=seconds)


AGAIN = Wait(0.025)  # half of the first 50 ms

WHAT_MAY_GO_OUT_AGAIN = [
    # rule, terms, method, failure, replayable, verdict
    ("a reset is in `on`", TERMS, "GET", RESET, True, AGAIN),
    ("a status is in `on`", TERMS, "GET", Failure("503", True), True, AGAIN),
    ("a status that is not", TERMS, "GET", Failure("500", True), True, Stop("reason")),
    ("a status that these terms name", ODD, "GET", Failure("500", True), True, AGAIN),
    ("timeout is a word of its own", TERMS, "GET", Failure("timeout", True), True, Stop("reason")),
    ("timeout where it is named", ODD, "GET", Failure("timeout", True), True, AGAIN),
    ("a deadline is not", ODD, "GET", Failure("deadline", True), True, Stop("reason")),
    ("nor our own refusal", TERMS, "GET", Failure("queue_full", False), True, Stop("reason")),
    ("nor broken HTTP", TERMS, "GET", Failure("invalid", True), True, Stop("reason")),
    ("every default method", TERMS, "HEAD", RESET, True, AGAIN),
    ("every default method", TERMS, "PUT", RESET, True, AGAIN),
    ("every default method", TERMS, "DELETE", RESET, True, AGAIN),
    ("every default method", TERMS, "OPTIONS", RESET, True, AGAIN),
    ("an idempotent one that is not named", TERMS, "PROPFIND", RESET, True, Stop("method")),
    ("an idempotent one that is", ODD, "PROPFIND", RESET, True, AGAIN),
    ("methods are case-sensitive", TERMS, "get", RESET, True, Stop("method")),
    ("POST", TERMS, "POST", RESET, True, Stop("method")),
    ("POST after a status", TERMS, "POST", Failure("503", True), True, Stop("method")),
    ("POST, even where it is named", ODD, "POST", RESET, True, Stop("method")),
    ("PATCH, even where it is named", ODD, "PATCH", RESET, True, Stop("method")),
    ("an unknown one, even where it is named", ODD, "MADE-UP", RESET, True, Stop("method")),
    ("POST of which no byte was sent", TERMS, "POST", UNSENT, True, AGAIN),
    ("PATCH of which no byte was sent", TERMS, "PATCH", UNSENT, True, AGAIN),
    ("an unknown one of which no byte was sent", TERMS, "MADE-UP", UNSENT, True, AGAIN),
    ("unsent, for a reason not named", RetryTerms(on=frozenset(("reset",))), "POST", UNSENT, True,
     Stop("reason")),
    ("an answer counts as sent", TERMS, "POST", Failure("503", False), True, Stop("method")),
    ("a body that is gone", TERMS, "PUT", RESET, False, Stop("body")),
    ("a body of which nothing was sent", TERMS, "PUT", UNSENT, False, AGAIN),
    ("a POST's body of which nothing was sent", TERMS, "POST", UNSENT, False, AGAIN),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "terms", "method", "failure", "replayable", "verdict"),
    WHAT_MAY_GO_OUT_AGAIN,
    ids=[f"{row[2]}-{row[3].reason}-{row[0]}" for row in WHAT_MAY_GO_OUT_AGAIN],
)
def test_what_may_go_out_again(
    rule: str,
    terms: RetryTerms,
    method: str,
    failure: Failure,
    replayable: bool,
    verdict: Wait | Stop,
) -> None:
    said = decide(terms, method, 1, failure, replayable=replayable, time_left=9.0, random=0.5)
    assert said == verdict, rule


HOW_OFTEN_AND_WHEN = [
    # rule, terms, attempt, failure, time left, random, verdict
    ("the second try", TERMS, 1, RESET, 9, 0.5, Wait(0.025)),
    ("the third waits for up to twice as long", TERMS, 2, RESET, 9, 0.5, Wait(0.05)),
    ("three tries in all", TERMS, 3, RESET, 9, 0.5, Stop("attempts")),
    ("one try is no retry", RetryTerms(attempts=1), 1, RESET, 9, 0.5, Stop("attempts")),
    ("one try, unsent", RetryTerms(attempts=1), 1, UNSENT, 9, 0.5, Stop("attempts")),
    ("full jitter begins at nothing", TERMS, 2, RESET, 9, 0.0, Wait(0.0)),
    ("the wait would take all the time left", TERMS, 1, RESET, 0.025, 0.5, Stop("time")),
    ("it is shorter than the time left", TERMS, 1, RESET, 0.026, 0.5, Wait(0.025)),
    ("there is no time left", TERMS, 1, RESET, 0.0, 0.0, Stop("time")),
    ("the time is over", TERMS, 1, RESET, -1.0, 0.0, Stop("time")),
    ("Retry-After is the least wait", TERMS, 1, asked(0.7), 9, 0.5, Wait(0.7)),
    ("the backoff is longer than Retry-After", TERMS, 1, asked(0.01), 9, 0.5, Wait(0.025)),
    ("Retry-After: 0", TERMS, 1, asked(0), 9, 0.5, Wait(0.025)),
    ("Retry-After is as long as backoff_max", TERMS, 1, asked(1), 9, 0.5, Wait(1)),
    ("Retry-After is longer", TERMS, 1, asked(1.001), 9, 0.5, Stop("retry_after")),
    ("Retry-After without end", TERMS, 1, asked(math.inf), math.inf, 0.5, Stop("retry_after")),
    ("Retry-After takes all the time left", TERMS, 1, asked(1), 1, 0.5, Stop("time")),
    ("Retry-After of any status", TERMS, 1, asked(0.7, "502"), 9, 0.5, Wait(0.7)),
]


@pytest.mark.parametrize(
    ("rule", "terms", "attempt", "failure", "time_left", "random", "verdict"),
    HOW_OFTEN_AND_WHEN,
    ids=[row[0] for row in HOW_OFTEN_AND_WHEN],
)
def test_how_often_and_when(
    rule: str,
    terms: RetryTerms,
    attempt: int,
    failure: Failure,
    time_left: float,
    random: float,
    verdict: Wait | Stop,
) -> None:
    said = decide(
        terms, "GET", attempt, failure, replayable=True, time_left=time_left, random=random
    )
    assert said == verdict, rule


REASONS = ("connect_error", "reset", "timeout", "deadline", "invalid", "500", "502", "503")


@given(
    terms=st.builds(
        RetryTerms,
        attempts=st.integers(1, 5),
        backoff=st.floats(0.001, 2),
        backoff_max=st.floats(0.001, 5),
        on=st.frozensets(st.sampled_from(REASONS)),
        methods=st.frozensets(st.sampled_from(sorted(REGISTERED_METHODS))),
    ),
    method=st.sampled_from([*sorted(REGISTERED_METHODS), "MADE-UP"]),
    attempt=st.integers(1, 6),
    failure=st.builds(
        Failure, st.sampled_from(REASONS), st.booleans(), st.none() | st.floats(0, 10)
    ),
    replayable=st.booleans(),
    time_left=st.floats(-1, 10),
    random=st.floats(0, 1, exclude_max=True),
)
def test_a_retry_is_always_harmless_and_in_time(
    terms: RetryTerms,
    method: str,
    attempt: int,
    failure: Failure,
    replayable: bool,
    time_left: float,
    random: float,
) -> None:
    said = decide(
        terms, method, attempt, failure, replayable=replayable, time_left=time_left, random=random
    )
    if isinstance(said, Stop):
        return
    assert failure.reason in terms.on
    assert attempt < terms.attempts
    if failure.sent or failure.reason.isdigit():
        assert method in terms.methods
        assert method not in ("POST", "PATCH", "CONNECT", "LOCK", "MADE-UP")
        assert replayable
    assert (failure.retry_after or 0) <= said.seconds < time_left
    assert said.seconds <= terms.backoff_max


def test_what_is_idempotent_is_registered() -> None:
    assert set(REGISTERED_METHODS) - IDEMPOTENT == {"CONNECT", "LOCK", "PATCH", "POST"}
    assert IDEMPOTENT < REGISTERED_METHODS


# --- backoff


@given(
    attempt=st.integers(1, 10_000),
    first=st.floats(0.001, 10),
    longest=st.floats(0.001, 100),
    random=st.floats(0, 1, exclude_max=True),
)
def test_the_backoff_stays_within_its_bounds(
    attempt: int, first: float, longest: float, random: float
) -> None:
    terms = RetryTerms(backoff=first, backoff_max=longest)
    bound = longest if attempt > 60 else min(longest, first * 2 ** (attempt - 1))
    assert backoff(terms, attempt, random) == pytest.approx(random * bound)
    assert backoff(terms, attempt, random) <= bound


def test_the_backoff_doubles_up_to_its_longest() -> None:
    longest = [backoff(TERMS, attempt, 1.0) for attempt in range(1, 8)]
    assert longest == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


# --- Retry-After


@pytest.mark.parametrize(
    ("rule", "text", "seconds"),
    [
        ("delta-seconds", "120", 120.0),
        ("none to wait", "0", 0.0),
        ("leading zeros", "007", 7.0),
        ("more digits than a float has", "9" * 400, math.inf),
        ("more digits than an int is read from", "9" * 5000, math.inf),
        ("an HTTP-date", imf_fixdate(int(NOW) + 90), 90.0),
        ("an HTTP-date that is over", imf_fixdate(int(NOW) - 90), 0.0),
        ("the obsolete form of a date", "Tuesday, 14-Nov-23 22:14:20 GMT", 60.0),
        ("absent", None, None),
        ("empty", "", None),
        ("a sign", "-1", None),
        ("a sign", "+1", None),
        ("a fraction", "1.5", None),
        ("a unit", "1s", None),
        ("two lines", "1, 2", None),
        ("digits of another script", "\u0661", None),
        ("a superscript, which is in latin-1", "\u00b2", None),
        ("no date", "Tomorrow", None),
    ],
)
def test_retry_after(rule: str, text: str | None, seconds: float | None) -> None:
    assert retry_after(text, NOW) == seconds, rule


def test_retry_after_counts_a_date_from_within_the_second() -> None:
    assert retry_after(imf_fixdate(int(NOW) + 2), NOW + 0.75) == pytest.approx(1.25)


# --- the budget


def spent(budget: Budget, now: float, tries: int = 1000) -> int:
    """How many retries it gives at once."""
    return sum(budget.spend(now) for _ in range(tries))


def fill(budget: Budget, now: float, requests: int) -> None:
    for _ in range(requests):
        budget.request(now)


BUDGETS: list[tuple[str, float, Callable[[Budget], int], int]] = [
    ("nobody came: the spare ones", 0.2, lambda _: 0, SPARE),
    ("a share, and the spare ones", 0.2, lambda b: fill(b, 100.0, 100) or 0, 20 + SPARE),
    ("only whole ones", 0.2, lambda b: fill(b, 100.0, 4) or 0, SPARE),
    ("no share: the spare ones", 0.0, lambda b: fill(b, 100.0, 500) or 0, SPARE),
    ("no rounding down of what is whole", 0.29, lambda b: fill(b, 100.0, 100) or 0, 29 + SPARE),
    ("as many as requests", 1.0, lambda b: fill(b, 100.0, 100) or 0, 100 + SPARE),
    ("requests count for nine seconds", 0.2, lambda b: fill(b, 91.0, 100) or 0, 20 + SPARE),
    ("and no longer than ten", 0.2, lambda b: fill(b, 90.99, 100) or 0, SPARE),
    ("a retry counts for ten seconds", 0.2, lambda b: spent(b, 90.0) - SPARE, 0),
    ("and no longer than eleven", 0.2, lambda b: spent(b, 89.99) - SPARE, SPARE),
    ("long ago", 0.2, lambda b: fill(b, 1.0, 100) or spent(b, 1.0) - 30, SPARE),
]


@pytest.mark.parametrize(
    ("rule", "share", "before", "left"), BUDGETS, ids=[row[0] for row in BUDGETS]
)
def test_the_budget(rule: str, share: float, before: Callable[[Budget], int], left: int) -> None:
    budget = Budget(share)
    assert before(budget) == 0
    assert spent(budget, 100.0) == left, rule


EVENTS = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0, 1.5), st.floats(0, 30)),  # seconds since the last
        st.integers(0, 40),  # requests
        st.integers(0, 40),  # retries asked for
    ),
    max_size=30,
)


@given(start=st.floats(0, 100), share=st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]), events=EVENTS)
@example(start=0.95, share=0.2, events=[(0.0, 0, 40), (9.9, 0, 40), (0.2, 0, 40)])
@example(start=0.0, share=1.0, events=[(0.99, 40, 0), (9.02, 0, 40)])
@settings(max_examples=300, deadline=None)
def test_no_ten_seconds_before_a_retry_hold_more_than_the_budget(
    start: float, share: float, events: list[tuple[float, int, int]]
) -> None:
    """Whatever the moment, not only on the second."""
    budget = Budget(share)
    now = start
    requests: list[float] = []
    retries: list[float] = []
    for elapsed, coming, failing in events:
        now += elapsed
        for _ in range(coming):
            budget.request(now)
            requests.append(now)
        for _ in range(failing):
            if budget.spend(now):
                retries.append(now)
                past = sum(at > now - 10 for at in requests)
                assert sum(at > now - 10 for at in retries) <= share * past + SPARE + 1e-9


@given(start=st.floats(0, 100), share=st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]), events=EVENTS)
@settings(max_examples=200, deadline=None)
def test_the_budget_refuses_only_what_the_last_seconds_forbid(
    start: float, share: float, events: list[tuple[float, int, int]]
) -> None:
    """Requests of the last 9 s always count, retries of more than 11 s ago never do."""
    budget = Budget(share)
    now = start
    requests: list[float] = []
    retries: list[float] = []
    for elapsed, coming, failing in events:
        now += elapsed
        for _ in range(coming):
            budget.request(now)
            requests.append(now)
        for _ in range(failing):
            if budget.spend(now):
                retries.append(now)
            else:
                past = sum(at >= now - 9 for at in requests)
                assert sum(at > now - 11 for at in retries) + 1 > share * past + SPARE - 1e-9
