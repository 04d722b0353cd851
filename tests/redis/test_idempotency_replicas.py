"""What is sent is on so many replicas first, or it is not sent."""

import asyncio
import time

from idempotency_kit import (
    ANSWER,
    ME,
    NAMES,
    OTHER,
    PRINT,
    RECORD,
    TERMS,
    YOU,
    Pair,
    a_store,
    exists,
    through,
    token,
)
from relay import Fault, Relay
from road_kit import Trio, blocking, eventually, outcome

from proxy.core.idempotency import (
    Mine,
    Replay,
    Running,
    State,
    Unknown,
)
from proxy.core.store_urls import read_store_url
from proxy.metrics import Metrics
from proxy.policy.snapshot import StorePlan
from proxy.store.redis.idempotency import open_idempotency


async def test_what_is_sent_is_on_the_replica_first(redis_servers):
    pair = await blocking(Pair, redis_servers)
    async with a_store(pair.primary, timeout=2.0) as store:
        for number in range(50):
            record = number.to_bytes(16, "big")
            await store.claim(record, ME, PRINT, TERMS)
            assert await store.sent(record, ME, TERMS, replicas=1)
            assert pair.replica.call("HGET", NAMES.record(record), "state") == b"sent"
        assert not await store.sent(RECORD, ME, TERMS, replicas=1)  # nobody has claimed that


async def test_too_few_replicas_are_a_no_in_time(redis_servers):
    pair = await blocking(Pair, redis_servers)
    async with a_store(pair.primary, timeout=0.3) as store:
        await store.claim(RECORD, ME, PRINT, TERMS)
        began = time.monotonic()
        assert not await store.sent(RECORD, ME, TERMS, replicas=2)
        assert 0.25 < time.monotonic() - began < 3
        assert await store.sent(RECORD, ME, TERMS, replicas=1)
        with pair.replica.paused():
            assert not await store.sent(RECORD, ME, TERMS, replicas=1)
            # Whoever waits for replicas holds nobody else up.
            waiting = asyncio.ensure_future(store.sent(RECORD, ME, TERMS, replicas=1))
            await asyncio.sleep(0.01)
            assert await store.claim(OTHER, ME, PRINT, TERMS) == Mine()
            assert await store.sent(OTHER, ME, TERMS)
            assert not waiting.done()
            assert not await waiting
        assert await store.release(RECORD, ME)
        assert store.status()["healthy"]
        assert store.status()["owed"] == 0


async def test_a_server_that_ends_a_wait_late_is_no_trouble(redis_server):
    """It looks at those who wait ten times a second, so 50 ms may take it 150."""
    async with a_store(redis_server, timeout=0.05) as store:
        await eventually(lambda: store.claim(RECORD, ME, PRINT, TERMS))
        for _ in range(12):
            assert not await store.sent(RECORD, ME, TERMS, replicas=1)
        assert store._large.well


async def test_many_share_a_wait(redis_servers):
    pair = await blocking(Pair, redis_servers)
    async with a_store(pair.primary, timeout=2.0) as store:
        records = [number.to_bytes(16, "big") for number in range(300)]
        await asyncio.gather(*(store.claim(record, ME, PRINT, TERMS) for record in records))
        pair.primary.call("SCRIPT", "FLUSH")  # and a server that does not know the script
        marked = await asyncio.gather(
            *(store.sent(record, ME, TERMS, replicas=1) for record in records)
        )
        assert marked == [True] * 300
        there = [pair.replica.call("HGET", NAMES.record(r), "state") for r in records]
        assert there == [b"sent"] * 300
        assert 1 <= await blocking(pair.waits) < 100


async def test_a_wait_says_nothing_of_another_connection(redis_servers):
    """The connection is lost between the mark and the WAIT: a new one has written nothing, and
    its WAIT would say that all replicas have all of that."""
    pair = await blocking(Pair, redis_servers)
    async with (
        Relay(pair.primary.port) as relay,
        a_store(through(relay, pair.primary), timeout=1.0) as store,
    ):
        await store.claim(RECORD, ME, PRINT, TERMS)
        with pair.replica.paused():
            relay.suffer(Fault("answer", "reset", after=len(b":1\r\n")))
            marking = asyncio.ensure_future(outcome(store.sent(RECORD, ME, TERMS, replicas=1)))
            assert await marking == "down"
            relay.recover()
        assert not await store.sent(RECORD, ME, TERMS)  # it is owed a release
        await eventually(lambda: exists(pair.primary) == 0)


async def test_a_failover_forgets_nothing_that_a_replica_has(redis_servers):
    trio = await blocking(Trio, redis_servers)
    plan = StorePlan(read_store_url(trio.url()), timeout=1.0, prefix="t")
    store = open_idempotency(plan, Metrics())
    try:
        assert await store.up(10)
        await store.claim(RECORD, ME, PRINT, TERMS)
        assert await store.sent(RECORD, ME, TERMS, replicas=1)
        await blocking(trio.primary.kill)

        async def answers() -> bool:
            verdict = await store.claim(RECORD, token(), PRINT, TERMS)
            assert isinstance(verdict, (Running, Unknown))
            return True

        await eventually(answers, 30)
        assert await store.settle(RECORD, ME, PRINT, State.RECORDED, ANSWER, TERMS)
        assert await store.claim(RECORD, YOU, PRINT, TERMS) == Replay(ANSWER)
    finally:
        await store.close()
