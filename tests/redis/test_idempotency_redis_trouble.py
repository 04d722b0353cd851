"""Idempotency records while Redis is gone, hangs, is full, or answers too late."""

import asyncio
import time

import pytest
from idempotency_kit import (
    ANSWER,
    LARGE,
    ME,
    OTHER,
    PRINT,
    RECORD,
    TERMS,
    YOU,
    Pair,
    a_store,
    executed,
    exists,
    through,
    token,
)
from relay import Relay
from road_kit import blocking, eventually, outcome

from proxy.core.idempotency import (
    LEASE,
    Mine,
    Replay,
    State,
)
from proxy.metrics import Metrics
from proxy.store.redis import idempotency
from proxy.store.redis.guarded_road import NotAsked


async def everything(store) -> list[object]:
    """The outcome of each thing that can be asked."""
    calls = [
        store.claim(RECORD, token(), PRINT, TERMS),
        store.sent(RECORD, token(), TERMS),
        store.sent(RECORD, token(), TERMS, 1),
        store.renew(RECORD, token(), TERMS),
        store.settle(RECORD, token(), PRINT, State.RECORDED, ANSWER, TERMS),
        store.settle(RECORD, token(), PRINT, State.RECORDED, LARGE, TERMS),
        store.release(RECORD, token()),
        store.free(RECORD),
    ]
    return [await outcome(call) for call in calls]


async def test_without_a_server_everything_fails_at_once_and_comes_back(redis_servers):
    server = redis_servers.create()
    async with a_store(server, up=False) as store:
        began = time.monotonic()
        assert await everything(store) == ["down"] * 8
        assert time.monotonic() - began < 5  # which is one deadline
        assert store.status()["healthy"] is False
        await blocking(server.start)
        await eventually(lambda: store.status()["healthy"] and store.status()["hears"])
        await executed(store)
        await eventually(lambda: store.status()["owed"] == 0)


async def test_a_server_that_dies_under_a_call(redis_servers):
    server = await blocking(redis_servers.start)
    metrics = Metrics()
    async with a_store(server, timeout=5.0, metrics=metrics) as store:
        await executed(store)
        server.pause()
        calls = [
            asyncio.ensure_future(outcome(call))
            for call in (
                store.claim(RECORD, YOU, PRINT, TERMS),
                store.sent(RECORD, ME, TERMS),
                store.settle(RECORD, ME, PRINT, State.RECORDED, ANSWER, TERMS),
                store.sent(RECORD, ME, TERMS, 1),
            )
        ]
        await asyncio.sleep(0.02)
        assert server.process is not None
        server.process.kill()  # without waking it first
        await blocking(server.kill)
        async with asyncio.timeout(10):
            assert await asyncio.gather(*calls) == ["down"] * 4
        assert metrics.store("idempotency_sent").errors == 2
        assert metrics.store("idempotency_claim").errors == 1
        await blocking(server.start)
        await eventually(lambda: store.claim(RECORD, token(), PRINT, TERMS))


async def test_a_server_that_hangs_costs_a_few_deadlines_and_then_nothing(redis_servers):
    server = await blocking(redis_servers.start)
    async with a_store(server, timeout=0.2) as store:
        with server.paused():
            reasons = {await outcome(store.claim(RECORD, token(), PRINT, TERMS)) for _ in range(40)}
            assert reasons <= {"timeout", "down"}
            with pytest.raises(NotAsked):
                await store.claim(RECORD, token(), PRINT, TERMS)
            owed = store.status()["owed"]
            assert 1 <= owed <= 20, "most were not asked for"
            await outcome(store.claim(RECORD, token(), PRINT, TERMS))
            assert store.status()["owed"] == owed  # what was not asked for is not owed
        await eventually(lambda: store.status()["healthy"])
        await eventually(lambda: store.status()["owed"] == 0)
        # None of the claims that hung is held against whoever comes now.
        assert await store.claim(RECORD, YOU, PRINT, TERMS) == Mine()


async def test_a_full_server_refuses_and_is_no_trouble(redis_servers):
    server = await blocking(redis_servers.start)
    async with a_store(server) as store:
        await executed(store)
        server.call("CONFIG", "SET", "maxmemory", "1")
        for _ in range(20):
            assert await outcome(store.claim(OTHER, ME, PRINT, TERMS)) == "refused"
        server.call("CONFIG", "SET", "maxmemory", "0")
        assert await store.settle(RECORD, ME, PRINT, State.RECORDED, ANSWER, TERMS)


