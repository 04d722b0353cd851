"""What rows cannot show: numbers, words, and many requests at once."""

import pytest
from breaker_kit import BOTH, CLOSED, HALF_OPEN, ONE, OPEN, RATE, SLOW, TWO_SLOW, Script

from proxy.core.breaker import TRANSITIONS, Breaker, BreakerTerms, Event, Permit, Refused, State


def test_the_table_holds_every_transition_that_can_come():
    """Results come to closed and half-open circuits only, and orders to all."""
    orders = {Event.FORCE_OPEN, Event.FORCE_CLOSED, Event.TOLD_OPEN, Event.TOLD_CLOSED}
    assert {event for state, event in TRANSITIONS if state is CLOSED} == (
        orders | {Event.TRIP, Event.RELEASE}
    )
    assert {event for state, event in TRANSITIONS if state is HALF_OPEN} == (
        orders | {Event.PROVED, Event.RELAPSE}
    )
    assert {event for state, event in TRANSITIONS if state is OPEN} == (
        orders | {Event.DUE, Event.RELEASE}
    )
    assert [int(state) for state in State] == [0, 1, 2]


def opened(terms=ONE, chance=0.0, now=0.0):
    """A breaker that one failure has opened."""
    breaker = Breaker(terms, lambda: chance)
    breaker.failed(breaker.admit(now), now, "connect_error")
    assert breaker.state(now) is OPEN
    return breaker


def test_200_requests_at_half_open_are_exactly_n_probes():
    breaker = opened(BreakerTerms(consecutive_failures=1, half_open_requests=7))
    answers = [breaker.admit(30.0) for _ in range(200)]
    probes = [answer for answer in answers if isinstance(answer, Permit)]
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    assert (len(probes), len(refused)) == (7, 193)
    assert all(probe.probe and probe.generation == breaker.generation for probe in probes)
    assert len(set(map(id, probes))) == 7
    assert {answer.retry_in for answer in refused} == {1.0}
    assert breaker.probes(30.0) == 7


def test_a_refusal_while_half_open_waits_no_longer_than_for_a_deadline():
    breaker = opened()
    breaker.admit(30.0)
    assert breaker.admit(59.75).retry_in == 0.25
    assert breaker.retry_in(59.75) == 0.25
    assert breaker.retry_in(60.0) == 0.0


def test_the_first_probe_to_come_free_is_the_first_that_left():
    breaker = opened(BreakerTerms(consecutive_failures=1, half_open_requests=2, probe_timeout=2))
    breaker.admit(30.0)
    breaker.admit(31.5)
    assert breaker.admit(31.5).retry_in == 0.5
    assert breaker.probes(31.5) == 2
    assert breaker.probes(32.0) == 1


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_open_doubles_per_failed_probe_up_to_open_max(chance):
    breaker = opened(chance=chance)
    now = 0.0
    for nominal in [30, 60, 120, 240, 300, 300, 300]:
        wait = breaker.admit(now).retry_in
        assert wait == pytest.approx(nominal * (1 + 0.1 * chance))
        now += wait + 2**-20
        breaker.failed(breaker.admit(now), now, "timeout")
    now += breaker.retry_in(now) + 2**-20
    breaker.succeeded(breaker.admit(now), now, 0.1)
    breaker.failed(breaker.admit(now), now, "timeout")
    assert breaker.retry_in(now) == pytest.approx(30 * (1 + 0.1 * chance)), "closing ends it"


def test_each_opening_draws_its_own_jitter():
    draws = iter([0.0, 1.0, 0.25])
    breaker = Breaker(ONE, lambda: next(draws))
    now, waits = 0.0, []
    for _ in range(3):
        breaker.failed(breaker.admit(now), now, "timeout")
        waits.append(breaker.retry_in(now))
        now += waits[-1]
    assert waits == pytest.approx([30, 66, 123])


def test_forced_open_gives_a_retry_of_a_second_or_more():
    for open_for, retry_in in [(30.0, 30.0), (0.2, 1.0)]:
        breaker = Breaker(BreakerTerms(open_for=open_for), lambda: 0.0)
        breaker.force(OPEN, 0.0)
        refused = breaker.admit(1e6)
        assert refused == (retry_in, "forced open")
        assert breaker.retry_in(1e6) == retry_in


def test_forced_closed_still_counts():
    breaker = Breaker(BOTH, lambda: 0.0)
    breaker.force(CLOSED, 0.0)
    for _ in range(50):
        breaker.failed(breaker.admit(1.0), 1.0, "timeout")
        breaker.succeeded(breaker.admit(1.0), 1.0, 3.0)
    assert breaker.counts(1.0) == (100, 50, 50)


