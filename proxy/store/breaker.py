"""The breaker of a shared store: when to stop asking it, and when to ask again.

Pure: every time is an argument, in seconds of one clock that never goes back.

    state     event    next        what happened
    closed    trip     open        IN_A_ROW failures in a row, or the share of failures
    open      probe    probing     PROBE_EVERY after the last try
    probing   answer   closed      the probe was answered
    probing   trip     open        the probe failed
    probing   probe    probing     the probe has not come back by its deadline: another one

Rules:
- While it is not closed, nobody asks but the one probe.
- Every change of state is a new generation. An outcome that belongs to an older one is dropped: a
  success from before the trip closes nothing, a failure from then trips nothing again.
- A call without an outcome (its caller went away) is not reported, and counts for nothing.
"""

from typing import Final, Literal

State = Literal["closed", "open", "probing"]
Event = Literal["trip", "probe", "answer"]

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    ("closed", "trip"): "open",
    ("open", "probe"): "probing",
    ("probing", "answer"): "closed",
    ("probing", "trip"): "open",
    ("probing", "probe"): "probing",
}

IN_A_ROW: Final = 5
LEAST: Final = 20
SHARE: Final = 0.5
WINDOW: Final = 1.0
PROBE_EVERY: Final = 0.25
PROBE_DEADLINE: Final = 1.0
_PARTS: Final = 10  # of the window: it is `WINDOW` long to within one part


class Breaker:
    """`closed` and `generation` are to be read; the rest says what happened."""

    __slots__ = (
        "_failures", "_in_a_row", "_part", "_probe_at", "_row", "_totals", "generation", "state",
    )  # fmt: skip

    def __init__(self, *, in_a_row: int = IN_A_ROW) -> None:
        """`in_a_row`: more where one of several servers may fail for its keys only."""
        self.state: State = "closed"
        self.generation = 0
        self._in_a_row = in_a_row
        self._probe_at = 0.0
        self._forget()

    @property
    def closed(self) -> bool:
        return self.state == "closed"

    def succeeded(self, generation: int, now: float) -> None:
        """A call that was let through in `generation` was answered."""
        if generation == self.generation and self.state == "closed":
            self._row = 0
            self._totals[self._at(now)] += 1

    def failed(self, generation: int, now: float) -> bool:
        """A call that was let through in `generation` failed; whether that opened the breaker."""
        if generation != self.generation or self.state != "closed":
            return False
        self._row += 1
        part = self._at(now)
        self._totals[part] += 1
        self._failures[part] += 1
        total = sum(self._totals)
        if self._row < self._in_a_row and (total < LEAST or sum(self._failures) < SHARE * total):
            return False
        self.trip(now)
        return True

    def trip(self, now: float) -> None:
        """Opens it, whatever the counts."""
        self._enter("trip")
        self._probe_at = now + PROBE_EVERY

    def probe(self, now: float) -> int | None:
        """The generation of a probe that may go out now, if one may."""
        if self.state == "closed" or now < self._probe_at:
            return None
        self._enter("probe")
        self._probe_at = now + PROBE_DEADLINE
        return self.generation

    def probe_due(self) -> float | None:
        """When the next probe may go out; None while closed."""
        return None if self.state == "closed" else self._probe_at

    def probed(self, generation: int, ok: bool, now: float) -> bool:
        """A probe has come back; whether that closed the breaker."""
        if generation != self.generation or self.state != "probing":
            return False
        if not ok:
            self.trip(now)
            return False
        self._enter("answer")
        self._forget()
        return True

    def _enter(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]
        self.generation += 1

    def _forget(self) -> None:
        self._row = 0
        self._totals = [0] * _PARTS
        self._failures = [0] * _PARTS
        self._part = -1

    def _at(self, now: float) -> int:
        """The place of the part of the window that `now` falls in; parts that are over are
        cleared on the way."""
        part = int(now * (_PARTS / WINDOW))
        if part != self._part:
            for over in range(max(self._part + 1, part - _PARTS + 1), part + 1):
                self._totals[over % _PARTS] = self._failures[over % _PARTS] = 0
            self._part = part
        return part % _PARTS
