"""What tests of limits in Redis share: limits without a policy file, charges, and stores."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Literal

from redisservers import RedisServer, store_plan

from proxy.core.limits import ALGORITHMS
from proxy.core.limits.decision import Rate
from proxy.metrics import Metrics
from proxy.policy.limit_plans import LimitVariant
from proxy.store.charge import Charge
from proxy.store.redis.limits import RedisLimits
from proxy.store.redis.road import open_road

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
NAMES = sorted(ALGORITHMS)


def variant(
    name: str,
    rate: Rate,
    burst: int | None = None,
    *,
    shadow: bool = False,
    space: str | None = None,
) -> LimitVariant:
    """A limit of one algorithm; `space` is where it counts, by default the algorithm's name."""
    algorithm = ALGORITHMS[name]
    params = algorithm.compile(rate, burst)
    quota = algorithm.quota(params)
    return LimitVariant(
        limit=space or name,
        space=space or name,
        algorithm=algorithm,
        params=params,
        capacity=algorithm.capacity(params),
        quota=quota.q,
        window=quota.w,
        policy_item="",
        cost=1,
        cost_header=None,
        shadow=shadow,
    )


def charge(limit: LimitVariant, key: int = 1, cost: int = 1) -> Charge:
    return Charge(limit, key.to_bytes(16, "big"), cost, limit.shadow)


@asynccontextmanager
async def limits_on(
    *servers: RedisServer,
    kind: Literal["standalone", "cluster"] = "standalone",
    forgetful: bool = True,
    timeout: float = 5.0,
    **options: Any,
) -> AsyncIterator[RedisLimits]:
    """A store on servers that are up. A `forgetful` one takes each look at the clock for seconds
    later, so that it remembers no denial and every answer is the server's."""
    road = open_road(store_plan(*servers, kind=kind, timeout=timeout), Metrics())
    if forgetful:
        seconds = count(0, 10)
        options["monotonic"] = lambda: next(seconds)
    store = RedisLimits(road, "t", **options)
    try:
        assert await road.up(10), road.status()
        yield store
    finally:
        await store.close()


def calls(server: RedisServer) -> int:
    """How many scripts the server has run since its statistics were reset."""
    stats = server.call("INFO", "commandstats")
    return sum(told["calls"] for name, told in stats.items() if name.startswith("cmdstat_eval"))
