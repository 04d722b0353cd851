"""What the guard's tests share: guarded limits on a real road, limits to ask for, and load."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from road_kit import a_road

from proxy.core.limits import ALGORITHMS
from proxy.core.limits.decision import Decision, Rate
from proxy.metrics import Metrics
from proxy.policy.limit_plans import LimitVariant
from proxy.store.breaker import Breaker
from proxy.store.charge import Charge
from proxy.store.guard import GuardedLimits
from proxy.store.memory.limits import MemoryLimits
from proxy.store.ports import Unavailable
from proxy.store.redis.limits import RedisLimits
from proxy.store.redis.road_port import Road

TIMEOUT = 0.2
"""Seconds. On a machine that is busy a server may have no time for so long as production allows."""
MINUTE = 60_000_000


def limit(
    name: str = "a",
    amount: int = 1_000_000,
    on_failure: Literal["local", "allow", "deny"] = "local",
    *,
    shadow: bool = False,
) -> LimitVariant:
    """`amount` a minute: exactly where that is few, else so many that nobody is refused."""
    algorithm = "sliding_log" if amount <= 100 else "token_bucket"
    cls = ALGORITHMS[algorithm]
    params = cls.compile(Rate(amount, MINUTE), None)
    quota = cls.quota(params)
    return LimitVariant(
        limit=name,
        space=f"{name}/{algorithm}",
        algorithm=cls,
        params=params,
        capacity=cls.capacity(params),
        quota=quota.q,
        window=quota.w,
        policy_item="",
        cost=1,
        cost_header=None,
        shadow=shadow,
        on_failure=on_failure,
    )


def charge(variant: LimitVariant, key: int = 1, cost: int = 1) -> Charge:
    return Charge(variant, key.to_bytes(16, "big"), cost, variant.shadow)


class Guarded:
    """Guarded limits and their parts."""

    def __init__(self, road: Road, metrics: Metrics, timeout: float) -> None:
        self.road = road
        self.metrics = metrics
        self.local = MemoryLimits(lambda: time.time_ns() // 1_000, metrics)
        self.breaker = Breaker(in_a_row=15 if road.cluster else 5)
        self.limits = GuardedLimits(
            RedisLimits(road, "t", timeout=timeout),
            self.local,
            self.breaker,
            metrics,
            probe=road.probe,
        )

    @property
    def errors(self) -> int:
        return self.metrics.store("admit").errors

    def healthy(self) -> bool:
        return bool(self.limits.status()["healthy"])

    async def admitted(self, variant: LimitVariant, tries: int, key: int = 1) -> int:
        """How many of so many requests are admitted."""
        count = 0
        for _ in range(tries):
            (decision,) = await self.limits.admit([charge(variant, key)])
            count += decision is None or decision.allowed
        return count


@asynccontextmanager
async def guarded(
    url: str, *, up: bool = True, timeout: float = TIMEOUT, **plan: Any
) -> AsyncIterator[Guarded]:
    metrics = Metrics()
    async with a_road(url, metrics=metrics, up=up, timeout=timeout, **plan) as road:
        made = Guarded(road, metrics, timeout)
        await made.limits.check()
        try:
            yield made
        finally:
            await made.limits.close()


class Load:
    """Requests without a pause, each with one limit. It ends at once where a request fails in a
    way that it may not, or waits for the store while the breaker is open."""

    def __init__(self, guarded: Guarded, *variants: LimitVariant, clients: int = 8) -> None:
        self._guarded = guarded
        self._variants = variants
        self._ending = False
        self.answered = 0
        self.uncounted = 0
        self.unavailable = 0
        self.slowest = 0.0
        self._tasks = [asyncio.ensure_future(self._go(place)) for place in range(clients)]

    async def _go(self, place: int) -> None:
        variant = self._variants[place % len(self._variants)]
        while not self._ending:
            began = time.monotonic()
            try:
                (decision,) = await self._admit(charge(variant, place))
            except Unavailable as refused:
                if (refused.limit, variant.on_failure) != (variant.limit, "deny"):
                    raise
                self.unavailable += 1
            else:
                self.uncounted += decision is None
            self.answered += 1
            self.slowest = max(self.slowest, time.monotonic() - began)
            await asyncio.sleep(0.002)

    async def _admit(self, one: Charge) -> "list[Decision | None]":
        call = self._guarded.limits.admit([one])
        if self._guarded.breaker.closed:
            return list(await call)
        try:
            call.send(None)  # type: ignore[attr-defined]
        except StopIteration as done:
            return list(done.value)
        raise AssertionError("a request waited for the store while the breaker was open")

    async def more(self, count: int = 100) -> None:
        """Waits for so many further answers, and for any failure."""
        goal = self.answered + count
        while self.answered < goal:
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.005)

    async def end(self) -> None:
        self._ending = True
        await asyncio.gather(*self._tasks)
