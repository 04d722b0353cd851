"""Where requests may go: to the upstream that a route names, and from there by fallbacks."""

from proxy.policy.draft import Draft, Part
from proxy.policy.models.breakers import FallbackSection
from proxy.policy.models.routes import RouteSection


def fallback_of(draft: Draft, name: str) -> str | None:
    """The upstream that is asked instead of this one while its circuit is open, if any."""
    upstream = draft.upstreams.get(name)
    if upstream is None or not upstream.has("breaker"):
        return None
    breaker = draft.breakers.get(upstream.section.breaker or "")
    if breaker is None or not breaker.has("fallback"):
        return None
    fallback = breaker.section.fallback
    other = fallback.upstream if isinstance(fallback, FallbackSection) else None
    return other if other in draft.upstreams else None


def routes_by_upstream(draft: Draft) -> dict[str, list[Part[RouteSection]]]:
    """The routes whose requests each upstream may get, directly or instead of another."""
    found: dict[str, list[Part[RouteSection]]] = {}
    for route in draft.routes:
        name = route.section.upstream if route.has("upstream") else None
        passed: set[str] = set()
        while name is not None and name not in passed:
            passed.add(name)
            found.setdefault(name, []).append(route)
            name = fallback_of(draft, name)
    return found


def loops(draft: Draft) -> list[list[str]]:
    """Upstreams that fall back on each other in a circle; each circle once."""
    found = []
    seen: set[str] = set()
    for start in draft.upstreams:
        path: list[str] = []
        name: str | None = start
        while name is not None and name not in seen:
            seen.add(name)
            path.append(name)
            name = fallback_of(draft, name)
        if name in path:
            found.append(path[path.index(name) :])
    return found
