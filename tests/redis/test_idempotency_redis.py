"""Idempotency records in Redis: one fleet, what can be read off the server, and who is woken."""

import asyncio
import time
from hashlib import blake2b

import pytest
from idempotency_kit import (
    ANSWER,
    GIVEN_AGAIN,
    KEY,
    LARGE,
    ME,
    NAMES,
    OTHER,
    PRINT,
    PRINT_2,
    RECORD,
    TERMS,
    YOU,
    a_store,
    executed,
    token,
)
from road_kit import blocking, eventually, outcome

from proxy.core.idempotency import (
    LEASE,
    Mine,
    Mismatch,
    Replay,
    Running,
    State,
    TooLarge,
    Unknown,
    fingerprint,
    record_id,
)
from proxy.store.ports import StoreError
from proxy.store.redis.idempotency_codec import IdempotencyNames

# One fleet.


async def test_one_of_many_has_it(redis_server):
    async with a_store(redis_server) as one, a_store(redis_server) as two:
        claims = [store.claim(RECORD, token(), PRINT, TERMS) for store in (one, two) * 250]
        verdicts = await asyncio.gather(*claims)
        assert verdicts.count(Mine()) == 1
        assert all(isinstance(verdict, Running) for verdict in verdicts if verdict != Mine())


async def test_it_is_there_after_a_restart_of_whoever_wrote_it(redis_server):
    async with a_store(redis_server) as store:
        await executed(store)
        assert await store.settle(RECORD, ME, PRINT, State.RECORDED, LARGE, TERMS)
    async with a_store(redis_server) as store:
        assert await store.claim(RECORD, YOU, PRINT, TERMS) == Replay(LARGE)


async def test_keys_live_as_long_as_what_they_say(redis_server):
    def left() -> int:
        return redis_server.call("PTTL", KEY)

    async with a_store(redis_server) as store:
        await store.claim(RECORD, ME, PRINT, TERMS)
        assert LEASE - 2000 < left() <= LEASE + 1
        await store.renew(RECORD, ME, TERMS._replace(lease=20_000))
        assert 18_000 < left() <= 20_001
        await store.sent(RECORD, ME, TERMS)
        assert TERMS.ttl - 2000 < left() <= TERMS.ttl + 1
        await store.renew(RECORD, ME, TERMS)
        assert TERMS.ttl - 2000 < left() <= TERMS.ttl + 1
        longer = TERMS._replace(ttl=2 * TERMS.ttl)
        for outcome_ in (State.UNKNOWN, State.RECORDED):
            await store.settle(RECORD, ME, PRINT, outcome_, ANSWER, longer)
            assert longer.ttl - 2000 < left() <= longer.ttl + 1
        await store.free(RECORD)
        await executed(store)
        await store.settle(RECORD, ME, PRINT, State.UNKNOWN, None, TERMS)
        assert await store.claim(RECORD, YOU, PRINT, GIVEN_AGAIN) == Mine()
        assert LEASE - 2000 < left() <= LEASE + 1


async def test_the_server_s_clock_decides_to_the_millisecond(redis_server):
    """A claim of 40 ms: whoever asks before that finds it running, and then it is free."""
    short = TERMS._replace(lease=40)
    async with a_store(redis_server) as store:
        began = time.monotonic()
        assert await store.claim(RECORD, ME, PRINT, short) == Mine()
        claimed = time.monotonic()
        while (verdict := await store.claim(RECORD, YOU, PRINT, short)) != Mine():
            assert isinstance(verdict, Running)
            assert 0 < verdict.left <= 40
            assert time.monotonic() - claimed < 5
        assert time.monotonic() - began > 0.038
        assert not await store.sent(RECORD, ME, short)


