"""Purges over the fleet: what a process does to have heard of all of them.

Rules:
- Whoever purges writes and publishes in one step, so no purge is kept without being told; a user
  that may not publish gets NobodyTold.
- While the subscription holds, the listener is told up to when everything was heard (`alive`).
- After a loss of the subscription: first it holds again, then what may have been missed is read,
  then the listener is `back`; so no purge falls between.
- Whatever comes back from the server says up to which number bans are known and since when nothing
  was lost (`born`). What is newer than this process knows is read or told before it goes on.
- Where the server has lost its numbers, what began before is to be validated (a soft purge of
  everything): purges may have been among what was lost.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from proxy.store.ports import NobodyTold, Purge, PurgeListener, StoreError
from proxy.store.redis.cache_names import CacheNames, tag_hash, tag_hashes
from proxy.store.redis.guarded_road import GuardedRoad
from proxy.store.redis.link import ended
from proxy.store.scripts import script

log = logging.getLogger(__name__)

_NUMBERS: Final = script("cache_numbers")
_BANS: Final = script("cache_bans")
_PURGE: Final = script("cache_purge")
_AT_A_TIME: Final = 1000  # tags that one call asks for
_WAIT: Final = 0.3  # seconds until a server that did not answer is asked again

_EVERYTHING: Final = Purge(prefix="", soft=True)


class SharedPurges:
    """What one process and the server tell each other of purges."""

    def __init__(self, road: GuardedRoad, names: CacheNames, ping_every: float) -> None:
        self._road = road
        self._names = names
        self._ping_every = ping_every
        self._listener: PurgeListener | None = None
        self._retention: Callable[[], int] = lambda: 0
        self._last = 0
        self._born = 0
        self._bans = 0
        self._catching_up: asyncio.Task[None] | None = None
        self.heard = False
        """Whether every purge is heard."""

    def listen(self, listener: PurgeListener, retention: Callable[[], int]) -> None:
        self._listener = listener
        self._retention = retention
        self._road.road.subscribe(
            self._names.purges, self._hear, self._lost, self._back, self._alive, self._ping_every
        )

    async def close(self) -> None:
        if self._catching_up is not None:
            await ended(self._catching_up)

    @property
    def least(self) -> int:
        """The lowest number that the server may give out, whatever it has lost."""
        return self._last + 1

    async def purge(self, purge: Purge) -> int:
        """As the port says. Raises StoreError; NobodyTold where it counts all the same."""
        text = json.dumps([purge.soft, purge.prefix, purge.tags], separators=(",", ":"))
        channel = self._names.purges
        keys = (self._names.numbers, self._names.bans)
        args = (
            self.least,
            self._retention(),
            b"s" if purge.soft else b"h",
            tag_hashes(dict.fromkeys(purge.tags)),
            b"" if purge.prefix is None else b"=" + purge.prefix.encode("latin-1"),
            channel,
            text,
        )
        number, told = await self._road.run(_PURGE, keys, args, size=len(text), must=True)
        self._tell(purge, number)
        if not told:
            raise NobodyTold(f"it is kept, but the store's user may not publish on {channel}")
        return int(number)

    async def of(self, tags: Sequence[str], retention: int = 0) -> tuple[int, dict[bytes, int]]:
        """The last number, and those of the hard purges of these tags by `tag_hash`; the listener
        is told of all. `retention`: ms for which something with these tags will be kept."""
        args = (self.least, retention, tag_hashes(tags))
        keys = (self._names.numbers, self._names.bans)
        reply = await self._road.run(_NUMBERS, keys, args)
        return reply[1], await self.told(reply, tags)

    async def told(self, reply: Sequence[Any], tags: Iterable[str]) -> dict[bytes, int]:
        """Takes in what a script says: born, last, bans, then {tag, hard, soft, before} for each of
        `tags` that was purged. The numbers of the hard purges by `tag_hash`."""
        born, last, bans = reply[:3]
        hard_purges = {}
        if len(reply) > 3:
            names: dict[bytes, list[str]] = {}
            for tag in tags:
                names.setdefault(tag_hash(tag), []).append(tag)
            for tag, hard, *softs in reply[3:]:
                hard_purges[tag] = hard
                for name in dict.fromkeys(names.get(tag, ())):
                    if hard:
                        self._tell(Purge((name,)), hard)
                    for soft in sorted(filter(None, softs)):
                        self._tell(Purge((name,), soft=True), soft)
        if bans > self._bans:
            await self._read_bans()
        self._note(born, last)
        return hard_purges

    @property
    def born(self) -> int:
        """What began before this number is not known to be untouched by what was lost."""
        return self._born

    async def _read_bans(self) -> None:
        keys = (self._names.numbers, self._names.bans)
        born, last, version, *found = await self._road.run(_BANS, keys, (self.least,))
        numbers = zip(found[::2], found[1::2], strict=True)
        for ban, number in sorted(numbers, key=lambda one: one[1]):
            prefix = ban[1:].decode("latin-1")
            self._tell(Purge(prefix=prefix, soft=ban[:1] != b"h"), number)
        self._bans = max(self._bans, version)
        self._note(born, last)

    def _note(self, born: int, last: int) -> None:
        if born > self._born:
            self._born = born
            self._tell(_EVERYTHING, born)
        self._last = max(self._last, last)

    def _tell(self, purge: Purge, number: int) -> None:
        self._last = max(self._last, number)
        if self._listener is not None:
            self._listener.purged(purge, number)

    # The subscription

    def _hear(self, message: bytes) -> None:
        number, _, text = message.partition(b" ")
        try:
            soft, prefix, tags = json.loads(text)
            purge = Purge(tuple(tags), prefix, soft)
            self._tell(purge, int(number))
        except (ValueError, TypeError):
            log.warning("a message on %s that is no purge", self._names.purges)

    def _lost(self) -> None:
        self.heard = False
        self._stop()
        if self._listener is not None:
            self._listener.lost()

    def _back(self) -> None:
        self._stop()
        self._catching_up = asyncio.get_running_loop().create_task(self._catch_up())

    def _alive(self, ago: float) -> None:
        if self.heard and self._listener is not None:
            self._listener.alive(ago)

    def _stop(self) -> None:
        if self._catching_up is not None:
            self._catching_up.cancel()

    async def _catch_up(self) -> None:
        listener = self._listener
        assert listener is not None
        while True:
            try:
                last, _ = await self.of(())
                tags = list(listener.tags())
                for first in range(0, len(tags), _AT_A_TIME):
                    await self.of(tags[first : first + _AT_A_TIME])
                break
            except StoreError as error:
                log.debug("purges may have been missed, and cannot be read yet: %s", error)
            await asyncio.sleep(_WAIT)
        self.heard = True
        listener.back(max(last, self._last))
