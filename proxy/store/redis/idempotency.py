"""Idempotency records in Redis: shared by every process of a fleet, and there after a restart.

Rules:
- Every step is a script on the record's server, by its clock. Whatever cannot be asked is a
  StoreError, never an absent record.
- What may have been claimed or marked without an answer is owed a release: nothing was sent under
  it. It is paid beside whatever goes on, and a token that owes one may not send any more.
- Two roads: what is large, or waits for replicas, delays no claim.
- Whoever waits is woken by pub/sub; while nothing is heard, nobody waits for longer than UNHEARD.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from proxy.core.idempotency import Answer, Replay, Running, State, Terms, Verdict
from proxy.metrics import Metrics
from proxy.policy.snapshot import StorePlan
from proxy.store.news import News
from proxy.store.ports import StoreError
from proxy.store.redis import idempotency_codec as codec
from proxy.store.redis.guarded_road import GuardedRoad, NotAsked
from proxy.store.redis.idempotency_codec import IdempotencyNames
from proxy.store.redis.link import ended
from proxy.store.redis.road import open_road
from proxy.store.redis.road_port import Road
from proxy.store.scripts import script

_CLAIM: Final = script("idempotency_claim")
_SENT: Final = script("idempotency_sent")
_RENEW: Final = script("idempotency_renew")
_SETTLE: Final = script("idempotency_settle")
_RELEASE: Final = script("idempotency_release")
_FREE: Final = script("idempotency_free")

INLINE: Final = 65_536
"""Bytes of the largest body that a claim brings along; a larger one is asked for by itself."""
UNHEARD: Final = 0.1
"""Seconds."""
OWED: Final = 300_000
"""ms for which a release is owed of what may be marked as sent: for a server's restart. What is
only claimed ends by its lease."""
_MOST_OWED: Final = 4096  # claims beyond end by their leases
_PAY_EVERY: Final = 0.25  # seconds
_TRIES: Final = 3


def open_idempotency(plan: StorePlan, metrics: Metrics) -> "RedisIdempotency":
    """The store of records that a store's plan asks for, on roads of its own. Needs the running
    event loop; `plan.idempotency_at` is not memory://."""
    plan = replace(plan, url=plan.idempotency_at)
    names = IdempotencyNames(plan.prefix, plan.url.database)
    small, large = open_road(plan, metrics), open_road(plan, metrics)
    return RedisIdempotency(small, large, names, plan.timeout, metrics)


