"""The shared tier of the cache in Redis: what the processes of a fleet have stored, leased and
purged.

Rules:
- Heads stand together under their primary key, with small bodies (INLINE) in them; a larger body is
  apart, under a name that it shares with no other, so head and body always belong together. A body
  is there before the head that leads to it, and stays a little longer than that.
- Everything has a time to live. Nothing counts that began before the server lost what it knew of
  purges: what is evicted or lost is a miss, never a purge undone.
- In a cluster purges are on one server: a lookup that finds nothing waits once for both, one that
  finds something asks for its tags then.
- Whatever cannot be asked is a StoreError. Two roads: a large body delays no lookup.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from proxy.core.cache.record import Stored
from proxy.metrics import Metrics
from proxy.policy.snapshot import StorePlan
from proxy.store.ports import LEAST_BLIND, Kept, Looked, Mark, Purge, PurgeListener
from proxy.store.redis import cache_codec as codec
from proxy.store.redis.cache_leases import Leases
from proxy.store.redis.cache_names import (
    CacheNames,
    mark_id,
    new_body,
    tag_hash,
    tag_hashes,
    variant_id,
)
from proxy.store.redis.cache_purges import SharedPurges
from proxy.store.redis.guarded_road import GuardedRoad
from proxy.store.redis.pubsub import PING_EVERY
from proxy.store.redis.road import open_road
from proxy.store.redis.road_port import Road
from proxy.store.scripts import script

_LOOK: Final = script("cache_look")
_PUT: Final = script("cache_put")
_DROP: Final = script("cache_drop")

INLINE: Final = 8192
"""Bytes of the largest body that stands in its head's entry."""
BODY_AHEAD: Final = 60_000
"""ms that a body is kept at first: its head, which follows, sets its time."""


def open_cache(plan: StorePlan, metrics: Metrics) -> "RedisCache":
    """The shared tier that a store's plan asks for, on roads of its own. Needs the running event
    loop; `plan.url` or `plan.cache_url` is not memory://."""
    plan = replace(plan, url=plan.cache_url or plan.url)
    heads, bodies = open_road(plan, metrics), open_road(plan, metrics)
    names = CacheNames(plan.prefix, plan.url.database)
    # Often enough for a few pings to go unanswered before memory is not used any more.
    ping_every = min(PING_EVERY, max(LEAST_BLIND, plan.cache_blind) / 4)
    return RedisCache(heads, bodies, names, plan.timeout, metrics, ping_every=ping_every)


