"""What a breaker is told, what it answers, and its transitions.

Times are seconds of one clock that does not go back; lengths of time are seconds; rates are shares
from 0 to 1.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final, Literal, NamedTuple


class State(IntEnum):
    """The numbers are those of the metric `breaker_state`."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


Order = Literal[State.CLOSED, State.OPEN]
"""The states that an operator or another replica can name: half-open is each process's own."""


class Event(Enum):
    """What moves a circuit from state to state."""

    TRIP = "trip"
    """The results say that the upstream is ill."""
    DUE = "due"
    """The open time is over, and somebody asks."""
    PROVED = "proved"
    """`half_open_requests` probes have succeeded."""
    RELAPSE = "relapse"
    """A probe has failed."""
    FORCE_OPEN = "force open"
    FORCE_CLOSED = "force closed"
    RELEASE = "release"
    """The operator takes the forced state back."""
    TOLD_OPEN = "told open"
    """Another replica opened its circuit."""
    TOLD_CLOSED = "told closed"


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.CLOSED, Event.TRIP): State.OPEN,
    (State.CLOSED, Event.FORCE_OPEN): State.OPEN,
    (State.CLOSED, Event.FORCE_CLOSED): State.CLOSED,
    (State.CLOSED, Event.RELEASE): State.CLOSED,
    (State.CLOSED, Event.TOLD_OPEN): State.OPEN,
    (State.CLOSED, Event.TOLD_CLOSED): State.CLOSED,
    (State.HALF_OPEN, Event.PROVED): State.CLOSED,
    (State.HALF_OPEN, Event.RELAPSE): State.OPEN,
    (State.HALF_OPEN, Event.FORCE_OPEN): State.OPEN,
    (State.HALF_OPEN, Event.FORCE_CLOSED): State.CLOSED,
    (State.HALF_OPEN, Event.TOLD_OPEN): State.OPEN,
    (State.HALF_OPEN, Event.TOLD_CLOSED): State.CLOSED,
    (State.OPEN, Event.DUE): State.HALF_OPEN,
    (State.OPEN, Event.FORCE_OPEN): State.OPEN,
    (State.OPEN, Event.FORCE_CLOSED): State.CLOSED,
    (State.OPEN, Event.RELEASE): State.CLOSED,
    (State.OPEN, Event.TOLD_OPEN): State.OPEN,
    (State.OPEN, Event.TOLD_CLOSED): State.CLOSED,
}
"""All of it. What is not here cannot come: a closed circuit has no probes and an open one takes no
results; only closed and open can be forced, so there is nothing to release half-open."""


@dataclass(frozen=True)
class BreakerTerms:
    """A breaker's settings, as the policy names them."""

    consecutive_failures: int = 5
    """0 is off, as it is for the two rates."""
    failure_rate: float = 0.0
    slow_rate: float = 0.0
    slow_after: float = 2.0
    minimum_requests: int = 20
    """Rates are judged from this many results in the window on."""
    window: float = 10.0
    """A part of a second counts as a whole one."""
    open_for: float = 30.0
    open_max: float = 300.0
    half_open_requests: int = 2
    """Probes that may be in flight at once, and successes that close."""
    failure_statuses: frozenset[int] = frozenset({500, 502, 503, 504})
    """For the caller, who names results; the breaker does not read it."""
    shared: bool = False
    """For the caller, who tells other replicas; the breaker does not read it."""
    probe_timeout: float = 30.0
    """A probe without a result by then frees its place. Longer than a request can take: a timeout
    must come in before it to count as a failure."""


class Permit:
    """Leave to send one request. Hand it back with the result, once.

    All requests of one closed circuit hold the same permit: only a probe needs one of its own.
    """

    __slots__ = ("generation", "probe")

    def __init__(self, generation: int, *, probe: bool) -> None:
        self.generation = generation
        self.probe = probe

    def __repr__(self) -> str:
        return f"Permit({self.generation}, probe={self.probe})"


class Refused(NamedTuple):
    """No leave to send."""

    retry_in: float
    """Seconds until it is worth asking again; above 0."""
    reason: str


class Transition(NamedTuple):
    """One change of state, told once it is made."""

    old: State
    new: State
    event: Event
    reason: str
    retry_in: float
    """Seconds until a probe may go out; 0 unless the new state is open."""

    @property
    def told(self) -> bool:
        """Whether it came from another replica."""
        return self.event in (Event.TOLD_OPEN, Event.TOLD_CLOSED)

    @property
    def news(self) -> bool:
        """Whether other replicas should hear of it: this one found out itself that the upstream is
        ill or well. What was heard is not told again, and a forced state is this process's."""
        return self.event in (Event.TRIP, Event.RELAPSE, Event.PROVED)
