"""A gateway for the admin tests: a real configuration, tallies and store, but no listener."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from proxy.admin.breakers import STATES
from proxy.admin.control import Control
from proxy.admin.explain import routed
from proxy.admin.question import Question
from proxy.admin.stored import looked_up
from proxy.core.message import Outgoing, Reply
from proxy.live import label
from proxy.metrics import Metrics
from proxy.policy.compile import Live, load_snapshot
from proxy.policy.snapshot import AdminPlan, Listen, Snapshot, UpstreamPlan
from proxy.stages.cache import Caching
from proxy.store.charge import Charge
from proxy.store.memory.limits import MemoryLimits
from proxy.store.ports import Purge, StoreError

TOKEN = "t0k3n-do-not-tell"
SECOND = 1_000_000

# Limits of 10 a minute, by fixed windows: figures that a reader can check.
GATEWAY = """
server:
  trusted_proxies: [127.0.0.1]
  trusted_headers: [X-Cost, X-Plan]
policies: [limits.yaml]
upstreams:
  users: {endpoints: ["http://127.0.0.1:9001"]}
routes:
  - {name: users-read, match: {path: "/users/{id}"}, upstream: users, limits: [per-key, whole],
     cache: users}
  - {name: other, match: {path: "/other"}, upstream: users, limits: [by-address]}
"""
LIMITS = """
caches:
  users: {tags: ["user:{path.id}"]}
limits:
  per-key:
    algorithm: fixed_window
    rate: 10/m
    key: ["header:X-Api-Key|ip", route]
    overrides:
      - {when: {"header:X-Plan": gold}, rate: 100/m}
      - {when: {"header:X-Plan": partner}, rate: unlimited}
  whole: {algorithm: fixed_window, rate: 10/m, key: [global], cost: 4}
  by-address: {algorithm: fixed_window, rate: 10/m, key: [ip], cost: "header:X-Cost", mode: shadow}
"""


class Unsent:
    """An upstream that no request may reach."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def send(self, request: Outgoing) -> Reply:
        raise AssertionError("no call of the admin API sends a request upstream")


def admin_plan(token: str | None = None, *hosts: str) -> AdminPlan:
    return AdminPlan(Listen("127.0.0.1", 9090), token, frozenset(hosts), None)


class Gateway(Live):
    """A Control whose answers a test can set."""

    started = 1_000.0

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.now = (999_999_960 + 20) * SECOND
        """The store's clock, µs since the epoch: 20 s into a window of a minute."""
        self.limit_store = MemoryLimits(lambda: self.now, self.metrics)
        self.config: Snapshot | None = None
        self.ready: tuple[bool, dict[str, object]] = (True, {"store": "memory"})
        self.reload_errors: list[str] = []
        self.reloads = 0
        self.caching = Caching(self.metrics, 2**20, clock=lambda: self.now // 1000)
        self.purges: list[Purge] = []
        self.purge_trouble: StoreError | None = None
        self.freed: list[bytes] = []
        self.salt: bytes | None = b"salt"

    def load(self, folder: Path) -> None:
        """Reads the configuration above."""
        (folder / "limits.yaml").write_text(LIMITS)
        (folder / "gateway.yaml").write_text(GATEWAY)
        self.config, warnings = load_snapshot(folder / "gateway.yaml", self)
        assert warnings == []

    def guard_by(self, admin: AdminPlan) -> None:
        """Puts another admin plan into the configuration, as a reload may."""
        assert self.config is not None
        self.config = replace(self.config, admin=admin)

    def upstream(self, plan: UpstreamPlan) -> Unsent:
        return Unsent(plan.name)

    async def refresh_readiness(self) -> None:
        """It is of this moment."""

    async def refresh(self) -> None:
        """Its figures are always those of the moment."""

    async def key_salt(self) -> bytes | None:
        return self.salt

    def snapshot(self) -> Snapshot | None:
        return self.config

    def readiness(self) -> tuple[bool, dict[str, object]]:
        return self.ready

    async def reload(self) -> list[str]:
        self.reloads += 1
        return self.reload_errors

    async def purge(self, purge: Purge, selector: str, number: int) -> None:
        if self.purge_trouble is not None:
            raise self.purge_trouble
        self.purges.append(purge)
        self.metrics.purges[selector] = number

    async def looked_up(self, question: Question) -> dict[str, Any]:
        assert self.config is not None
        ex = routed(self.config, question)
        return {} if ex is None else await looked_up(ex, self.caching)

    def cache_status(self) -> dict[str, object]:
        return {"entries": 7, "bytes": 4096}

    def store_status(self) -> dict[str, object]:
        return {"kind": "memory", "healthy": True, "keys": len(self.limit_store)}

    def upstream_status(self) -> list[dict[str, object]]:
        return [{"name": "users", "in_flight": 2, "connections": 3, "waiting": 1, "endpoints": []}]

    def breakers(self) -> list[dict[str, Any]]:
        assert self.config is not None
        return [
            {"upstream": name, "state": label(there.breaker.state(0.0))}
            | {"forced": there.breaker.forced is not None, "reason": there.breaker.reason}
            | {"retry_in_s": there.breaker.retry_in(0.0)}
            for name, there in self.config.upstreams.items()
            if there.breaker is not None
        ]

    async def force_breaker(self, upstream: str, state: str) -> None:
        assert self.config is not None
        breaker = self.config.upstreams[upstream].breaker
        assert breaker is not None
        breaker.force(STATES[state], 0.0)

    async def free_record(self, record: bytes) -> None:
        self.freed.append(record)

    def idempotency_status(self) -> dict[str, object]:
        return {}

    def connections(self) -> int:
        return 5

    async def charge(
        self, limit: str, *values: str | None, times: int = 1, override: int | None = None
    ) -> None:
        """Counts `times` requests with this key under the limit, or under its override."""
        assert self.config is not None
        plan = self.config.limits[limit]
        chosen = plan.base if override is None else plan.overrides[override - 1][1]
        assert chosen is not None
        key = plan.key.digest_values(values)
        for _ in range(times):
            await self.limit_store.admit([Charge(chosen, key, chosen.cost or 1, False)])


def as_control(gateway: Gateway) -> Control:
    """Only the type checker needs this: a Gateway is a Control."""
    return gateway
