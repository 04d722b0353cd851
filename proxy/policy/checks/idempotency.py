"""`idempotency`, and what routes say of it: scopes that tell no callers apart, promises that the
store cannot keep, settings without effect, names that lead nowhere."""

from collections.abc import Sequence
from typing import Final

from proxy.core.idempotency import MEMORY_BYTES, SELDOM_FINAL
from proxy.policy.checks.captures import needed, refuse_dead_fallbacks, refuse_missing
from proxy.policy.checks.lists import refuse_empty, refuse_repeats
from proxy.policy.draft import Draft, Part
from proxy.policy.models.idempotency import IdempotencySection
from proxy.policy.models.routes import RouteSection
from proxy.policy.problem import suggest

_ANYBODY: Final = frozenset(("global", "route", "method", "host", "header:idempotency-key"))
"""Parts that say nothing of who sends a request, in lower case."""


def check(draft: Draft) -> None:
    """Every policy, and what routes say of it."""
    for name, part in draft.idempotency.items():
        if part.has("methods"):
            refuse_empty(part, ("methods",), part.section.methods)
            refuse_repeats(part, ("methods",), part.section.methods)
        users = [
            route
            for route in draft.routes
            if route.has("idempotency", "match") and route.section.idempotency == name
        ]
        _check_scope(name, part, users)
        _check_statuses(part)
        _check_waiting(part)
        _check_body(draft, part)
        _check_store(draft, part)
    for route in draft.routes:
        _check_use(draft, route)
    _check_workers(draft)


def _check_scope(
    name: str, part: Part[IdempotencySection], routes: Sequence[Part[RouteSection]]
) -> None:
    if not part.has("scope"):
        return
    scope = part.section.scope
    if not scope:
        part.error('is empty: say whose keys they are, such as ["header:X-Api-Key"]', "scope")
    refuse_repeats(part, ("scope",), scope)
    told = {choice.lower().removesuffix("+") for item in scope for choice in item.split("|")}
    if told and told <= _ANYBODY:
        message = "is the same for everybody: whoever knows a key could be given another's answer"
        part.warn(message, "scope")
    elif told and told <= {*_ANYBODY, "ip"}:
        part.warn("is an address, not a caller: those behind one share their keys", "scope")
    wanted = needed(scope)
    for route in routes:
        refuse_missing(route, wanted, f"{name} is scoped by", "idempotency")
    refuse_dead_fallbacks(part, "scope", scope, wanted, routes)


def _check_statuses(part: Part[IdempotencySection]) -> None:
    if not part.has("store"):
        return
    listed = part.section.store
    refuse_empty(part, ("store",), listed)
    refuse_repeats(part, ("store",), listed)
    for index, status in enumerate(listed):
        of_class = f"{status[0]}xx"
        if status != of_class and of_class in listed and int(status) not in SELDOM_FINAL:
            part.warn(f"is part of {of_class} already", "store", index)


def _check_waiting(part: Part[IdempotencySection]) -> None:
    waits = not part.has("in_flight") or part.section.in_flight == "wait"
    if not waits and part.is_given("wait_timeout"):
        part.warn("has no use while in_flight is conflict", "wait_timeout")


def _check_body(draft: Draft, part: Part[IdempotencySection]) -> None:
    if not part.has("max_body"):
        return
    if draft.server.has("body_buffer") and part.section.max_body > draft.server.section.body_buffer:
        part.error("is more than server.body_buffer: no such body could ever be read", "max_body")
    elif not draft.server.has("max_body_bytes"):
        return
    elif part.section.max_body > draft.server.section.max_body_bytes:
        part.warn("is more than server.max_body_bytes: only answers can be that large", "max_body")


def _check_store(draft: Draft, part: Part[IdempotencySection]) -> None:
    """What memory cannot promise."""
    if not _in_memory(draft):
        return
    if part.has("replicas") and part.section.replicas > 0:
        part.error("needs a Redis store: memory:// has no replicas", "replicas")
    else:
        part.warn("is kept by memory://: its records are this process's own, and end with it")
    if part.has("max_body") and part.section.max_body >= MEMORY_BYTES:
        room = MEMORY_BYTES // 1024**2
        message = f"is more than memory:// can hold: it has {room}MiB for all records together"
        part.warn(message, "max_body")


def _check_workers(draft: Draft) -> None:
    """A repeat may reach another worker. Where store.url is memory:// they are refused already."""
    server = draft.server
    if not (draft.idempotency and server.has("workers") and _in_memory(draft)):
        return
    if server.section.workers > 1:
        message = "more than 1 needs a Redis store for idempotency: memory:// is one process's own"
        server.error(message, "workers")


def _in_memory(draft: Draft) -> bool:
    store = draft.store
    if not store.has("url", "idempotency"):
        return False
    return (store.section.idempotency.url or store.section.url).kind == "memory"


def _check_use(draft: Draft, route: Part[RouteSection]) -> None:
    """The policy that a route names, and whether it can do anything there."""
    name = route.section.idempotency if route.has("idempotency") else None
    if name is None:
        return
    part = draft.idempotency.get(name)
    if part is None:
        if not draft.unread:
            message = f'no idempotency policy is called "{name}"{suggest(name, draft.idempotency)}'
            route.error(message, "idempotency")
        return
    if part.has("methods") and route.has("match"):
        heeded, matched = part.section.methods, route.section.match.methods
        if heeded and matched and not set(heeded) & set(matched):
            message = f"protects nothing: match.methods has none of {', '.join(heeded)}"
            route.error(message, "idempotency")
    _check_ttl(draft, route, name, part)


def _check_ttl(
    draft: Draft, route: Part[RouteSection], name: str, part: Part[IdempotencySection]
) -> None:
    upstream = draft.upstreams.get(route.section.upstream) if route.has("upstream") else None
    if upstream is None or not (upstream.has("deadline") and part.has("ttl")):
        return
    ttl, deadline = part.section.ttl, upstream.section.deadline
    if ttl < deadline:
        message = f"{name} forgets after {ttl:g}s, but an answer may take {deadline:g}s (deadline)"
        route.warn(message, "idempotency")
