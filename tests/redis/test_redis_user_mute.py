"""A user who may do everything but publish and subscribe: what was written counts, nothing is
heard, and a purge that nobody could be told of is no success."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count

import pytest
from idempotency_kit import ANSWER, ME, PRINT, RECORD, TERMS, YOU
from limits_kit import HOUR, charge, variant
from redisservers import RedisServer, store_plan
from road_kit import PATIENCE, a_road, blocking, eventually
from shared_kit import KEY, Listener, kept, now

from proxy.core.idempotency import Mine, Replay, Running, State
from proxy.core.limits.decision import Rate
from proxy.metrics import Metrics
from proxy.policy.snapshot import StorePlan
from proxy.stages.cache import Caching, tier
from proxy.stages.cache.tier import Tier
from proxy.store.ports import NobodyTold, Purge
from proxy.store.redis import pubsub
from proxy.store.redis.cache import open_cache
from proxy.store.redis.idempotency import RedisIdempotency, open_idempotency
from proxy.store.redis.limits import RedisLimits

RULES = ("reset", "on", ">s3cret", "~*", "+@all", "resetchannels")
_NUMBERS = count()


@pytest.fixture
def mute(every_redis: RedisServer) -> str:
    """The user's name."""
    every_redis.call("FLUSHALL")
    name = f"mute{next(_NUMBERS)}"  # a server says only once a minute that it refused one
    every_redis.call("ACL", "SETUSER", name, *RULES)
    return name


def plan_of(server: RedisServer, user: str) -> StorePlan:
    plan = store_plan(server, timeout=5.0, prefix="t")
    return replace(plan, url=replace(plan.url, username=user, password="s3cret"))


@pytest.fixture
async def store(every_redis: RedisServer, mute: str) -> AsyncIterator[RedisIdempotency]:
    store = open_idempotency(plan_of(every_redis, mute), Metrics())
    assert await store.up(PATIENCE)
    yield store
    await store.close()


def refusals(server: RedisServer, user: str) -> int:
    """How often the server has refused this user a channel."""
    rows = [
        {key.decode(): value for key, value in row.items()} for row in server.call("ACL", "LOG")
    ]
    mine = [row for row in rows if (row["reason"], row["username"]) == (b"channel", user.encode())]
    return sum(int(row["count"]) for row in mine)


async def test_what_came_of_a_request_is_said_once(
    store: RedisIdempotency, every_redis: RedisServer
) -> None:
    assert await store.claim(RECORD, ME, PRINT, TERMS) == Mine()
    assert await store.sent(RECORD, ME, TERMS)
    assert await store.settle(RECORD, ME, PRINT, State.RECORDED, ANSWER, TERMS)
    assert await store.claim(RECORD, YOU, PRINT, TERMS) == Replay(ANSWER)
    assert await store.free(RECORD)
    assert await store.claim(RECORD, ME, PRINT, TERMS) == Mine()
    assert await store.release(RECORD, ME)
    assert await store.claim(RECORD, YOU, PRINT, TERMS) == Mine()
    assert store.status()["owed"] == 0


async def test_who_waits_looks_again(store: RedisIdempotency) -> None:
    await store.claim(RECORD, ME, PRINT, TERMS)
    assert isinstance(await store.claim(RECORD, YOU, PRINT, TERMS), Running)
    async with asyncio.timeout(PATIENCE):
        await store.news(RECORD, 60)


async def test_the_log_says_so_once_and_rights_that_come_are_found(
    every_redis: RedisServer,
    mute: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pubsub, "_REFUSED_WAIT", 0.01)
    caplog.set_level("WARNING", "proxy.store.redis.pubsub")
    every_redis.call("ACL", "LOG", "RESET")
    store = open_idempotency(plan_of(every_redis, mute), Metrics())
    try:
        assert await store.up(PATIENCE)
        await eventually(lambda: refusals(every_redis, mute) >= 3)
        assert not store.status()["hears"]
        (said,) = [record for record in caplog.records if record.levelname == "WARNING"]
        assert "may not subscribe to t:idempotency" in said.getMessage()
        await blocking(every_redis.call, "ACL", "SETUSER", mute, "&t:*")
        await eventually(lambda: store.status()["hears"])
        assert len([one for one in caplog.records if one.levelname == "WARNING"]) == 1
    finally:
        await store.close()


async def test_a_limit_is_reset(every_redis: RedisServer, mute: str) -> None:
    limit = variant("fixed_window", Rate(1, HOUR))
    url = f"redis://{mute}:s3cret@127.0.0.1:{every_redis.port}"
    async with a_road(url) as road:
        limits = RedisLimits(road, "t")
        asked = [charge(limit, 1)]
        assert [(await limits.admit(asked))[0].allowed for _ in range(2)] == [True, False]
        await limits.reset(limit.space, asked[0].key)
        assert (await limits.admit(asked))[0].allowed


async def test_a_purge_counts_and_is_no_success(every_redis: RedisServer, mute: str) -> None:
    """Another process, which hears nothing either, sees it when it looks."""
    plan = plan_of(every_redis, mute)
    one, two = open_cache(plan, Metrics()), open_cache(plan, Metrics())
    heard = Listener("a")
    try:
        one.listen(heard, lambda: HOUR)
        two.listen(Listener("a"), lambda: HOUR)
        assert await one.up(PATIENCE)
        assert await two.up(PATIENCE)
        await two.put(KEY, kept(await now(two), tags=("a",)), HOUR)
        assert len((await two.lookup(KEY)).variants) == 1
        with pytest.raises(NobodyTold, match="may not publish on t:purges"):
            await one.purge(Purge(("a",)))
        assert Purge(("a",)) in heard.purges()
        assert (await two.lookup(KEY)).variants == []
    finally:
        await one.close()
        await two.close()


async def test_what_a_write_made_void_is_not_said_again(
    every_redis: RedisServer, mute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time would make void what was stored since."""
    monkeypatch.setattr(tier, "_AGAIN", 0.01)
    cache = open_cache(plan_of(every_redis, mute), Metrics())
    caching = Caching(Metrics(), 1 << 20)
    cache.listen(caching.purges, lambda: HOUR)
    shared = caching.tier = Tier(cache)
    try:
        assert await cache.up(PATIENCE)
        await caching.invalidate(Purge(("a",)))
        assert not shared.owes
        shared.owe(Purge(("b",)))  # as one that could not be said at first
        await eventually(lambda: not shared.owes)
        await asyncio.wait_for(shared._owing, PATIENCE)
        assert not shared.owes
    finally:
        await shared.close()


async def test_a_lease_is_let_go(every_redis: RedisServer, mute: str) -> None:
    cache = open_cache(plan_of(every_redis, mute), Metrics())
    try:
        cache.listen(Listener(), lambda: HOUR)
        assert await cache.up(PATIENCE)
        token = await cache.lease(KEY, 60_000)
        assert token
        assert not await cache.lease(KEY, 60_000)  # somebody waits, and would be told
        await cache.release(KEY, token)
        assert await cache.lease(KEY, 60_000)
    finally:
        await cache.close()
