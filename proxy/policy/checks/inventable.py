"""Routes whose limits do not hold a client that invents keys.

A limit counts by what its key reads. Where that is something that any client can choose anew in
each request, such as a header, each request may bring a fresh allowance. A route needs one enforced
limit with a key that a client cannot choose.
"""

from proxy.policy.draft import Draft, Part
from proxy.policy.models.routes import RouteSection
from proxy.policy.problem import listing

_FIXED = frozenset(("ip", "route", "global"))
"""Parts that are given to a client, or the same for all."""


def check(draft: Draft) -> None:
    """Warns of routes where every enforced limit can be escaped. The draft has no errors."""
    trusted = frozenset(name.lower() for name in draft.server.section.trusted_headers)
    for route in draft.routes:
        limits = [draft.limits[name].section for name in route.section.limits]
        chosen = [
            [_chosen(part, route, trusted) for item in limit.key for part in item.split("|")]
            for limit in limits
            if limit.mode == "enforce"
        ]
        if chosen and all(any(parts) for parts in chosen):
            _warn(route, list(dict.fromkeys(part for parts in chosen for part in parts if part)))


def _warn(route: Part[RouteSection], parts: list[str]) -> None:
    mend = "add a limit with key: [ip]"
    if any(part.startswith("header ") for part in parts):
        mend += ", or list the header in server.trusted_headers where a proxy sets it"
    message = f"do not bind a client that sends a new {listing(parts)} each time: {mend}"
    route.warn(message, "limits")


def _chosen(part: str, route: Part[RouteSection], trusted: frozenset[str]) -> str | None:
    """What a client can choose in this part, for a sentence; None where it cannot."""
    match = route.section.match
    if part in _FIXED:
        return None
    if part == "method":
        return None if match.methods else "method"
    if part == "host":
        fixed = match.hosts and not any(host.startswith("*.") for host in match.hosts)
        return None if fixed else "Host"
    kind, _, name = part.partition(":")
    if kind == "header":
        return None if name.removesuffix("+").lower() in trusted else f"header {name}"
    if kind in ("query", "cookie"):
        return f"{'parameter' if kind == 'query' else 'cookie'} {name}"
    return f"{{{part.removeprefix('path.')}}} in the path"
