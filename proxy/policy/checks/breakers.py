"""`breakers`: circuits that never open, statuses named twice, fallbacks that lead nowhere or back
to where they came from."""

from proxy.policy.checks.fallbacks import loops, routes_by_upstream
from proxy.policy.checks.lists import refuse_overlaps, refuse_respellings
from proxy.policy.draft import Draft, Part
from proxy.policy.models.breakers import BreakerSection, FallbackSection
from proxy.policy.models.routes import GATEWAY_FIELDS
from proxy.policy.problem import suggest

_BODILESS = frozenset((204, 205, 304))  # RFC 9110 §15.3.5, §15.3.6, §15.4.5


def check(draft: Draft) -> None:
    """Every breaker, and the upstreams that it protects."""
    for part in draft.breakers.values():
        _check_triggers(part)
        _check_times(part)
        if part.has("failure_statuses"):
            _check_statuses(part, part.section.failure_statuses)
        if part.has("fallback") and isinstance(part.section.fallback, FallbackSection):
            _check_fallback(draft, part, part.section.fallback)
        _check_sharing(draft, part)
    for loop in loops(draft):
        breaker = draft.breakers[draft.upstreams[loop[0]].section.breaker or ""]
        circle = " → ".join((*loop, loop[0]))
        breaker.error(f"leads back to where it came from: {circle}", "fallback", "upstream")
    _check_stale(draft)


def _check_triggers(part: Part[BreakerSection]) -> None:
    breaker = part.section
    if not part.has("failure_rate", "slow_rate"):
        return
    if breaker.slow_rate == 0 and part.is_given("slow_after"):
        part.warn("has no use while slow_rate is 0%", "slow_after")
    if breaker.failure_rate or breaker.slow_rate:
        return
    for key in ("minimum_requests", "window"):
        if part.is_given(key):
            part.warn("has no use while failure_rate and slow_rate are 0%", key)
    if part.has("consecutive_failures") and breaker.consecutive_failures == 0:
        part.warn("never opens: consecutive_failures, failure_rate and slow_rate are all 0")


def _check_times(part: Part[BreakerSection]) -> None:
    breaker = part.section
    if part.has("open_for", "open_max") and breaker.open_max < breaker.open_for:
        if part.is_given("open_max"):
            part.error(f"is shorter than open_for, which is {breaker.open_for:g}s", "open_max")
        else:
            part.error(f"is longer than open_max, which is {breaker.open_max:g}s", "open_for")


def _check_statuses(part: Part[BreakerSection], listed: list[range]) -> None:
    refuse_overlaps(part, ("failure_statuses",), listed)
    for index, statuses in enumerate(listed):
        if statuses.stop <= 200:
            message = "is the status of no final answer: those begin at 200"
            part.warn(message, "failure_statuses", index)


def _check_fallback(draft: Draft, part: Part[BreakerSection], fallback: FallbackSection) -> None:
    answer = [key for key in ("status", "headers", "body") if part.is_given("fallback", key)]
    if fallback.upstream is not None:
        for key in answer:
            part.error("cannot go with upstream, which answers itself", "fallback", key)
        if fallback.upstream not in draft.upstreams:
            hint = suggest(fallback.upstream, draft.upstreams)
            message = f'no upstream is called "{fallback.upstream}"{hint}'
            part.error(message, "fallback", "upstream")
        return
    if not answer:
        part.error("is empty: write status, headers and body, or upstream", "fallback")
    if fallback.status in _BODILESS and fallback.body:
        part.error(f"cannot go with the status {fallback.status}", "fallback", "body")
    refuse_respellings(part, ("fallback", "headers"), fallback.headers)
    for name in fallback.headers:
        if name.lower() in GATEWAY_FIELDS:
            message = f"{name} belongs to the connection: the gateway writes it itself"
            part.error(message, "fallback", "headers", name)


def _check_sharing(draft: Draft, part: Part[BreakerSection]) -> None:
    if not (part.has("shared") and part.section.shared and draft.store.has("url")):
        return
    if draft.store.section.url.kind == "memory":
        part.error("needs a Redis store: with memory:// nobody can be told", "shared")


def _check_stale(draft: Draft) -> None:
    """A stale answer comes from the cache of the route."""
    routes = routes_by_upstream(draft)
    for name, upstream in draft.upstreams.items():
        if not upstream.has("breaker"):
            continue
        breaker = draft.breakers.get(upstream.section.breaker or "")
        if breaker is None or not breaker.has("fallback") or breaker.section.fallback != "stale":
            continue
        users = routes.get(name)
        if users and all(route.has("cache") and route.section.cache is None for route in users):
            upstream.warn(
                f"{upstream.section.breaker} falls back to stale answers, "
                "but no route to this upstream has a cache",
                "breaker",
            )
