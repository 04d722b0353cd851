"""Terms, a player of worked examples, and a model of the breaker."""

from math import ceil, floor

from proxy.core.breaker import Breaker, BreakerTerms, Permit, Refused, State

CLOSED, HALF_OPEN, OPEN = State.CLOSED, State.HALF_OPEN, State.OPEN
JITTER = 0.1

ROW = BreakerTerms()
RATE = BreakerTerms(consecutive_failures=0, failure_rate=0.5, minimum_requests=4)
ODD_RATE = BreakerTerms(consecutive_failures=0, failure_rate=0.14, minimum_requests=50)
SLOW = BreakerTerms(consecutive_failures=0, slow_rate=0.5, minimum_requests=4)
BOTH = BreakerTerms(failure_rate=0.5, slow_rate=0.5, minimum_requests=4)
OFF = BreakerTerms(consecutive_failures=0)
ONE = BreakerTerms(consecutive_failures=1, half_open_requests=1, open_for=30, open_max=300)
TWO = BreakerTerms(consecutive_failures=1, half_open_requests=2, probe_timeout=8)
TWO_SLOW = BreakerTerms(consecutive_failures=1, half_open_requests=2, slow_rate=0.5)
QUICK = BreakerTerms(failure_rate=0.5, minimum_requests=4, open_for=1)
BIG = BreakerTerms(consecutive_failures=1, half_open_requests=1, open_for=30, open_max=20)

TOOK = {"good": 0.01, "slow": 2.001, "2s": 2.0, "timeless": None}
FORCED = {"open": OPEN, "closed": CLOSED, "auto": None}


class Script:
    """Plays a row's steps on a breaker."""

    def __init__(self, terms):
        self.breaker = Breaker(terms, lambda: 0.0)
        self.permits = {}

    def play(self, now, what):
        verb, *words = what.split()
        if verb == "ask":
            self.permits[words[0]] = self.admitted(now)
        elif verb == "refused":
            refused = self.breaker.admit(now)
            assert isinstance(refused, Refused)
            assert refused.retry_in > 0
        elif verb == "force":
            self.breaker.force(FORCED[words[0]], now)
        elif verb == "told":
            self.breaker.told(FORCED[words[0]], now, float(words[1]) if words[1:] else 0.0)
        else:
            self.end(verb, self.permits[words[0]] if words else self.admitted(now), now)

    def admitted(self, now):
        permit = self.breaker.admit(now)
        assert isinstance(permit, Permit)
        return permit

    def end(self, verb, permit, now):
        if verb in TOOK:
            self.breaker.succeeded(permit, now, TOOK[verb])
        elif verb == "fail":
            self.breaker.failed(permit, now, "connect_error")
        elif verb == "neutral":
            self.breaker.neutral(permit, now)
        else:
            assert verb == "broke"
            self.breaker.broke(permit, now)


class Ticket:
    """One request that was let through."""

    def __init__(self, epoch, began, probe):
        self.epoch = epoch
        self.began = began
        self.probe = probe
        self.ended = False
        self.paused = False
        self.succeeded = False


