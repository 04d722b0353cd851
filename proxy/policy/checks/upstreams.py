"""`upstreams`: endpoints that cannot serve, keys that spread nothing, names that lead nowhere, TLS
that nobody speaks, and upstreams without use."""

from collections.abc import Mapping, Sequence
from typing import Any

from proxy.policy.checks.captures import needed, refuse_dead_fallbacks, refuse_missing
from proxy.policy.checks.fallbacks import routes_by_upstream
from proxy.policy.checks.lists import refuse_repeats
from proxy.policy.checks.tls import check_client
from proxy.policy.draft import Draft, Part
from proxy.policy.models.routes import RouteSection
from proxy.policy.models.upstreams import UpstreamSection
from proxy.policy.problem import suggest


def check(draft: Draft) -> None:
    """Every upstream."""
    routes = routes_by_upstream(draft)
    for name, part in draft.upstreams.items():
        _check_endpoints(part)
        _check_balance(part)
        _check_hash_key(name, part, routes.get(name, []))
        _check_named(draft, part, "breaker", draft.breakers)
        _check_named(draft, part, "retry", draft.retries)
        _check_health(part)
        _check_tls(draft, part)
        _check_times(part)


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


def _check_balance(part: Part[UpstreamSection]) -> None:
    if not part.has("balance", "hash_key"):
        return
    balance, key = part.section.balance, part.section.hash_key
    if balance != "hash":
        if key is not None:
            part.error(f"has no use with balance: {balance}; write balance: hash", "hash_key")
        return
    if key is None:
        part.error("is missing: what goes to the same endpoint, such as [ip]", "hash_key")
    if part.has("endpoints") and len(part.section.endpoints) == 1:
        part.warn("has no use: there is one endpoint", "balance")


def _check_hash_key(
    name: str, part: Part[UpstreamSection], routes: Sequence[Part[RouteSection]]
) -> None:
    key = part.section.hash_key if part.has("hash_key") else None
    if key is None:
        return
    if not key:
        part.error("is empty: name what goes to the same endpoint, such as [ip]", "hash_key")
    refuse_repeats(part, ("hash_key",), key)
    if key == ["global"]:
        part.warn("is the same for every request: one endpoint gets them all", "hash_key")
    routes = [route for route in routes if route.has("match")]
    wanted = needed(key)
    for route in routes:
        refuse_missing(route, wanted, f"{name} hashes by", "upstream")
    refuse_dead_fallbacks(part, "hash_key", key, wanted, routes)


def _check_named(
    draft: Draft, part: Part[UpstreamSection], kind: str, known: Mapping[str, Any]
) -> None:
    name = getattr(part.section, kind) if part.has(kind) else None
    if name is not None and name not in known and not draft.unread:
        part.error(f'no {kind} is called "{name}"{suggest(name, known)}', kind)


def _check_health(part: Part[UpstreamSection]) -> None:
    health = part.section.health_check if part.has("health_check") else None
    if health is not None and health.timeout > health.interval:
        if part.is_given("health_check", "timeout"):
            message = f"is longer than interval, which is {health.interval:g}s"
            part.error(message, "health_check", "timeout")
        else:
            message = f"is shorter than timeout, which is {health.timeout:g}s"
            part.error(message, "health_check", "interval")


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
