"""Limits on a shared store, and what becomes of them while it is in trouble.

Rules:
- While the breaker is not closed nothing waits for the store. A probe goes out every PROBE_EVERY
  seconds beside the requests; once one is answered, counting is shared again.
- The alarm is raised by the first request that is decided without the store. It is lowered when a
  probe closes the breaker or, if the breaker has stayed closed, when no call has failed for CALM
  seconds and a probe is answered; in either case by all of several servers.
- What one server of several cannot answer is no failure of the store: nobody waits for it either.
- Each limit goes its own way: `local` counts in this process at the limit's full rate, `allow`
  lets through uncounted, `deny` ends the request (Unavailable), whatever the others say. A shadow
  limit never blocks: with `deny` it lets through too.
- What this process counted alone is kept over the end of an outage: within one window all outages
  together admit no more than the limit once per process, beside what the store admitted.
- A request that the store counted, but answered too late, counts twice: never too few.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from proxy.core.limits.decision import Decision
from proxy.metrics import Metrics
from proxy.store.breaker import PROBE_DEADLINE, PROBE_EVERY, Breaker
from proxy.store.charge import Charge
from proxy.store.memory.limits import MemoryLimits
from proxy.store.ports import SharedLimits, StoreError, Unavailable

log = logging.getLogger(__name__)

CALM: Final = 1.0

_T = TypeVar("_T")


class GuardedLimits:
    """A LimitStore over a shared one, with one of this process to fall back to."""

    def __init__(
        self,
        shared: SharedLimits,
        local: MemoryLimits,
        breaker: Breaker,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        *,
        probe: Callable[[], Awaitable[None]],
    ) -> None:
        """`clock` in seconds, never going back. `probe` asks whether the store could count now;
        it raises StoreError."""
        self._shared = shared
        self._local = local
        self._breaker = breaker
        self._metrics = metrics
        self._clock = clock
        self._probe = probe
        self._admits = metrics.store("admit")
        self._probing: asyncio.Task[None] | None = None
        self._degraded = False
        self._reason = ""
        self._since = 0.0
        self._failed_at = 0.0

    async def admit(self, charges: Sequence[Charge]) -> Sequence[Decision | None]:
        breaker = self._breaker
        if breaker.state != "closed":
            return self._alone(charges)
        generation = breaker.generation
        clock = self._clock
        began = clock()
        shared = self._shared
        asked = shared.asked
        try:
            decisions = await shared.admit(charges)
        except StoreError as error:
            now = clock()
            self._admits.errors += 1
            self._admits.duration.observe(now - began)
            self._failed(error, generation, now)
            return self._alone(charges)
        if shared.asked == asked:  # remembered: then nothing is learned of the server
            return decisions
        now = clock()
        self._admits.duration.observe(now - began)
        breaker.succeeded(generation, now)
        return decisions

    async def give_back(self, charges: Sequence[Charge]) -> None:
        self._local.refund([charge for charge in charges if charge.alone])
        shared = [charge for charge in charges if not charge.alone]
        if shared and self._breaker.state == "closed":
            await self._shared.give_back(shared)

    async def peek(self, charge: Charge) -> Decision:
        """As the port says. Raises StoreError."""
        return await self._ask("peek", lambda: self._shared.peek(charge))

    async def reset(self, space: str, key: bytes) -> None:
        """Forgets the key here in any case, and in the store; raises StoreError where it did
        not."""
        await self._local.reset(space, key)
        await self._ask("reset", lambda: self._shared.reset(space, key))

    async def close(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
        await self._shared.close()
        await self._local.close()

    async def check(self) -> bool:
        """Asks the store once, outside any request, as at the start; whether it could count. If
        not, this counts as an outage."""
        if self._breaker.closed:
            try:
                await self._ask("probe", self._probe)
            except StoreError as error:
                if self._breaker.closed:
                    now = self._clock()
                    self._degrade(error, now)
                    if not error.partial:
                        self._breaker.trip(now)
                        self._opened()
        return self._breaker.closed

    def status(self) -> dict[str, object]:
        """`healthy`, `degraded`, and while it is: why, and since how many seconds."""
        degraded = self._degraded
        status: dict[str, object] = {"healthy": not degraded, "degraded": degraded}
        if degraded:
            status["reason"] = self._reason
            status["degraded_s"] = round(self._clock() - self._since, 3)
        return status

    async def _ask(self, operation: str, ask: Callable[[], Awaitable[_T]]) -> _T:
        """A call outside the requests' way: measured, and refused while the breaker is open."""
        if not self._breaker.closed and operation != "probe":
            raise StoreError("down", f"limits count without it ({self._reason})")
        tally = self._metrics.store(operation)
        began = self._clock()
        try:
            return await ask()
        except StoreError:
            tally.errors += 1
            raise
        finally:
            tally.duration.observe(self._clock() - began)

    def _alone(self, charges: Sequence[Charge]) -> Sequence[Decision | None]:
        """The answer without the store."""
        metrics = self._metrics
        counted: list[Charge] = []
        denies = ""
        for charge in charges:
            variant = charge.variant
            metrics.limit(variant.limit).degraded += 1
            charge.alone = True
            if variant.on_failure == "local":
                counted.append(charge)
            elif variant.on_failure == "deny" and not charge.shadow:
                denies = denies or variant.limit
        if denies:
            raise Unavailable(denies)
        if not counted:
            return [None] * len(charges)
        decisions = self._local.decide(counted)
        if len(decisions) == len(charges):
            return decisions
        said = iter(decisions)
        return [next(said) if c.variant.on_failure == "local" else None for c in charges]

    def _failed(self, error: StoreError, generation: int, now: float) -> None:
        """A call that was let through in `generation` of the breaker failed."""
        breaker = self._breaker
        if generation != breaker.generation:
            return  # a call from before the breaker opened
        self._degrade(error, now)
        if not error.partial and breaker.failed(generation, now):
            self._opened()

    def _degrade(self, error: StoreError, now: float) -> None:
        self._reason = f"{error.reason}: {error.detail}"
        self._failed_at = now
        if self._degraded:
            return
        self._degraded = True
        self._since = now
        self._metrics.store_alarms["degraded"] = 1
        log.warning("the store failed to answer (%s)", self._reason)
        if self._probing is None or self._probing.done():
            self._probing = asyncio.get_running_loop().create_task(self._probe_on())

    def _opened(self) -> None:
        log.error("the store is in trouble (%s): limits count without it", self._reason)

    def _recover(self) -> None:
        self._degraded = False
        self._metrics.store_alarms["degraded"] = 0
        seconds = self._clock() - self._since
        log.warning("the store answers again: limits are shared, after %.1f s", seconds)

    async def _probe_on(self) -> None:
        """Probes until the alarm can be lowered."""
        breaker = self._breaker
        while self._degraded:
            due = breaker.probe_due()
            await asyncio.sleep(PROBE_EVERY if due is None else max(0.0, due - self._clock()))
            now = self._clock()
            if breaker.closed:
                if now - self._failed_at >= CALM:
                    await self._probe_closed()
                continue
            generation = breaker.probe(now)
            if generation is None:
                continue
            error = await self._probed()
            now = self._clock()
            if error is not None:
                self._reason = f"{error.reason}: {error.detail}"
                self._failed_at = now
            well = error is None or error.partial
            if breaker.probed(generation, well, now) and error is None:
                self._recover()

    async def _probe_closed(self) -> None:
        """Probes a store that has failed calls, though not so many that the breaker opened."""
        generation = self._breaker.generation
        error = await self._probed()
        now = self._clock()
        if error is not None:
            self._failed(error, generation, now)
        elif self._breaker.closed and now - self._failed_at >= CALM:
            self._recover()

    async def _probed(self) -> StoreError | None:
        """Whether the store could count now; if not, why."""
        try:
            async with asyncio.timeout(PROBE_DEADLINE):
                await self._ask("probe", self._probe)
        except StoreError as error:
            return error
        except TimeoutError:
            return StoreError("timeout", "no answer to a probe")
        return None
