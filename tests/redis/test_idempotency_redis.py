"""Idempotency records in Redis: replicas, servers that hang or die, late answers, and what can be
read off the server."""

import asyncio
import time
from hashlib import blake2b
from itertools import count

import pytest
from idempotency_kit import (
    ANSWER,
    GIVEN_AGAIN,
    LARGE,
    ME,
    OTHER,
    PRINT,
    PRINT_2,
    RECORD,
    TERMS,
    YOU,
    a_store,
    executed,
)
from redisservers import RedisServer, RedisServers, wait_for
from relay import Fault, Relay
from road_kit import Trio, blocking, eventually, outcome

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
from proxy.core.store_urls import read_store_url
from proxy.metrics import Metrics
from proxy.policy.snapshot import StorePlan
from proxy.store.ports import StoreError
from proxy.store.redis import idempotency
from proxy.store.redis.guarded_road import NotAsked
from proxy.store.redis.idempotency import open_idempotency
from proxy.store.redis.idempotency_codec import IdempotencyNames

NAMES = IdempotencyNames("t")
KEY = NAMES.record(RECORD)
FRESH = count(1)


def token() -> bytes:
    return next(FRESH).to_bytes(16, "big")


def through(relay: Relay, server: RedisServer) -> RedisServer:
    """The server, by way of the relay."""
    return RedisServer(server.folder, port=relay.port)


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
        assert await store.settle(RECORD, ME, State.RECORDED, LARGE, TERMS)
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
            await store.settle(RECORD, ME, outcome_, ANSWER, longer)
            assert longer.ttl - 2000 < left() <= longer.ttl + 1
        await store.free(RECORD)
        await executed(store)
        await store.settle(RECORD, ME, State.UNKNOWN, None, TERMS)
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
    record = record_id("payments", blake2b(scope.encode(), digest_size=16).digest(), key)
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
                await store.settle(held, mine, State.RECORDED, ANSWER, TERMS)
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
        await store.settle(RECORD, ME, State.RECORDED, ANSWER, TERMS)
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
        await store.settle(RECORD, ME, State.RECORDED, LARGE, TERMS)
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
                        await store.settle(RECORD, ME, State.RECORDED, other, TERMS)
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
            await one.settle(record, ME, State.RECORDED, ANSWER, TERMS)
        await one.settle(records[2], ME, State.UNKNOWN, None, TERMS)
        await one.settle(records[3], ME, State.TOO_LARGE, None, TERMS)
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
        await one.settle(RECORD, ME, State.RECORDED, ANSWER, TERMS)
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


# Replicas.


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
        await eventually(lambda: redis_exists(pair.primary) == 0)


def redis_exists(server: RedisServer) -> int:
    return int(server.call("EXISTS", KEY))


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
        assert await store.settle(RECORD, ME, State.RECORDED, ANSWER, TERMS)
        assert await store.claim(RECORD, YOU, PRINT, TERMS) == Replay(ANSWER)
    finally:
        await store.close()


# Trouble.


async def everything(store) -> list[object]:
    """The outcome of each thing that can be asked."""
    calls = [
        store.claim(RECORD, token(), PRINT, TERMS),
        store.sent(RECORD, token(), TERMS),
        store.sent(RECORD, token(), TERMS, 1),
        store.renew(RECORD, token(), TERMS),
        store.settle(RECORD, token(), State.RECORDED, ANSWER, TERMS),
        store.settle(RECORD, token(), State.RECORDED, LARGE, TERMS),
        store.release(RECORD, token()),
        store.free(RECORD),
    ]
    return [await outcome(call) for call in calls]


async def test_without_a_server_everything_fails_at_once_and_comes_back(redis_servers):
    server = redis_servers.create()
    async with a_store(server, up=False) as store:
        began = time.monotonic()
        assert await everything(store) == ["down"] * 8
        assert time.monotonic() - began < 1
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
                store.settle(RECORD, ME, State.RECORDED, ANSWER, TERMS),
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
    async with a_store(server, timeout=0.05) as store:
        with server.paused():
            began = time.monotonic()
            reasons = {await outcome(store.claim(RECORD, token(), PRINT, TERMS)) for _ in range(40)}
            assert reasons <= {"timeout", "down"}
            assert time.monotonic() - began < 1
            with pytest.raises(NotAsked):
                await store.claim(RECORD, token(), PRINT, TERMS)
            owed = store.status()["owed"]
            assert 1 <= owed <= 40
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
        assert await store.settle(RECORD, ME, State.RECORDED, ANSWER, TERMS)


async def test_a_claim_whose_answer_is_late_is_let_go(redis_server):
    async with (
        Relay(redis_server.port) as relay,
        a_store(through(relay, redis_server), timeout=0.2) as store,
    ):
        relay.delay = 0.5
        assert await outcome(store.claim(RECORD, ME, PRINT, TERMS)) == "timeout"
        relay.delay = 0.0
        began = time.monotonic()
        await eventually(lambda: store.status()["owed"] == 0 and redis_exists(redis_server) == 0)
        assert time.monotonic() - began < LEASE / 2000
        assert await store.claim(RECORD, YOU, PRINT, TERMS) == Mine()


@pytest.mark.parametrize("replicas", [0, 1])
async def test_a_mark_whose_answer_is_late_is_let_go(redis_servers, replicas):
    pair = await blocking(Pair, redis_servers)
    async with (
        Relay(pair.primary.port) as relay,
        a_store(through(relay, pair.primary), timeout=0.2) as store,
    ):
        await store.claim(RECORD, ME, PRINT, TERMS)
        relay.delay = 1.0
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
        await eventually(lambda: redis_exists(redis_server) == 1)
        claiming.cancel()
        await asyncio.wait([claiming])
        relay.delay = 0.0
        await eventually(lambda: redis_exists(redis_server) == 0)
        assert len(store._news) == 0


async def test_what_could_not_be_let_go_is_later(redis_servers):
    """A request that was refused before it was sent, while the server hung: the key is free."""
    server = await blocking(redis_servers.start)
    async with a_store(server, timeout=0.05) as store:
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
    async with a_store(server, timeout=0.05) as store:
        await executed(store)
        with server.paused():
            while store._small.well:
                await outcome(store.renew(OTHER, ME, TERMS))
            assert await outcome(store.release(RECORD, ME)) == "down"
            assert store.status()["owed"] == 1
            assert await outcome(store.settle(RECORD, ME, State.RECORDED, ANSWER, TERMS)) == "down"
            assert store.status()["owed"] == 0
        await eventually(lambda: store.status()["healthy"])
        await eventually(lambda: store.settle(RECORD, ME, State.RECORDED, ANSWER, TERMS))
        assert await store.claim(RECORD, YOU, PRINT, TERMS) == Replay(ANSWER)


async def test_what_is_owed_ends(redis_servers, monkeypatch):
    server = await blocking(redis_servers.start)
    monkeypatch.setattr(idempotency, "_MOST_OWED", 3)
    async with a_store(server, timeout=0.05) as store:
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
    assert redis_exists(redis_server) == 0


# A cluster.


async def test_in_a_cluster_each_record_has_its_server(redis_cluster):
    async with a_store(*redis_cluster, kind="cluster") as store:
        records = [number.to_bytes(16, "big") for number in range(60)]
        for number, record in enumerate(records):
            await executed(store, record)
            answer = LARGE if number % 2 else ANSWER
            assert await store.settle(record, ME, State.RECORDED, answer, TERMS)
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
