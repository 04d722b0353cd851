"""Writes that pass through while Redis cannot be told of them, and whose clients do not wait."""

import asyncio
import json

import pytest
from redisservers import RedisServer
from relay import SILENCE, Relay
from road_kit import eventually
from shared_kit import Listener, a_cache

from proxy.buffer import BodyRoom
from proxy.core.cache.keys import CacheKeyRule
from proxy.core.cache.urls import host_tag
from proxy.core.fields import Fields
from proxy.core.message import Outgoing, Reply
from proxy.exchange import Exchange
from proxy.handler import Flow
from proxy.metrics import Metrics
from proxy.policy.compile import compile_snapshot
from proxy.policy.load import Loaded, load
from proxy.stages.cache import Caching
from proxy.stages.cache.tier import Tier
from proxy.stages.idempotency import Replaying
from proxy.store.memory.limits import MemoryLimits

CONFIG = {
    "server": {"listen": "127.0.0.1:1"},
    "policies": "caches.yaml",
    "upstreams": {"origin": {"endpoints": ["http://127.0.0.1:2"]}},
    "routes": [
        {
            "name": "things", "match": {"path": "/{rest:path}"}, "upstream": "origin",
            "cache": "things", "invalidate": ["all"],
        }
    ],
}  # fmt: skip


class Origin:
    """An Upstream that does what it is asked at once, and the `Live` of a snapshot."""

    name = "origin"

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.done = asyncio.Event()

    def upstream(self, plan: object) -> "Origin":
        return self

    async def send(self, request: Outgoing) -> Reply:
        assert request.announced is not None
        request.announced.written = True
        self.done.set()
        return Reply(204, [], origin=True)


@pytest.fixture
def loaded(tmp_path) -> Loaded:
    (tmp_path / "caches.yaml").write_text(json.dumps({"caches": {"things": {}}}))
    (tmp_path / "gateway.yaml").write_text(json.dumps(CONFIG))
    return load(tmp_path / "gateway.yaml")


async def test_a_client_that_leaves_does_not_take_its_invalidation_along(loaded, redis_server):
    """Redis says nothing at that moment, so nobody knows of the write but this process."""
    origin, elsewhere = Origin(), Listener()
    snapshot = compile_snapshot(loaded, origin)
    caching = Caching(origin.metrics, 1 << 20)
    flow = Flow(MemoryLimits(lambda: 0, origin.metrics), Replaying(BodyRoom()), caching)
    ex = Exchange(
        snapshot, "DELETE", "/a", 11, Fields([]), authority="h", scheme="http", peer="192.0.2.1"
    )
    async with (
        Relay(redis_server.port) as relay,
        a_cache(
            RedisServer(redis_server.folder, port=relay.port), listener=caching.purges, timeout=0.3
        ) as cache,
        a_cache(redis_server, listener=elsewhere),
    ):
        caching.tier = Tier(cache)
        relay.suffer(SILENCE)
        writing = asyncio.create_task(flow.answer(ex))
        await origin.done.wait()
        await asyncio.sleep(0)
        assert not writing.done()
        writing.cancel()
        await asyncio.wait([writing])
        assert writing.cancelled()
        await eventually(lambda: caching.tier.owes)
        relay.recover()

        def told() -> set[str]:
            return {tag for purge in elsewhere.purges() for tag in purge.tags}

        await eventually(lambda: {"all", host_tag(CacheKeyRule.parse(), "h", "/a")} <= told())
