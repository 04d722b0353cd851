"""A road that is measured, and not asked while it is in trouble: the cache's, and idempotency's.

Rules:
- The breaker is the store's (proxy.store.breaker): while it is not closed, calls fail at once
  (NotAsked), and the road is probed beside them.
- What is large has more time: the road's own timeout, and what is under way at RATE.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from proxy.metrics import Metrics
from proxy.store.breaker import PROBE_DEADLINE, Breaker
from proxy.store.ports import StoreError
from proxy.store.redis.link import ended
from proxy.store.redis.road_port import Road
from proxy.store.scripts import Script

RATE: Final = 10_000_000
"""Bytes per second that a road is expected to carry at least."""
_SMALL: Final = 4096  # bytes that need no time of their own


class NotAsked(StoreError):
    """The road is in trouble, and nothing was sent."""


class GuardedRoad:
    """Calls on a Road. `clock` in seconds, never going back."""

    def __init__(
        self,
        road: Road,
        timeout: float,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.road = road
        self._timeout = timeout
        self._metrics = metrics
        self._clock = clock
        self._breaker = Breaker()
        self._probing: asyncio.Task[None] | None = None
        self._under_way = 0

    @property
    def well(self) -> bool:
        return self._breaker.closed

    async def run(
        self,
        which: Script,
        keys: Sequence[bytes],
        args: Sequence[bytes | int | str],
        *,
        size: int = 0,
        must: bool = False,
    ) -> Any:
        """A script's reply. `size`: bytes that go or come. `must`: asked even while the store is
        in trouble. Raises StoreError."""
        which.check(len(keys), len(args))
        road = self.road

        def call(timeout: float | None) -> Awaitable[Any]:
            return road.run(which, keys, args, timeout=timeout)

        return await self._guard(which.name, call, size, must)

    async def run_and_wait(
        self,
        which: Script,
        keys: Sequence[bytes],
        args: Sequence[bytes | int | str],
        replicas: int,
    ) -> tuple[Any, int]:
        """As `run`, and then how many replicas have what was written (`Road.run_and_wait`)."""
        which.check(len(keys), len(args))
        road = self.road

        def call(timeout: float | None) -> Awaitable[tuple[Any, int]]:
            return road.run_and_wait(which, keys, args, replicas, timeout=timeout)

        reply, acknowledged = await self._guard(which.name, call, 0)
        return reply, acknowledged

    async def ask(self, name: str, command: Sequence[bytes | int | str], size: int) -> Any:
        """A command's reply, for what is large. Raises StoreError."""
        road = self.road
        return await self._guard(name, lambda timeout: road.ask(command, timeout=timeout), size)

    async def _guard(
        self,
        name: str,
        call: Callable[[float | None], Awaitable[Any]],
        size: int,
        must: bool = False,
    ) -> Any:
        breaker = self._breaker
        began = self._clock()
        if not (breaker.closed or must):
            raise NotAsked("down", "the store is in trouble")
        generation = breaker.generation
        tally = self._metrics.store(name)
        timeout = None
        self._under_way += size
        if self._under_way > _SMALL:
            timeout = self._timeout + self._under_way / RATE
        try:
            reply = await call(timeout)
        except StoreError as error:
            now = self._clock()
            tally.errors += 1
            tally.duration.observe(now - began)
            if not error.partial and error.reason != "refused" and breaker.failed(generation, now):
                self._probing = asyncio.get_running_loop().create_task(self._probe())
            raise
        finally:
            self._under_way -= size
        now = self._clock()
        tally.duration.observe(now - began)
        breaker.succeeded(generation, now)
        return reply

    async def close(self) -> None:
        if self._probing is not None:
            await ended(self._probing)
        await self.road.close()

    async def _probe(self) -> None:
        """Probes until one is answered; a server that is full answers, too."""
        breaker = self._breaker
        while (due := breaker.probe_due()) is not None:
            await asyncio.sleep(max(0.0, due - self._clock()))
            generation = breaker.probe(self._clock())
            if generation is None:
                continue
            well = True
            try:
                async with asyncio.timeout(PROBE_DEADLINE):
                    await self.road.probe()
            except (StoreError, TimeoutError) as error:
                well = isinstance(error, StoreError) and (
                    error.partial or error.reason == "refused"
                )
            breaker.probed(generation, well, self._clock())
