"""The user that the README has for Redis may do all that limits and idempotency records need
there: nothing is refused, on any server, standalone or a cluster's, and nothing else than keys
under the prefix is its own."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
import redis
from idempotency_kit import LARGE, ME, PRINT, RECORD, TERMS, YOU
from limits_kit import HOUR, NAMES, charge, variant
from redisservers import RedisServer
from road_kit import PATIENCE, a_road, blocking, eventually

from proxy.core.idempotency import Replay, State
from proxy.core.limits.decision import Rate
from proxy.core.store_urls import read_store_url
from proxy.metrics import Metrics
from proxy.policy.snapshot import StorePlan
from proxy.store.redis.idempotency import open_idempotency
from proxy.store.redis.limits import RedisLimits

README = Path(__file__).resolve().parents[2] / "README.md"
LIMITS = [variant(name, Rate(2, HOUR)) for name in NAMES]
LEAKY = variant("leaky_bucket", Rate(2, HOUR))
"""Full after one request."""


def rules() -> list[str]:
    _, _, after = README.read_text().partition("ACL SETUSER sluicegate ")
    return after.partition("```")[0].replace("PASSWORD", "s3cret").split()


async def use(url: str, servers: Sequence[RedisServer]) -> None:
    """Counts, refuses, gives back, looks and resets; then no server has refused a command."""
    for server in servers:
        await blocking(server.call, "ACL", "SETUSER", "sluicegate", "reset", *rules())
        await blocking(server.call, "ACL", "LOG", "RESET")
    heard: list[bytes] = []
    back = asyncio.Event()
    async with a_road(url) as road:
        store = RedisLimits(road, "sg")
        road.subscribe("sg:reset", heard.append, lambda: None, back.set)
        async with asyncio.timeout(PATIENCE):
            await back.wait()
        await road.probe()
        for number in (1, 2, 3):
            charges = [charge(limit, number) for limit in LIMITS]
            allowed = [all(d.allowed for d in await store.admit(charges)) for _ in range(3)]
            assert allowed.count(False), "the limits count"
            taken = [charge(limit, 10 + number) for limit in LIMITS]
            await store.admit(taken)
            await store.give_back(taken)
            assert not (await store.peek(charge(LEAKY, number))).allowed
            await store.reset(LEAKY.space, number.to_bytes(16, "big"))
        await eventually(lambda: len(heard) == 3)
        assert road.status().get("maxmemory_policy") == "noeviction"
    for server in servers:
        assert await blocking(server.call, "ACL", "LOG") == []


async def test_it_may_do_what_is_needed(every_redis: RedisServer) -> None:
    await use(f"redis://sluicegate:s3cret@127.0.0.1:{every_redis.port}", [every_redis])


async def test_it_may_in_a_cluster(redis_cluster: list[RedisServer]) -> None:
    nodes = ",".join(f"127.0.0.1:{server.port}" for server in redis_cluster)
    await use(f"redis+cluster://sluicegate:s3cret@{nodes}", redis_cluster)


async def test_it_may_keep_idempotency_records(every_redis: RedisServer) -> None:
    await blocking(every_redis.call, "ACL", "SETUSER", "sluicegate", "reset", *rules())
    await blocking(every_redis.call, "ACL", "LOG", "RESET")
    url = f"redis://sluicegate:s3cret@127.0.0.1:{every_redis.port}"
    store = open_idempotency(StorePlan(read_store_url(url), timeout=0.5), Metrics())
    try:
        assert await store.up(PATIENCE)
        await eventually(lambda: store.status()["hears"])
        await store.claim(RECORD, ME, PRINT, TERMS)
        assert not await store.sent(RECORD, ME, TERMS, replicas=1)  # there is none
        assert await store.renew(RECORD, ME, TERMS)
        assert await store.settle(RECORD, ME, PRINT, State.RECORDED, LARGE, TERMS)
        assert await store.claim(RECORD, YOU, PRINT, TERMS) == Replay(LARGE)
        assert await store.free(RECORD)
        await store.claim(RECORD, ME, PRINT, TERMS)
        assert await store.release(RECORD, ME)
    finally:
        await store.close()
    assert await blocking(every_redis.call, "ACL", "LOG") == []


async def test_it_may_not_touch_others_keys(redis_server: RedisServer) -> None:
    await blocking(redis_server.call, "ACL", "SETUSER", "sluicegate", "reset", *rules())
    with redis_server.client(username="sluicegate", password="s3cret") as client:
        for command in (["GET", "other"], ["FLUSHALL"], ["PUBLISH", "other", "x"], ["KEYS", "*"]):
            with pytest.raises(redis.exceptions.NoPermissionError):
                await blocking(client.execute_command, *command)