async def test_a_claim_whose_answer_is_late_is_let_go(redis_server):
    async with (
        Relay(redis_server.port) as relay,
        a_store(through(relay, redis_server), timeout=0.4) as store,
    ):
        relay.delay = 1.0
        assert await outcome(store.claim(RECORD, ME, PRINT, TERMS)) == "timeout"
        relay.delay = 0.0
        began = time.monotonic()
        await eventually(lambda: store.status()["owed"] == 0 and exists(redis_server) == 0)
        assert time.monotonic() - began < LEASE / 2000
        assert await store.claim(RECORD, YOU, PRINT, TERMS) == Mine()


@pytest.mark.parametrize("replicas", [0, 1])
async def test_a_mark_whose_answer_is_late_is_let_go(redis_servers, replicas):
    pair = await blocking(Pair, redis_servers)
    async with (
        Relay(pair.primary.port) as relay,
        a_store(through(relay, pair.primary), timeout=0.4) as store,
    ):
        await store.claim(RECORD, ME, PRINT, TERMS)
        relay.delay = 2.0
        assert await outcome(store.sent(RECORD, ME, TERMS, replicas)) == "timeout"
        assert not await store.sent(RECORD, ME, TERMS), "nobody sends under what is owed"
        relay.delay = 0.0
        await eventually(lambda: store.status()["owed"] == 0)
        assert await store.claim(RECORD, YOU, PRINT, TERMS) == Mine()
        assert not await store.sent(RECORD, ME, TERMS)


async def test_who_goes_away_while_it_claims_leaves_nothing(redis_server):
    async with (
        Relay(redis_server.port) as relay,
        a_store(through(relay, redis_server)) as store,
    ):
        relay.delay = 0.3
        claiming = asyncio.ensure_future(store.claim(RECORD, ME, PRINT, TERMS))
        await eventually(lambda: exists(redis_server) == 1)
        claiming.cancel()
        await asyncio.wait([claiming])
        relay.delay = 0.0
        await eventually(lambda: exists(redis_server) == 0)
        assert len(store._news) == 0


async def test_what_could_not_be_let_go_is_later(redis_servers):
    """A request that was refused before it was sent, while the server hung: the key is free."""
    server = await blocking(redis_servers.start)
    async with a_store(server, timeout=0.2) as store:
        await executed(store)
        with server.paused():
            while store._small.well:
                await outcome(store.renew(OTHER, ME, TERMS))
            with pytest.raises(NotAsked):
                await store.release(RECORD, ME)
        await eventually(lambda: store.status()["owed"] == 0)
        assert await store.claim(RECORD, YOU, PRINT, TERMS) == Mine()


async def test_what_its_owner_settles_is_not_let_go(redis_servers):
    """Where a policy sends without a mark (`on_store_failure: allow`), the answer stays."""
    server = await blocking(redis_servers.start)
    async with a_store(server, timeout=0.2) as store:
        await executed(store)
        with server.paused():
            while store._small.well:
                await outcome(store.renew(OTHER, ME, TERMS))
            assert await outcome(store.release(RECORD, ME)) == "down"
            assert store.status()["owed"] == 1
            assert (
                await outcome(store.settle(RECORD, ME, PRINT, State.RECORDED, ANSWER, TERMS))
                == "down"
            )
            assert store.status()["owed"] == 0
        await eventually(lambda: store.status()["healthy"])
        await eventually(lambda: store.settle(RECORD, ME, PRINT, State.RECORDED, ANSWER, TERMS))
        assert await store.claim(RECORD, YOU, PRINT, TERMS) == Replay(ANSWER)


async def test_what_is_owed_ends(redis_servers, monkeypatch):
    server = await blocking(redis_servers.start)
    monkeypatch.setattr(idempotency, "_MOST_OWED", 3)
    async with a_store(server, timeout=0.2) as store:
        seconds = [0.0]
        store._clock = lambda: seconds[0]
        with server.paused():
            for number in range(5):
                store._owe(number.to_bytes(16, "big"), ME, LEASE)
            assert store.status()["owed"] == 3
            store._owe(OTHER, YOU, idempotency.OWED)
            assert store.status()["owed"] == 4
            seconds[0] = LEASE / 1000
            await eventually(lambda: store.status()["owed"] == 1)
            seconds[0] = idempotency.OWED / 1000
            await eventually(lambda: store.status()["owed"] == 0)


async def test_what_is_owed_at_the_end_is_tried_once_more(redis_server):
    async with a_store(redis_server) as store:
        await executed(store)
        store._owed[RECORD, ME] = time.monotonic() + 10
    assert exists(redis_server) == 0
