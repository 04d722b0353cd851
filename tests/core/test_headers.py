"""Field lines across a hop: what goes, what stays as it was, what the gateway says itself."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.fields import Fields, Lines, read_written, written
from proxy.core.headers import (
    FORWARDING,
    apply_edits,
    forward_request_lines,
    forward_request_text,
    forward_response_lines,
    passes,
    recurring_request_text,
    without_claims,
)


@dataclass
class Server:
    client_ip_header: str = "x-forwarded-for"


@dataclass
class Snapshot:
    server: Server = field(default_factory=Server)


@dataclass
class Request:
    lines: Lines
    method: str = "GET"
    version: int = 11
    scheme: str = "http"
    authority: str = "a.example:8080"
    peer: str = "192.0.2.1"
    trusted: bool = False
    client_ip: str = "192.0.2.1"
    request_id: str = "id-1"
    snapshot: Snapshot = field(default_factory=Snapshot)

    @property
    def fields(self) -> Fields:
        return Fields(self.lines)


OURS = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "via", "x-request-id"}


def forwarded(lines: Lines, **facts: Any) -> Lines:
    if facts.pop("header", "") == "forwarded":
        facts["snapshot"] = Snapshot(Server("forwarded"))
    request = Request(lines, **facts)
    sent = forward_request_lines(request)
    assert forward_request_text(request) == written(sent)
    recurring = recurring_request_text(request)
    if recurring is not None:
        apart = ("traceparent", "x-request-id")
        assert read_written(recurring) == [line for line in sent if line[0].lower() not in apart]
    return sent


def value(lines: Lines, name: str) -> str | None:
    found = [text for key, text in lines if key.lower() == name]
    assert len(found) < 2
    return found[0] if found else None


@pytest.mark.parametrize(
    ("rule", "lines", "kept"),
    [
        (
            "what is end-to-end stays, in order",
            [("B", "1"), ("a", "2"), ("B", "3")],
            [("B", "1"), ("a", "2"), ("B", "3")],
        ),
        ("bytes stay", [("X", "\xe9\xff")], [("X", "\xe9\xff")]),
        (
            "hop-by-hop goes",
            [
                ("Connection", "keep-alive"),
                ("Keep-Alive", "timeout=1"),
                ("TE", "gzip"),
                ("Proxy-Connection", "close"),
                ("Transfer-Encoding", "chunked"),
                ("Upgrade", "h2c"),
                ("Trailer", "X"),
                ("HTTP2-Settings", "AA"),
            ],
            [],
        ),
        ("framing goes", [("Host", "a"), ("Content-Length", "1"), ("Expect", "100-continue")], []),
        (
            "what Connection names goes",
            [("X-Hop", "1"), ("Connection", "x-hop"), ("X", "2")],
            [("X", "2")],
        ),
        ("whatever its case", [("X-HOP", "1"), ("connection", "X-Hop")], []),
        (
            "on any of its lines",
            [("Connection", "close"), ("X-Hop", "1"), ("Connection", "a, x-hop")],
            [],
        ),
        ("with spaces and empty members", [("X-Hop", "1"), ("Connection", ",\t x-hop ,,")], []),
        (
            "also a credential, as the client asks",
            [("Authorization", "x"), ("Connection", "authorization")],
            [],
        ),
        ("traceparent passes", [("traceparent", "00-1-2-01")], [("traceparent", "00-1-2-01")]),
        (
            "conditionals and ranges pass",
            [("If-None-Match", '"a"'), ("Range", "bytes=0-1")],
            [("If-None-Match", '"a"'), ("Range", "bytes=0-1")],
        ),
        (
            "several cookies pass",
            [("Cookie", "a=1"), ("Cookie", "b=2")],
            [("Cookie", "a=1"), ("Cookie", "b=2")],
        ),
    ],
)
def test_request_lines(rule: str, lines: Lines, kept: Lines) -> None:
    assert [line for line in forwarded(lines) if line[0].lower() not in OURS] == kept


def test_nobody_strips_ours() -> None:
    lines = [("Connection", "host, x-forwarded-for, x-forwarded-proto, via, x-request-id, close")]
    sent = forwarded(lines)
    assert {name.lower() for name, _ in sent} == OURS
    assert value(sent, "x-forwarded-for") == "192.0.2.1"


@pytest.mark.parametrize(
    ("rule", "lines", "facts", "name", "expected"),
    [
        ("the peer", [], {}, "x-forwarded-for", "192.0.2.1"),
        (
            "an IPv4-mapped peer is IPv4",
            [],
            {"peer": "::ffff:192.0.2.1"},
            "x-forwarded-for",
            "192.0.2.1",
        ),
        (
            "a stranger's chain is replaced",
            [("X-Forwarded-For", "1.1.1.1")],
            {},
            "x-forwarded-for",
            "192.0.2.1",
        ),
        (
            "a trusted chain is appended to",
            [("X-Forwarded-For", "1.1.1.1"), ("x-forwarded-for", "9.9.9.9")],
            {"trusted": True},
            "x-forwarded-for",
            "1.1.1.1, 9.9.9.9, 192.0.2.1",
        ),
        ("a trusted peer without a chain", [], {"trusted": True}, "x-forwarded-for", "192.0.2.1"),
        (
            "a unix peer has nothing to add",
            [("X-Forwarded-For", "1.1.1.1")],
            {"trusted": True, "peer": "unix"},
            "x-forwarded-for",
            "1.1.1.1",
        ),
        ("a unix peer alone says nothing", [], {"peer": "unix"}, "x-forwarded-for", None),
        (
            "a chain that Connection names is gone",
            [("X-Forwarded-For", "1.1.1.1"), ("Connection", "x-forwarded-for")],
            {"trusted": True},
            "x-forwarded-for",
            "192.0.2.1",
        ),
        (
            "the unread Forwarded is dropped",
            [("Forwarded", "for=1.1.1.1")],
            {"trusted": True},
            "forwarded",
            None,
        ),
        (
            "Forwarded is appended to where it is read",
            [("Forwarded", "for=1.1.1.1")],
            {"trusted": True, "header": "forwarded", "client_ip": "1.1.1.1"},
            "forwarded",
            'for=1.1.1.1, for=192.0.2.1;host="a.example:8080";proto=http',
        ),
        (
            "IPv6 in Forwarded is quoted",
            [],
            {"header": "forwarded", "peer": "2001:db8::1", "authority": "a"},
            "forwarded",
            'for="[2001:db8::1]";host=a;proto=http',
        ),
        (
            "the unread X-Forwarded-For is rebuilt",
            [("Forwarded", "for=1.1.1.1"), ("X-Forwarded-For", "6.6.6.6")],
            {"trusted": True, "header": "forwarded", "client_ip": "1.1.1.1"},
            "x-forwarded-for",
            "1.1.1.1, 192.0.2.1",
        ),
        (
            "a stranger's Forwarded is replaced",
            [("Forwarded", "for=1.1.1.1")],
            {"header": "forwarded", "authority": "a"},
            "forwarded",
            "for=192.0.2.1;host=a;proto=http",
        ),
        ("the scheme", [], {"scheme": "https"}, "x-forwarded-proto", "https"),
        (
            "a stranger's scheme is replaced",
            [("X-Forwarded-Proto", "https")],
            {},
            "x-forwarded-proto",
            "http",
        ),
        (
            "a trusted peer's scheme is passed on",
            [("X-Forwarded-Proto", "https")],
            {"trusted": True},
            "x-forwarded-proto",
            "https",
        ),
        ("the host as received", [], {}, "x-forwarded-host", "a.example:8080"),
        (
            "a stranger's host is replaced",
            [("X-Forwarded-Host", "evil")],
            {},
            "x-forwarded-host",
            "a.example:8080",
        ),
        (
            "a trusted peer's host is passed on",
            [("X-Forwarded-Host", "b")],
            {"trusted": True},
            "x-forwarded-host",
            "b",
        ),
        ("Via is begun", [], {}, "via", "1.1 sluicegate"),
        ("Via tells the version received", [], {"version": 10}, "via", "1.0 sluicegate"),
        (
            "Via is appended to",
            [("Via", "1.0 a"), ("via", "2 b")],
            {},
            "via",
            "1.0 a, 2 b, 1.1 sluicegate",
        ),
        ("the request's name", [("X-Request-Id", "bad one")], {}, "x-request-id", "id-1"),
        (
            "Max-Forwards counts down for OPTIONS",
            [("Max-Forwards", "3")],
            {"method": "OPTIONS"},
            "max-forwards",
            "2",
        ),
        ("not for others", [("Max-Forwards", "3")], {}, "max-forwards", "3"),
        ("nonsense is left", [("Max-Forwards", "+3")], {"method": "OPTIONS"}, "max-forwards", "+3"),
        (
            "a trusted peer's other claims pass",
            [("X-Real-IP", "1.1.1.1")],
            {"trusted": True},
            "x-real-ip",
            "1.1.1.1",
        ),
    ],
)
def test_what_the_gateway_says(
    rule: str, lines: Lines, facts: dict[str, Any], name: str, expected: str | None
) -> None:
    assert value(forwarded(lines, **facts), name) == expected


CLAIMS = [
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Forwarded-Scheme",
    "Forwarded",
    "X-Host",
    "X-Original-Host",
    "X-HTTP-Host-Override",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
    "True-Client-IP",
    "X-Real-IP",
    "CF-Connecting-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
]


@pytest.mark.parametrize("name", [*CLAIMS, "X-Plan", "x-PLAN", "X_Forwarded_For", "X-Plan_", "_"])
def test_strangers_may_not_claim(name: str) -> None:
    fields = Fields([("A", "1"), (name, "x"), ("B", "2"), (name, "y")])
    assert without_claims(fields, frozenset({"x-plan"})).lines == [("A", "1"), ("B", "2")]


def test_exactly_these_are_claims() -> None:
    assert {name.lower() for name in CLAIMS} == FORWARDING


@pytest.mark.parametrize("name", ["X-Forwarded", "X-Forwarded-Ssl", "Client-IP", "X-Plan-B", "Via"])
def test_other_names_are_no_claims(name: str) -> None:
    fields = Fields([(name, "x")])
    assert without_claims(fields, frozenset({"x-plan"})) is fields


@pytest.mark.parametrize(
    ("rule", "lines", "kept"),
    [
        (
            "order, repetition and bytes stay",
            [("Set-Cookie", "a=\xe9"), ("X", "1"), ("set-cookie", "b")],
            [("Set-Cookie", "a=\xe9"), ("X", "1"), ("set-cookie", "b")],
        ),
        (
            "hop-by-hop goes",
            [
                ("Connection", "close"),
                ("Keep-Alive", "timeout=5"),
                ("Proxy-Connection", "x"),
                ("TE", "x"),
                ("Transfer-Encoding", "chunked"),
                ("Upgrade", "h2"),
                ("Trailer", "X"),
            ],
            [],
        ),
        (
            "the body's length is the edge's",
            [("Content-Length", "3"), ("Content-Type", "a/b")],
            [("Content-Type", "a/b")],
        ),
        (
            "what Connection names goes",
            [("X-Hop", "1"), ("Connection", "X-hop"), ("X", "2")],
            [("X", "2")],
        ),
        (
            "on every line of it",
            [("Connection", "a"), ("connection", "b"), ("A", "1"), ("B", "2")],
            [],
        ),
        (
            "Age, Via and Server stay",
            [("Age", "1"), ("Via", "1.1 x"), ("Server", "y")],
            [("Age", "1"), ("Via", "1.1 x"), ("Server", "y")],
        ),
    ],
)
def test_response_lines(rule: str, lines: Lines, kept: Lines) -> None:
    assert forward_response_lines(lines) == kept


@pytest.mark.parametrize(
    ("rule", "via", "times"),
    [
        ("none", None, 0),
        ("others", "1.1 a, 1.0 b", 0),
        ("us", "1.1 sluicegate", 1),
        ("whatever the version", "HTTP/1.1 sluicegate, 2 sluicegate, 1.0 a", 2),
        ("names have no case", "1.1 SluiceGate", 1),
        ("a comment is not us", "1.1 a (sluicegate)", 0),
        ("a longer name is not us", "1.1 sluicegate2, 1.1 my-sluicegate", 0),
        ("a broken member is not us", "sluicegate, , 1.1", 0),
        ("eight times", ", ".join(["1.1 sluicegate"] * 8), 8),
    ],
)
def test_passes(rule: str, via: str | None, times: int) -> None:
    assert passes(via) == times


@pytest.mark.parametrize(
    ("rule", "remove", "replace", "edited"),
    [
        ("nothing", (), (), [("A", "1"), ("b", "2"), ("A", "3")]),
        ("removes every line", ("a",), (), [("b", "2")]),
        ("set adds", (), (("C", "4"),), [("A", "1"), ("b", "2"), ("A", "3"), ("C", "4")]),
        ("set replaces every line", (), (("a", "4"),), [("b", "2"), ("a", "4")]),
        ("remove goes first", ("a",), (("A", "4"),), [("b", "2"), ("A", "4")]),
        ("names have no case", (), (("B", "4"),), [("A", "1"), ("A", "3"), ("B", "4")]),
    ],
)
def test_edits(
    rule: str, remove: tuple[str, ...], replace: tuple[tuple[str, str], ...], edited: Lines
) -> None:
    lines = [("A", "1"), ("b", "2"), ("A", "3")]
    assert apply_edits(lines, frozenset(remove), replace) == edited
    assert lines == [("A", "1"), ("b", "2"), ("A", "3")]


def test_what_recurs_of_a_request() -> None:
    lines = [("Host", "a.example"), ("TraceParent", "00-1"), ("A", "%s"), ("X-Request-Id", "z")]
    assert recurring_request_text(Request(lines)) == (
        "A: %s\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n"
        "X-Forwarded-Host: a.example:8080\r\nVia: 1.1 sluicegate\r\n"
    )


@pytest.mark.parametrize(
    "facts",
    [
        {"lines": [("Connection", "close, traceparent"), ("traceparent", "00-1")]},
        {"lines": [("Max-Forwards", "3")], "method": "OPTIONS"},
    ],
)
def test_nothing_recurs_where_a_line_has_to_be_looked_at(facts: dict[str, Any]) -> None:
    assert recurring_request_text(Request(**facts)) is None


NAMES = st.sampled_from(
    ["Connection", "TE", "X-A", "x-b", "Upgrade", "Host", "Via", "Cookie", "X_A", "traceparent"]
)
VALUES = st.one_of(
    st.sampled_from(["x-a", "X-B, via", "close", ", ,", "x-forwarded-for,host", "1.1 sluicegate"]),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=6),
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8), st.booleans())
def test_never_lets_a_hop_through(lines: Lines, trusted: bool) -> None:
    listed = {
        option.strip(" \t").lower()
        for name, text in lines
        if name == "Connection"
        for option in text.split(",")
    }
    for result in (forwarded(lines, trusted=trusted), forward_response_lines(lines)):
        names = {name.lower() for name, _ in result}
        assert names.isdisjoint({"connection", "te", "upgrade", "content-length"})
        assert names.isdisjoint(listed - OURS)
