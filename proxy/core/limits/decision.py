"""What a limit answers, and what every algorithm must be able to do.

An algorithm is a pure step over whole numbers: `(state, params, now, cost) → (state, Decision)`.
Times are integer microseconds since the epoch; nothing here reads a clock. Its Lua twin has the
same name, the same state and the same arithmetic.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Final

State = tuple[Any, ...]
"""An algorithm's state for one key; None stands for a key never seen. Never changed in place, as
far as anyone can see: a step whose state is thrown away has not happened."""


class Decision:
    """One limit's answer to one request. All times are microseconds from now.

    A plain class, as each request makes one for each limit: compiled, a tuple with names costs ten
    times as much.
    """

    __slots__ = ("allowed", "delay", "remaining", "reset", "retry_after")

    def __init__(
        self, allowed: bool, remaining: int, reset: int, retry_after: int, delay: int
    ) -> None:
        self.allowed = allowed
        self.remaining = remaining
        """Whole units left after this request; 0 on denial."""
        self.reset = reset
        """Until more units are left than now; 0 where nothing is used."""
        self.retry_after = retry_after
        """Until a request of this cost could pass; 0 where this one passed."""
        self.delay = delay
        """How long this request must wait before it goes on (leaky_bucket); else 0."""

    def members(self) -> tuple[bool, int, int, int, int]:
        """All of it, in the order of `__init__`."""
        return self.allowed, self.remaining, self.reset, self.retry_after, self.delay

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Decision) and self.members() == other.members()

    def __hash__(self) -> int:
        return hash(self.members())

    def __repr__(self) -> str:
        return f"Decision{self.members()}"


UNIT: Final = 256
"""Bytes by which a state is measured (`Algorithm.weight`)."""
NOT_ASKED: Final = Decision(True, 0, 0, 0, 0)
"""Stands for a limit that was not asked, as another one had refused the request: compared by
identity. It is no decision, so it is not counted as one."""


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


class Algorithm:
    """One algorithm. `proxy.core.limits.ALGORITHMS` has them all by name.

    Parameters may change under a state, as a reload changes rate and burst; the period may not.
    """

    __slots__ = ()
    name: ClassVar[str] = ""

    def compile(self, rate: Rate, burst: int | None, refundable: bool = True) -> Any:
        """The algorithm's frozen parameters. Raises ValueError (a sentence) for what cannot be.
        Where charges are never given back, not `refundable`, a state may keep less."""
        raise NotImplementedError

    def step(self, state: State | None, params: Any, now: int, cost: int) -> tuple[State, Decision]:
        """Charges `cost` (at most the capacity) if it fits; a cost of 0 asks without charging and
        is allowed. The state after a denial or a cost of 0 answers as the old one would: there is
        no need to keep it."""
        raise NotImplementedError

    def refund(self, state: State, params: Any, charged: int, now: int, cost: int) -> State:
        """The state without what `cost` units, charged at `charged` (µs), still weigh. It is as if
        they had never been charged, or a little short of that, and never beyond it: nobody is
        admitted for a refund. The same state where nothing can be given back."""
        raise NotImplementedError

    def idle_at(self, state: State, params: Any, now: int) -> int:
        """When the state may be forgotten: the first microsecond since the epoch from which every
        answer is that of a key never seen. 0 where the state lies more than a period ahead of
        `now`, as the clock was set back: it already answers so."""
        raise NotImplementedError

    def varies(self, params: Any) -> bool:
        """Whether some states take more memory than others."""
        return False

    def weight(self, state: State) -> int:
        """How many keys would take the memory of this one, with `UNIT` bytes each."""
        return 1

    def shortened(self, state: State) -> State:
        """The state without what only refunds need."""
        return state

    def capacity(self, params: Any) -> int:
        """The largest cost that could ever pass."""
        raise NotImplementedError

    def quota(self, params: Any) -> Quota:
        """The limit's RateLimit-Policy members."""
        raise NotImplementedError
