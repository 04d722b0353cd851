"""Where: the route, or the right refusal."""

import json

import pytest
from stage_plans import MATCHES, exchange, snapshot

from proxy.core.fields import Lines
from proxy.core.matching import PathPattern, RouteMatch
from proxy.core.message import Reply
from proxy.exchange import Exchange
from proxy.stages import identity, route

TENANTS = snapshot(
    matches={"tenant": RouteMatch(PathPattern.parse("/"), frozenset({"GET"}), ("t.example",))}
)


def find(ex: Exchange) -> Reply | None:
    assert identity.resolve(ex) is None
    return route.find(ex)


@pytest.mark.parametrize(
    ("rule", "method", "target", "lines", "name", "captures"),
    [
        ("path and method", "GET", "/users/7", [], "users", {"id": "7"}),
        ("HEAD is GET", "HEAD", "/users/7", [], "users", {"id": "7"}),
        ("another method, another route", "POST", "/users/7", [], "upload", {"id": "7"}),
        ("captures are raw", "GET", "/users/%37?x=1", [], "users", {"id": "%37"}),
        ("a broken escape passes", "GET", "/users/a%", [], "users", {"id": "a%"}),
        ("any method", "M-SEARCH", "/any/", [], "any", {"rest": ""}),
        ("32 bytes of method", "X" * 32, "/any/", [], "any", {"rest": ""}),
        ("OPTIONS goes on", "OPTIONS", "/any/x", [], "any", {"rest": "x"}),
        ("with hops left", "OPTIONS", "/any/x", [("Max-Forwards", "1")], "any", {"rest": "x"}),
        (
            "Max-Forwards is for OPTIONS",
            "GET",
            "/any/x",
            [("Max-Forwards", "0")],
            "any",
            {"rest": "x"},
        ),
        ("by header", "GET", "/beta", [("X-Beta", "1")], "beta", {}),
    ],
)
def test_finds(
    rule: str, method: str, target: str, lines: Lines, name: str, captures: dict[str, str]
) -> None:
    ex = exchange(method, target, lines)
    assert find(ex) is None
    assert ex.route is not None
    assert (ex.route.name, ex.captures) == (name, captures)


ALL = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"


@pytest.mark.parametrize(
    ("rule", "method", "target", "lines", "status", "allow"),
    [
        ("no route", "GET", "/nowhere", [], 404, None),
        ("a header is missing", "GET", "/beta", [], 404, None),
        ("only the method fails", "DELETE", "/users/7", [], 405, "GET, HEAD, POST"),
        ("CONNECT", "CONNECT", "a.example:443", [], 405, ALL),
        ("TRACE", "TRACE", "/any/x", [], 405, ALL),
        ("TRACE of nothing", "TRACE", "/nowhere", [], 405, ALL),
        ("OPTIONS *", "OPTIONS", "*", [], 204, ALL),
        ("the asterisk is for OPTIONS", "GET", "*", [], 400, None),
        ("no hops left", "OPTIONS", "/any/x", [("Max-Forwards", "0")], 204, ALL),
        ("a long method", "X" * 33, "/any/x", [], 400, None),
        ("a dot segment", "GET", "/any/../users/7", [], 400, None),
        ("an encoded one", "GET", "/any/%2e%2E/users/7", [], 400, None),
        ("with a parameter", "GET", "/any/..;x/users/7", [], 400, None),
        ("a backslash", "GET", "/any/..\\users", [], 400, None),
        ("an encoded backslash", "GET", "/any/..%5Cusers", [], 400, None),
        ("a NUL", "GET", "/any/x%00.png", [], 400, None),
        ("whatever the query says", "GET", "/nowhere?/../\\%00", [], 404, None),
    ],
)
def test_refuses(
    rule: str, method: str, target: str, lines: Lines, status: int, allow: str | None
) -> None:
    ex = exchange(method, target, lines)
    reply = find(ex)
    assert reply is not None
    assert reply.status == status
    assert dict(reply.fields).get("Allow") == allow
    assert ex.route is None
    if status >= 400:
        assert json.loads(reply.body)["status"] == status
        assert ("Cache-Control", "no-store") in reply.fields


@pytest.mark.parametrize(
    ("authority", "status"),
    [("t.example", None), ("T.example.:80", None), ("other", 421), ("", 421)],
)
def test_misdirected(authority: str, status: int | None) -> None:
    reply = find(exchange(target="/", plan=TENANTS, authority=authority))
    assert (None if reply is None else reply.status) == status


def test_traversal_reaches_no_other_route() -> None:
    """Every way to write "up" that an origin may know is refused, not routed as it stands."""
    dots = [
        "..",
        "%2e.",
        ".%2E",
        "%2e%2e",
        "..;",
        "..;a=b",
        "%2e%2e%3Ba",
        "..%2f",
        "x%2F..",
        ".%2f..",
    ]
    for up in dots:
        reply = find(exchange(target=f"/any/{up}/users/7"))
        assert reply is not None, up
        assert reply.status == 400


def test_every_route_is_reachable() -> None:
    """A row of the tests above names each of them."""
    assert set(MATCHES) == {"users", "upload", "any", "beta"}
