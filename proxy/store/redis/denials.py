"""Denials that are remembered, so that a client that hammers does not reach the store.

Rules:
- For `ALONE` seconds at most, and never longer than until the request could pass, by this
  process's own clock, counted from when the store was asked. So not across the end of a window.
- Where the request has other limits, for `TOGETHER` seconds at most: a 429 names every limit that
  refuses the request, and another one may have come to refuse it meanwhile.
- A request with a shadow limit goes to the store, which decides that limit as if it were enforced.
- For the cost that was denied and for higher ones (which are told the wait of the lower).
- Not for limits whose charges may be refunded, by any process: their denials may end earlier.
- Not after a reload has changed the limit's parameters, and not after a reset, anywhere.
- `most` at most; the oldest goes first.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from proxy.core.limits.decision import NOT_ASKED, Decision
from proxy.policy.limit_plans import LimitVariant
from proxy.store.charge import Charge

ALONE: Final = 1.0
TOGETHER: Final = 0.1


class _Denial:
    """A denial of `cost` that was asked for at `asked` and holds until `until` (seconds)."""

    __slots__ = ("asked", "cost", "decision", "until", "variant")

    def __init__(
        self, until: float, asked: float, cost: int, variant: LimitVariant, decision: Decision
    ) -> None:
        self.until = until
        self.asked = asked
        self.cost = cost
        self.variant = variant
        self.decision = decision


class Denials:
    """Remembered denials by the name of the key. `clock` gives seconds and never runs back."""

    __slots__ = ("_clock", "_held", "_most", "forgotten")

    def __init__(self, clock: Callable[[], float], most: int) -> None:
        self._clock = clock
        self._most = most
        # Not a dict: finding its first key walks over everything that was deleted before it.
        self._held: OrderedDict[bytes, _Denial] = OrderedDict()
        self.forgotten = 0
        """Grows with every reset: what was asked before one is not remembered after it."""

    def __len__(self) -> int:
        return len(self._held)

    def answer(self, charges: Sequence[Charge], names: Sequence[bytes]) -> list[Decision] | None:
        """The answer to a request that a remembered denial refuses, NOT_ASKED for its other
        limits; None where none does."""
        now = self._clock()
        answers: list[Decision] | None = None
        for place, charge in enumerate(charges):
            if charge.shadow:
                return None
            denial = self._held.get(names[place])
            if denial is None or charge.cost < denial.cost:
                continue
            if now >= denial.until or denial.variant is not charge.variant:
                del self._held[names[place]]
                continue
            if len(charges) > 1 and now >= denial.asked + TOGETHER:
                continue
            if answers is None:
                answers = [NOT_ASKED] * len(charges)
            said = denial.decision
            gone = int((now - denial.asked) * 1_000_000)
            answers[place] = Decision(
                False, 0, max(1, said.reset - gone), max(1, said.retry_after - gone), 0
            )
        return answers

    def remember(
        self,
        charges: Sequence[Charge],
        names: Sequence[bytes],
        decisions: Sequence[Decision],
        asked: float,
        forgotten: int,
    ) -> None:
        """Remembers what was denied to a request that was sent at `asked`, when `forgotten` was
        that."""
        if forgotten != self.forgotten or len(set(names)) != len(names):
            return  # a key that was asked twice denies both together, not each
        held = self._held
        for charge, name, decision in zip(charges, names, decisions, strict=True):
            if decision.allowed or charge.shadow or charge.variant.refundable:
                continue
            until = asked + min(ALONE, decision.retry_after / 1_000_000)
            held.pop(name, None)
            if len(held) >= self._most:
                held.popitem(last=False)
            held[name] = _Denial(until, asked, charge.cost, charge.variant, decision)

    def forget(self, name: bytes) -> None:
        """A key was reset."""
        self.forgotten += 1
        self._held.pop(name, None)

    def forget_all(self) -> None:
        """Resets may have been missed."""
        self.forgotten += 1
        self._held.clear()
