"""Clients that go on while they are refused: what is counted and told is the same whether limits
count in this process or in Redis, where a refusal may be remembered."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from redisservers import RedisServer, store_plan
from stage_plans import exchange, route_plan

from proxy.core.keys import KeyTemplate
from proxy.core.ratelimit import seconds
from proxy.exchange import Exchange
from proxy.metrics import Metrics
from proxy.policy.limit_plans import LimitPlan, LimitVariant
from proxy.stages import limits
from proxy.store.memory.limits import MemoryLimits
from proxy.store.ports import LimitStore
from proxy.store.redis.limits import RedisLimits
from proxy.store.redis.road import open_road

DAY = 86_400_000_000


class Asking:
    """Requests of one client for a route with these limits."""

    def __init__(self, store: LimitStore, metrics: Metrics, *variants: LimitVariant) -> None:
        self._store = store
        self.plans = tuple(
            LimitPlan(
                *(variant.limit, variant.algorithm.name, KeyTemplate.parse(["global"]), "request"),
                *(variant, (), metrics.limit(variant.limit)),
            )
            for variant in variants
        )
        self._route = replace(route_plan("hammered"), limits=self.plans)

    async def ask(self) -> Exchange:
        ex = exchange()
        ex.route = self._route
        verdict = limits.admit(ex, self._store)
        if verdict is not None and not hasattr(verdict, "status"):
            await verdict
        return ex

    def told(self) -> list[dict[str, Any]]:
        return [plan.tally.dump() for plan in self.plans]


@pytest.fixture(params=["memory", "redis"])
async def lasting_store(
    request: pytest.FixtureRequest, metrics: Metrics, clock: Callable[[], int]
) -> AsyncIterator[LimitStore]:
    """Each store, with all that it remembers: no time passes."""
    if request.param == "memory":
        yield MemoryLimits(clock, metrics)
        return
    server = request.getfixturevalue("store_redis")
    server.call("FLUSHALL")
    road = open_road(store_plan(server, timeout=5.0), metrics)
    assert await road.up(5)
    store = RedisLimits(road, "t", now=clock, monotonic=lambda: 1.0)
    yield store
    await store.close()


async def test_a_dry_run_shows_the_same(
    lasting_store: LimitStore, metrics: Metrics, make: Any
) -> None:
    enforced = make.limit("fixed_window", 5, DAY, name="enforced")
    shadow = make.limit("fixed_window", 1, DAY, name="shadow", shadow=True)
    asking = Asking(lasting_store, metrics, enforced, shadow)
    asked = [await asking.ask() for _ in range(40)]
    tally = asking.plans[1].tally
    assert (tally.allowed, tally.shadow_denied, tally.denied) == (1, 39, 0)
    assert [ex.shadow_denied for ex in asked] == [()] + [("shadow",)] * 39
    tally = asking.plans[0].tally
    assert (tally.allowed, tally.denied) == (5, 35)


async def test_what_was_not_asked_is_not_counted(
    store_redis: RedisServer, metrics: Metrics, clock: Callable[[], int], make: Any
) -> None:
    store_redis.call("FLUSHALL")
    road = open_road(store_plan(store_redis, timeout=5.0), metrics)
    assert await road.up(5)
    now = count(0, 0.001)  # so 40 looks at the clock are within what is remembered
    store = RedisLimits(road, "t", now=clock, monotonic=lambda: next(now))
    tight = make.limit("fixed_window", 1, DAY, name="tight")
    wide = make.limit("fixed_window", 1000, DAY, name="wide")
    asking = Asking(store, metrics, tight, wide)
    asked = [await asking.ask() for _ in range(40)]
    await store.close()
    assert asking.plans[0].tally.denied == 39
    assert asking.plans[1].tally.allowed == store.asked == 2
    # Both are limits of the route, all the same.
    assert {ex.admission.splitlines()[0] for ex in asked} == {
        'RateLimit-Policy: "tight";q=1;w=86400, "wide";q=1000;w=86400'
    }
    assert asked[-1].denied == ("tight",)


async def test_a_denial_by_charges_that_are_given_back_ends_with_them(
    lasting_store: LimitStore, clock: Callable[[], int], metrics: Metrics, make: Any
) -> None:
    """Also where another process gave them back."""
    limit = replace(make.limit("fixed_window", 1, DAY), refundable=True)
    charged = [make.charge(limit)]
    assert (await lasting_store.admit(charged))[0].allowed
    (denied,) = await lasting_store.admit([make.charge(limit)])
    assert not denied.allowed
    assert seconds(denied.retry_after) > 1
    if isinstance(lasting_store, RedisLimits):
        other = RedisLimits(lasting_store._road, "t", now=clock)
        await other.give_back(charged)
    else:
        await lasting_store.give_back(charged)
    assert (await lasting_store.admit([make.charge(limit)]))[0].allowed
