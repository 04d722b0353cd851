"""`routes`: names that lead nowhere, paths that do not fit together, routes never reached."""

from proxy.core.matching import PathPattern, Rewrite, RouteMatch
from proxy.policy.checks.captures import needed, refuse_dead_fallbacks, refuse_missing
from proxy.policy.checks.lists import refuse_empty, refuse_repeats, refuse_respellings
from proxy.policy.draft import Draft, Part
from proxy.policy.models.limits import LimitSection
from proxy.policy.models.routes import GATEWAY_FIELDS, MatchSection, RouteSection
from proxy.policy.problem import dotted, suggest


def check(draft: Draft) -> None:
    """Every route by itself and with what it names."""
    names: dict[str, int] = {}
    for index, part in enumerate(draft.routes):
        if part.has("name"):
            name = part.section.name
            if name in names:
                part.error(f'"{name}" is taken by {dotted(("routes", names[name]))}', "name")
            names.setdefault(name, index)
        _check_upstream(draft, part)
        _check_limits(draft, part)
        if part.has("match"):
            _check_match(part, part.section.match)
            _check_rewrite(part, part.section.match.path)
        for key in ("request_headers", "response_headers"):
            _check_edits(part, key)
    _check_captures(draft)
    _warn_of_shadows(draft)


def _check_upstream(draft: Draft, part: Part[RouteSection]) -> None:
    if part.has("upstream") and part.section.upstream not in draft.upstreams:
        name = part.section.upstream
        hint = suggest(name, draft.upstreams)
        part.error(f'no upstream is called "{name}"{hint}', "upstream")


def _check_limits(draft: Draft, part: Part[RouteSection]) -> None:
    if not part.has("limits"):
        return
    refuse_repeats(part, ("limits",), part.section.limits)
    if draft.unread:
        return
    for index, name in enumerate(part.section.limits):
        if name not in draft.limits:
            hint = suggest(name, draft.limits)
            part.error(f'no limit is called "{name}"{hint}', "limits", index)


def _check_match(part: Part[RouteSection], match: MatchSection) -> None:
    refuse_empty(part, ("match", "methods"), match.methods)
    refuse_repeats(part, ("match", "methods"), match.methods or ())
    refuse_empty(part, ("match", "hosts"), match.hosts)
    refuse_repeats(part, ("match", "hosts"), match.hosts or ())
    if match.headers is not None:
        refuse_empty(part, ("match", "headers"), list(match.headers))
        refuse_respellings(part, ("match", "headers"), match.headers)


def _check_rewrite(part: Part[RouteSection], pattern: PathPattern) -> None:
    route = part.section
    if part.has("rewrite") and route.rewrite is not None:
        if part.has("strip_prefix") and route.strip_prefix is not None:
            part.error("cannot go with strip_prefix: rewrite names the whole new path", "rewrite")
        try:
            Rewrite.template(route.rewrite, pattern)
        except ValueError as error:
            part.error(str(error), "rewrite")
    if part.has("strip_prefix") and route.strip_prefix is not None:
        prefix = PathPattern.parse(route.strip_prefix.removesuffix("/")).parts
        if pattern.parts[: len(prefix)] != prefix:
            part.error(f"{pattern.text} does not begin with {route.strip_prefix}", "strip_prefix")


def _check_edits(part: Part[RouteSection], key: str) -> None:
    edits = getattr(part.section, key) if part.has(key) else None
    if edits is None:
        return
    refuse_respellings(part, (key, "set"), edits.set)
    refuse_repeats(part, (key, "remove"), edits.remove, str.lower)
    named = [(name, (key, "set", name)) for name in edits.set]
    named += [(name, (key, "remove", index)) for index, name in enumerate(edits.remove)]
    for name, loc in named:
        if name.lower() == "host":
            part.error("Host is for the upstream's host_header to say", *loc)
        elif name.lower() in GATEWAY_FIELDS:
            part.error(f"{name} belongs to the connection: the gateway writes it itself", *loc)


def _check_captures(draft: Draft) -> None:
    """A limit that counts by a capture is for routes that have it."""
    users: dict[str, list[tuple[Part[RouteSection], int]]] = {}
    for part in draft.routes:
        if part.has("match", "limits"):
            for index, name in enumerate(part.section.limits):
                users.setdefault(name, []).append((part, index))
    for name, limit in draft.limits.items():
        for part, index in users.get(name, ()):
            refuse_missing(part, _needed(limit), f"{name} needs", "limits", index)
        if limit.has("key"):
            routes = [part for part, _ in users.get(name, ())]
            refuse_dead_fallbacks(limit, "key", limit.section.key, _needed(limit), routes)


def _needed(limit: Part[LimitSection]) -> set[str]:
    """Captures that a key has no fallback for, and those of conditions."""
    captures = needed(limit.section.key) if limit.has("key") else set()
    for override in limit.section.overrides if limit.has("overrides") else ():
        captures |= {key[5:] for key in override.when if key.startswith("path.")}
    return captures


def _warn_of_shadows(draft: Draft) -> None:
    """A route is never reached where an earlier one takes everything that it would."""
    earlier: list[tuple[int, RouteMatch]] = []
    for index, part in enumerate(draft.routes):
        if not part.has("match"):
            continue
        match = part.section.match.compile()
        for place, other in earlier:
            if covers(other, match):
                message = f"never reached: {dotted(('routes', place))} takes all its requests"
                part.warn(message, "match")
                break
        earlier.append((index, match))


def covers(one: RouteMatch, other: RouteMatch) -> bool:
    """Whether every request that `other` matches is matched by `one`."""
    if one.methods is not None and (other.methods is None or not other.methods <= one.methods):
        return False
    if one.hosts and not (
        other.hosts and all(any(_host_covers(a, b) for a in one.hosts) for b in other.hosts)
    ):
        return False
    if not set(one.headers) <= set(other.headers):
        return False
    return _path_covers(one.path, other.path)


def _host_covers(one: str, other: str) -> bool:
    return one == other or (one.startswith("*.") and other.endswith(one[1:]))


def _path_covers(one: PathPattern, other: PathPattern) -> bool:
    for place, part in enumerate(one.parts):
        if not isinstance(part, str) and part[1] == "path":
            return len(other.parts) > place
        if place >= len(other.parts):
            return False
        match = other.parts[place]
        kind = "literal" if isinstance(match, str) else match[1]
        if isinstance(part, str):
            held = part == match
        elif part[1] == "int":
            held = kind == "int" or (isinstance(match, str) and match.isascii() and match.isdigit())
        else:
            held = kind in ("int", "segment") or (kind == "literal" and match != "")
        if not held:
            return False
    return len(one.parts) == len(other.parts)
