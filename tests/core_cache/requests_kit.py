"""Requests as the cache's pure parts see them, through the real Exchange, and stored answers."""

from dataclasses import replace
from functools import cache
from typing import Any

from stage_plans import route_plan, server_plan, snapshot

from proxy.core.cache.record import Stored
from proxy.core.fields import Fields, Lines
from proxy.exchange import Exchange
from proxy.policy.snapshot import HeaderEdits, RoutePlan, Snapshot

NOW = 1_800_000_000_000
"""A Friday in January 2027, in ms."""


@cache
def _snapshot(header: str) -> Snapshot:
    return snapshot(server_plan(client_ip_header=header))


@cache
def _route(name: str, set_fields: tuple[tuple[str, str], ...], remove: frozenset[str]) -> RoutePlan:
    edits = HeaderEdits(set_fields, remove)
    return replace(route_plan(name), request_headers=edits if edits else None)


def request(
    target: str = "/a",
    lines: Lines = [],  # noqa: B006
    *,
    method: str = "GET",
    authority: str = "h.test",
    scheme: str = "http",
    route: str = "r",
    trusted: bool = False,
    header: str = "x-forwarded-for",
    set_fields: tuple[tuple[str, str], ...] = (),
    remove: frozenset[str] = frozenset(),
) -> Exchange:
    """A request after identity and route. What strangers may not claim is the caller's to omit."""
    ex = Exchange(
        _snapshot(header),
        method,
        target,
        11,
        Fields(lines),
        authority=authority,
        scheme=scheme,
        peer="192.0.2.9",
    )
    ex.trusted = trusted
    ex.client_ip = "192.0.2.9"
    ex.request_id = "id-1"
    ex.route = _route(route, set_fields, remove)
    return ex


def stored(**facts: Any) -> Stored:
    """A stored 200 of ten bytes, received just now."""
    given: dict[str, Any] = {
        "method": "GET", "status": 200, "reason": "OK", "lines": [], "length": 10, "vary": (),
        "date": NOW, "requested": NOW, "received": NOW, "initial_age": 0, "lifetime": 60_000,
        "stale_while_revalidate": 0, "stale_if_error": 0, "no_cache": False,
        "must_revalidate": False, "immutable": False, "etag": None, "last_modified": None,
    }  # fmt: skip
    return Stored(**(given | facts))
