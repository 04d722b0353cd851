"""Who is well: checks, ejections, and who of an upstream may be taken."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.health import LONGEST_EJECTION, Ejection, Health, HealthTerms, Roster

TERMS = HealthTerms("/healthz", unhealthy_after=3, healthy_after=2)

# --- checks


@pytest.mark.parametrize(
    ("rule", "checks", "ups"),
    [
        # x a failed check, o one that was answered; U up and D down after it.
        ("it starts up", "", ""),
        ("as many failures in a row take it out", "xxx", "UUD"),
        ("not fewer", "xx", "UU"),
        ("in a row", "xxoxxoxx", "UUUUUUUU"),
        ("as many answers in a row bring it back", "xxxoo", "UUDDU"),
        ("in a row, too", "xxxoxoxoo", "UUDDDDDDU"),
        ("failures while it is down change nothing", "xxxxxxxoo", "UUDDDDDDU"),
        ("it starts anew once it is back", "xxxooxxoxxx", "UUDDUUUUUUD"),
    ],
)
def test_health(rule: str, checks: str, ups: str) -> None:
    health = Health(unhealthy_after=3, healthy_after=2)
    said = ""
    for check in checks:
        was = health.up
        changed = health.checked(check == "o")
        assert changed == (was != health.up)
        said += "U" if health.up else "D"
    assert said == ups, rule


def test_one_check_may_be_enough() -> None:
    health = Health(unhealthy_after=1, healthy_after=1)
    assert [health.checked(ok) and health.up for ok in (False, True)] == [False, True]


# --- ejections


def test_an_ejection_doubles_with_each_failure_in_a_row_up_to_its_longest() -> None:
    ejection = Ejection()
    now, lengths = 100.0, []
    for _ in range(8):
        assert ejection.failed(now, now + 0.5)
        lengths.append(ejection.until - (now + 0.5))
        now = ejection.until
    assert lengths == [1, 2, 4, 8, 16, 30, 30, 30]
    assert lengths[-1] == LONGEST_EJECTION


def test_connects_that_fail_together_count_once() -> None:
    """Also those that began before the ejection and fail after it."""
    ejection = Ejection()
    assert ejection.failed(100.0, 103.0)
    assert not ejection.failed(100.0, 103.0)
    assert not ejection.failed(103.5, 103.9)
    assert not ejection.failed(102.9, 105.9)
    assert ejection.until == 104.0
    assert ejection.failed(104.0, 106.0)
    assert ejection.until == 108.0


def test_a_connect_ends_an_ejection_and_the_row() -> None:
    ejection = Ejection()
    assert not ejection.connected()
    ejection.failed(100.0, 100.0)
    ejection.failed(101.0, 101.0)
    assert ejection.connected()
    assert ejection.until == -inf
    assert ejection.failed(101.5, 101.5)
    assert ejection.until == 102.5


def test_after_an_ejection_one_connect_tries() -> None:
    ejection = Ejection()
    assert not ejection.trying(99.0)  # all is well: whoever wants may
    ejection.failed(100.0, 100.0)
    assert not ejection.trying(100.5)  # a last one standing is no trial
    assert ejection.until == 101.0
    assert ejection.trying(101.0)
    assert not ejection.trying(101.5)
    assert ejection.until == 102.0


def test_a_trial_that_fails_is_the_next_failure_in_a_row() -> None:
    ejection = Ejection()
    ejection.failed(100.0, 100.0)
    ejection.trying(101.0)
    assert ejection.failed(101.0, 101.5)
    assert ejection.until == 103.5


def test_a_trial_without_an_end_keeps_the_others_away_for_a_second() -> None:
    """Its client left, and nobody will tell how it would have ended."""
    ejection = Ejection()
    ejection.failed(100.0, 100.0)
    assert ejection.trying(105.0)
    assert ejection.until == 106.0
    assert ejection.trying(106.0)


# --- the roster


def test_all_are_usable_at_first() -> None:
    assert Roster(3, TERMS).usable(0.0) == (0, 1, 2)


def test_the_tuple_is_the_same_until_something_changes() -> None:
    roster = Roster(3, TERMS)
    everyone = roster.usable(0.0)
    roster.checked(0, True)
    roster.checked(1, False)
    roster.connected(2)
    roster.trying(2, 1.0)
    assert roster.usable(1e9) is everyone
    roster.failed(2, 100.0, 100.0)
    left = roster.usable(100.0)
    assert roster.usable(100.9) is left
    roster.connected(2)
    everyone = roster.usable(101.0)
    assert roster.usable(101.0) is everyone


def test_one_that_is_down_is_out_until_it_is_back() -> None:
    roster = Roster(3, TERMS)
    assert [roster.checked(1, False) for _ in range(3)] == [False, False, True]
    assert roster.usable(0.0) == (0, 2)
    assert [roster.checked(1, True) for _ in range(2)] == [False, True]
    assert roster.usable(0.0) == (0, 1, 2)


def test_one_that_was_ejected_is_out_for_its_time() -> None:
    roster = Roster(3, None)
    assert roster.failed(1, 100.0, 100.0)
    assert roster.failed(2, 100.0, 100.5)
    assert [roster.usable(now) for now in (100.5, 100.99, 101.0, 101.49, 101.5)] == [
        (0,), (0,), (0, 1), (0, 1), (0, 1, 2),
    ]  # fmt: skip


def test_a_connect_brings_it_back_at_once() -> None:
    roster = Roster(2, None)
    roster.failed(0, 100.0, 100.0)
    assert roster.usable(100.1) == (1,)
    assert roster.connected(0)
    assert roster.usable(100.1) == (0, 1)


def test_a_trial_keeps_the_others_away() -> None:
    roster = Roster(2, None)
    roster.failed(0, 100.0, 100.0)
    assert roster.usable(101.0) == (0, 1)
    roster.trying(0, 101.0)
    assert roster.usable(101.0) == (1,)
    roster.failed(0, 101.0, 101.8)
    assert roster.usable(103.7) == (1,)
    assert roster.usable(103.8) == (0, 1)


def test_the_last_ones_standing_are_tried_although_ejected() -> None:
    roster = Roster(3, TERMS)
    for _ in range(3):
        roster.checked(0, False)
    roster.failed(1, 100.0, 100.0)
    assert roster.usable(100.0) == (2,)
    roster.failed(2, 100.0, 100.5)
    assert roster.usable(100.5) == (1, 2)
    assert roster.usable(101.2) == (1,)  # its ejection is over: better than one whose is not


def test_what_was_known_goes_on_in_another_roster() -> None:
    before = Roster(3, TERMS)
    for _ in range(3):
        before.checked(1, False)
    before.failed(2, 100.0, 100.0)
    before.failed(2, 101.0, 101.0)
    after = Roster(2, HealthTerms("/healthz", healthy_after=1))
    assert after.usable(101.0) == (0, 1)
    after.inherit(0, before, 2)
    after.inherit(1, before, 1)
    assert after.usable(101.0) == (0,)  # ejected, but the only one that is up
    assert after.checked(1, True)
    assert after.usable(102.9) == (1,)
    assert after.usable(103.0) == (0, 1)
    assert after.failed(0, 103.0, 103.0)
    assert after.ejections[0].until == 107.0  # the third in a row
    assert before.ejections[2].until == 103.0  # which the other one does not hear of


@pytest.mark.parametrize("terms", [None, HealthTerms("/ready")])
def test_what_another_check_found_does_not_go_on(terms: HealthTerms | None) -> None:
    before = Roster(1, TERMS)
    for _ in range(3):
        before.checked(0, False)
    after = Roster(1, terms)
    after.inherit(0, before, 0)
    assert after.usable(0.0) == (0,)


def test_none_is_usable_where_none_is_up() -> None:
    roster = Roster(2, TERMS)
    for place in (0, 1):
        for _ in range(3):
            roster.checked(place, False)
    assert roster.usable(0.0) == ()
    roster.failed(0, 1.0, 1.0)
    assert roster.usable(5.0) == ()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["well", "ill", "trying", "failed", "connected"]),
            st.integers(0, 2),
            st.one_of(st.just(0.0), st.floats(0, 2), st.floats(0, 40)),
        ),
        max_size=40,
    )
)
def test_what_is_remembered_is_what_would_be_found(
    events: list[tuple[str, int, float]],
) -> None:
    """The roster looks again exactly when it has to."""
    roster = Roster(3, HealthTerms("/", unhealthy_after=2, healthy_after=2))
    now = 0.0
    for what, place, elapsed in events:
        now += elapsed
        match what:
            case "well" | "ill":
                roster.checked(place, what == "well")
            case "trying":
                roster.trying(place, now)
            case "failed":
                roster.failed(place, now, now)
            case "connected":
                roster.connected(place)
        for later in (now, now + 0.5, now + 1.0):
            up = [index for index in range(3) if roster.healths[index].up]
            kept = [index for index in up if roster.ejections[index].until <= later]
            assert list(roster.usable(later)) == (kept or up)
        now = now + 1.0
