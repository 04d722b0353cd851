"""Idempotency records: the table row by row, and what must hold whoever comes when."""

from itertools import product
from typing import NamedTuple

import pytest
from facts_kit import facts
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.core import idempotency as core
from proxy.core.idempotency import (
    TRANSITIONS,
    Answer,
    Event,
    Mine,
    Mismatch,
    Record,
    Replay,
    Running,
    State,
    Terms,
    TooLarge,
    Unknown,
)

START = 1_000_000
TTL, LEASE = 50_000, 10_000
HOLD = Terms(TTL, lease=LEASE)
GIVEN_AGAIN = Terms(TTL, release_unknown=True, lease=LEASE)
ME, YOU = b"me", b"you"
PRINT, PRINT_2 = b"one", b"two"
ANSWER = Answer(201, "Created", [("X-A", "1")], b"paid")
OUTCOMES = {
    Event.RECORD: State.RECORDED,
    Event.OUTGROW: State.TOO_LARGE,
    Event.LOSE: State.UNKNOWN,
}


def record_in(state: State) -> Record:
    """A record of mine that said this at START."""
    record, verdict = core.claim(None, ME, PRINT, HOLD, START)
    assert record is not None
    assert verdict == Mine()
    if state is not State.CLAIMED:
        assert core.mark_sent(record, ME, HOLD, START)
    if state not in (State.CLAIMED, State.SENT):
        answer = ANSWER if state is State.RECORDED else None
        assert core.settle(record, ME, PRINT, state, answer, HOLD, START) == (record, True)
    assert record.at(START) is state
    return record


def happen(record: Record | None, event: Event) -> tuple[State | None, bool]:
    """What the record says after the event, and whether it was taken."""
    now = START
    if event in (Event.CLAIM, Event.TAKE_OVER):
        terms = GIVEN_AGAIN if event is Event.TAKE_OVER else HOLD
        after, verdict = core.claim(record, YOU, PRINT, terms, now)
        return (None if after is None else after.at(now)), verdict == Mine()
    if event is Event.RELEASE:
        let_go = core.release(record, ME, now)
        return (None if let_go or record is None else record.at(now)), let_go
    if event is Event.MARK_SENT:
        taken = core.mark_sent(record, ME, HOLD, now)
    elif event in OUTCOMES:
        outcome = OUTCOMES[event]
        answer = ANSWER if outcome is State.RECORDED else None
        record, taken = core.settle(record, ME, PRINT, outcome, answer, HOLD, now)
    else:
        over = {Event.LEASE_OVER: LEASE, Event.TTL_OVER: TTL}[event]
        before = None if record is None else record.at(now)
        after_state = None if record is None else record.at(now + over)
        return after_state, after_state is not before
    return (None if record is None else record.at(now)), taken


HAPPENS = [event for event in Event if event is not Event.FREE]  # the stores remove what is freed
# An absent record is claimed by whatever comes; a mark may be made twice.
BESIDE = {(None, Event.TAKE_OVER), (State.SENT, Event.MARK_SENT), (State.CLAIMED, Event.TTL_OVER)}


@pytest.mark.parametrize(
    ("state", "event"),
    [row for row in product([None, *State], HAPPENS) if row not in BESIDE],
    ids=lambda word: getattr(word, "value", "absent"),
)
def test_it_is_the_table_and_nothing_else(state: State | None, event: Event) -> None:
    record = None if state is None else record_in(state)
    after, taken = happen(record, event)
    said_again = TRANSITIONS.get((state, event), event) is state
    assert taken is ((state, event) in TRANSITIONS)
    assert said_again is (OUTCOMES.get(event) is state and state is not None)
    assert after is TRANSITIONS.get((state, event), state)


def test_every_live_state_can_be_freed_and_ends() -> None:
    assert {state for (state, event) in TRANSITIONS if event is Event.FREE} == set(State)
    ends = {state for (state, event) in TRANSITIONS if event in (Event.TTL_OVER, Event.LEASE_OVER)}
    assert ends == set(State)


def test_a_mark_made_twice_counts_the_lease_anew_and_the_ttl_once() -> None:
    record = record_in(State.SENT)
    assert core.mark_sent(record, ME, HOLD, START + 1)
    assert record.at(START + LEASE) is State.SENT
    assert record.at(START + LEASE + 1) is State.UNKNOWN
    assert record.at(START + TTL) is None


@pytest.mark.parametrize(
    ("state", "at", "said"),
    [
        (State.CLAIMED, LEASE - 1, State.CLAIMED),
        (State.CLAIMED, LEASE, None),
        (State.SENT, LEASE - 1, State.SENT),
        (State.SENT, LEASE, State.UNKNOWN),
        (State.SENT, TTL - 1, State.UNKNOWN),
        (State.SENT, TTL, None),
        (State.UNKNOWN, LEASE, State.UNKNOWN),
        (State.UNKNOWN, TTL, None),
        (State.RECORDED, TTL - 1, State.RECORDED),
        (State.RECORDED, TTL, None),
        (State.TOO_LARGE, TTL - 1, State.TOO_LARGE),
        (State.TOO_LARGE, TTL, None),
    ],
)
def test_what_it_says_as_time_goes_by(state: State, at: int, said: State | None) -> None:
    assert record_in(state).at(START + at) is said


