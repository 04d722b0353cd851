"""What the gateway asks of a store. Every store passes the same conformance suite per port.

A store that needs no I/O never suspends: `await store.admit(...)` on the memory store runs to its
end in one step, so a request that it denies costs no task.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

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


class StoreError(Exception):
    """A shared store that gave no answer to rely on.

    `reason`: timeout (no reply in time), down (no connection), refused (an error reply).
    `partial`: one of several servers is in trouble, is asked no more, and most others are well:
    the trouble of its keys, not of the store.
    """

    def __init__(
        self,
        reason: Literal["timeout", "down", "refused"],
        detail: str,
        *,
        partial: bool = False,
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.partial = partial


class Unavailable(Exception):
    """A limit that must not be guessed (`on_failure: deny`) cannot be asked: 503."""

    def __init__(self, limit: str) -> None:
        super().__init__(limit)
        self.limit = limit


class LimitStore(Protocol):
    """Where limits count."""

    async def admit(self, charges: Sequence[Charge]) -> "Sequence[Decision | None]":
        """Checks all, then charges all or none; one Decision per charge, in order.

        None is a limit that let the request through uncounted, as its store is in trouble and it
        says `on_failure: allow`. Raises Unavailable where one says `deny`.
        """

    async def peek(self, charge: Charge) -> Decision:
        """What `admit` would answer for this charge alone, charging nothing."""

    async def reset(self, space: str, key: bytes) -> None:
        """Forgets one key of one limit space."""

    async def close(self) -> None:
        """Lets go of everything."""


class SharedLimits(LimitStore, Protocol):
    """A LimitStore on a server that others count on, too."""

    asked: int
    """How often the server was asked. What is answered without it says nothing of it."""
