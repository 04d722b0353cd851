"""The cache of one process, as it lives: what is stored, what is on its way, what was purged."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from proxy.core.cache.record import Stored
from proxy.metrics import Metrics
from proxy.stages.cache.marks import Marks
from proxy.stages.cache.tier import Tier
from proxy.store.clock import milliseconds
from proxy.store.memory.cache import Held, MemoryCache
from proxy.store.memory.purges import Purges
from proxy.store.memory.room import Room
from proxy.store.ports import Mark, NobodyTold, Purge, SharedCache, StoreError

if TYPE_CHECKING:
    from proxy.stages.cache.flight import Flight

FlightId = tuple[bytes, tuple[tuple[str, str | None], ...]]
"""(primary key, what Vary is known to select by)."""


def softened(held: Held, now: int) -> Stored:
    """What was purged softly, as lookups see it."""
    age = held.stored.age(min(now, held.stale_at))
    return replace(held.stored, lifetime=min(held.stored.lifetime, age))


class Caching:
    """What every request of this process shares. `size`: bytes of memory for all that is kept;
    `blind`: ms that it is used for after purges may have gone unheard."""

    __slots__ = (
        "_metrics", "_room", "_tasks", "clock", "flights", "marks", "memory", "purges", "tier",
    )  # fmt: skip

    def __init__(
        self,
        metrics: Metrics,
        size: int,
        *,
        blind: int = 0,
        clock: Callable[[], int] = milliseconds,
    ) -> None:
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()
        self.clock = clock
        self._room = room = Room(size)
        self.memory = MemoryCache(room)
        self.purges = Purges(clock, blind, room)
        self.marks = Marks(room)
        self.flights: dict[FlightId, Flight] = {}
        self.tier: Tier | None = None

    def share(self, shared: SharedCache) -> None:
        """Has what is stored shared with other processes from here on. It is closed with this."""
        tier = self.tier = Tier(shared)
        self.purges.lost()  # until the subscription stands
        shared.listen(self.purges, lambda: tier.longest)

    @property
    def busy(self) -> int:
        """How many fetches are on their way, those that nobody can join any more among them."""
        return len(self._tasks)

    @property
    def blind(self) -> bool:
        """Whether purges may go unheard."""
        purges = self.purges
        return purges.deaf or (purges.since is not None and self.clock() >= purges.since)

    def keep(self, key: bytes, held: Held, hidden: tuple[str, ...]) -> bool:
        """Stores an answer, for everybody, unless a purge has made it void while it was fetched.
        `hidden`: the tags of its URL."""
        if self.purges.reaches(held):
            return False
        self.adopt(key, held)
        if self.tier is not None:
            self.tier.put(key, held, hidden, self.clock())
        return True

    def adopt(self, key: bytes, held: Held) -> None:
        """Puts an answer into memory."""
        self.memory.put(key, held)
        self._count_bytes()

    def mark(self, key: bytes, mark: Mark) -> None:
        """Has nobody wait."""
        self.learn(key, mark)
        if self.tier is not None:
            self.tier.mark(key, mark)

    def learn(self, key: bytes, mark: Mark) -> None:
        """Has nobody of this process wait."""
        self.marks.put(key, mark, self.clock())
        self.memory.fit()
        self._count_bytes()

    def take_out(self, key: bytes, held: Held) -> None:
        """Drops what is wrong by now, for everybody."""
        self.drop(key, held)
        if self.tier is not None:
            self.tier.drop(key, held)

    def drop(self, key: bytes, held: Held) -> None:
        """Takes an answer out of memory."""
        self.memory.drop(key, held)
        self._count_bytes()

    def _count_bytes(self) -> None:
        self._metrics.cache_bytes["memory"] = self._room.taken

    def soften(self, key: bytes, held: Held, now: int) -> Held:
        """What was purged softly is stale since the purge, and serves as stale answers do."""
        stored = softened(held, now)
        stale = Held(stored, held.body, held.tags, held.target, held.began, held.lines)
        stale.place, stale.softened = held.place, True
        self.memory.put(key, stale)
        return stale

    async def purge(self, purge: Purge) -> None:
        """Makes void what the purge covers. Raises StoreError where others cannot be told."""
        if self.tier is None:
            self.purges.apply(purge)
            return
        try:
            await self.tier.purge(purge)
        except StoreError:
            self.purges.apply(purge)  # here, at least
            raise

    async def invalidate(self, purge: Purge) -> None:
        """A purge that a write brings: where others cannot be told now, they are told later."""
        tier = self.tier
        if tier is None or not tier.owes:
            try:
                await self.purge(purge)
                return
            except NobodyTold:
                return  # there is nothing to be told later
            except StoreError:
                assert tier is not None
        else:
            self.purges.apply(purge)  # nobody waits for a store that has just failed
        tier.owe(purge)

    def status(self) -> dict[str, object]:
        """What there is, for an operator."""
        status: dict[str, object] = {
            "entries": len(self.memory),
            "bytes": self._room.taken,
            "in_flight": self.busy,
        }
        if self.tier is not None:
            status |= {"blind": self.blind, "shared": self.tier.status()}
        return status

    def start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Runs something that its client need not wait for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Gives up what is on its way, and forgets everything."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self.tier is not None:
            await self.tier.close()
        self.memory.clear()
