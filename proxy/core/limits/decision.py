"""What a limit answers, and what every algorithm must be able to do.

An algorithm is a pure step over whole numbers: `(state, params, now, cost) → (state, Decision)`.
Times are integer microseconds since the epoch; nothing here reads a clock.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

State = tuple[int, ...]
"""An algorithm's state for one key: integers only; None stands for a key never seen."""


class Decision(NamedTuple):
    """One limit's answer to one request. All times are microseconds from now."""

    allowed: bool
    remaining: int
    """Whole units left after this request; 0 on denial."""
    reset: int
    """Until `remaining` grows; 0 where it is at its most already."""
    retry_after: int
    """Until a request of this cost could pass; 0 where this one passed."""
    delay: int
    """How long this request must wait before it goes on (leaky_bucket); else 0."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`amount` units per `period` (microseconds); `monthly` is a UTC calendar month instead."""

    amount: int
    period: int
    monthly: bool = False


@dataclass(frozen=True, slots=True)
class Quota:
    """What RateLimit-Policy says of a limit: q units in w seconds (None: w is left out)."""

    q: int
    w: int | None


class Algorithm(Protocol):
    """One algorithm: the module-level functions of its file, gathered in `ALGORITHMS`."""

    name: str

    def compile(self, rate: Rate, burst: int | None) -> Any:
        """The algorithm's frozen parameters. Raises ValueError (a sentence) for what cannot be."""

    def step(
        self, state: State | None, params: Any, now: int, cost: int
    ) -> tuple[State, Decision]:
        """Charges `cost` if it fits. A denial returns a state that is equal in effect to the old
        one (time may be settled into it); a cost of 0 asks without charging and is allowed."""

    def idle(self, state: State, params: Any, now: int) -> bool:
        """Whether forgetting this state would change no answer (fully refilled)."""

    def capacity(self, params: Any) -> int:
        """The largest cost that could ever pass."""

    def quota(self, params: Any) -> Quota:
        """The limit's RateLimit-Policy members."""
