"""Requests as the cache's pure parts see them, through the real Exchange, and stored answers."""

from types import SimpleNamespace
from typing import Any

from proxy.core.cache.record import Stored
from proxy.core.fields import Fields, Lines
from proxy.exchange import Exchange

NOW = 1_800_000_000_000
"""A Friday in January 2027, in ms."""


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
    snapshot: Any = SimpleNamespace(server=SimpleNamespace(client_ip_header=header))
    ex = Exchange(
        snapshot,
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
    edits = SimpleNamespace(set=set_fields, remove=remove) if set_fields or remove else None
    chosen: Any = SimpleNamespace(name=route, request_headers=edits)
    ex.route = chosen
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