@pytest.mark.parametrize(
    ("state", "at", "may"),
    [
        (State.CLAIMED, LEASE - 1, True),
        (State.CLAIMED, LEASE, False),
        (State.SENT, LEASE - 1, True),
        (State.SENT, LEASE, True),
        (State.SENT, TTL - 1, True),
        (State.SENT, TTL, False),
        (State.UNKNOWN, 0, False),
        (State.RECORDED, 0, False),
        (State.TOO_LARGE, 0, False),
    ],
)
def test_who_may_renew(state: State, at: int, may: bool) -> None:
    record = record_in(state)
    assert core.renew(record, ME, HOLD, START + at) is may
    if may:
        assert record.at(START + at) is state
        assert record.lease_ends == START + at + LEASE


@pytest.mark.parametrize("state", State)
def test_a_stranger_changes_nothing(state: State) -> None:
    record = record_in(state)
    before = facts(record)
    assert not core.mark_sent(record, YOU, HOLD, START)
    assert not core.renew(record, YOU, HOLD, START)
    assert not core.release(record, YOU, START)
    for outcome in OUTCOMES.values():
        assert core.settle(record, YOU, PRINT, outcome, None, HOLD, START) == (record, False)
    assert facts(record) == before


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (State.RECORDED, Replay(ANSWER)),
        (State.TOO_LARGE, TooLarge()),
        (State.UNKNOWN, Unknown()),
    ],
)
@pytest.mark.parametrize("over", [False, True], ids=["lost", "over"])
def test_an_owner_that_finds_nothing_makes_it_known(
    outcome: State, verdict: object, over: bool
) -> None:
    """What is over of another's is nothing, too."""
    before = None
    if over:
        before, _ = core.claim(None, YOU, PRINT_2, HOLD, START - LEASE)
    answer = ANSWER if outcome is State.RECORDED else None
    record, taken = core.settle(before, ME, PRINT, outcome, answer, HOLD, START)
    assert taken
    assert core.claim(record, YOU, PRINT, HOLD, START + TTL - 1) == (record, verdict)
    assert core.claim(record, YOU, PRINT_2, HOLD, START) == (record, Mismatch())
    assert not core.mark_sent(record, ME, HOLD, START)
    assert core.claim(record, YOU, PRINT, HOLD, START + TTL)[1] == Mine()


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("terms", [HOLD, GIVEN_AGAIN])
def test_another_request_is_a_mismatch_before_anything_else(state: State, terms: Terms) -> None:
    record = record_in(state)
    assert core.claim(record, YOU, PRINT_2, terms, START) == (record, Mismatch())


# Whoever comes when: a slow model of what is promised.


class Sent(NamedTuple):
    """Somebody was allowed to send."""

    token: bytes
    until: int
    """While it counts against others."""


class Slow:
    """A record in plain words: time passes in single steps, and every lapse happens when it is
    due."""

    def __init__(self) -> None:
        self.now = START
        self.phase = "nothing"
        self.owner = self.print = b""
        self.lease = self.forgotten = 0
        self.silent = False
        """Sent, and its owner has not been heard of for a lease."""

    def pass_time(self, ms: int) -> None:
        self.now += ms
        if self.phase == "claimed" and self.now >= self.lease:
            self.phase = "nothing"
        if self.phase == "sent" and self.now >= self.lease:
            self.silent = True
        if self.phase not in ("nothing", "claimed") and self.now >= self.forgotten:
            self.phase = "nothing"

    def claim(self, token: bytes, print_: bytes, *, again: bool) -> str:
        unknown = self.phase == "unknown" or (self.phase == "sent" and self.silent)
        if self.phase != "nothing":
            if print_ != self.print:
                return "mismatch"
            if unknown and not again:
                return "unknown"
            if not unknown:
                return "running" if self.phase in ("claimed", "sent") else self.phase
        self.phase, self.owner, self.print = "claimed", token, print_
        self.lease, self.silent = self.now + LEASE, False
        return "mine"

    def sent(self, token: bytes) -> bool:
        if token != self.owner or self.phase not in ("claimed", "sent") or self.silent:
            return False
        if self.phase == "claimed":
            self.phase, self.forgotten = "sent", self.now + TTL
        self.lease = self.now + LEASE
        return True

    def renew(self, token: bytes) -> bool:
        if token != self.owner or self.phase not in ("claimed", "sent"):
            return False
        self.lease, self.silent = self.now + LEASE, False
        return True

    def settle(self, token: bytes, print_: bytes, outcome: str) -> bool:
        if self.phase == "nothing":
            self.owner, self.print = token, print_
        elif token != self.owner or self.phase not in ("sent", "unknown", outcome):
            return False
        self.phase, self.forgotten, self.silent = outcome, self.now + TTL, False
        return True

    def release(self, token: bytes) -> bool:
        if token != self.owner or self.phase not in ("claimed", "sent", "unknown"):
            return False
        self.phase = "nothing"
        return True


