"""What tests of the shared tier have in common: answers, listeners, and tiers on real servers."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Literal

from redisservers import RedisServer, store_plan
from road_kit import eventually

from proxy.core.cache.record import Stored
from proxy.metrics import Metrics
from proxy.store.ports import Kept, Purge
from proxy.store.redis.cache import RedisCache, open_cache

KEY = bytes(range(16))
HOUR = 3_600_000
LARGE = b"x" * 50_000


def stored(length: int | None = 5, **changes: Any) -> Stored:
    """An answer that is fresh for a minute."""
    values: dict[str, Any] = {
        "method": "GET",
        "status": 200,
        "reason": "OK",
        "lines": [("Content-Type", "text/plain"), ("X-A", "\xe4")],
        "length": length,
        "vary": (),
        "date": 1_700_000_000_000,
        "requested": 1_700_000_000_000,
        "received": 1_700_000_000_100,
        "initial_age": 100,
        "lifetime": 60_000,
        "stale_while_revalidate": 0,
        "stale_if_error": 0,
        "no_cache": False,
        "must_revalidate": False,
        "immutable": False,
        "etag": '"a"',
        "last_modified": None,
    }
    return Stored(**(values | changes))


def kept(
    began: int,
    body: bytes = b"hello",
    *,
    target: str = "/a",
    hidden: tuple[str, ...] = (),
    **changes: Any,
) -> Kept:
    return Kept(stored(len(body), **changes), target, began, body, hidden=hidden)


class Listener:
    """Writes down what it hears."""

    def __init__(self, *tags: str) -> None:
        self.heard: list[tuple[Purge, int]] = []
        self.states: list[str] = []
        self.number = 0
        self._tags = tags

    def purged(self, purge: Purge, number: int) -> None:
        self.heard.append((purge, number))

    def tags(self) -> Collection[str]:
        return self._tags

    def lost(self) -> None:
        self.states.append("lost")

    def alive(self, ago: float) -> None:
        pass

    def back(self, number: int) -> None:
        self.states.append("back")
        self.number = number

    def purges(self) -> list[Purge]:
        """What was purged, without what is only said of the beginning."""
        return list(dict.fromkeys(purge for purge, _ in self.heard))


@asynccontextmanager
async def a_cache(
    *servers: RedisServer,
    kind: Literal["standalone", "cluster"] = "standalone",
    listener: Listener | None = None,
    timeout: float = 5.0,
    retention: int = HOUR,
    up: bool = True,
    database: int = 0,
    metrics: Metrics | None = None,
    port: int | None = None,
    blind: float = 10.0,
) -> AsyncIterator[RedisCache]:
    """A tier that is connected and hears purges, unless `up` is false. `port`: of a relay."""
    plan = store_plan(*servers, kind=kind, timeout=timeout, prefix="t")
    plan = replace(plan, url=replace(plan.url, database=database), cache_blind=blind)
    if port is not None:
        plan = replace(plan, url=replace(plan.url, nodes=(("127.0.0.1", port),)))
    cache = open_cache(plan, metrics or Metrics())
    try:
        cache.listen(listener or Listener(), lambda: retention)
        if up:
            assert await cache.up(10), cache.status()
            await eventually(lambda: cache.status()["healthy"])
        yield cache
    finally:
        await cache.close()


async def now(cache: RedisCache, key: bytes = KEY) -> int:
    """What a fetch that begins now began with."""
    return (await cache.lookup(key)).number
