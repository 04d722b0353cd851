"""Which stores this process uses, by what the YAML names: where it counts, and where it records."""

import secrets
from typing import Final

from proxy.metrics import Metrics
from proxy.policy.snapshot import LogPlan, Snapshot, StorePlan
from proxy.store.breaker import IN_A_ROW, Breaker
from proxy.store.clock import microseconds, milliseconds
from proxy.store.guard import GuardedLimits
from proxy.store.idempotency import IdempotencyStore
from proxy.store.memory.idempotency import MemoryIdempotency
from proxy.store.memory.limits import MemoryLimits
from proxy.store.ports import LimitStore
from proxy.store.redis.idempotency import RedisIdempotency, open_idempotency
from proxy.store.redis.key_salt import KeySalt
from proxy.store.redis.limits import RedisLimits
from proxy.store.redis.road import open_road
from proxy.store.redis.road_port import Road

CONNECT_PATIENCE: Final = 1.0
"""Seconds for a store before the port opens."""
_CLUSTER_IN_A_ROW: Final = 3 * IN_A_ROW  # one dead node fails its keys, not the store


class Counting:
    """Where this process counts: in itself, or in the store that the YAML names."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._local = MemoryLimits(microseconds, metrics)
        self._road: Road | None = None
        self._salt: KeySalt | None = None
        self._own_salt: Final = secrets.token_bytes(32)
        self._guard: GuardedLimits | None = None

    @property
    def road(self) -> Road | None:
        """The way to the shared store, where there is one."""
        return self._road

    @property
    def limits(self) -> LimitStore:
        return self._local if self._guard is None else self._guard

    async def open(self, plan: StorePlan) -> None:
        """Connects where there is something to connect to. A store that does not answer yet is no
        error: it is picked up when it comes."""
        if plan.url.kind == "memory":
            return
        road = self._road = open_road(plan, self._metrics)
        self._salt = KeySalt(road, plan.prefix)
        self._guard = GuardedLimits(
            RedisLimits(road, plan.prefix, timeout=plan.timeout),
            self._local,
            Breaker(in_a_row=_CLUSTER_IN_A_ROW if road.cluster else IN_A_ROW),
            self._metrics,
            probe=road.probe,
        )
        await road.up(CONNECT_PATIENCE)
        await self._guard.check()

    async def key_salt(self, plan: LogPlan) -> bytes | None:
        """By what keys are hashed where they are shown (`core.keys.shown_key`): as the YAML says,
        else as all processes on the shared store have it, else this process's own. None while
        the shared store has not told it."""
        if plan.key_salt is not None:
            return plan.key_salt
        return self._own_salt if self._salt is None else await self._salt.read()

    def retain(self, snapshot: Snapshot) -> None:
        """Forgets what this process counted for limits that are no more."""
        self._local.retain(
            {
                variant.space
                for plan in snapshot.limits.values()
                for variant in (plan.base, *(over for _, over in plan.overrides))
                if variant is not None
            }
        )

    def status(self) -> dict[str, object]:
        """`kind`, `healthy`, and the store's figures."""
        if self._road is None or self._guard is None:
            return {"kind": "memory", "healthy": True, "keys": len(self._local)}
        return {**self._road.status(), **self._guard.status(), "local_keys": len(self._local)}

    def trouble(self) -> dict[str, object]:
        """What readyz says of a store that does not count: nothing while it does."""
        status = {} if self._guard is None else self._guard.status()
        return {"store": status} if status.get("degraded") else {}

    async def close(self) -> None:
        await self.limits.close()


class Recording:
    """Where this process records idempotent requests. Opened with the first policy there is; it
    stays for what is recorded."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._shared: RedisIdempotency | None = None
        self.store: IdempotencyStore | None = None

    def open(self, snapshot: Snapshot) -> None:
        """Opens the store, if the snapshot is the first that needs one."""
        if self.store is not None or not snapshot.idempotency:
            return
        if snapshot.store.idempotency_at.kind == "memory":
            self.store = MemoryIdempotency(milliseconds)
        else:
            self.store = self._shared = open_idempotency(snapshot.store, self._metrics)

    async def up(self, seconds: float) -> None:
        """Waits for the first connection, for so long at most."""
        if self._shared is not None:
            await self._shared.up(seconds)

    async def free(self, record: bytes) -> None:
        """Removes a record. Raises StoreError."""
        if self.store is not None:
            await self.store.free(record)

    async def close(self) -> None:
        if self.store is not None:
            await self.store.close()
