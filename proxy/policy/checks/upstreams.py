"""`upstreams`: endpoints that cannot serve, TLS that nobody speaks, and upstreams without use."""

from proxy.policy.checks.tls import check_client
from proxy.policy.draft import Draft, Part
from proxy.policy.models.upstreams import UpstreamSection


def check(draft: Draft) -> None:
    """Every upstream, and whether some route sends requests there."""
    for part in draft.upstreams.values():
        _check_endpoints(part)
        _check_tls(draft, part)
        _check_times(part)
    if all(route.has("upstream") for route in draft.routes):
        used = {route.section.upstream for route in draft.routes}
        for name, part in draft.upstreams.items():
            if name not in used:
                part.warn("no route uses this upstream")


def _check_endpoints(part: Part[UpstreamSection]) -> None:
    if not part.has("endpoints"):
        return
    endpoints = part.section.endpoints
    if not endpoints:
        part.error("is empty: an upstream needs at least one endpoint", "endpoints")
    seen = set()
    for index, endpoint in enumerate(endpoints):
        if endpoint.url in seen:
            part.error("is the same endpoint again; use weight", "endpoints", index)
        seen.add(endpoint.url)


def _check_tls(draft: Draft, part: Part[UpstreamSection]) -> None:
    if not part.has("tls") or part.section.tls is None:
        return
    endpoints = part.section.endpoints if part.has("endpoints") else []
    spoken = not endpoints or any(endpoint.url.scheme == "https" for endpoint in endpoints)
    check_client(
        draft, part, part.section.tls, spoken=spoken, otherwise="none of the endpoints is https"
    )


def _check_times(part: Part[UpstreamSection]) -> None:
    upstream = part.section
    for key in ("connect_timeout", "response_timeout"):
        if part.has("deadline", key) and part.is_given(key):
            value = getattr(upstream, key)
            if value > upstream.deadline:
                message = f"is longer than the deadline of {upstream.deadline:g}s, which ends first"
                part.warn(message, key)
    if (
        part.has("queue", "queue_timeout")
        and upstream.queue == 0
        and part.is_given("queue_timeout")
    ):
        part.warn("has no use while queue is 0", "queue_timeout")
