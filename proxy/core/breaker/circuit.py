"""The breaker of one upstream in one process.

Closed, everything passes and results are counted. It opens after so many failures in a row, or when
the share of failures or of slow answers is reached. Open, everything is refused. Once the open time
is over it is half-open: a few probes pass; one failure opens it again for twice as long, enough
successes close it. `terms.TRANSITIONS` is the table.

Rules:
- Pure and lazy: time and chance are arguments; without requests nothing happens. A circuit whose
  open time is over turns half-open when the next request asks.
- Every transition begins a new generation, with counts of its own. A result changes nothing unless
  its permit is of the running one: a slow success from before the trip closes nothing, and a
  failure from then does not open it again.
- A probe's place is freed by its result, its neutral end or its deadline, whichever is first. What
  comes after that is dropped. So a probe that never returns holds a place for a while only.
- A place is held only while the upstream is waited for. A probe whose client is slow is paused: it
  has no place and no deadline. It goes on if there is a place for it again. A result that comes
  before counts all the same: the upstream gave it.
- Every result is judged, a success too: a rate counts from the `minimum_requests`th result on,
  whichever it is.
- A slow answer is a success unless `slow_rate` is on: then a slow probe is a failure.
- Jitter only adds, so replicas that opened together do not probe together, and none comes early.
- A forced state obeys nobody but the operator: results are counted, and change nothing.
"""

from collections.abc import Callable
from math import inf
from typing import Final

from proxy.core.breaker.terms import (
    TRANSITIONS,
    BreakerTerms,
    Event,
    Order,
    Permit,
    Refused,
    State,
    Transition,
)
from proxy.core.breaker.window import Counts, Window

JITTER: Final = 0.1
"""The share of the open time that chance may add."""
FULL_RETRY: Final = 1.0
"""When to ask again where all probes are out: their results are mostly there by then."""
FORCED_RETRY: Final = 1.0
"""The least of what is said while forced open: nobody knows for how long."""

_FORCE: Final = {
    State.OPEN: (Event.FORCE_OPEN, "forced open"),
    State.CLOSED: (Event.FORCE_CLOSED, "forced closed"),
    None: (Event.RELEASE, "no longer forced"),
}
_TOLD: Final = {
    State.OPEN: (Event.TOLD_OPEN, "another replica opened its circuit"),
    State.CLOSED: (Event.TOLD_CLOSED, "another replica closed its circuit"),
}


