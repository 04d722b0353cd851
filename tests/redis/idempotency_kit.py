"""What tests of idempotency records in Redis have in common: stores on real servers, and words."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Literal

from redisservers import RedisServer, RedisServers, store_plan, wait_for
from relay import Relay
from road_kit import eventually

from proxy.core.idempotency import Answer, Terms
from proxy.metrics import Metrics
from proxy.store.redis.idempotency import INLINE, RedisIdempotency, open_idempotency
from proxy.store.redis.idempotency_codec import IdempotencyNames

RECORD = bytes(range(16))
OTHER = bytes(16)
ME, YOU = b"m" * 16, b"y" * 16
PRINT, PRINT_2 = b"f" * 32, b"g" * 32
TERMS = Terms(ttl=3_600_000)
GIVEN_AGAIN = TERMS._replace(release_unknown=True)
ANSWER = Answer(201, "Created", [("Content-Type", "text/plain"), ("X-A", "\xe4")], b"\x00paid\xff")
LARGE = ANSWER._replace(body=b"x" * (INLINE + 1))
"""One that a claim does not bring along."""

NAMES = IdempotencyNames("t")
KEY = NAMES.record(RECORD)
_FRESH = count(1)


def token() -> bytes:
    return next(_FRESH).to_bytes(16, "big")


def through(relay: Relay, server: RedisServer) -> RedisServer:
    """The server, by way of the relay."""
    return RedisServer(server.folder, port=relay.port)


def exists(server: RedisServer) -> int:
    """Whether there is the record of RECORD: 1 or 0."""
    return int(server.call("EXISTS", KEY))


class Pair:
    """A primary and a replica in step with it."""

    def __init__(self, servers: RedisServers) -> None:
        own = {"repl-diskless-sync-delay": 0}
        self.primary = servers.start(options=own)
        self.replica = servers.start(options={**own, "replicaof": f"127.0.0.1 {self.primary.port}"})
        wait_for(self.in_step, "a replica in step")

    def in_step(self) -> bool:
        """As both see it: WAIT counts those that have told the primary so."""
        up = self.replica.call("INFO", "replication").get("master_link_status") == "up"
        return up and self.primary.call("WAIT", 1, 100) == 1

    def waits(self) -> int:
        stats = self.primary.call("INFO", "commandstats").get("cmdstat_wait", {"calls": 0})
        return int(stats["calls"])


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
