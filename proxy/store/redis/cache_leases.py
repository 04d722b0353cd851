"""Leases over the fleet: who fetches a key for everybody, and who waits for that.

Rules:
- A lease has an owner's token and an end: a process that dies holds nobody up for longer.
- Who was refused is woken when it is let go, also where that happens before it begins to wait; and
  in any case when it would have ended, so that somebody takes it over.
- While nothing is heard, nobody waits for a message for longer than UNHEARD.
- A lease whose answer never came (too late, or who asked went away) is given back.
"""

import asyncio
from collections.abc import Callable
from os import urandom
from typing import Final

from proxy.store.ports import StoreError
from proxy.store.redis.cache_names import CacheNames
from proxy.store.redis.guarded_road import GuardedRoad
from proxy.store.scripts import script

_LEASE: Final = script("cache_lease")
_RENEW: Final = script("cache_renew")
_RELEASE: Final = script("cache_release")

UNHEARD: Final = 0.1
"""Seconds."""
_AWAITED: Final = 2  # what cache_renew says of a lease that somebody waits for
_KEY: Final = 16  # bytes of a key, which a message begins with
_MOST: Final = 1024  # of those that were refused; more are looked through for such as never waited


class _Refused:
    """A lease that another has."""

    __slots__ = ("asking", "done", "said", "until", "waiting")

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.said: bytes | None = None
        """What was told when it was let go."""
        self.until = 0.0
        """When it ends, unless it is held on."""
        self.asking = 0
        self.waiting = 0


class Leases:
    """Leases of primary keys. `clock` in seconds, never going back."""

    def __init__(self, road: GuardedRoad, names: CacheNames, clock: Callable[[], float]) -> None:
        self._road = road
        self._names = names
        self._clock = clock
        self._refused: dict[bytes, _Refused] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._hearing = False
        road.road.subscribe(names.released, self._hear, self._lost, self._back)

    async def lease(self, key: bytes, ttl: int) -> bytes | None:
        """As the port says. Raises StoreError."""
        token = urandom(12)
        refused = self._refused.get(key)
        if refused is None or refused.done.is_set():
            self._make_room()
            # Known before the server is asked: the lease may be let go before its answer is read.
            refused = self._refused[key] = _Refused()
        refused.asking += 1
        left = 0
        try:
            left = await self._road.run(_LEASE, (self._names.lease(key),), (token, ttl))
        except BaseException:  # cancelled among them
            self._give_back(key, token)
            raise
        finally:
            refused.asking -= 1
            if not left:
                self._forget(key, refused)
        if not left:
            return token
        refused.until = self._clock() + left / 1000
        return None

    async def renew(self, key: bytes, token: bytes, ttl: int) -> bool:
        """As the port says. Raises StoreError."""
        return bool(await self._road.run(_RENEW, (self._names.lease(key),), (token, ttl)))

    async def awaited(self, key: bytes, token: bytes, ttl: int) -> bool:
        """As the port says. Raises StoreError."""
        held = await self._road.run(_RENEW, (self._names.lease(key),), (token, ttl))
        return bool(held == _AWAITED)

    async def release(self, key: bytes, token: bytes, said: bytes = b"") -> None:
        """As the port says. Raises StoreError."""
        args = (token, self._names.released, key + said)
        await self._road.run(_RELEASE, (self._names.lease(key),), args)

    async def released(self, key: bytes, timeout: float) -> bytes | None:
        """As the port says; None, too, when the lease ends."""
        refused = self._refused.get(key)
        if refused is None:
            return None
        left = refused.until - self._clock()
        if not self._hearing:
            left = min(left, UNHEARD)
        refused.waiting += 1
        try:
            async with asyncio.timeout(max(0.0, min(timeout, left))):
                await refused.done.wait()
        except TimeoutError:
            pass
        finally:
            refused.waiting -= 1
            self._forget(key, refused)
        return refused.said

    async def close(self) -> None:
        self._wake_all()
        for task in self._background:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background)

    def _hear(self, message: bytes) -> None:
        refused = self._refused.get(message[:_KEY])
        if refused is not None:
            refused.said = message[_KEY:]
            refused.done.set()

    def _lost(self) -> None:
        self._hearing = False
        self._wake_all()

    def _back(self) -> None:
        self._hearing = True

    def _wake_all(self) -> None:
        for refused in self._refused.values():
            refused.done.set()

    def _forget(self, key: bytes, refused: _Refused) -> None:
        if not refused.asking and not refused.waiting and self._refused.get(key) is refused:
            del self._refused[key]

    def _make_room(self) -> None:
        """Forgets those that were refused and never came to wait."""
        if len(self._refused) < _MOST:
            return
        now = self._clock()
        for key, refused in list(self._refused.items()):
            if refused.until < now and not refused.asking and not refused.waiting:
                del self._refused[key]

    def _give_back(self, key: bytes, token: bytes) -> None:
        async def give_back() -> None:
            try:
                await self.release(key, token)
            except StoreError:
                pass  # it ends by itself

        task = asyncio.get_running_loop().create_task(give_back())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
