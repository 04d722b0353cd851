"""What a limit answers, and what every algorithm must be able to do.

An algorithm is a pure step over whole numbers: `(state, params, now, cost) → (state, Decision)`.
Times are integer microseconds since the epoch; nothing here reads a clock. Its Lua twin has the
same name, the same state and the same arithmetic.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

State = tuple[Any, ...]
"""An algorithm's state for one key; None stands for a key never seen. Never changed in place, as
far as anyone can see: a step whose state is thrown away has not happened."""


class Decision(NamedTuple):
    """One limit's answer to one request. All times are microseconds from now."""

    allowed: bool
    remaining: int
    """Whole units left after this request; 0 on denial."""
    reset: int
    """Until more units are left than now; 0 where nothing is used."""
    retry_after: int
    """Until a request of this cost could pass; 0 where this one passed."""
    delay: int
    """How long this request must wait before it goes on (leaky_bucket); else 0."""


decided: Callable[[tuple[bool, int, int, int, int]], Decision] = partial(tuple.__new__, Decision)
"""`Decision(*members)` in half the time: without the Python frame of a NamedTuple's own
`__new__`. For the steps, which make one or more per request."""


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
    """One algorithm. `proxy.core.limits.ALGORITHMS` has them all by name.

    Parameters may change under a state, as a reload changes rate and burst; the period may not.
    """

    @property
    def name(self) -> str: ...

    def compile(self, rate: Rate, burst: int | None) -> Any:
        """The algorithm's frozen parameters. Raises ValueError (a sentence) for what cannot be."""

    def step(self, state: State | None, params: Any, now: int, cost: int) -> tuple[State, Decision]:
        """Charges `cost` (at most the capacity) if it fits; a cost of 0 asks without charging and
        is allowed. The state after a denial or a cost of 0 answers as the old one would: there is
        no need to keep it."""

    def refund(self, state: State, params: Any, charged: int, now: int, cost: int) -> State:
        """The state without what `cost` units, charged at `charged` (µs), still weigh: never more,
        so nobody is admitted beyond the limit. The same state where nothing can be given back."""

    def idle_at(self, state: State, params: Any) -> int:
        """When the state may be forgotten: the first microsecond since the epoch from which every
        answer is that of a key never seen."""

    def capacity(self, params: Any) -> int:
        """The largest cost that could ever pass."""

    def quota(self, params: Any) -> Quota:
        """The limit's RateLimit-Policy members."""