class Breaker:
    """Ask `admit`; give each permit back by `succeeded`, `failed` or `neutral`, and tell by `broke`
    what went wrong after a success. `now` is always seconds of the same clock."""

    __slots__ = (
        "_open_for", "_paused", "_permit", "_probes", "_proven", "_rated", "_rng", "_row", "_state",
        "_until", "_window", "forced", "generation", "on_transition", "reason", "terms",
    )  # fmt: skip

    def __init__(self, terms: BreakerTerms, rng: Callable[[], float]) -> None:
        """`rng`: a number from 0 to 1, evenly distributed, for the jitter."""
        self.terms = terms
        self.generation = 0
        self.forced: Order | None = None
        self.reason = ""
        """Of the last transition; empty before the first."""
        self.on_transition: Callable[[Transition], None] | None = None
        """Called after each change of state, with the breaker as it is then."""
        self._rng = rng
        self._state = State.CLOSED
        self._until = 0.0  # when open: from then on it may turn half-open
        self._open_for = 0.0  # of the last opening, without jitter
        self._permit: Permit | None = None  # everybody's, while closed
        self._row = 0  # failures without a success between them
        self._rated = inf  # results from which on the rates are judged
        self._window = Window(terms.window)
        self._probes: dict[Permit, float] = {}  # in flight → deadline; the oldest first
        self._paused: set[Permit] = set()  # probes whose clients keep the upstream waiting
        self._proven: set[Permit] = set()  # probes that succeeded
        self._begin()

    # Requests

    def admit(self, now: float) -> Permit | Refused:
        """Leave to send a request, or not. While it is closed nothing is allocated."""
        return self._permit or self._admit_unclosed(now)

    def succeeded(self, permit: Permit, now: float, took: float | None) -> None:
        """The head of an answer came `took` seconds after the request; None: never slow, as a 101
        or an event stream, whose head may wait for something to tell."""
        if permit.generation != self.generation:
            return
        slow = took is not None and took > self.terms.slow_after
        if permit.probe:
            if self._returned(permit, now):
                self._probed(permit, now, slow)
            return
        self._row = 0
        self._window.add(now, False, slow)
        if self._window.total >= self._rated:
            self._judge(now)

    def failed(self, permit: Permit, now: float, reason: str) -> None:
        """No good answer came: `reason` says what instead, as "timeout" or "status 503"."""
        if permit.generation != self.generation:
            return
        if permit.probe:
            if self._returned(permit, now):
                self._relapse(now, reason)
            return
        self._failure(now, reason)

    def neutral(self, permit: Permit, now: float) -> None:
        """It ended without saying anything of the upstream: the client went away, or the gateway
        refused. A probe's place is free again."""
        if permit.generation == self.generation and permit.probe:
            self._returned(permit, now)

    def broke(self, permit: Permit, now: float, reason: str = "reset") -> None:
        """The body broke off after `succeeded`: one failure more. A probe's success is taken back
        with it, as long as the circuit is not closed by then."""
        if permit.generation != self.generation:
            return
        if not permit.probe:
            self._failure(now, reason)
        elif permit in self._proven:
            self._relapse(now, reason)

    def pause(self, permit: Permit, now: float) -> None:
        """A probe's client is waited for, rather than the upstream: its place is free."""
        deadline = self._probes.get(permit)
        if deadline is not None:
            del self._probes[permit]
            if now < deadline:
                self._paused.add(permit)

    def resume(self, permit: Permit, now: float) -> bool:
        """The upstream is waited for again: a paused probe takes a place. False where none is free:
        it may not go on, or more probes than allowed would be out."""
        if permit not in self._paused:
            return True
        if self.probes(now) >= self.terms.half_open_requests:
            return False
        self._paused.discard(permit)
        self._probes[permit] = now + self.terms.probe_timeout
        return True

    # Orders from outside

    def force(self, to: Order | None, now: float) -> None:
        """Keeps it open or closed until the next order; None lets it go on by itself, closed and
        with nothing counted. The order in force again changes nothing."""
        if to is self.forced:
            return
        self.forced = to
        event, reason = _FORCE[to]
        self._enter(event, now, reason)

    def told(self, to: Order, now: float, for_: float) -> None:
        """Another replica opened its circuit, for `for_` more seconds, or closed it. Open longer
        than that already, it stays so; nobody can ask for more than this breaker's own longest
        time. The doubling goes on from what was told."""
        if self.forced is not None:
            return
        event, reason = _TOLD[to]
        for_ = min(for_, self.terms.open_max * (1 + JITTER))
        if TRANSITIONS[self._state, event] is not self._state:
            self._enter(event, now, reason, for_)
        elif to is State.OPEN:
            self._until = max(self._until, now + for_)
        if to is State.OPEN:
            self._open_for = max(self._open_for, for_ / (1 + JITTER))

    # For status and metrics

    def state(self, now: float) -> State:
        """As the next request would find it: half-open where the open time is over."""
        if self._state is State.OPEN and self.forced is None and now >= self._until:
            return State.HALF_OPEN
        return self._state

    def retry_in(self, now: float) -> float:
        """Seconds until a refused request is worth sending again; 0 where it would pass now."""
        if self._state is State.OPEN:
            if self.forced is not None:
                return max(FORCED_RETRY, self.terms.open_for)
            return max(0.0, self._until - now)
        if self._state is State.HALF_OPEN and self.probes(now) >= self.terms.half_open_requests:
            return min(FULL_RETRY, next(iter(self._probes.values())) - now)
        return 0.0

    def probes(self, now: float) -> int:
        """Probes in flight that are not past their deadline."""
        self._expire(now)
        return len(self._probes)

    def counts(self, now: float) -> Counts:
        """The results in the window, of this generation."""
        return self._window.counts(now)

    # Within

    def _admit_unclosed(self, now: float) -> Permit | Refused:
        if self._state is State.OPEN:
            retry_in = self.retry_in(now)
            if retry_in > 0:
                return Refused(retry_in, self.reason)
            self._enter(Event.DUE, now, "the open time is over")
        terms = self.terms
        if self.probes(now) >= terms.half_open_requests:
            return Refused(self.retry_in(now), "half-open, and its probes are out")
        probe = Permit(self.generation, probe=True)
        self._probes[probe] = now + terms.probe_timeout
        return probe

    def _returned(self, probe: Permit, now: float) -> bool:
        """Frees a probe's place; whether it came back in time, and for the first time."""
        if probe in self._paused:
            self._paused.remove(probe)
            return True
        deadline = self._probes.pop(probe, None)
        return deadline is not None and now < deadline

    def _expire(self, now: float) -> None:
        for probe in [probe for probe, deadline in self._probes.items() if deadline <= now]:
            del self._probes[probe]

    def _probed(self, probe: Permit, now: float, slow: bool) -> None:
        if slow and self.terms.slow_rate:
            self._relapse(now, f"took over {self.terms.slow_after:g} s")
            return
        self._proven.add(probe)
        if len(self._proven) >= self.terms.half_open_requests:
            self._enter(Event.PROVED, now, f"{_times(len(self._proven), 'probe')} succeeded")

    def _relapse(self, now: float, reason: str) -> None:
        self._open_for = min(2 * self._open_for, self.terms.open_max)
        self._enter(Event.RELAPSE, now, f"a probe failed: {reason}", self._jittered())

    def _failure(self, now: float, reason: str) -> None:
        self._row += 1
        self._window.add(now, True, False)
        if self.forced is None:
            self._judge(now, f", the last: {reason}")

    def _judge(self, now: float, last: str = "") -> None:
        """Opens a closed circuit whose counts say so. Shares are compared as quotients: 7 of 50 is
        14 %, though 0.14 * 50 is more than 7."""
        terms = self.terms
        total, failed, slow = self._window.total, self._window.failed, self._window.slow
        if 0 < terms.consecutive_failures <= self._row:
            reason = f"{_times(self._row, 'failure')} in a row{last}"
        elif total < self._rated:
            return
        elif 0 < terms.failure_rate <= failed / total:
            reason = f"{failed} of {total} in {terms.window:g} s failed{last}"
        elif 0 < terms.slow_rate <= slow / total:
            reason = f"{slow} of {total} in {terms.window:g} s took over {terms.slow_after:g} s"
        else:
            return
        self._enter(Event.TRIP, now, reason, self._jittered())

    def _jittered(self) -> float:
        return self._open_for * (1 + JITTER * self._rng())

    def _enter(self, event: Event, now: float, reason: str, for_: float = 0.0) -> None:
        """`for_`: seconds to stay open, where it opens."""
        old = self._state
        self._state = TRANSITIONS[old, event]
        self.reason = reason
        self._until = now + for_
        self._begin()
        if self._state is not old and self.on_transition is not None:
            self.on_transition(Transition(old, self._state, event, reason, self.retry_in(now)))

    def _begin(self) -> None:
        """A new generation: nothing of the old one counts, and its permits are worth nothing."""
        terms = self.terms
        self.generation += 1
        self._row = 0
        self._window.clear()
        self._probes.clear()
        self._paused.clear()
        self._proven.clear()
        self._permit = None
        if self._state is State.CLOSED:
            self._permit = Permit(self.generation, probe=False)
            self._open_for = min(terms.open_for, terms.open_max)
        judges_rates = self.forced is None and (terms.failure_rate > 0 or terms.slow_rate > 0)
        self._rated = terms.minimum_requests if judges_rates else inf


def _times(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