async def test_nothing_can_be_read_off_the_server(redis_server):
    """Neither keys nor scopes, nor what was asked: not in names, not in values, not in news."""
    scope, key, body = "customer@example.org", "order-4711-of-monday", b'{"card": "4111111111"}'
    secrets = [scope.encode(), key.encode(), b"4111111111", b"/pay?token=abc", b"payments"]
    record = record_id("payments", "h", blake2b(scope.encode(), digest_size=16).digest(), key)
    print_ = fingerprint("POST", "/pay?token=abc", body)
    heard: list[bytes] = []
    async with a_store(redis_server) as store:
        store._small.road.subscribe(NAMES.channel, heard.append, lambda: None)
        for act in ("settle", "release", "leave"):
            mine = token()
            held = record if act == "settle" else record[::-1] if act == "leave" else OTHER
            await store.claim(held, mine, print_, TERMS)
            await store.sent(held, mine, TERMS)
            if act == "settle":
                await store.settle(held, mine, print_, State.RECORDED, ANSWER, TERMS)
            elif act == "release":
                await store.release(held, mine)
        await eventually(lambda: len(heard) == 2)
    with redis_server.client() as client:
        names = list(client.scan_iter())
        assert len(names) == 2
        texts = [*names, *heard]
        for name in names:
            assert name.startswith(b"t:i:{")
            assert client.pttl(name) > 0
            for field, value in client.hgetall(name).items():
                texts += [field, value]
    for secret in secrets:
        assert not [text for text in texts if secret in text]


async def test_what_another_release_wrote_is_an_error_and_never_nothing(redis_server):
    async with a_store(redis_server) as store:
        await executed(store)
        await store.settle(RECORD, ME, PRINT, State.RECORDED, ANSWER, TERMS)
        for field, value in [
            ("head", b"[2,200,\"\",[]]"), ("head", b"[1,200]"), ("head", b"\xff"), ("head", b"7"),
            ("head", b"[1,200,\"\",[\"odd\"]]"), ("state", b"frozen"),
        ]:  # fmt: skip
            redis_server.call("HSET", KEY, field, value)
            with pytest.raises(StoreError, match="cannot read"):
                await store.claim(RECORD, YOU, PRINT, TERMS)
        assert store.status()["owed"] == 0


@pytest.mark.parametrize(
    ("then", "verdict"),
    [("freed", Mine), ("claimed", Running), ("another", Mismatch), ("again", Replay)],
)
async def test_a_large_answer_that_is_replaced_while_it_is_read(redis_server, then, verdict):
    """Between a claim and the body that it asks for, the record may be freed and made anew."""
    async with a_store(redis_server) as store:
        await executed(store)
        await store.settle(RECORD, ME, PRINT, State.RECORDED, LARGE, TERMS)
        ask = store._large.ask
        asked = []

        async def replaced_first(*words):
            if not asked:
                await store.free(RECORD)
                if then != "freed":
                    print_ = PRINT_2 if then == "another" else PRINT
                    await store.claim(RECORD, ME, print_, TERMS)
                    if then != "claimed":
                        await store.sent(RECORD, ME, TERMS)
                        await store.settle(RECORD, ME, PRINT, State.RECORDED, other, TERMS)
            asked.append(words)
            return await ask(*words)

        other = LARGE._replace(status=202)
        store._large.ask = replaced_first
        found = await store.claim(RECORD, YOU, PRINT, TERMS)
        assert isinstance(found, verdict)
        if then == "again":
            assert found == Replay(other)


# News.


@pytest.mark.parametrize("kind", ["standalone", "cluster"])
async def test_who_waits_elsewhere_is_woken(request, kind):
    found = request.getfixturevalue("redis_cluster" if kind == "cluster" else "redis_server")
    servers = found if kind == "cluster" else [found]
    async with a_store(*servers, kind=kind) as one, a_store(*servers, kind=kind) as two:
        records = [number.to_bytes(16, "big") for number in range(6)]
        for record in records:
            await executed(one, record)
            assert isinstance(await two.claim(record, YOU, PRINT, TERMS), Running)
        waiting = [asyncio.ensure_future(two.news(record, 60)) for record in records]
        await asyncio.sleep(0.02)
        assert not any(task.done() for task in waiting)
        for record in records[:2]:
            await one.settle(record, ME, PRINT, State.RECORDED, ANSWER, TERMS)
        await one.settle(records[2], ME, PRINT, State.UNKNOWN, None, TERMS)
        await one.settle(records[3], ME, PRINT, State.TOO_LARGE, None, TERMS)
        await one.release(records[4], ME)
        await one.free(records[5])
        async with asyncio.timeout(10):
            await asyncio.gather(*waiting)
        verdicts = [await two.claim(record, YOU, PRINT, TERMS) for record in records]
        assert verdicts == [Replay(ANSWER)] * 2 + [Unknown(), TooLarge()] + [Mine()] * 2


