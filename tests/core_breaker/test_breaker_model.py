"""The breaker beside a slow model: whatever happens, in any order and however late, both are alike
after every step."""

from breaker_kit import CLOSED, HALF_OPEN, JITTER, OPEN, Model
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from proxy.core.breaker import TRANSITIONS, Breaker, BreakerTerms, Event, Refused

# Binary fractions, so that sums of times are exact and edges are met and not only neared.
EIGHTHS = st.integers(0, 40).map(lambda n: n / 8)
SHARES = st.sampled_from([0.0, 0.0, 0.1, 1 / 3, 0.5, 1.0])
TERMS = st.builds(
    BreakerTerms,
    consecutive_failures=st.sampled_from([0, 0, 1, 2, 3, 5]),
    failure_rate=SHARES,
    slow_rate=SHARES,
    slow_after=st.just(2.0),
    minimum_requests=st.integers(1, 6),
    window=st.sampled_from([0.5, 1.0, 2.0, 2.5, 4.0, 10.0]),
    open_for=st.sampled_from([0.5, 4.0, 30.0]),
    open_max=st.sampled_from([4.0, 20.0, 300.0]),
    half_open_requests=st.integers(1, 4),
    probe_timeout=st.sampled_from([1.0, 8.0, 30.0]),
)
# What becomes of a request, and in how many seconds.
ENDS = st.one_of(
    st.tuples(st.just("good"), st.sampled_from([None, 0.0, 2.0, 2.125, 50.0])),
    st.tuples(st.sampled_from(["failed", "failed", "failed", "neutral", "broke"])),
)
# Not the clock's first second, and not the beginning of one.
START = st.sampled_from([0.0, 0.25, 1.0, 1_000_000.875])