WORDS = {Mine: "mine", Running: "running", Mismatch: "mismatch", Unknown: "unknown",
         Replay: "recorded", TooLarge: "too_large"}  # fmt: skip
OWNERS = st.integers(0, 3).map(lambda number: b"owner %d" % number)
PRINTS = st.sampled_from([PRINT, PRINT, PRINT, PRINT_2])
JUMPS = st.one_of(
    st.integers(1, 5),
    st.sampled_from([LEASE - 1, LEASE, LEASE + 1, LEASE // 3, TTL - 1, TTL, TTL - LEASE, TTL + 1]),
)


class Interleavings(RuleBasedStateMachine):
    """Several owners of one record, who claim, send, die and come back late, with `hold`."""

    terms = HOLD

    def __init__(self) -> None:
        super().__init__()
        self.record: Record | None = None
        self.model = Slow()
        self.now = START
        self.executions: list[Sent] = []
        self.lives = dict.fromkeys(range(4), 0)

    def token(self, owner: bytes) -> bytes:
        """One that has died comes back as another."""
        return owner + b"/%d" % self.lives[int(owner[-1:])]

    @rule(ms=JUMPS)
    def time_passes(self, ms: int) -> None:
        self.now += ms
        self.model.pass_time(ms)

    @rule(owner=OWNERS, print_=PRINTS)
    def claim(self, owner: bytes, print_: bytes) -> None:
        token = self.token(owner)
        self.record, verdict = core.claim(self.record, token, print_, self.terms, self.now)
        said = self.model.claim(token, print_, again=self.terms.release_unknown)
        assert WORDS[type(verdict)] == said
        if isinstance(verdict, Running):
            assert verdict.left == self.model.lease - self.now > 0
        if isinstance(verdict, Replay):
            assert verdict.answer is ANSWER

    @rule(owner=OWNERS)
    def mark_sent(self, owner: bytes) -> None:
        token = self.token(owner)
        allowed = core.mark_sent(self.record, token, self.terms, self.now)
        assert allowed == self.model.sent(token)
        if allowed and token not in [execution.token for execution in self.in_force()]:
            self.executions.append(Sent(token, self.now + TTL))

    @rule(owner=OWNERS)
    def renew(self, owner: bytes) -> None:
        token = self.token(owner)
        renewed = core.renew(self.record, token, self.terms, self.now)
        assert renewed == self.model.renew(token)

    @rule(owner=OWNERS, print_=PRINTS, outcome=st.sampled_from([*OUTCOMES.values()]))
    def settle(self, owner: bytes, print_: bytes, outcome: State) -> None:
        """Also by one whose record was lost, or is over."""
        token = self.token(owner)
        answer = ANSWER if outcome is State.RECORDED else None
        self.record, settled = core.settle(
            self.record, token, print_, outcome, answer, self.terms, self.now
        )
        assert settled == self.model.settle(token, print_, outcome.value)
        if settled:
            others = [one for one in self.in_force() if one.token != token]
            self.executions = [*others, Sent(token, self.now + TTL)]

    @rule(owner=OWNERS)
    def release(self, owner: bytes) -> None:
        token = self.token(owner)
        released = core.release(self.record, token, self.now)
        assert released == self.model.release(token)
        if released:
            self.record = None
            self.executions = [one for one in self.executions if one.token != token]

    @rule(owner=OWNERS)
    def die(self, owner: bytes) -> None:
        self.lives[int(owner[-1:])] += 1

    @rule()
    def free(self) -> None:
        """By an operator, or by a store that forgets."""
        self.record = None
        self.model.phase = "nothing"
        self.executions = []

    def in_force(self) -> list[Sent]:
        return [one for one in self.executions if self.now < one.until]

    @invariant()
    def never_two_executions(self) -> None:
        if not self.terms.release_unknown:
            assert len(self.in_force()) <= 1

    @invariant()
    def a_live_execution_is_not_forgotten(self) -> None:
        if self.in_force():
            assert self.record is not None
            assert self.record.at(self.now) not in (None, State.CLAIMED)


class InterleavingsGivenAgain(Interleavings):
    """With `release`: what is unknown may be executed again, and nothing else may."""

    terms = GIVEN_AGAIN

    @invariant()
    def a_live_execution_is_not_forgotten(self) -> None:
        """Unless it was unknown, and taken over."""

    @invariant()
    def what_is_known_is_not_executed_again(self) -> None:
        if self.record is not None and self.record.at(self.now) is State.RECORDED:
            assert self.record.answer is ANSWER


Interleavings.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
InterleavingsGivenAgain.TestCase.settings = Interleavings.TestCase.settings
TestInterleavings = Interleavings.TestCase
TestInterleavingsGivenAgain = InterleavingsGivenAgain.TestCase
