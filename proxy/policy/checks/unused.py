"""What is defined and not used.

Only a configuration without errors is judged: a name that is spelled wrong where it is used would
make what it means look unused, and the warning would hide the mistake.
"""

from collections.abc import Collection, Mapping
from typing import Any

from proxy.policy.checks.fallbacks import routes_by_upstream
from proxy.policy.draft import Draft, Part


def check(draft: Draft) -> None:
    """Warns of everything that no route or upstream uses. The draft has no errors."""
    if not draft.routes:
        draft.gateway.add(("routes",), "no routes: every request is answered 404", warning=True)
    routes = [part.section for part in draft.routes]
    upstreams = [part.section for part in draft.upstreams.values()]
    _warn(draft.upstreams, routes_by_upstream(draft), "no route uses this upstream")
    _warn(draft.limits, {n for r in routes for n in r.limits}, "no route uses this limit")
    _warn(draft.caches, {r.cache for r in routes}, "no route uses this cache")
    _warn(draft.idempotency, {r.idempotency for r in routes}, "no route uses this policy")
    _warn(draft.breakers, {u.breaker for u in upstreams}, "no upstream uses this breaker")
    _warn(draft.retries, {u.retry for u in upstreams}, "no upstream uses this retry")


def _warn(parts: Mapping[str, Part[Any]], used: Collection[str | None], message: str) -> None:
    for name, part in parts.items():
        if name not in used:
            part.warn(message)
