"""Limits as the supervisor sees them: it asks the shared store, and resets in every process."""

from collections.abc import Awaitable, Callable, Sequence

from proxy.core.limits.decision import Decision
from proxy.store.charge import Charge
from proxy.store.ports import LimitStore


class FleetLimits:
    """A LimitStore over the supervisor's own road to the store. `tell(space, key)` has every
    worker forget the key too: what it remembers of denials, and what it counted by itself."""

    decide = None

    def __init__(self, store: LimitStore, tell: Callable[[str, bytes], Awaitable[None]]) -> None:
        self._store = store
        self._tell = tell

    async def admit(self, charges: Sequence[Charge]) -> Sequence[Decision | None]:
        return await self._store.admit(charges)

    async def give_back(self, charges: Sequence[Charge]) -> None:
        await self._store.give_back(charges)

    async def peek(self, charge: Charge) -> Decision:
        return await self._store.peek(charge)

    async def reset(self, space: str, key: bytes) -> None:
        # The shared state first: a worker told before might remember a denial once more.
        try:
            await self._store.reset(space, key)
        finally:
            await self._tell(space, key)

    async def close(self) -> None:
        await self._store.close()
