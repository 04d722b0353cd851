"""The store's breaker: its table, row by row, and what must hold whatever happens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.store.breaker import PROBE_DEADLINE, PROBE_EVERY, TRANSITIONS, WINDOW, Breaker


def run(breaker: Breaker, outcomes: str, start: float = 100.0, step: float = 0.001) -> float:
    """Reports outcomes (`+` answered, `-` failed) one after the other; the time of the last."""
    now = start
    for outcome in outcomes:
        if outcome == "+":
            breaker.succeeded(breaker.generation, now)
        else:
            breaker.failed(breaker.generation, now)
        now += step
    return now - step


@pytest.mark.parametrize(
    ("rule", "outcomes", "step", "state"),
    [
        ("four in a row are not five", "----", 0.001, "closed"),
        ("five in a row open", "-----", 0.001, "open"),
        ("five in a row open however slowly", "-----", 30.0, "open"),
        ("a success breaks the row", "----+----", 0.001, "closed"),
        ("half of twenty open", "+-" * 10, 0.001, "open"),
        ("half of nineteen do not", "+-" * 9 + "+", 0.001, "closed"),
        ("less than half do not", "++-" * 40, 0.001, "closed"),
        ("half of twenty in two seconds do not", "+-" * 10, 0.1, "closed"),
        ("what is older than the window is forgotten", "+" * 100 + "+-" * 60, 0.02, "open"),
        ("successes within the window weigh", "+" * 100 + "+-" * 20, 0.001, "closed"),
    ],
)
def test_opens(rule: str, outcomes: str, step: float, state: str) -> None:
    breaker = Breaker()
    run(breaker, outcomes, step=step)
    assert breaker.state == state, rule


def test_more_in_a_row_where_several_servers_may_fail_alone() -> None:
    breaker = Breaker(in_a_row=15)
    run(breaker, "-" * 14)
    assert breaker.closed
    run(breaker, "-")
    assert not breaker.closed


def opened() -> Breaker:
    breaker = Breaker()
    breaker.trip(100.0)
    return breaker


def test_probes_come_one_at_a_time() -> None:
    breaker = opened()
    assert breaker.probe(100.0 + PROBE_EVERY - 0.001) is None
    assert breaker.probe_due() == 100.0 + PROBE_EVERY
    first = breaker.probe(101.0)
    assert first is not None
    assert breaker.probe(101.0) is None, "one is under way"
    assert breaker.probed(first, False, 101.05) is False
    again = 101.05 + PROBE_EVERY
    assert breaker.probe(again - 0.001) is None, "counted from the failure of the last"
    assert breaker.probe(again) is not None


def test_a_probe_that_is_answered_closes() -> None:
    breaker = opened()
    probe = breaker.probe(101.0)
    assert probe is not None
    assert breaker.probed(probe, True, 101.01)
    assert breaker.closed
    assert breaker.probe(200.0) is None
    assert breaker.probe_due() is None


def test_a_probe_that_never_comes_back_is_replaced() -> None:
    breaker = opened()
    lost = breaker.probe(101.0)
    assert lost is not None
    assert breaker.probe(101.0 + PROBE_DEADLINE - 0.001) is None
    second = breaker.probe(101.0 + PROBE_DEADLINE)
    assert second is not None
    assert breaker.probed(lost, True, 102.1) is False, "too late: it belongs to nobody"
    assert breaker.state == "probing"
    assert breaker.probed(second, True, 102.2)


def test_an_outcome_from_before_the_trip_is_dropped() -> None:
    breaker = Breaker()
    before = breaker.generation
    breaker.trip(100.0)
    breaker.succeeded(before, 100.1)
    assert not breaker.closed
    probe = breaker.probe(101.0)
    assert probe is not None
    breaker.succeeded(before, 101.01)
    assert breaker.state == "probing", "a late success is no probe"
    assert breaker.probed(probe, True, 101.02)
    for _ in range(50):
        assert breaker.failed(before, 101.03) is False
    assert breaker.closed, "nor is a late failure a new one"


def test_recovery_starts_from_nothing() -> None:
    breaker = Breaker()
    run(breaker, "-----")
    probe = breaker.probe(101.5)
    assert probe is not None
    assert breaker.probed(probe, True, 101.5)
    run(breaker, "----", start=101.6)
    assert breaker.closed


def test_the_table_is_whole() -> None:
    """Every state is entered and left, and nothing but the probe's answer closes."""
    states = {state for state, _ in TRANSITIONS}
    assert states == set(TRANSITIONS.values())
    closing = [key for key, state in TRANSITIONS.items() if state == "closed"]
    assert closing == [("probing", "answer")]


@given(
    st.lists(
        st.tuples(st.sampled_from("+-?!x"), st.integers(0, 3), st.floats(0.0, 0.7)), max_size=120
    )
)
def test_holds_whatever_happens(events: list[tuple[str, int, float]]) -> None:
    """`+ -` outcomes, of this generation or an older one; `?` a probe; `! x` how it ended."""
    breaker = Breaker()
    now = 0.0
    probe: int | None = None
    recent: list[tuple[float, bool]] = []
    for event, age, pause in events:
        now += pause
        before = (breaker.state, breaker.generation)
        generation = breaker.generation - age
        if event == "+":
            breaker.succeeded(generation, now)
        elif event == "-":
            breaker.failed(generation, now)
        elif event == "?":
            made = breaker.probe(now)
            probe = made if made is not None else probe
        elif probe is not None:
            breaker.probed(probe, event == "!", now)
        after = (breaker.state, breaker.generation)
        if after[0] != before[0]:
            assert after[1] > before[1], "every change is a new generation"
        if before[0] != "closed" and after[0] == "closed":
            assert event == "!"
            assert before == ("probing", probe), "only the answer to the probe of now closes"
            recent.clear()
        if event in "+-" and age and after != before:
            raise AssertionError("an outcome of another generation changed something")
        if event in "+-" and not age and before[0] == "closed":
            recent.append((now, event == "+"))
            window = [good for at, good in recent if at > now - WINDOW * 1.1]
            row = [good for _, good in recent[-5:]]
            if len(row) == 5 and not any(row):
                assert after[0] == "open", "five in a row"
            elif after[0] == "open":
                assert len(window) >= 20, "too few to judge by"