class Model:
    """A breaker that is slow and correct by looking: it keeps every request and every result with
    its time, and works everything out again whenever it is asked.

    `chance` is what the next opening draws. `turns` has every change of state."""

    def __init__(self, terms):
        self.terms = terms
        self.chance = 0.0
        self.state = CLOSED
        self.forced = None
        self.epoch = 1
        self.until = 0.0
        self.nominal = None  # of the last opening since it was closed
        self.tickets = []
        self.results = []  # (time, what, epoch), of those that were let through while closed
        self.turns = []

    # What it does

    def ask(self, now):
        """A ticket, or None: refused."""
        if self.seen(now) is HALF_OPEN:
            if self.state is OPEN:
                self.turn(HALF_OPEN)
            if len(self.in_flight(now)) >= self.terms.half_open_requests:
                return None
        elif self.state is OPEN:
            return None
        ticket = Ticket(self.epoch, now, self.state is HALF_OPEN)
        self.tickets.append(ticket)
        return ticket

    def result(self, ticket, now, what):
        """`what`: good, slow, failed or neutral."""
        if ticket.epoch != self.epoch:
            return
        if not ticket.probe:
            if what != "neutral":
                self.results.append((now, what, self.epoch))
                self.judge(now)
            return
        expired = not ticket.paused and now >= ticket.began + self.terms.probe_timeout
        late = ticket.ended or expired
        ticket.ended = True
        if late or what == "neutral":
            return
        if what == "failed" or (what == "slow" and self.terms.slow_rate > 0):
            self.relapse(now)
            return
        ticket.succeeded = True
        proofs = [t for t in self.tickets if t.epoch == self.epoch and t.succeeded]
        if len(proofs) == self.terms.half_open_requests:
            self.turn(CLOSED)

    def pause(self, ticket, now):
        if ticket.epoch == self.epoch and ticket.probe:
            if now >= ticket.began + self.terms.probe_timeout and not ticket.paused:
                ticket.ended = True
            ticket.paused = True

    def resume(self, ticket, now):
        free = len(self.in_flight(now)) < self.terms.half_open_requests
        if ticket.epoch == self.epoch and ticket.paused and not ticket.ended and free:
            ticket.paused = False
            ticket.began = now

    def broke(self, ticket, now):
        if ticket.epoch != self.epoch:
            return
        if not ticket.probe:
            self.result(ticket, now, "failed")
        elif ticket.succeeded:
            self.relapse(now)

    def force(self, to):
        if to is not self.forced:
            self.forced = to
            self.turn(CLOSED if to is None else to)

    def told(self, to, now, for_):
        if self.forced is not None or self.state is to is CLOSED:
            return
        if to is CLOSED:
            self.turn(CLOSED)
            return
        for_ = min(for_, self.terms.open_max * (1 + JITTER))
        self.until = now + for_ if self.state is not OPEN else max(self.until, now + for_)
        own = self.nominal or min(self.terms.open_for, self.terms.open_max)
        self.nominal = max(own, for_ / (1 + JITTER))
        if self.state is not OPEN:
            self.turn(OPEN)

    def judge(self, now):
        terms = self.terms
        if self.forced is not None:
            return
        row = 0
        for _, what, epoch in reversed(self.results):
            if epoch != self.epoch or what != "failed":
                break
            row += 1
        total, failed, slow = self.counts(now)
        rated = total >= terms.minimum_requests
        if (
            (terms.consecutive_failures and row >= terms.consecutive_failures)
            or (rated and terms.failure_rate and failed / total >= terms.failure_rate)
            or (rated and terms.slow_rate and slow / total >= terms.slow_rate)
        ):
            self.open(now, min(terms.open_for, terms.open_max))

    def relapse(self, now):
        self.open(now, min(2 * self.nominal, self.terms.open_max))

    def open(self, now, nominal):
        self.nominal = nominal
        self.until = now + nominal * (1 + JITTER * self.chance)
        self.turn(OPEN)

    def turn(self, to):
        if to is not self.state:
            self.turns.append((self.state, to))
        self.state = to
        self.epoch += 1
        if to is CLOSED:
            self.nominal = None

    # What it looks like

    def seen(self, now):
        due = self.state is OPEN and self.forced is None and now >= self.until
        return HALF_OPEN if due else self.state

    def counts(self, now):
        """(total, failed, slow) of the running second and the whole ones before it."""
        first = floor(now) - ceil(self.terms.window) + 1
        within = [w for t, w, epoch in self.results if epoch == self.epoch and floor(t) >= first]
        return len(within), within.count("failed"), within.count("slow")

    def in_flight(self, now):
        """Deadlines of the probes that hold a place."""
        timeout = self.terms.probe_timeout
        return [
            ticket.began + timeout
            for ticket in self.tickets
            if ticket.epoch == self.epoch and ticket.probe and not ticket.ended
            if not ticket.paused
            if ticket.began + timeout > now
        ]

    def retry_in(self, now):
        if self.forced is OPEN:
            return max(1.0, self.terms.open_for)
        if self.state is OPEN:
            return max(0.0, self.until - now)
        out = self.in_flight(now)
        if self.state is HALF_OPEN and len(out) >= self.terms.half_open_requests:
            return min(1.0, min(out) - now)
        return 0.0
