"""The shared tier as this stage uses it: it may be slow or gone, and nobody fails for that.

Rules:
- Whatever raises StoreError below is a miss here, or is left undone.
- What is written of one key is written in order, behind the backs of the clients, and its lease is
  let go last: who was waiting for it finds what there is to find.
- Those who ask for the same at the same time share one lookup.
- Answers selected by a credential's value (PRIVATE) stay in the process: that value would stand in
  clear beside them. Nobody waits for another process's lease there.
- An invalidation that the store could not be told (`owe`) is told when it can be.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from hashlib import blake2b
from typing import Any, Final

from proxy.core.cache.record import Stored
from proxy.store.memory.cache import Held
from proxy.store.ports import Kept, Looked, Mark, NobodyTold, Purge, SharedCache, StoreError

LEASE: Final = 3000
"""ms until somebody else may fetch what a process that died was fetching."""
RENEWED: Final = 1.0
"""Seconds between two renewals of a lease."""
GRACE: Final = 3_600_000
"""ms that an answer which can be validated is kept beyond its freshness, at least."""
LONGEST: Final = 30 * 24 * 3_600_000
"""ms that anything is kept at most."""
BACKLOG: Final = 64 * 1024 * 1024
"""Bytes of answers that may wait to be written; what is more is not shared."""
MAX_OWED: Final = 10_000
"""Tags; where more is owed, everything is to be validated."""
PRIVATE: Final = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key"})

_AGAIN: Final = 1.0  # seconds between two tries to tell what is owed
_LAST_WORDS: Final = 2.0  # seconds for what is being written when the process ends

Variant = tuple[tuple[str, str | None], ...]


class Lease:
    """The right to fetch for the fleet. `token` is None where the store was in trouble: then
    everybody fetches."""

    __slots__ = ("ident", "key", "renewing", "token")

    def __init__(self, key: bytes, ident: bytes, token: bytes | None) -> None:
        self.key = key
        self.ident = ident
        self.token = token
        self.renewing: asyncio.Task[None] | None = None


def lease_id(key: bytes, variant: Variant) -> bytes:
    """What a lease is for: a primary key and what its answers vary by, as far as known."""
    if not variant:
        return key
    return blake2b(key + repr(variant).encode("latin-1", "replace"), digest_size=16).digest()


def shareable(variant: Variant) -> bool:
    """Whether an answer selected by these fields may leave the process."""
    return all(name not in PRIVATE or value is None for name, value in variant)


def keeping(stored: Stored, now: int) -> int:
    """For how long (ms) an answer is of use to anybody."""
    left = stored.left(now)
    stale = max(stored.stale_while_revalidate, stored.stale_if_error)
    if stored.etag is not None or stored.last_modified is not None:
        stale = max(stale, GRACE)
    return min(left + stale, LONGEST)


class Tier:
    """One process's use of the shared tier."""

    __slots__ = (
        "_backlog", "_leases", "_longest", "_looking", "_owed", "_owes_all", "_owing", "_shared",
        "_tasks", "_writing", "released",
    )  # fmt: skip

    def __init__(self, shared: SharedCache) -> None:
        self._shared = shared
        self.released = shared.released
        self._tasks: set[asyncio.Task[Any]] = set()
        self._looking: dict[bytes, asyncio.Task[Any]] = {}
        self._writing: dict[bytes, asyncio.Task[None]] = {}
        self._backlog = 0
        self._leases = 0
        self._longest = 0
        self._owed: dict[str, None] = {}
        self._owes_all = False
        self._owing: asyncio.Task[None] | None = None

    @property
    def longest(self) -> int:
        """The longest time (ms) that this process has anything kept for."""
        return self._longest

    def status(self) -> dict[str, object]:
        """The store's figures, whether it is owed invalidations, and how many leases are held."""
        return {**self._shared.status(), "owes": self.owes, "leases": self._leases}

    # Reading.

    async def look(self, key: bytes, *, anew: bool = False) -> Looked | None:
        """What is there under a key; None where it cannot be asked. `anew`: as of now, not of the
        moment when somebody else asked."""
        found: Looked | None = await self._together(key, lambda: self._shared.lookup(key), anew)
        return found

    async def body(self, key: bytes, kept: Kept) -> bytes | None:
        """A body that is apart; None where it is gone or cannot be had."""
        name = key + kept.place
        body: bytes | None = await self._together(name, lambda: self._shared.body(key, kept))
        return body

    async def _together(
        self, name: bytes, read: Callable[[], Awaitable[Any]], anew: bool = False
    ) -> Any:
        task = None if anew else self._looking.get(name)
        if task is None:
            task = self._looking[name] = self._start(_or_none(read()))

            def done(ended: asyncio.Task[Any]) -> None:
                if self._looking.get(name) is ended:
                    del self._looking[name]

            task.add_done_callback(done)
        return await asyncio.shield(task)

    # Writing.

    def put(self, key: bytes, held: Held, hidden: tuple[str, ...], now: int) -> None:
        """Has an answer kept for the fleet, if it may be."""
        stored, size = held.stored, held.size
        ttl = keeping(stored, now)
        if ttl <= 0 or not shareable(stored.vary) or self._backlog + size > BACKLOG:
            return
        self._longest = max(self._longest, ttl)
        self._backlog += size
        kept = Kept(stored, held.target, held.began, held.body, held.place, hidden)

        async def put() -> None:
            try:
                await self._shared.put(key, kept, ttl)
                held.place = kept.place
            finally:
                self._backlog -= size

        self._write(key, put)

    def drop(self, key: bytes, held: Held) -> None:
        stored = held.stored
        if shareable(stored.vary):
            kept = Kept(stored, held.target, held.began, None, held.place)
            self._write(key, lambda: self._shared.drop(key, kept))

    def mark(self, key: bytes, mark: Mark) -> None:
        told = mark if shareable(mark.vary) else Mark((), "apart", mark.until)
        self._write(key, lambda: self._shared.mark(key, told))

    def _write(self, key: bytes, work: Callable[[], Awaitable[None]]) -> None:
        before = self._writing.get(key)

        async def write() -> None:
            if before is not None:
                await asyncio.wait([before])
            await _or_none(work())

        task = self._writing[key] = self._start(write())

        def done(ended: asyncio.Task[None]) -> None:
            if self._writing.get(key) is ended:
                del self._writing[key]

        task.add_done_callback(done)

    # Leases.

    async def lease(self, key: bytes, ident: bytes) -> Lease | None:
        """The right to fetch, held on until it is let go; None where another has it."""
        try:
            token = await self._shared.lease(ident, LEASE)
        except StoreError:
            return Lease(key, ident, None)
        if token is None:
            return None
        self._leases += 1
        lease = Lease(key, ident, token)
        lease.renewing = self._start(self._renew(ident, token))
        return lease

    async def awaited(self, lease: Lease) -> bool:
        """Whether other processes wait for what is fetched under this lease."""
        token = lease.token
        if token is None:
            return False
        return bool(await _or_none(self._shared.awaited(lease.ident, token, LEASE)))

    def let_go(self, lease: Lease, said: bytes) -> None:
        """Gives the right back, once all is written that was to be written under the key. `said`
        is for those who wait (`told`)."""
        token = lease.token
        if token is None:
            return

        async def release() -> None:
            if lease.renewing is not None:
                lease.renewing.cancel()
            try:
                await self._shared.release(lease.ident, token, said)
            finally:
                self._leases -= 1

        self._write(lease.key, release)

    async def _renew(self, ident: bytes, token: bytes) -> None:
        holding = True
        while holding:
            await asyncio.sleep(RENEWED)
            holding = await _or_none(self._shared.renew(ident, token, LEASE)) is not False

    # Purges.

    async def purge(self, purge: Purge) -> None:
        """Has everybody know. Raises StoreError."""
        await self._shared.purge(purge)

    @property
    def owes(self) -> bool:
        """Whether there is something that others do not know yet."""
        return self._owes_all or bool(self._owed)

    def owe(self, purge: Purge) -> None:
        """Has everybody know of these tags once they can be told."""
        self._owed.update(dict.fromkeys(purge.tags))
        if len(self._owed) > MAX_OWED:
            self._owes_all = True
            self._owed.clear()
        if self._owing is None or self._owing.done():
            self._owing = self._start(self._tell())

    async def _tell(self) -> None:
        while self.owes:
            await asyncio.sleep(_AGAIN)
            owed, every = self._owed, self._owes_all
            self._owed, self._owes_all = {}, False
            purge = Purge(prefix="", soft=True) if every else Purge(tuple(owed))
            try:
                await self._shared.purge(purge)
            except NobodyTold:
                pass  # the store has it now
            except StoreError:
                self._owes_all = self._owes_all or every
                self._owed |= owed

    # The process.

    async def close(self) -> None:
        """Writes what is on its way, for a moment, and lets go of all."""
        writing = list(self._writing.values())
        if writing:
            await asyncio.wait(writing, timeout=_LAST_WORDS)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._shared.close()

    def _start(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _or_none(asked: Awaitable[Any]) -> Any:
    """What was asked for, None where the store is in trouble."""
    try:
        return await asked
    except StoreError:
        return None