async def test_news_between_the_claim_and_the_wait_are_not_missed(redis_server):
    async with a_store(redis_server) as one, a_store(redis_server) as two:
        await executed(one)
        assert isinstance(await two.claim(RECORD, YOU, PRINT, TERMS), Running)
        await one.settle(RECORD, ME, PRINT, State.RECORDED, ANSWER, TERMS)
        await eventually(lambda: two._news._topics[RECORD].told.is_set())
        async with asyncio.timeout(10):
            await two.news(RECORD, 60)
        assert len(two._news) == 0


async def test_those_that_never_wait_are_forgotten(redis_server):
    seconds = [0.0]
    async with a_store(redis_server) as store:
        store._news._clock = lambda: seconds[0]
        records = [number.to_bytes(16, "big") for number in range(1100)]
        for _ in range(2):
            await asyncio.gather(*(store.claim(r, token(), PRINT, TERMS) for r in records))
        assert len(store._news) == 1100
        seconds[0] = 5.0
        await store.claim(RECORD, ME, PRINT, TERMS)
        assert len(store._news) == 0


async def test_a_lost_subscription_wakes_everybody(redis_servers):
    server = await blocking(redis_servers.start)
    async with a_store(server) as store:
        await executed(store)
        assert isinstance(await store.claim(RECORD, YOU, PRINT, TERMS), Running)
        waiting = asyncio.ensure_future(store.news(RECORD, 60))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await blocking(server.kill)
        async with asyncio.timeout(10):
            await waiting
        assert not store.status()["hears"]
        began = time.monotonic()
        await store.news(RECORD, 60)  # while nothing is heard, nobody waits for long
        assert time.monotonic() - began < 5
        await blocking(server.start)
        await eventually(lambda: store.status()["hears"])


async def test_databases_do_not_hear_each_other():
    assert IdempotencyNames("t").channel == "t:idempotency"
    assert IdempotencyNames("t", 3).channel == "t:idempotency@3"
    with pytest.raises(ValueError, match="braces"):
        IdempotencyNames("{t}")


# A cluster.


async def test_in_a_cluster_each_record_has_its_server(redis_cluster):
    async with a_store(*redis_cluster, kind="cluster") as store:
        records = [number.to_bytes(16, "big") for number in range(60)]
        for number, record in enumerate(records):
            await executed(store, record)
            answer = LARGE if number % 2 else ANSWER
            assert await store.settle(record, ME, PRINT, State.RECORDED, answer, TERMS)
        for number, record in enumerate(records):
            answer = LARGE if number % 2 else ANSWER
            assert await store.claim(record, YOU, PRINT, TERMS) == Replay(answer)
        sizes = [server.call("DBSIZE") for server in redis_cluster]
        assert sum(sizes) == 60
        assert min(sizes) > 5
        for record in records:
            assert await store.free(record)
        await store.claim(RECORD, ME, PRINT, TERMS)
        store._large.road._timeout = 0.05
        assert not await store.sent(RECORD, ME, TERMS, replicas=1)


async def test_a_server_of_a_cluster_that_is_gone_is_the_trouble_of_its_records(redis_servers):
    nodes = await blocking(redis_servers.start_cluster, 3)
    async with a_store(*nodes, kind="cluster", timeout=1.0) as store:
        records = [number.to_bytes(16, "big") for number in range(40)]
        for record in records:
            await executed(store, record)
        await blocking(nodes[1].kill)
        await eventually(lambda: not store.status()["connected"])
        found = [await outcome(store.claim(r, token(), PRINT, TERMS)) for r in records]
        assert found.count("down") > 5
        assert sum(isinstance(verdict, Running) for verdict in found) > 10
        assert store._small.well