def test_closed_allocates_nothing_for_a_request():
    """And every permit says of which generation it is."""
    breaker = Breaker(ONE, lambda: 0.0)
    first = breaker.admit(0.0)
    assert breaker.admit(1.0) is first
    assert (first.generation, first.probe) == (breaker.generation, False)
    breaker.failed(first, 1.0, "timeout")
    probe = breaker.admit(31.0)
    assert probe.probe
    assert probe.generation == breaker.generation > first.generation
    breaker.succeeded(probe, 31.0, 0.1)
    assert breaker.admit(31.0).generation == breaker.generation > probe.generation


def test_transitions_are_told_with_reasons():
    heard = []
    breaker = Breaker(BreakerTerms(consecutive_failures=2, half_open_requests=1), lambda: 0.5)
    breaker.on_transition = heard.append

    def once(end, now):
        permit = breaker.admit(now)
        getattr(breaker, end)(permit, now, "status 503" if end == "failed" else 0.1)

    once("failed", 0.0)
    once("failed", 0.0)
    once("failed", 31.5)
    breaker.told(OPEN, 32.0, 5.0)  # it is: no transition
    breaker.told(CLOSED, 33.0, 0.0)
    breaker.told(CLOSED, 33.0, 0.0)
    breaker.told(OPEN, 34.0, 6.0)
    once("succeeded", 40.0)
    breaker.force(CLOSED, 41.0)  # it is: no transition
    breaker.force(OPEN, 42.0)
    breaker.force(OPEN, 42.0)
    breaker.force(None, 43.0)
    rows = [(*turn[:2], turn.reason, turn.retry_in, turn.told, turn.news) for turn in heard]
    # old, new, reason, retry_in, told, worth telling
    assert rows == [
        (CLOSED, OPEN, "2 failures in a row, the last: status 503", 31.5, False, True),
        (OPEN, HALF_OPEN, "the open time is over", 0.0, False, False),
        (HALF_OPEN, OPEN, "a probe failed: status 503", 63.0, False, True),
        (OPEN, CLOSED, "another replica closed its circuit", 0.0, True, False),
        (CLOSED, OPEN, "another replica opened its circuit", 6.0, True, False),
        (OPEN, HALF_OPEN, "the open time is over", 0.0, False, False),
        (HALF_OPEN, CLOSED, "1 probe succeeded", 0.0, False, True),
        (CLOSED, OPEN, "forced open", 30.0, False, False),
        (OPEN, CLOSED, "no longer forced", 0.0, False, False),
    ]


@pytest.mark.parametrize(
    ("terms", "ends", "reason"),
    [
        (RATE, "fail good fail fail", "3 of 4 in 10 s failed, the last: connect_error"),
        (RATE, "fail good fail good", "2 of 4 in 10 s failed"),
        (SLOW, "good slow good slow", "2 of 4 in 10 s took over 2 s"),
        (TWO_SLOW, "fail", "1 failure in a row, the last: connect_error"),
    ],
)
def test_a_trip_says_why(terms, ends, reason):
    script = Script(terms)
    for end in ends.split():
        script.play(0.0, end)
    assert script.breaker.reason == reason
    refused = script.breaker.admit(0.0)
    assert refused == (30.0, reason)


def test_a_slow_probe_says_so():
    script = Script(TWO_SLOW)
    for now, what in [(0, "fail"), (30, "slow")]:
        script.play(now, what)
    assert script.breaker.reason == "a probe failed: took over 2 s"


def test_status_reads_without_changing_anything():
    breaker = opened()
    generation = breaker.generation
    assert breaker.state(30.0) is breaker.state(1e6) is HALF_OPEN
    assert (breaker.retry_in(1e6), breaker.probes(1e6)) == (0.0, 0)
    assert (breaker.generation, breaker.reason[:1]) == (generation, "1")
    assert breaker.state(29.0) is OPEN


@pytest.mark.parametrize(
    ("window", "inside", "outside"), [(1, 0, 1), (2, 1, 2), (2.5, 2, 3), (10, 9, 10), (0.5, 0, 1)]
)
def test_window_ends_at_a_second_of_the_clock(window, inside, outside):
    breaker = Breaker(BreakerTerms(window=window), lambda: 0.0)
    for now in (1000.0, 1000.999):
        breaker.succeeded(breaker.admit(now), now, 3.0)
    assert breaker.counts(1000 + inside + 0.999) == (2, 0, 2)
    assert breaker.counts(1000 + outside) == (0, 0, 0)


def test_a_clock_that_stands_still_or_steps_back_loses_nothing():
    breaker = Breaker(BreakerTerms(window=2), lambda: 0.0)
    for now in (5.0, 4.0, 5.0):
        breaker.succeeded(breaker.admit(now), now, 0.1)
    assert breaker.counts(3.0) == (3, 0, 0)
    assert breaker.counts(6.9) == (3, 0, 0)
    assert breaker.counts(7.0) == (0, 0, 0)
