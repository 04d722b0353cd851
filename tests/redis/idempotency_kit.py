"""What tests of idempotency records in Redis have in common: stores on real servers, and words."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

from redisservers import RedisServer, store_plan
from road_kit import eventually

from proxy.core.idempotency import Answer, Terms
from proxy.metrics import Metrics
from proxy.store.redis.idempotency import INLINE, RedisIdempotency, open_idempotency

RECORD = bytes(range(16))
OTHER = bytes(16)
ME, YOU = b"m" * 16, b"y" * 16
PRINT, PRINT_2 = b"f" * 32, b"g" * 32
TERMS = Terms(ttl=3_600_000)
GIVEN_AGAIN = TERMS._replace(release_unknown=True)
ANSWER = Answer(201, "Created", [("Content-Type", "text/plain"), ("X-A", "\xe4")], b"\x00paid\xff")
LARGE = ANSWER._replace(body=b"x" * (INLINE + 1))
"""One that a claim does not bring along."""


@asynccontextmanager
async def a_store(
    *servers: RedisServer,
    kind: Literal["standalone", "cluster"] = "standalone",
    timeout: float = 5.0,
    up: bool = True,
    now: Callable[[], int] | None = None,
    metrics: Metrics | None = None,
) -> AsyncIterator[RedisIdempotency]:
    """A store that is connected and hears news, unless `up` is false."""
    plan = store_plan(*servers, kind=kind, timeout=timeout, prefix="t")
    store = open_idempotency(plan, metrics or Metrics())
    store._now = now
    try:
        if up:
            assert await store.up(10), store.status()
            await eventually(lambda: store.status()["hears"])
        yield store
    finally:
        await store.close()


async def executed(store: RedisIdempotency, record: bytes = RECORD, token: bytes = ME) -> None:
    """Claimed and marked as sent."""
    await store.claim(record, token, PRINT, TERMS)
    assert await store.sent(record, token, TERMS)
