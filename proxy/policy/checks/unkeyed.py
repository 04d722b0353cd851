"""Caches that give callers each other's answers.

Where a limit or an idempotency scope tells callers apart by a header, the origin may do so, too. An
answer without Cache-Control says nothing of that, and `default_ttl` and `ttl` have it stored.
Credentials, trusted headers and Cookie are left out: answers to requests with these are only stored
as the origin allows (RFC 9111 §3.5, and core.cache.storing). So is Host, which every key has.
"""

from collections.abc import Iterator

from proxy.core.cache.storing import CREDENTIALS
from proxy.policy.draft import Draft, Part
from proxy.policy.models.routes import RouteSection
from proxy.policy.problem import listing

_SAFE = CREDENTIALS | {"cookie", "host"}


def check(draft: Draft) -> None:
    """Warns of each header that such a cache does not key. The draft has no errors."""
    trusted = {name.lower() for name in draft.server.section.trusted_headers}
    for route in draft.routes:
        if route.section.cache is None:
            continue
        cache = draft.caches[route.section.cache].section
        spans = [name for name in ("default_ttl", "ttl") if getattr(cache, name)]
        keyed = {name.lower() for name in cache.key.headers}
        if spans:
            _warn(draft, route, listing(spans, "and"), _SAFE | trusted | keyed)


def _warn(draft: Draft, route: Part[RouteSection], spans: str, safe: frozenset[str]) -> None:
    readers: dict[str, tuple[str, list[str]]] = {}
    for header, reader in _read(draft, route.section):
        if header.lower() not in safe:
            readers.setdefault(header.lower(), (header, []))[1].append(reader)
    for header, names in readers.values():
        cache = f'"{route.section.cache}"'
        verb = "tells" if len(names) == 1 else "tell"
        route.warn(
            f"{cache} does not key {header}, by which {listing(names, 'and')} {verb} callers apart,"
            f" and its {spans} has answers stored that the origin did not mark as cacheable: add"
            f" {header} to key.headers of {cache}, or leave {spans} out",
            "cache",
        )


def _read(draft: Draft, route: RouteSection) -> Iterator[tuple[str, str]]:
    """Every header that tells callers apart on a route, and what reads it, for a sentence."""
    keys: list[tuple[str, list[str]]] = []
    for name in route.limits:
        limit = draft.limits[name].section
        whens = [part for override in limit.overrides for part in override.when]
        keys.append((f"limit {name}", limit.key + whens))
    if route.idempotency is not None:
        scope = draft.idempotency[route.idempotency].section.scope
        keys.append((f"idempotency {route.idempotency}", scope))
    for reader, parts in keys:
        headers = [
            part.removeprefix("header:").removesuffix("+")
            for item in parts
            for part in item.split("|")
            if part.startswith("header:")
        ]
        for header in dict.fromkeys(headers):
            yield header, reader
