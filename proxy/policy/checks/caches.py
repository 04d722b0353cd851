"""`caches`, and what routes say of them: keys that tell nothing apart, settings without effect,
tags that cannot be filled in, names that lead nowhere."""

from proxy.core.cache.invalidation import SAFE
from proxy.core.cache.tags import TagTemplate
from proxy.policy.checks.lists import refuse_empty, refuse_overlaps, refuse_repeats
from proxy.policy.draft import Draft, Part
from proxy.policy.models.caches import CacheSection
from proxy.policy.models.routes import GATEWAY_FIELDS, RouteSection
from proxy.policy.problem import suggest

_ALWAYS_NEW = frozenset(("date", "traceparent", "x-request-id"))
_QUERY = ("key", "query")


def check(draft: Draft) -> None:
    """Every cache, and what routes say of it."""
    for part in draft.caches.values():
        if part.has("tags"):
            refuse_repeats(part, ("tags",), part.section.tags)
        if part.has("key"):
            _check_query(part)
            _check_key(part)
        _check_times(part)
        _check_size(draft, part)
    for route in draft.routes:
        _check_use(draft, route)
        _check_invalidate(draft, route)


def _check_query(part: Part[CacheSection]) -> None:
    query = part.section.key.query
    if query.include is None and query.exclude is None:
        part.error("is empty: write include or exclude, or the word all or none", *_QUERY)
    if query.include is not None and query.exclude is not None:
        part.error(
            "cannot go with include: what is not included does not count", *_QUERY, "exclude"
        )
    for name, listed in (("include", query.include), ("exclude", query.exclude)):
        if part.is_given(*_QUERY, name):  # the words all and none are lists of nothing
            refuse_empty(part, (*_QUERY, name), listed)
            refuse_repeats(part, (*_QUERY, name), listed or ())


def _check_key(part: Part[CacheSection]) -> None:
    key = part.section.key
    refuse_repeats(part, ("key", "cookies"), key.cookies)
    refuse_repeats(part, ("key", "headers"), key.headers, str.lower)
    for index, name in enumerate(key.headers):
        loc = ("key", "headers", index)
        if name.lower() == "host":
            part.error("Host is part of every key already", *loc)
        elif name.lower() in GATEWAY_FIELDS:
            part.error(f"{name} belongs to the connection: upstreams never see the client's", *loc)
        elif name.lower() in _ALWAYS_NEW:
            part.warn(f"{name} is another in every request: nothing would ever be found", *loc)
    if any(name.lower() == "cookie" for name in key.headers) and key.cookies:
        part.warn("has no effect beside the header Cookie, which is all of them", "key", "cookies")


def _check_times(part: Part[CacheSection]) -> None:
    cache = part.section
    if part.has("ttl", "default_ttl") and cache.ttl is not None and part.is_given("default_ttl"):
        part.warn("has no effect beside ttl, which stands for everything", "default_ttl")
    if part.has("max_waiters") and cache.max_waiters == 0 and part.is_given("lock_timeout"):
        part.warn("has no use while max_waiters is 0", "lock_timeout")


def _check_size(draft: Draft, part: Part[CacheSection]) -> None:
    if part.has("max_object") and draft.store.has("cache"):
        memory = draft.store.section.cache.memory
        if part.section.max_object > memory:
            part.warn("is more than the whole of store.cache.memory", "max_object")


def _check_use(draft: Draft, route: Part[RouteSection]) -> None:
    """The cache that a route names, and whether it can do anything there."""
    if not route.has("cache") or route.section.cache is None:
        return
    name = route.section.cache
    part = draft.caches.get(name)
    if part is None:
        if not draft.unread:
            route.error(f'no cache is called "{name}"{suggest(name, draft.caches)}', "cache")
        return
    if not route.has("match"):
        return
    match = route.section.match
    if match.methods and not {"GET", "HEAD"} & set(match.methods):
        route.warn("has no use: match.methods has no GET, and nothing else is stored", "cache")
    captured = match.path.names
    for tag in part.section.tags if part.has("tags") else ():
        for capture in sorted(TagTemplate.parse(tag).captures - captured.keys()):
            message = f"the tag {tag} needs {{{capture}}}, which is not in match.path"
            route.error(message + suggest(capture, captured), "cache")


def _check_invalidate(draft: Draft, route: Part[RouteSection]) -> None:
    if not route.has("invalidate"):
        return
    tags = route.section.invalidate
    refuse_repeats(route, ("invalidate",), tags)
    if route.has("invalidate_on"):
        refuse_empty(route, ("invalidate_on",), route.section.invalidate_on)
        refuse_overlaps(route, ("invalidate_on",), route.section.invalidate_on)
        if not tags and route.is_given("invalidate_on"):
            route.warn("has no use: the route has no tags to invalidate", "invalidate_on")
    if tags and not draft.caches and not draft.unread:
        route.warn("has no use: no cache is defined", "invalidate")
    if not route.has("match"):
        return
    match = route.section.match
    if tags and match.methods and set(match.methods) <= SAFE:
        route.warn("has no use: match.methods has only safe methods", "invalidate")
    for index, tag in enumerate(tags):
        for capture in sorted(TagTemplate.parse(tag).captures - match.path.names.keys()):
            message = f"{{{capture}}} is not in match.path"
            route.error(message + suggest(capture, match.path.names), "invalidate", index)
