"""Every LimitStore under the same suite: a store, a clock to turn, and limits to ask for."""

from itertools import count
from types import SimpleNamespace

import pytest
from redisservers import RedisServers, store_plan

from proxy.core.limits import ALGORITHMS
from proxy.core.limits.decision import Rate
from proxy.core.ratelimit import policy_item
from proxy.metrics import Metrics
from proxy.policy.limit_plans import LimitVariant
from proxy.store.charge import Charge
from proxy.store.memory.limits import MemoryLimits
from proxy.store.redis.limits import RedisLimits
from proxy.store.redis.road import open_road

SECOND = 1_000_000


class Clock:
    """Microseconds since the epoch, turned by hand."""

    def __init__(self):
        self.now = 1_750_000_000 * SECOND

    def __call__(self):
        return self.now

    def turn(self, seconds):
        self.now += round(seconds * SECOND)


def limit(algorithm, amount, period=SECOND, burst=None, *, name="a", shadow=False):
    """A LimitVariant without a route around it."""
    cls = ALGORITHMS[algorithm]
    params = cls.compile(Rate(amount, period), burst)
    quota = cls.quota(params)
    return LimitVariant(
        limit=name,
        space=f"{name}/{algorithm}/{period}",
        algorithm=cls,
        params=params,
        capacity=cls.capacity(params),
        quota=quota.q,
        window=quota.w,
        policy_item=policy_item(name, quota),
        cost=1,
        cost_header=None,
        shadow=shadow,
    )


def key(value):
    return value.to_bytes(16, "big")


def charge(variant, value=1, cost=1):
    return Charge(variant, key(value), cost, variant.shadow)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture(scope="session")
def store_redis(tmp_path_factory):
    servers = RedisServers(tmp_path_factory.mktemp("store"))
    yield servers.start()
    servers.stop()


@pytest.fixture(params=["memory", "redis"])
async def limit_store(request, clock, metrics):
    """Each store in turn; a store that counts elsewhere takes its time from `clock` too."""
    if request.param == "memory":
        yield MemoryLimits(clock, metrics)
        return
    server = request.getfixturevalue("store_redis")
    server.call("FLUSHALL")
    road = open_road(store_plan(server, timeout=5.0), metrics)
    assert await road.up(5)
    # Each look at this clock is seconds later: no denial is remembered, every answer is new.
    seconds = count(0, 10)
    store = RedisLimits(road, "t", now=clock, monotonic=lambda: next(seconds))
    yield store
    await store.close()


@pytest.fixture
def make():
    """The helpers above, for test modules."""
    return SimpleNamespace(limit=limit, key=key, charge=charge)
