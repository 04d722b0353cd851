"""Limit keys and override conditions: what each part reads, and that keys never run together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.fields import Fields
from proxy.core.keys import KeyTemplate, RepeatedHeader, WhenRule, shown_key


@dataclass
class Route:
    name: str


@dataclass
class Request:
    lines: list[tuple[str, str]] = field(default_factory=list)
    query: str | None = None
    client_ip: str = "192.0.2.1"
    captures: Mapping[str, str] = field(default_factory=dict)
    route: Route | None = None
    method: str = "GET"
    host: str = "h"

    @property
    def fields(self) -> Fields:
        return Fields(self.lines)


def values(parts: Sequence[str], request: Request) -> tuple[str | None, ...]:
    return KeyTemplate.parse(parts).values(request)


def digest(parts: Sequence[str], request: Request) -> bytes:
    return KeyTemplate.parse(parts).digest(request)


@pytest.mark.parametrize(
    ("rule", "part", "request_", "value"),
    [
        ("IPv4 is itself", "ip", Request(client_ip="192.0.2.1"), "192.0.2.1"),
        ("IPv4-mapped is IPv4", "ip", Request(client_ip="::ffff:192.0.2.1"), "192.0.2.1"),
        ("IPv6 is its /64", "ip", Request(client_ip="2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64"),
        ("a unix peer has a name", "ip", Request(client_ip="unix"), "unix"),
        ("a header", "header:X-Key", Request([("x-key", "a")]), "a"),
        ("an empty header is there", "header:X-Key", Request([("X-Key", "")]), ""),
        ("a missing header is absent", "header:X-Key", Request(), None),
        ("repeated lines are joined on demand", "header:X+",
         Request([("X", "a"), ("x", "b")]), "a, b"),
        ("a single line where many may come", "header:X+", Request([("X", "a")]), "a"),
        ("another header's repetition is no matter", "header:X",
         Request([("Y", "a"), ("X", "b"), ("Y", "c")]), "b"),
        ("a name may end in +", "header:X++", Request([("X+", "a"), ("X+", "b")]), "a, b"),
        ("a scheme is lower case", "header:Authorization",
         Request([("Authorization", "BeaRer Ab.C=")]), "bearer Ab.C="),
        ("one space behind a scheme", "header:authorization|ip",
         Request([("Authorization", "Basic   QQ==")]), "basic QQ=="),
        ("what has no scheme stays", "header:Authorization",
         Request([("Authorization", "MyKey")]), "MyKey"),
        ("only Authorization has schemes", "header:X", Request([("X", "Bearer A")]), "Bearer A"),
        ("a parameter", "query:k", Request(query="a=1&k=2"), "2"),
        ("the first parameter counts", "query:k", Request(query="k=1&k=2"), "1"),
        ("an empty parameter is there", "query:k", Request(query="k="), ""),
        ("a parameter without = is there", "query:k", Request(query="k"), ""),
        ("no query", "query:k", Request(), None),
        ("an empty query", "query:k", Request(query=""), None),
        ("a longer name is another", "query:k", Request(query="kk=1"), None),
        ("values are decoded", "query:k", Request(query="k=%61+b%2B"), "a b+"),
        ("names are decoded", "query:api_key", Request(query="api%5fkey=1"), "1"),
        ("a plus in a name is a space", "query:a+b", Request(query="a+b=1"), None),
        ("a broken escape is text", "query:k", Request(query="k=%zz%"), "%zz%"),
        ("UTF-8 parameters are bytes", "query:é", Request(query="%C3%A9=%C3%A9"), "Ã©"),
        ("a cookie", "cookie:s", Request([("Cookie", "a=1; s=2")]), "2"),
        ("the first cookie counts", "cookie:s", Request([("Cookie", "s=1; s=2")]), "1"),
        ("cookies on several lines", "cookie:s",
         Request([("Cookie", "a=1"), ("Cookie", "s=2")]), "2"),
        ("a cookie's value keeps its =", "cookie:s", Request([("Cookie", "s=a=b==")]), "a=b=="),
        ("a cookie's name has case", "cookie:s", Request([("Cookie", "S=1")]), None),
        ("a cookie within another's value", "cookie:s", Request([("Cookie", "a=s; bs=1")]), None),
        ("a cookie needs its =", "cookie:s", Request([("Cookie", "s; s=1")]), "1"),
        ("a capture", "path.id", Request(captures={"id": "7"}), "7"),
        ("a capture is decoded", "path.id", Request(captures={"id": "%37%2f"}), "7/"),
        ("an empty capture is there", "path.rest", Request(captures={"rest": ""}), ""),
        ("a missing capture", "path.id", Request(), None),
        ("the route", "route", Request(route=Route("r")), "r"),
        ("no route", "route", Request(), None),
        ("the method", "method", Request(method="PUT"), "PUT"),
        ("the host", "host", Request(host="a.b"), "a.b"),
        ("everybody", "global", Request(), ""),
        ("the first of a fallback", "header:X|ip", Request([("X", "a")]), "a"),
        ("an empty value does not fall back", "header:X|ip", Request([("X", "")]), ""),
        ("an absent value falls back", "header:X|ip", Request(), "192.0.2.1"),
        ("falls back step by step", "header:X|query:k|ip", Request(query="k=1"), "1"),
        ("all absent", "header:X|cookie:c", Request(), None),
    ],
)  # fmt: skip
def test_reads(rule: str, part: str, request_: Request, value: str | None) -> None:
    assert values([part], request_) == (value,)


@pytest.mark.parametrize(
    ("rule", "parts", "one", "other"),
    [
        # APISIX let a missing key fall back to the client's address unasked.
        ("a missing header is not the address", ["header:X"],
         Request(), Request([("X", "192.0.2.1")])),
        ("absent is not empty", ["header:X"], Request(), Request([("X", "")])),
        ("a header that spells an address is not that address", ["header:X|ip"],
         Request([("X", "192.0.2.9")]), Request(client_ip="192.0.2.9")),
        ("a header that spells a /64 is not that /64", ["header:X|ip"],
         Request([("X", "2001:db8::/64")]), Request(client_ip="2001:db8::1")),
        ("parts do not run together", ["header:X", "header:Y"],
         Request([("X", "ab"), ("Y", "c")]), Request([("X", "a"), ("Y", "bc")])),
        ("separators are not forged", ["header:X", "header:Y"],
         Request([("X", "a1:t"), ("Y", "b")]), Request([("X", "a"), ("Y", "1:tb")])),
        ("neighbouring /64s", ["ip"], Request(client_ip="2001:db8::1"),
         Request(client_ip="2001:db8:0:1::1")),
    ],
)  # fmt: skip
def test_keeps_apart(rule: str, parts: list[str], one: Request, other: Request) -> None:
    assert digest(parts, one) != digest(parts, other)


@pytest.mark.parametrize(
    ("rule", "parts", "one", "other"),
    [
        ("all that miss it share one", ["header:X"], Request(client_ip="192.0.2.1"),
         Request(client_ip="192.0.2.2")),
        ("within a /64", ["ip"],
         Request(client_ip="2001:db8::1"), Request(client_ip="2001:db8::2")),
        ("mapped and plain", ["ip"], Request(client_ip="::ffff:192.0.2.1"), Request()),
        ("the same credential by another way", ["header:X|query:k"],
         Request([("X", "secret")]), Request(query="k=secret")),
        ("another spelling of a capture", ["path.id"], Request(captures={"id": "a"}),
         Request(captures={"id": "%61"})),
        ("everybody", ["global"], Request(), Request(client_ip="::1", method="PUT")),
        ("schemes have no case", ["header:Authorization"],
         Request([("Authorization", "Bearer x")]), Request([("Authorization", "bEARER x")])),
    ],
)  # fmt: skip
def test_counts_together(rule: str, parts: list[str], one: Request, other: Request) -> None:
    assert digest(parts, one) == digest(parts, other)


@pytest.mark.parametrize(
    ("parts", "request_", "given_"),
    [
        (["ip"], Request(client_ip="2001:db8::1"), ["2001:db8::2"]),
        (["ip"], Request(client_ip="2001:db8::1"), ["2001:db8::/64"]),
        (["ip"], Request(client_ip="192.0.2.1"), ["::ffff:192.0.2.1"]),
        (["header:X"], Request([("X", "a")]), ["a"]),
        (["header:X"], Request(), [None]),
        (["header:X|ip"], Request([("X", "a")]), ["a"]),
        (["header:X|ip"], Request(client_ip="192.0.2.1"), ["192.0.2.1"]),
        (["header:X", "global", "method"], Request([("X", "")], method="PUT"), ["", "PUT"]),
        (["global"], Request(), []),
        (["header:Authorization"], Request([("Authorization", "bearer X")]), ["Bearer X"]),
        (["header:X+|header:AUTHORIZATION+"], Request([("Authorization", "A B")]), ["a B"]),
        (["route"], Request(route=Route("für alle ☺")), ["für alle ☺"]),
    ],
)
def test_digest_of_given_values(
    parts: list[str], request_: Request, given_: list[str | None]
) -> None:
    template = KeyTemplate.parse(parts)
    assert template.digest_values(given_) == template.digest(request_)
    assert len(template.digest(request_)) == 16


@pytest.mark.parametrize("given_", [[], ["a"], ["a", "b", "c"]])
def test_digest_wants_every_value(given_: list[str | None]) -> None:
    template = KeyTemplate.parse(["header:X", "global", "ip"])
    with pytest.raises(ValueError, match="the parts are: header:X, ip"):
        template.digest_values(given_)


TEXTS = st.one_of(st.none(), st.text(st.characters(max_codepoint=0xFF), max_size=6))


@given(st.tuples(TEXTS, TEXTS), st.tuples(TEXTS, TEXTS))
def test_digests_are_injective(
    one: tuple[str | None, str | None], other: tuple[str | None, str | None]
) -> None:
    template = KeyTemplate.parse(["header:A", "header:B"])
    same = template.digest_values(one) == template.digest_values(other)
    assert same == (one == other)


@given(TEXTS)
def test_what_is_hashed(value: str | None) -> None:
    """Gateways of several versions may count together, so it stays what it is, whatever the way."""
    request = Request([("X", value)] if value is not None else [], client_ip="::1")
    x = "-" if value is None else f"t{value}"
    ip = "a::/64"
    expected = {
        ("header:X",): [x],
        ("header:X|ip",): [ip if value is None else x],
        ("ip",): [ip],
        ("global",): ["t"],
        ("global", "header:X", "ip"): ["t", x, ip],
    }
    for parts, tagged in expected.items():
        text = "".join(f"{len(part)}:{part}" for part in tagged)
        hashed = blake2b(text.encode("latin-1"), digest_size=16).digest()
        assert digest(parts, request) == hashed


@given(st.text(max_size=40), st.text(st.characters(max_codepoint=0xFF), max_size=40))
def test_reading_never_raises(address: str, text: str) -> None:
    request = Request([("Cookie", text), ("X", text)], text, address, {"id": text})
    parts = ["ip", "header:X", "query:k", "cookie:c", "path.id"]
    assert len(digest(parts, request)) == 16


TWICE = Request([("X", "a"), ("x", "a")])


@pytest.mark.parametrize("parts", [["header:X"], ["ip", "header:x|ip"], ["query:q|header:X"]])
def test_a_header_in_several_lines_is_refused(parts: list[str]) -> None:
    template = KeyTemplate.parse(parts)
    for read in (template.digest, template.values):
        with pytest.raises(RepeatedHeader, match="The request has several"):
            read(TWICE)


def test_a_header_that_is_not_read_may_come_in_several_lines() -> None:
    assert values(["ip|header:X"], TWICE) == ("192.0.2.1",)


def test_headers_are_joined_where_no_key_is_gained_by_it() -> None:
    assert KeyTemplate.parse(["header:X"], joins=True).values(TWICE) == ("a, a",)
    assert WhenRule.parse({"header:X": ["a, a"]}).matches(TWICE)


@pytest.mark.parametrize(
    ("parts", "request_", "absent"),
    [
        (["header:X"], Request(), True),
        (["header:X", "cookie:c|query:q"], Request(), True),
        (["header:X"], Request([("X", "")]), False),
        (["header:X", "ip"], Request(), False),
        (["header:X", "global"], Request(), False),
    ],
)
def test_whether_anything_of_a_key_is_there(
    parts: list[str], request_: Request, absent: bool
) -> None:
    assert KeyTemplate.parse(parts).is_absent(request_) is absent


def test_what_a_template_needs() -> None:
    template = KeyTemplate.parse(["header:X-A+|path.id", "global", "header:x-b", "path.n"])
    assert template.captures == {"id", "n"}
    assert template.headers == {"x-a", "x-b"}
    assert template.inputs == ("header:X-A+|path.id", "header:x-b", "path.n")


def test_tells_which_parts_are_there_and_nothing_of_their_values() -> None:
    parts = ["header:X+|ip", "query:k", "cookie:c|ip", "path.id", "global", "header:Y|cookie:c"]
    request = Request([("X", "secret")], "k=secret", captures={"id": "7"})
    assert KeyTemplate.parse(parts).sources(request) == [
        *("header:X+", "query:k", "ip", "path.id", "global"),
        "header:Y|cookie:c (absent)",
    ]


def test_what_is_shown_of_a_key() -> None:
    """128 bits of HMAC-SHA-256 (RFC 4231, test case 1)."""
    assert shown_key(b"\x0b" * 20, b"Hi There") == "b0344c61d8db38535ca8afceaf0bf12b"


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([], "at least one part"),
        (["ip", "ip"], "twice"),
        (["address"], "is not a key part"),
        ([""], "is not a key part"),
        (["ip|"], "is not a key part"),
        (["IP"], "is not a key part"),
        (["header:"], "needs a name"),
        (["header:+"], "needs a name"),
        (["header:X Y"], "needs a name"),
        (["query:"], "needs a name"),
        (["cookie:a=b"], "needs a name"),
        (["path."], "name of a capture"),
        (["path.a-b"], "name of a capture"),
        (["path:id"], "is not a key part"),
    ],
)
def test_refuses(parts: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        KeyTemplate.parse(parts)


GOLD = Request(
    [("X-Plan", "gold"), ("Authorization", "Basic QQ==")],
    client_ip="10.1.2.3",
    method="PUT",
    host="a.b",
)


@pytest.mark.parametrize(
    ("rule", "when", "matches"),
    [
        ("one value", {"header:X-Plan": ["gold"]}, True),
        ("one of several", {"header:X-Plan": ["silver", "gold"]}, True),
        ("names have no case", {"header:x-plan": ["gold"]}, True),
        ("values are exact", {"header:X-Plan": ["Gold"]}, False),
        ("no prefix", {"header:X-Plan": ["gol"]}, False),
        ("absent matches nothing", {"header:X-Other": [""]}, False),
        ("every entry must match", {"header:X-Plan": ["gold"], "method": ["GET"]}, False),
        ("and does", {"header:X-Plan": ["gold"], "method": ["PUT"]}, True),
        ("an address", {"ip": ["10.1.2.3"]}, True),
        ("a network", {"ip": ["192.0.2.0/24", "10.0.0.0/8"]}, True),
        ("another network", {"ip": ["10.2.0.0/16"]}, False),
        ("another family", {"ip": ["::/0"]}, False),
        ("an IPv4 network written as mapped", {"ip": ["::ffff:10.0.0.0/104"]}, True),
        ("hosts have no case", {"host": ["A.B"]}, True),
        ("schemes have no case", {"header:Authorization": ["BASIC QQ=="]}, True),
        ("credentials have", {"header:Authorization": ["Basic qq=="]}, False),
    ],
)
def test_when(rule: str, when: dict[str, list[str]], matches: bool) -> None:
    assert WhenRule.parse(when).matches(GOLD) is matches


def test_when_asks_for_the_whole_address() -> None:
    """A key counts a /64; a condition names who it means."""
    rule = WhenRule.parse({"ip": ["2001:db8::1"]})
    assert rule.matches(Request(client_ip="2001:db8::1"))
    assert not rule.matches(Request(client_ip="2001:db8::2"))
    assert not rule.matches(Request(client_ip="unix"))


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ({}, "at least one entry"),
        ({"ip": []}, "lists no values"),
        ({"ip": ["10.0.0.0/33"]}, "not an address or a CIDR"),
        ({"ip": ["10.0.0.1/8"]}, "not an address or a CIDR"),
        ({"ip": ["gold"]}, "not an address or a CIDR"),
        ({"global": ["x"]}, "cannot be a condition"),
        ({"header:X|ip": ["x"]}, "cannot be a condition"),
        ({"plan": ["x"]}, "is not a key part"),
    ],
)
def test_refuses_when(when: dict[str, list[str]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        WhenRule.parse(when)
