"""What the gateway asks of a store. Every store passes the same conformance suite per port.

A store that needs no I/O never suspends: `await store.admit(...)` on the memory store runs to its
end in one step, so a request that it denies costs no task.
"""

from collections.abc import Sequence
from typing import Protocol

from proxy.core.limits.decision import Decision
from proxy.policy.snapshot import LimitVariant


class Charge:
    """One limit asked for one request: which variant, which key, how much.

    `key` is the 16-byte hash of the resolved key parts (`proxy.core.keys.digest`).
    `shadow` limits never block and are charged only if every enforced limit admits.
    """

    __slots__ = ("cost", "key", "shadow", "variant")

    def __init__(self, variant: LimitVariant, key: bytes, cost: int, shadow: bool) -> None:
        self.variant = variant
        self.key = key
        self.cost = cost
        self.shadow = shadow


class LimitStore(Protocol):
    """Where limits count."""

    async def admit(self, charges: Sequence[Charge]) -> list[Decision]:
        """Checks all, then charges all or none; one Decision per charge, in order."""

    async def peek(self, charge: Charge) -> Decision:
        """What `admit` would answer for this charge alone, charging nothing."""

    async def reset(self, space: str, key: bytes) -> None:
        """Forgets one key of one limit space."""

    async def close(self) -> None:
        """Lets go of everything."""
