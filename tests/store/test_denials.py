"""Denials that are remembered: for how long, for which costs, and when they are forgotten."""

import time
from dataclasses import replace

import pytest

from proxy.core.limits.decision import NOT_ASKED, Decision
from proxy.store.redis.denials import Denials

SECOND = 1_000_000


class Seconds:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def seconds():
    return Seconds()


@pytest.fixture
def denials(seconds):
    return Denials(seconds, 100)


def denied(reset=5 * SECOND, retry_after=9 * SECOND):
    return Decision(False, 0, reset, retry_after, 0)


def remember(denials, charges, decisions, *, asked=100.0, forgotten=0):
    names = [charge.key for charge in charges]
    denials.remember(charges, names, decisions, asked, forgotten)


def ask(denials, *charges):
    return denials.answer(charges, [charge.key for charge in charges])


def test_a_denial_answers_with_the_time_that_is_left(denials, seconds, make):
    charge = make.charge(make.limit("token_bucket", 5))
    remember(denials, [charge], [denied()])
    seconds.now += 0.25
    assert ask(denials, charge) == [Decision(False, 0, 4_750_000, 8_750_000, 0)]


@pytest.mark.parametrize(
    ("retry_after", "held"),
    [(9 * SECOND, 1.0), (SECOND // 4, 0.25), (1, 0.000001)],
    ids=["a second at most", "until it could pass", "a microsecond"],
)
def test_how_long(denials, seconds, make, retry_after, held):
    charge = make.charge(make.limit("fixed_window", 5))
    remember(denials, [charge], [denied(1, retry_after)])
    seconds.now = 100.0 + held * 0.99
    assert ask(denials, charge) is not None
    seconds.now = 100.0 + held
    assert ask(denials, charge) is None
    assert len(denials) == 0


def test_it_counts_from_when_the_store_was_asked(denials, seconds, make):
    charge = make.charge(make.limit("fixed_window", 5))
    remember(denials, [charge], [denied(1, SECOND)], asked=99.2)
    seconds.now = 100.25
    assert ask(denials, charge) is None


@pytest.mark.parametrize(("cost", "known"), [(2, False), (3, True), (5, True), (0, False)])
def test_for_its_cost_and_above(denials, make, cost, known):
    limit = make.limit("sliding_log", 5)
    remember(denials, [make.charge(limit, 1, 3)], [denied()])
    assert (ask(denials, make.charge(limit, 1, cost)) is not None) == known


def test_not_for_another_key(denials, make):
    limit = make.limit("sliding_log", 5)
    remember(denials, [make.charge(limit, 1)], [denied()])
    assert ask(denials, make.charge(limit, 2)) is None


def test_not_for_limits_whose_charges_may_be_refunded(denials, make):
    limit = replace(make.limit("sliding_log", 5), refundable=True)
    remember(denials, [make.charge(limit)], [denied()])
    assert len(denials) == 0


def test_not_for_shadow_limits(denials, make):
    shadow = make.charge(make.limit("sliding_log", 5, shadow=True))
    remember(denials, [shadow], [denied()])
    assert len(denials) == 0


def test_not_after_a_reload_has_changed_the_limit(denials, make):
    limit = make.limit("token_bucket", 5)
    remember(denials, [make.charge(limit)], [denied()])
    assert ask(denials, make.charge(replace(limit, quota=9))) is None


def test_not_where_a_key_was_asked_twice(denials, make):
    """Together they did not fit; one of them may."""
    charge = make.charge(make.limit("token_bucket", 5))
    remember(denials, [charge, charge], [Decision(True, 0, 1, 0, 0), denied()])
    assert ask(denials, charge) is None


def test_one_denial_refuses_a_request_and_says_nothing_of_the_others(denials, make):
    known = make.charge(make.limit("token_bucket", 5, name="known"), 1)
    other = make.charge(make.limit("token_bucket", 7, name="other"), 2)
    remember(denials, [known], [denied()])
    answer = ask(denials, other, known)
    assert answer == [NOT_ASKED, denied()]
    assert answer[0] is NOT_ASKED
    assert ask(denials, other) is None


def test_a_shadow_limit_is_asked_all_the_same(denials, make):
    known = make.charge(make.limit("token_bucket", 5, name="known"), 1)
    shadow = make.charge(make.limit("token_bucket", 9, name="shadow", shadow=True), 1)
    remember(denials, [known], [denied()])
    assert ask(denials, known, shadow) is None
    assert ask(denials, shadow, known) is None
    assert ask(denials, known) == [denied()]


def test_beside_other_limits_it_answers_for_a_tenth_of_a_second(denials, seconds, make):
    """They may have come to refuse, too, and each that does is named."""
    known = make.charge(make.limit("token_bucket", 5, name="known"), 1)
    other = make.charge(make.limit("token_bucket", 7, name="other"), 2)
    remember(denials, [known, other], [denied(), Decision(True, 7, 1, 0, 0)])
    seconds.now = 100.09
    assert ask(denials, known, other) is not None
    seconds.now = 100.1
    assert ask(denials, known, other) is None
    assert ask(denials, known) is not None


def test_a_reset_forgets_one_key_and_what_was_asked_before_it(denials, make):
    limit = make.limit("token_bucket", 5)
    one, two = make.charge(limit, 1), make.charge(limit, 2)
    remember(denials, [one], [denied()])
    remember(denials, [two], [denied()])
    denials.forget(one.key)
    assert ask(denials, one) is None
    assert ask(denials, two) is not None
    remember(denials, [one], [denied()], forgotten=0)  # its answer was under way meanwhile
    assert ask(denials, one) is None
    remember(denials, [one], [denied()], forgotten=1)
    assert ask(denials, one) is not None


def test_all_is_forgotten_where_resets_may_have_been_missed(denials, make):
    charge = make.charge(make.limit("token_bucket", 5))
    remember(denials, [charge], [denied()])
    denials.forget_all()
    assert ask(denials, charge) is None
    remember(denials, [charge], [denied()], forgotten=0)
    assert len(denials) == 0


def test_the_oldest_goes_first(denials, make):
    limit = make.limit("token_bucket", 5)
    charges = [make.charge(limit, value) for value in range(150)]
    for charge in charges:
        remember(denials, [charge], [denied()])
        if charge is not charges[0]:
            remember(denials, [charges[0]], [denied()])
    assert len(denials) == 100
    assert ask(denials, charges[1]) is None
    assert ask(denials, charges[0]) is not None
    assert ask(denials, charges[149]) is not None


def test_remembering_takes_no_longer_once_many_are_remembered(seconds, make):
    limit = make.limit("token_bucket", 5)
    charges = [make.charge(limit, n) for n in range(70_000)]

    def took(before, most):
        denials = Denials(seconds, most)
        for charge in charges[:before]:
            remember(denials, [charge], [denied()])
        began = time.thread_time()
        for charge in charges[before : before + 4000]:
            remember(denials, [charge], [denied()])
        return time.thread_time() - began

    at_first = min(took(0, 65_536) for _ in range(3))
    at_last = min(took(65_536, 65_536) for _ in range(3))
    # Walking over what was forgotten before takes a hundred times as long.
    assert at_last < 10 * at_first