class Alike(RuleBasedStateMachine):
    requests = Bundle("requests")

    @initialize(terms=TERMS, now=START)
    def begin(self, terms, now):
        self.now = now
        self.terms = terms
        self.model = Model(terms)
        self.breaker = Breaker(terms, lambda: self.model.chance)
        self.turns = []
        self.asked = []
        self.breaker.on_transition = self.turned

    def turned(self, transition):
        self.turns.append(transition)
        # The observer finds the breaker as it is after the transition.
        assert self.breaker.generation == self.model.epoch
        assert transition.new == TRANSITIONS[transition.old, transition.event]
        assert transition.reason == self.breaker.reason != ""
        assert transition.retry_in == self.breaker.retry_in(self.now)

    # Requests

    @rule(target=requests)
    def ask(self):
        ticket = self.model.ask(self.now)
        permit = self.breaker.admit(self.now)
        if isinstance(permit, Refused):
            assert ticket is None
            assert permit.retry_in == self.model.retry_in(self.now) > 0
            assert permit.reason
        else:
            assert ticket is not None
            assert permit.probe == ticket.probe
            assert permit.generation == ticket.epoch
        self.asked.append((permit, ticket))
        return permit, ticket

    def both(self, request, what, took=1.0):
        permit, ticket = request
        if ticket is None:
            return
        if what == "broke":
            self.model.broke(ticket, self.now)
            self.breaker.broke(permit, self.now)
            return
        slow = what == "good" and took is not None and took > 2
        self.model.result(ticket, self.now, "slow" if slow else what)
        if what == "good":
            self.breaker.succeeded(permit, self.now, took)
        elif what == "failed":
            self.breaker.failed(permit, self.now, "timeout")
        else:
            self.breaker.neutral(permit, self.now)

    @rule(request=requests, end=ENDS)
    def end(self, request, end):
        """Any request, however old, and although it ended before."""
        self.both(request, *end)

    @rule(
        back=st.integers(1, 4),
        later=st.sampled_from([0.0, 0.0, 0.0, 1.0, 8.0, 30.0]),
        end=ENDS,
        breaks=st.booleans(),
    )
    def end_recent(self, back, later, end, breaks):
        """A request of the running generation, where there is one; its body may break off. Time
        passes here, so that nobody has looked between: looking must not be what drops a result."""
        running = [r for r in self.asked if r[1] is not None and r[1].epoch == self.model.epoch]
        if not running:
            return
        request = running[-min(back, len(running))]
        self.now += later
        self.both(request, *end)
        if end[0] == "good" and breaks:
            self.both(request, "broke")

    @rule(back=st.integers(1, 6), later=st.sampled_from([0.0, 0.5, 8.0]), goes_on=st.booleans())
    def pause(self, back, later, goes_on):
        """A recent request waits for its client, and may go on after a while."""
        running = [r for r in self.asked if r[1] is not None and r[1].epoch == self.model.epoch]
        if not running:
            return
        permit, ticket = running[-min(back, len(running))]
        self.model.pause(ticket, self.now)
        self.breaker.pause(permit, self.now)
        self.now += later
        if goes_on:
            self.model.resume(ticket, self.now)
            self.breaker.resume(permit, self.now)

    @rule(request=requests)
    def resume(self, request):
        """Any request, although it was not paused."""
        permit, ticket = request
        if ticket is not None:
            self.model.resume(ticket, self.now)
            self.breaker.resume(permit, self.now)

    @rule(ends=st.lists(ENDS, min_size=1, max_size=8))
    def burst(self, ends):
        """Requests that end at once."""
        for end in ends:
            self.both(self.ask(), *end)

    @rule(asks=st.integers(1, 5))
    def half_open(self, asks):
        """Probes leave; where it is closed, another replica opened it first."""
        if self.model.forced is None:
            if self.model.state is CLOSED:
                self.tell(OPEN, 8.0)
            if self.model.state is OPEN:
                self.now = max(self.now, self.model.until)
        for _ in range(asks):
            self.ask()

    # Time

    @rule(by=st.one_of(EIGHTHS, EIGHTHS, st.sampled_from([60.0, 3600.0, 1e6])))
    def wait(self, by):
        self.now += by

    @rule(short=st.sampled_from([0.0, 0.0, 2**-20]))
    def go_to_edge(self, short):
        """To when it may turn half-open or the first probe's place comes free, or just before."""
        edges = [self.model.until, *self.model.in_flight(self.now)]
        edge = min((edge for edge in edges if edge > self.now), default=self.now)
        self.now = max(self.now, edge - short)

    @rule(chance=st.sampled_from([0.0, 0.5, 1.0]))
    def draw(self, chance):
        self.model.chance = chance

    # Orders: all of one rule, or nothing would be left to itself for long

    @rule(
        order=st.one_of(
            st.tuples(st.just("force"), st.sampled_from([None, None, OPEN, CLOSED])),
            st.tuples(st.just("tell"), st.sampled_from([OPEN, CLOSED])),
        ),
        for_=st.sampled_from([-1.0, 0.0, 1.0, 8.0, 33.0, 1e9]),
    )
    def order(self, order, for_):
        who, to = order
        if who == "force":
            self.model.force(to)
            self.breaker.force(to, self.now)
        else:
            self.tell(to, for_)

    def tell(self, to, for_):
        self.model.told(to, self.now, for_)
        self.breaker.told(to, self.now, for_)

    # Always

    @invariant()
    def alike(self):
        now, model, breaker = self.now, self.model, self.breaker
        assert breaker.state(now) is model.seen(now)
        assert breaker.forced is model.forced
        assert breaker.generation == model.epoch
        assert breaker.retry_in(now) == model.retry_in(now)
        assert breaker.probes(now) == len(model.in_flight(now))
        assert tuple(breaker.counts(now)) == model.counts(now)
        assert [(turn.old, turn.new) for turn in self.turns] == model.turns

    @invariant()
    def lawful(self):
        """What users are promised, whatever the model says."""
        now, terms = self.now, self.terms
        assert self.breaker.probes(now) <= terms.half_open_requests
        if self.breaker.forced is None:
            assert self.breaker.retry_in(now) <= max(1.0, terms.open_max * (1 + JITTER)) + 1e-6
        for turn in self.turns:
            if turn.new is not OPEN:
                assert turn.retry_in == 0
            elif turn.event in (Event.TRIP, Event.RELAPSE):
                shortest = min(terms.open_for, terms.open_max)
                assert shortest - 1e-6 <= turn.retry_in <= terms.open_max * (1 + JITTER) + 1e-6
            if turn.new is HALF_OPEN:
                assert turn.old is OPEN


Alike.TestCase.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
TestAlike = Alike.TestCase