class RedisIdempotency:
    """An IdempotencyStore over two Roads, which it closes with itself.

    `timeout`: seconds for what is small. `clock` in seconds, never going back. `now` gives ms in
    place of the server's clock, for tests.
    """

    def __init__(
        self,
        small: Road,
        large: Road,
        names: IdempotencyNames,
        timeout: float,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], int] | None = None,
    ) -> None:
        self._names = names
        self._small = GuardedRoad(small, timeout, metrics, clock)
        self._large = GuardedRoad(large, timeout, metrics, clock)
        self._clock = clock
        self._now = now
        self._news = News(clock)
        self._hearing = False
        self._owed: dict[tuple[bytes, bytes], float] = {}
        """Releases by record and token, and until when they are tried."""
        self._paying: asyncio.Task[None] | None = None
        small.subscribe(names.channel, self._news.tell, self._lost, self._back)

    async def claim(self, record: bytes, token: bytes, fingerprint: bytes, terms: Terms) -> Verdict:
        """As the port says; a body over INLINE takes a second round trip."""
        topic = self._news.watch(record)
        running = False
        try:
            for _ in range(_TRIES):
                verdict = await self._claim(record, token, fingerprint, terms)
                if verdict is not None:
                    running = isinstance(verdict, Running)
                    return verdict
        finally:
            self._news.leave(record, topic, coming=running)
        raise StoreError("refused", "the record was replaced again and again while it was read")

    async def sent(self, record: bytes, token: bytes, terms: Terms, replicas: int = 0) -> bool:
        """As the port says."""
        if (record, token) in self._owed:
            return False
        keys = (self._names.record(record),)
        args = (self._time(), token, terms.ttl, terms.lease)
        with self._owing(record, token, OWED):
            if not replicas:
                return bool(await self._small.run(_SENT, keys, args))
            marked, acknowledged = await self._large.run_and_wait(_SENT, keys, args, replicas)
        return bool(marked) and acknowledged >= replicas

    async def renew(self, record: bytes, token: bytes, terms: Terms) -> bool:
        """As the port says."""
        args = (self._time(), token, terms.lease)
        return bool(await self._small.run(_RENEW, (self._names.record(record),), args))

    async def settle(
        self,
        record: bytes,
        token: bytes,
        fingerprint: bytes,
        outcome: State,
        answer: Answer | None,
        terms: Terms,
    ) -> bool:
        """As the port says."""
        self._owed.pop((record, token), None)  # it was sent after all, on its owner's own account
        head = b"" if answer is None else codec.write_head(answer)
        body = b"" if answer is None else answer.body
        said = (outcome.value, head, body, terms.ttl)
        args = (self._time(), token, fingerprint, *said, *self._telling(record))
        size = len(head) + len(body)
        road = self._small if size <= INLINE else self._large
        return bool(await road.run(_SETTLE, (self._names.record(record),), args, size=size))

    async def release(self, record: bytes, token: bytes) -> bool:
        """As the port says. What cannot be let go of now is later."""
        try:
            return await self._release(record, token)
        except BaseException:
            self._owe(record, token, OWED)
            raise

    async def free(self, record: bytes) -> bool:
        """As the port says."""
        args = (self._time(), *self._telling(record))
        return bool(await self._small.run(_FREE, (self._names.record(record),), args))

    async def news(self, record: bytes, seconds: float) -> None:
        """As the port says."""
        await self._news.wait(record, seconds if self._hearing else min(seconds, UNHEARD))

    # The store

    async def up(self, seconds: float) -> bool:
        """Waits for the first connections, for so long at most; whether there are."""
        until = self._clock() + seconds
        small = await self._small.road.up(seconds)
        return small and await self._large.road.up(max(0.0, until - self._clock()))

    def status(self) -> dict[str, object]:
        """As the port says; `owed`: releases that are still to be made."""
        road = self._small.road.status()
        healthy = bool(road["connected"]) and self._small.well and self._large.well
        return {"healthy": healthy, "hears": self._hearing, "owed": len(self._owed), **road}

    async def close(self) -> None:
        """Lets go of everything; what is owed is tried once more."""
        if self._paying is not None:
            await ended(self._paying)
        await self._pay()
        self._news.tell_all()
        await self._small.close()
        await self._large.close()

    # Asking

    async def _claim(
        self, record: bytes, token: bytes, fingerprint: bytes, terms: Terms
    ) -> Verdict | None:
        """What a claim finds; None where that has changed before all of it was read."""
        key = self._names.record(record)
        release = b"1" if terms.release_unknown else b""
        args = (self._time(), token, fingerprint, terms.lease, release, INLINE)
        with self._owing(record, token, terms.lease):
            reply = await self._small.run(_CLAIM, (key,), args)
        verdict = codec.read_verdict(reply)
        if verdict is not None:
            return verdict
        command = (b"HMGET", key, b"state", b"fingerprint", b"head", b"body")
        answer = await self._large.ask("idempotency_answer", command, reply[3])
        state, print_, head, body = answer
        if state != State.RECORDED.value.encode() or print_ != fingerprint:
            return None
        return Replay(codec.read_answer(head, body))

    async def _release(self, record: bytes, token: bytes) -> bool:
        args = (self._time(), token, *self._telling(record))
        return bool(await self._small.run(_RELEASE, (self._names.record(record),), args))

    def _time(self) -> int | bytes:
        return b"" if self._now is None else self._now()

    def _telling(self, record: bytes) -> tuple[str, bytes]:
        return self._names.channel, record

    # What is owed

    @contextmanager
    def _owing(self, record: bytes, token: bytes, lease: int) -> Iterator[None]:
        """A call without an answer (its caller went away, maybe) is owed a release."""
        try:
            yield
        except NotAsked:
            raise
        except BaseException:
            self._owe(record, token, lease)
            raise

    def _owe(self, record: bytes, token: bytes, lease: int) -> None:
        if len(self._owed) >= _MOST_OWED and lease < OWED:
            return
        self._owed[record, token] = self._clock() + lease / 1000
        if self._paying is None or self._paying.done():
            self._paying = asyncio.get_running_loop().create_task(self._pay_on())

    async def _pay_on(self) -> None:
        while self._owed:
            await self._pay()
            if self._owed:
                await asyncio.sleep(_PAY_EVERY)

    async def _pay(self) -> None:
        """Tries each release that is owed once."""
        now = self._clock()
        for (record, token), until in list(self._owed.items()):
            if until <= now:
                del self._owed[record, token]
        if self._owed and self._small.well:
            await asyncio.gather(*[self._pay_one(*one) for one in self._owed])

    async def _pay_one(self, record: bytes, token: bytes) -> None:
        try:
            await self._release(record, token)
        except StoreError:
            return
        self._owed.pop((record, token), None)

    # The subscription

    def _lost(self) -> None:
        self._hearing = False
        self._news.tell_all()

    def _back(self) -> None:
        self._hearing = True
        self._news.tell_all()
