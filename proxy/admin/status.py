"""`GET /status`: the gateway at a glance. Names, figures and reasons; never a key or a secret."""

from proxy import __version__
from proxy.admin.control import Control
from proxy.metrics import DECISIONS, OUTCOMES
from proxy.policy.limit_plans import LimitPlan
from proxy.policy.snapshot import CachePlan, IdempotencyPlan, RoutePlan, Snapshot


def status(control: Control, snapshot: Snapshot, now: float) -> dict[str, object]:
    """The whole document. `now` is in seconds since the epoch."""
    ready, detail = control.readiness()
    return {
        "version": __version__,
        "uptime_s": round(max(0.0, now - control.started), 3),
        "ready": {"ready": ready, **detail},
        "configuration": {"hash": snapshot.hash, "files": [str(path) for path in snapshot.files]},
        "store": control.store_status(),
        "connections": control.connections(),
        "routes": [_route(plan) for plan in snapshot.routes.values()],
        "unrouted": _requests(control.metrics.no_route.requests),
        "limits": [_limit(plan) for plan in snapshot.limits.values()],
        "cache": control.cache_status() | {"purges": dict(control.metrics.purges)},
        "caches": [_cache(plan, snapshot, now) for plan in snapshot.caches.values()],
        "upstreams": control.upstream_status(),
        "breakers": control.breakers(),
        "idempotency": control.idempotency_status()
        | {"policies": [_idempotency(plan, snapshot) for plan in snapshot.idempotency.values()]},
    }


def _route(plan: RoutePlan) -> dict[str, object]:
    return {
        "name": plan.name,
        "upstream": plan.upstream.name,
        "limits": [limit.name for limit in plan.limits],
        "cache": None if plan.cache is None else plan.cache.name,
        **_requests(plan.tally.requests),
    }


def _requests(counts: dict[tuple[str, int], int]) -> dict[str, object]:
    statuses: dict[str, int] = {}
    for (_, code), count in sorted(counts.items(), key=lambda item: item[0][1]):
        statuses[str(code)] = statuses.get(str(code), 0) + count
    return {"requests": sum(statuses.values()), "statuses": statuses}


def _limit(plan: LimitPlan) -> dict[str, object]:
    figures: dict[str, object] = {name: getattr(plan.tally, name) for name in DECISIONS}
    return {
        "name": plan.name,
        "algorithm": plan.algorithm,
        "key": list(plan.key.parts),
        "mode": "shadow" if plan.base.shadow else "enforce",
        "overrides": len(plan.overrides),
        **figures,
        "overflow": plan.tally.overflow,
    }


def _idempotency(plan: IdempotencyPlan, snapshot: Snapshot) -> dict[str, object]:
    figures: dict[str, object] = {name: getattr(plan.tally, name) for name in plan.tally.figures}
    return {
        "name": plan.name,
        "routes": [route.name for route in snapshot.routes.values() if route.idempotency is plan],
        "scope": list(plan.scope.parts),
        **figures,
    }


def _cache(plan: CachePlan, snapshot: Snapshot, now: float) -> dict[str, object]:
    figures: dict[str, object] = {name: getattr(plan.tally, name) for name in OUTCOMES}
    last = sorted(plan.tally.last.items(), key=lambda item: -item[1][1])
    return {
        "name": plan.name,
        "routes": [route.name for route in snapshot.routes.values() if route.cache is plan],
        "tags": [tag.text for tag in plan.tags],
        **figures,
        "not_stored": dict(sorted(plan.tally.not_stored.items())),
        "last": {
            outcome: {"reason": reason, "ago_s": round(max(0.0, now - at / 1000), 3)}
            for outcome, (reason, at) in last
        },
    }