class RedisCache:
    """A SharedCache over two Roads, which it closes with itself.

    `timeout`: seconds for what is small. `clock` in seconds, never going back. `ping_every`:
    seconds of silence after which the server is asked whether purges are heard.
    """

    def __init__(
        self,
        heads: Road,
        bodies: Road,
        names: CacheNames,
        timeout: float,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        ping_every: float = PING_EVERY,
    ) -> None:
        self._names = names
        self._heads = GuardedRoad(heads, timeout, metrics, clock)
        self._bodies = GuardedRoad(bodies, timeout, metrics, clock)
        self._wall = wall
        self._purges = SharedPurges(self._heads, self._names, ping_every)
        self._leases = Leases(self._heads, self._names, clock)
        self.lease = self._leases.lease
        self.renew = self._leases.renew
        self.awaited = self._leases.awaited
        self.release = self._leases.release
        self.released = self._leases.released

    # What is stored

    async def lookup(self, key: bytes) -> Looked:
        """As the port says."""
        purges = self._purges
        entries, numbers = self._names.entries(key), self._names.numbers
        apart = self._heads.road.cluster
        keys = (entries,) if apart else (entries, numbers)
        looking = self._heads.run(_LOOK, keys, (purges.least,))
        if apart:
            (text, now), (last, _) = await asyncio.gather(looking, purges.of(()))
        else:
            text, now, *said = await looking
            last = said[1]
        found: list[Kept] = []
        marks: list[Mark] = []
        for entry in codec.entries(text):
            if entry.expires <= now:
                continue
            if entry.variant:
                kept = codec.read_variant(entry)
                if kept is not None:
                    found.append(kept)
            elif (mark := codec.read_mark(entry)) is not None:
                marks.append(mark)
        tags = dict.fromkeys([tag for kept in found for tag in kept.tags])
        if not apart:
            hard = await purges.told(said, tags)
        else:
            hard = (await purges.of(list(tags)))[1] if tags else {}
        return Looked([kept for kept in found if self._counts(kept, hard)], marks, last)

    async def body(self, key: bytes, kept: Kept) -> bytes | None:
        """As the port says."""
        name = self._names.bodies(key) + kept.place
        size = kept.stored.length or 0
        body = await self._bodies.ask("cache_body", (b"GET", name), size)
        return body if isinstance(body, bytes) and len(body) == size else None

    async def put(self, key: bytes, kept: Kept, ttl: int) -> None:
        """As the port says. Sets `kept.place` where its body is apart. What was purged meanwhile
        is not stored."""
        _, hard = await self._purges.of(kept.tags, ttl)
        if ttl <= 0 or not self._counts(kept, hard):
            return
        body = kept.body
        if body is not None and len(body) <= INLINE:
            await self._put(key, kept, ttl, b"", body)
            return
        if kept.place and await self._put(key, kept, ttl, kept.place, b""):
            return
        if body is None:
            return
        place = new_body()
        name = self._names.bodies(key) + place
        command = (b"SET", name, body, b"PX", BODY_AHEAD)
        await self._bodies.ask("cache_body_put", command, len(body))
        await self._put(key, kept, ttl, place, b"")
        kept.place = place

    async def drop(self, key: bytes, kept: Kept) -> None:
        """As the port says."""
        args = (variant_id(key, kept.stored), self._names.bodies(key))
        await self._heads.run(_DROP, (self._names.entries(key),), args)

    async def mark(self, key: bytes, mark: Mark) -> None:
        """As the port says."""
        ttl = mark.until - int(self._wall() * 1000)
        if ttl > 0:
            ident = mark_id(key, mark.vary, mark.kind)
            args = (b"m", ident, ttl, b"", codec.write_mark(mark), b"", b"")
            await self._heads.run(_PUT, (self._names.entries(key),), args)

    # Purges

    async def purge(self, purge: Purge) -> int:
        """As the port says."""
        return await self._purges.purge(purge)

    def listen(self, listener: PurgeListener, retention: Callable[[], int]) -> None:
        """As the port says. `back` is called for the first time when all is heard."""
        self._purges.listen(listener, retention)

    # The store

    async def up(self, seconds: float) -> bool:
        """Waits for the first connections, for so long at most; whether there are."""
        return await self._heads.road.up(seconds) and await self._bodies.road.up(seconds)

    def status(self) -> dict[str, object]:
        """As the port says."""
        road = self._heads.road.status()
        healthy = bool(road["connected"]) and self._purges.heard
        healthy = healthy and self._heads.well and self._bodies.well
        return {"healthy": healthy, "hears_purges": self._purges.heard, **road}

    async def close(self) -> None:
        await self._leases.close()
        await self._purges.close()
        await self._heads.close()
        await self._bodies.close()

    def _counts(self, kept: Kept, hard: dict[bytes, int]) -> bool:
        """Whether no purge voids it, as far as tags and what the server has lost go."""
        began = kept.began
        if began < self._purges.born:
            return False
        if not hard:
            return True
        return all(hard.get(tag_hash(tag), 0) <= began for tag in kept.tags)

    async def _put(self, key: bytes, kept: Kept, ttl: int, place: bytes, body: bytes) -> Any:
        """Puts a head; 0 where the body at `place` has gone."""
        stored = kept.stored
        bodies = self._names.bodies(key)
        record = codec.write_variant(kept, body)
        others = [mark_id(key, vary, kind) for vary in {(), stored.vary} for kind in _kinds(stored)]
        if stored.method == "GET":  # it answers HEAD, too
            others.append(variant_id(key, replace(stored, method="HEAD")))
        entries = self._names.entries(key)
        keys = (entries, bodies + place) if place else (entries,)
        args = (
            b"v",
            variant_id(key, stored),
            ttl,
            tag_hashes(kept.tags),
            record,
            b"".join(others),
            bodies,
        )
        return await self._heads.run(_PUT, keys, args, size=len(record))


def _kinds(stored: Stored) -> tuple[str, ...]:
    """The kinds of marks that are about the request that brought this answer."""
    authorized = ("authorization",) if stored.authorized else ()
    cookie = ("cookie",) if stored.unkeyed_cookie else ()
    return ("", *authorized, *cookie)
