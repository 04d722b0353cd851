"""The route table: methods, hosts, headers, the three ways to fail, and the order of routes."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.fields import Fields
from proxy.core.matching import (
    _MAX_KNOWN,
    _MAX_KNOWN_CHARS,
    COMMON_METHODS,
    Match,
    MethodNotAllowed,
    Misdirected,
    NoRoute,
    PathPattern,
    RouteMatch,
    RouteTable,
    Verdict,
    split_path,
)

NONE = Fields()


def route(
    path: str,
    methods: str | None = None,
    hosts: tuple[str, ...] = (),
    headers: tuple[tuple[str, str], ...] = (),
) -> RouteMatch:
    chosen = None if methods is None else frozenset(methods.split())
    return RouteMatch(PathPattern.parse(path), chosen, hosts, headers)


def find(
    routes: list[RouteMatch], method: str, host: str, path: str, fields: Fields = NONE
) -> int | Verdict:
    """The number of the route found, or the verdict."""
    table = RouteTable([(match, number) for number, match in enumerate(routes)])
    result = table.find(method, host, path, fields)
    return result.item if isinstance(result, Match) else result


GET = route("/a", "GET")
ANY = route("/a")


@pytest.mark.parametrize(
    ("rule", "routes", "method", "expected"),
    [
        ("a method that is named", [GET], "GET", 0),
        ("GET includes HEAD", [GET], "HEAD", 0),
        ("HEAD does not include GET", [route("/a", "HEAD")], "GET", MethodNotAllowed(("HEAD",))),
        ("a method that is not named", [GET], "POST", MethodNotAllowed(("GET", "HEAD"))),
        ("methods are case-sensitive", [GET], "get", MethodNotAllowed(("GET", "HEAD"))),
        ("left out is any", [ANY], "DELETE", 0),
        ("also OPTIONS", [ANY], "OPTIONS", 0),
        ("also unknown tokens", [ANY], "M-SEARCH", 0),
        ("Allow is a union", [GET, route("/a", "POST PUT")], "DELETE",
         MethodNotAllowed(("GET", "HEAD", "POST", "PUT"))),
        ("a later route may have the method", [GET, route("/{x}", "POST")], "POST", 1),
        ("other paths are not in Allow", [GET, route("/b", "PUT")], "POST",
         MethodNotAllowed(("GET", "HEAD"))),
        ("routes that fail otherwise are not in Allow",
         [GET, route("/a", "PUT", headers=(("X", "1"),)), route("/a", "POST", ("other",))],
         "DELETE", MethodNotAllowed(("GET", "HEAD"))),
    ],
)  # fmt: skip
def test_methods(rule: str, routes: list[RouteMatch], method: str, expected: int | Verdict) -> None:
    assert find(routes, method, "h", "/a") == expected


@pytest.mark.parametrize(
    ("rule", "hosts", "host", "expected"),
    [
        ("none named is any", (), "any.example", 0),
        ("the one named", ("a.b",), "a.b", 0),
        ("names have no case", ("A.b",), "a.b", 0),
        ("a final dot says nothing", ("a.b.",), "a.b", 0),
        ("one of several", ("x", "a.b"), "a.b", 0),
        ("another one", ("a.b",), "a.c", Misdirected()),
        ("a label is not a suffix", ("a.b",), "x.a.b", Misdirected()),
        ("a wildcard is one label", ("*.a.b",), "x.a.b", 0),
        ("a wildcard is more labels", ("*.a.b",), "y.x.a.b", 0),
        ("a wildcard is not no label", ("*.a.b",), "a.b", Misdirected()),
        ("a wildcard ends at a dot", ("*.a.b",), "xa.b", Misdirected()),
        ("a wildcard needs a name before the dot", ("*.a.b",), ".a.b", Misdirected()),
        ("an address", ("10.0.0.1",), "10.0.0.1", 0),
        ("a bracketed address", ("[2001:DB8::1]",), "[2001:db8::1]", 0),
    ],
)
def test_hosts(rule: str, hosts: tuple[str, ...], host: str, expected: int | Verdict) -> None:
    assert find([route("/a", hosts=hosts)], "GET", host, "/a") == expected


@pytest.mark.parametrize(
    ("rule", "routes", "host", "path", "expected"),
    [
        ("404 for a path", [ANY], "h", "/b", NoRoute()),
        ("404 without routes", [], "h", "/", NoRoute()),
        ("404 where some route takes any host", [route("/a", hosts=("x",)), route("/b")], "h", "/a",
         NoRoute()),
        ("404 where the host is known elsewhere",
         [route("/a", hosts=("x",)), route("/b", hosts=("h",))], "h", "/a", NoRoute()),
        ("421 where every route names other hosts",
         [route("/a", hosts=("x",)), route("/b", hosts=("*.y",))], "h", "/a", Misdirected()),
        ("421 whatever the path", [route("/a", hosts=("x",))], "h", "/nowhere", Misdirected()),
        ("421 whatever the method", [route("/a", "POST", ("x",))], "h", "/a", Misdirected()),
    ],
)  # fmt: skip
def test_no_route(
    rule: str, routes: list[RouteMatch], host: str, path: str, expected: Verdict
) -> None:
    assert find(routes, "GET", host, path) == expected


@pytest.mark.parametrize(
    ("rule", "wanted", "lines", "expected"),
    [
        ("there", (("X-Beta", "1"),), [("x-beta", "1")], 0),
        ("absent", (("X-Beta", "1"),), [], NoRoute()),
        ("another value", (("X-Beta", "1"),), [("X-Beta", "2")], NoRoute()),
        ("values are exact", (("X-Beta", "a"),), [("X-Beta", "A")], NoRoute()),
        ("repeated lines are joined", (("X", "1, 2"),), [("X", "1"), ("X", "2")], 0),
        ("one of repeated lines is not enough", (("X", "1"),), [("X", "1"), ("X", "2")], NoRoute()),
        ("all of them", (("X", "1"), ("Y", "2")), [("X", "1")], NoRoute()),
        ("UTF-8 is compared as bytes", (("X", "é"),), [("X", "Ã©")], 0),
    ],
)
def test_headers(
    rule: str,
    wanted: tuple[tuple[str, str], ...],
    lines: list[tuple[str, str]],
    expected: int | Verdict,
) -> None:
    assert find([route("/a", headers=wanted)], "GET", "h", "/a", Fields(lines)) == expected


@pytest.mark.parametrize(
    ("rule", "routes", "expected"),
    [
        ("a literal does not overtake a capture", [route("/{x}"), route("/a")], 0),
        ("a capture does not overtake a literal", [route("/a"), route("/{x}")], 0),
        ("the remainder wins if it is first", [route("/{r:path}"), route("/a")], 0),
        ("a named host does not overtake any", [route("/a"), route("/a", hosts=("h.i",))], 0),
        ("a wildcard keeps its place",
         [route("/a", hosts=("*.i",)), route("/a", hosts=("h.i",))], 0),
        ("what fails lets the next one in", [route("/a", headers=(("X", "1"),)), route("/a")], 1),
    ],
)  # fmt: skip
def test_first_match_wins(rule: str, routes: list[RouteMatch], expected: int) -> None:
    assert find(routes, "GET", "h.i", "/a") == expected


@pytest.mark.parametrize(
    ("methods", "hosts", "headers", "says"),
    [
        ("", (), (), "empty list"),
        ("CONNECT", (), (), "never forwarded"),
        ("TRACE", (), (), "never forwarded"),
        ("get", (), (), "write GET"),
        ("G@T", (), (), "not a method"),
        ("X" * 33, (), (), "not a method"),
        (None, ("a:80",), (), "without port"),
        (None, ("*",), (), "not a host"),
        (None, ("a.*.b",), (), "not a host"),
        (None, ("",), (), "not a host"),
        (None, ("a/b",), (), "not a host"),
        (None, (), (("X Y", "1"),), "not a header name"),
    ],
)
def test_refuses_route(
    methods: str | None,
    hosts: tuple[str, ...],
    headers: tuple[tuple[str, str], ...],
    says: str,
) -> None:
    with pytest.raises(ValueError, match=says):
        route("/", methods, hosts, headers)


def test_allow_at_a_place() -> None:
    table = RouteTable([(GET, 0), (route("/{x}", "POST"), 1), (route("/b"), 2)])
    assert table.allow("h", ("a",), NONE) == ("GET", "HEAD", "POST")
    assert table.allow("h", ("b",), NONE) == COMMON_METHODS
    assert table.allow("h", ("a", "b"), NONE) == ()
    assert table.methods == COMMON_METHODS


def test_a_look_up_does_not_walk_the_routes() -> None:
    """2,000 routes for 2,000 tenants on one path: only those that can match are considered."""
    routes = [(route(f"/t{n}/{{id}}", "GET"), n) for n in range(1000)]
    routes += [(route("/shared/{id}", "GET", (f"t{n}.example",)), n) for n in range(1000)]
    table = RouteTable(routes)
    assert table._candidates("h", ("t7", "1")) == [7]
    assert table._candidates("t7.example", ("shared", "1")) == [1007]


# The slow model: every route, one after the other, each question asked by itself.

Case = tuple[RouteMatch, str]

PATTERNS = st.sampled_from(
    ["/", "/a", "/a/", "/a/b", "/{x}", "/{x:int}", "/a/{x}", "/{x}/b", "/{r:path}", "/a/{r:path}",
     "/{x}/{y:int}", "/{x:int}/{r:path}"]
)  # fmt: skip
PATHS = st.sampled_from(
    ["/", "/a", "/a/", "/a/b", "/7", "/%61", "/a/7", "/7/b", "/7/7", "/b/7/c", "//", "/a//b"]
)
METHODS = st.sampled_from([None, "GET", "POST", "HEAD PUT", "GET POST", "PURGE"])
HOSTS = st.lists(st.sampled_from(["h", "x.h", "*.h", "*.x.h"]), max_size=2).map(tuple)
HEADERS = st.sampled_from([(), (("X", "1"),), (("X", "1"), ("Y", "2"))])
ROUTES = st.lists(st.builds(route, PATTERNS, METHODS, HOSTS, HEADERS), max_size=8)


def takes_path(match: RouteMatch, path: str) -> bool:
    alone = RouteTable([(RouteMatch(match.path), 0)])
    return isinstance(alone.find("GET", "h", path, NONE), Match)


def takes_host(match: RouteMatch, host: str) -> bool:
    return not match.hosts or any(
        host == wanted or (wanted[0] == "*" and host.endswith(wanted[1:]) and host != wanted[1:])
        for wanted in match.hosts
    )


def slow_find(
    routes: list[RouteMatch], method: str, host: str, path: str, fields: Fields
) -> int | Verdict:
    allow: set[str] = set()
    for number, match in enumerate(routes):
        if not takes_path(match, path) or not takes_host(match, host):
            continue
        if any(fields.get(name) != value for name, value in match.headers):
            continue
        if match.methods is None or method in match.methods:
            return number
        allow |= match.methods
    if allow:
        return MethodNotAllowed(tuple(sorted(allow)))
    if routes and not any(takes_host(match, host) for match in routes):
        return Misdirected()
    return NoRoute()


@given(
    ROUTES,
    st.sampled_from(["GET", "HEAD", "POST", "PURGE", "OPTIONS"]),
    st.sampled_from(["h", "x.h", "y.x.h", "other"]),
    PATHS,
    st.sampled_from([[], [("X", "1")], [("x", "1"), ("Y", "2")], [("X", "2")]]),
)
def test_agrees_with_the_slow_model(
    routes: list[RouteMatch], method: str, host: str, path: str, lines: list[tuple[str, str]]
) -> None:
    fields = Fields(lines)
    assert find(routes, method, host, path, fields) == slow_find(routes, method, host, path, fields)


# What a table remembers of earlier requests must not show.

PIECES = st.sampled_from(["", "a", "b", "7", "07", "%61", "%37", "x", "²", "٣", "%2F"])
MANY_PATHS = st.lists(st.lists(PIECES, min_size=1, max_size=4).map(tuple), max_size=12)


@given(st.lists(st.builds(route, PATTERNS), max_size=6), MANY_PATHS)
@example([route("/a"), route("/{x:int}"), route("/{x}/b")], [("b",), ("7",), ("a",)])
def test_what_was_asked_before_changes_no_answer(
    routes: list[RouteMatch], paths: list[tuple[str, ...]]
) -> None:
    numbered = list(zip(routes, range(len(routes)), strict=True))
    asked = RouteTable(numbered)
    for segments in paths:
        said = asked.search("GET", "h", segments, NONE)
        assert said == RouteTable(numbered).search("GET", "h", segments, NONE)


def test_what_a_table_remembers_is_bounded() -> None:
    """A literal at any of ten places, anything elsewhere: 1,024 sets of them fit some path."""
    routes = [
        route("".join("/a" if at == place else f"/{{x{at}}}" for at in range(10)))
        for place in range(10)
    ]
    table = RouteTable([(match, number) for number, match in enumerate(routes)])
    for number in range(1024):
        segments = tuple("a" if number >> at & 1 else "b" for at in range(10))
        first = next((at for at in range(10) if segments[at] == "a"), None)
        found = table.search("GET", "h", segments, NONE)
        assert (found.item if isinstance(found, Match) else None) == first
        assert remembered(table._root) <= table._most + 1


def test_a_path_that_is_known_leads_where_it_led() -> None:
    """Whatever the method, the host and the fields of those who asked before."""
    routes = [
        route("/a/{x}", "POST", hosts=("h",)),
        route("/a/{x}", headers=(("X", "1"),)),
        route("/a/{x}", "GET"),
        route("/b/{y:path}"),
    ]
    table = RouteTable([(match, number) for number, match in enumerate(routes)])
    marked = Fields([("X", "1")])
    asked = [
        (method, host, path, fields)
        for method in ("GET", "POST", "PUT")
        for host in ("h", "i")
        for path in ("/a/1", "/a/2", "/b/1/2", "/c")
        for fields in (NONE, marked)
    ]
    for method, host, path, fields in asked * 2 + asked[::-1]:
        found = table.find(method, host, path, fields)
        assert found == table.search(method, host, split_path(path), fields)
    assert table.find("GET", "h", "/b/1/2", NONE) is table.find("GET", "h", "/b/1/2", marked)
    assert all(path.startswith("/b/") or method == "POST" for method, _, path in table._known)


def test_the_paths_that_are_known_are_bounded() -> None:
    table = RouteTable([(route("/{x:path}"), 0)])
    for number in range(_MAX_KNOWN + 10):
        table.find("GET", "h", f"/{number}", NONE)
    assert len(table._known) <= _MAX_KNOWN
    table.find("GET", "h", "/" + "x" * _MAX_KNOWN_CHARS, NONE)
    assert max(len(host) + len(path) for _, host, path in table._known) <= _MAX_KNOWN_CHARS


def remembered(place: Any) -> int:
    """How many places there are from here on."""
    onward = [*place.named.values(), place.digits, place.word]
    return 1 + sum(remembered(one) for one in onward if one is not None)
