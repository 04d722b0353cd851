"""The request head's grammar: a row per rule of RFC 9112 and of the design's hard edges."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.fields import Fields
from proxy.core.http1 import request
from proxy.core.http1.request import HeadBuffer, HeadError, RequestHead, parse_request_head
from proxy.core.identity import valid_authority


def parse(block: str, max_headers: int = 100, max_target: int = 8192) -> RequestHead:
    return parse_request_head(block.encode("latin-1"), max_headers, max_target)


HOST = "Host: a\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"

REFUSED = [
    ("version-2", "GET / HTTP/2.0\r\n" + HOST, "bad-request"),
    ("version-0.9", "GET /\r\n" + HOST, "bad-request"),
    ("version-1.2", "GET / HTTP/1.2\r\n" + HOST, "bad-request"),
    ("lower-case-http", "GET / http/1.1\r\n" + HOST, "bad-request"),
    ("two-spaces", "GET  / HTTP/1.1\r\n" + HOST, "bad-request"),
    ("tab-in-line", "GET\t/ HTTP/1.1\r\n" + HOST, "bad-request"),
    ("space-in-target", "GET /a b HTTP/1.1\r\n" + HOST, "bad-request"),
    ("fragment", "GET /a#b HTTP/1.1\r\n" + HOST, "bad-request"),
    ("nul-in-target", "GET /a\0 HTTP/1.1\r\n" + HOST, "bad-request"),
    ("del-in-target", "GET /a\x7f HTTP/1.1\r\n" + HOST, "bad-request"),
    ("method-not-a-token", "G@T / HTTP/1.1\r\n" + HOST, "bad-request"),
    ("method-over-32", "A" * 33 + " / HTTP/1.1\r\n" + HOST, "bad-request"),
    ("asterisk-not-options", "GET * HTTP/1.1\r\n" + HOST, "bad-request"),
    ("relative-target", "GET a/b HTTP/1.1\r\n" + HOST, "bad-request"),
    ("absolute-other-scheme", "GET ftp://a/ HTTP/1.1\r\n" + HOST, "bad-request"),
    ("absolute-userinfo", "GET http://u@a/ HTTP/1.1\r\n" + HOST, "bad-request"),
    ("absolute-no-authority", "GET http:///x HTTP/1.1\r\n" + HOST, "bad-request"),
    ("host-missing", "GET / HTTP/1.1\r\nA: b\r\n", "bad-request"),
    ("host-twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n", "bad-request"),
    ("host-userinfo", "GET / HTTP/1.1\r\nHost: a@evil\r\n", "bad-request"),
    ("host-space", "GET / HTTP/1.1\r\nHost: a b\r\n", "bad-request"),
    ("host-slash", "GET / HTTP/1.1\r\nHost: a/b\r\n", "bad-request"),
    ("host-query", "GET / HTTP/1.1\r\nHost: a?b\r\n", "bad-request"),
    ("host-list", "GET / HTTP/1.1\r\nHost: a, b\r\n", "bad-request"),
    ("cl-and-te", f"POST / HTTP/1.1\r\n{HOST}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
     "bad-request"),
    ("te-gzip", f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip, chunked\r\n", "bad-request"),
    ("te-not-final", f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked, gzip\r\n",
     "bad-request"),
    ("te-twice", f"POST / HTTP/1.1\r\n{HOST}{CHUNKED}{CHUNKED}", "bad-request"),
    ("te-params", f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked;q=1\r\n", "bad-request"),
    ("te-xchunked", f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: xchunked\r\n", "bad-request"),
    ("te-empty", f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding:\r\n", "bad-request"),
    ("te-vertical-tab", f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: \x0bchunked\r\n",
     "bad-request"),
    ("te-on-1.0", f"POST / HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n", "bad-request"),
    ("cl-plus", f"POST / HTTP/1.1\r\n{HOST}Content-Length: +5\r\n", "bad-request"),
    ("cl-minus", f"POST / HTTP/1.1\r\n{HOST}Content-Length: -1\r\n", "bad-request"),
    ("cl-hex", f"POST / HTTP/1.1\r\n{HOST}Content-Length: 0x10\r\n", "bad-request"),
    ("cl-space", f"POST / HTTP/1.1\r\n{HOST}Content-Length: 5 5\r\n", "bad-request"),
    ("cl-list", f"POST / HTTP/1.1\r\n{HOST}Content-Length: 5, 5\r\n", "bad-request"),
    ("cl-empty", f"POST / HTTP/1.1\r\n{HOST}Content-Length:\r\n", "bad-request"),
    ("cl-19-digits", f"POST / HTTP/1.1\r\n{HOST}Content-Length: {'1' * 19}\r\n", "bad-request"),
    ("cl-unicode-digit", f"POST / HTTP/1.1\r\n{HOST}Content-Length: \xb2\r\n", "bad-request"),
    ("cl-twice-same", f"POST / HTTP/1.1\r\n{HOST}Content-Length: 5\r\nContent-Length: 5\r\n",
     "bad-request"),
    ("space-before-colon", f"GET / HTTP/1.1\r\n{HOST}A : b\r\n", "bad-request"),
    ("name-not-a-token", f"GET / HTTP/1.1\r\n{HOST}A(: b\r\n", "bad-request"),
    ("name-empty", f"GET / HTTP/1.1\r\n{HOST}: b\r\n", "bad-request"),
    ("no-colon", f"GET / HTTP/1.1\r\n{HOST}Abc\r\n", "bad-request"),
    ("obs-fold", f"GET / HTTP/1.1\r\n{HOST}A: b\r\n c\r\n", "bad-request"),
    ("fold-first", "GET / HTTP/1.1\r\n Host: a\r\n", "bad-request"),
    ("nul-in-value", f"GET / HTTP/1.1\r\n{HOST}A: b\0c\r\n", "bad-request"),
    ("control-in-value", f"GET / HTTP/1.1\r\n{HOST}A: b\x01c\r\n", "bad-request"),
    ("bare-cr-in-value", f"GET / HTTP/1.1\r\n{HOST}A: b\rc\r\n", "bad-request"),
    ("bare-lf-line-end", f"GET / HTTP/1.1\r\n{HOST}A: b\nC: d\r\n", "bad-request"),
    ("bare-lf-request-line", f"GET / HTTP/1.1\n{HOST}", "bad-request"),
    ("target-over", f"GET /{'a' * 8192} HTTP/1.1\r\n" + HOST, "target-too-long"),
    ("fields-over", f"GET / HTTP/1.1\r\n{HOST}" + "A: b\r\n" * 100, "headers-too-large"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "block", "name"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refused(rule: str, block: str, name: str) -> None:
    with pytest.raises(HeadError) as refused:
        parse(block)
    assert refused.value.problem == name


ACCEPTED = [
    ("plain", "GET /a?b=c HTTP/1.1\r\n" + HOST, {"target": "/a?b=c", "authority": "a"}),
    ("unknown-method", "BREW / HTTP/1.1\r\n" + HOST, {"method": "BREW"}),
    ("method-of-32", "A" * 32 + " / HTTP/1.1\r\n" + HOST, {"method": "A" * 32}),
    ("raw-percent", "GET /a% HTTP/1.1\r\n" + HOST, {"target": "/a%"}),
    ("raw-utf8", "GET /\xc3\xa9 HTTP/1.1\r\n" + HOST, {"target": "/\xc3\xa9"}),
    ("asterisk", "OPTIONS * HTTP/1.1\r\n" + HOST, {"target": "*"}),
    ("absolute-replaces-host", "GET http://b:81/x?y HTTP/1.1\r\n" + HOST,
     {"target": "/x?y", "authority": "b:81"}),
    ("absolute-without-path", "GET http://b?q HTTP/1.1\r\n" + HOST,
     {"target": "/?q", "authority": "b"}),
    ("host-ipv6", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n", {"authority": "[::1]:80"}),
    ("1.0-without-host", "GET / HTTP/1.0\r\n", {"authority": "", "keep_alive": False}),
    ("1.0-never-keeps-alive", f"GET / HTTP/1.0\r\n{HOST}Connection: keep-alive\r\n",
     {"keep_alive": False}),
    ("1.1-keeps-alive", "GET / HTTP/1.1\r\n" + HOST, {"keep_alive": True}),
    ("connection-close", f"GET / HTTP/1.1\r\n{HOST}Connection: foo, Close\r\n",
     {"keep_alive": False}),
    ("chunked", f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: Chunked\r\n",
     {"chunked": True, "length": None}),
    ("length", f"POST / HTTP/1.1\r\n{HOST}Content-Length: 007\r\n", {"length": 7}),
    ("expect", f"PUT / HTTP/1.1\r\n{HOST}Content-Length: 1\r\nExpect: 100-Continue\r\n",
     {"expect_continue": True}),
    ("expect-without-body", f"PUT / HTTP/1.1\r\n{HOST}Expect: 100-continue\r\n",
     {"expect_continue": False}),
    ("expect-on-1.0", f"PUT / HTTP/1.0\r\n{HOST}Content-Length: 1\r\nExpect: 100-continue\r\n",
     {"expect_continue": False}),
    ("websocket", f"GET / HTTP/1.1\r\n{HOST}Upgrade: WebSocket\r\nConnection: a, Upgrade\r\n",
     {"upgrade": "websocket"}),
    ("upgrade-other", f"GET / HTTP/1.1\r\n{HOST}Connection: upgrade\r\nUpgrade: h2c\r\n",
     {"upgrade": None}),
    ("upgrade-not-named", f"GET / HTTP/1.1\r\n{HOST}Upgrade: websocket\r\n", {"upgrade": None}),
    ("upgrade-post", f"POST / HTTP/1.1\r\n{HOST}Connection: upgrade\r\nUpgrade: websocket\r\n",
     {"upgrade": None}),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "block", "facts"), ACCEPTED, ids=[row[0] for row in ACCEPTED])
def test_accepted(rule: str, block: str, facts: dict[str, object]) -> None:
    head = parse(block)
    assert {name: getattr(head, name) for name in facts} == facts


def test_values_are_trimmed_and_keep_their_bytes() -> None:
    head = parse(f"GET / HTTP/1.1\r\n{HOST}A: \t b c\xff \t\r\nEmpty:\r\n")
    assert head.fields.lines == [("Host", "a"), ("A", "b c\xff"), ("Empty", "")]


def test_repeated_lines_join_and_cookies_join_their_way() -> None:
    head = parse(f"GET / HTTP/1.1\r\n{HOST}A: 1\r\na: 2\r\nCookie: x=1\r\nCookie: y=2\r\n")
    assert head.fields.get("a") == "1, 2"
    assert head.fields.get("cookie") == "x=1; y=2"


# The slow model: the grammar's rules, one after the other, each a loop over characters.

TOKEN = set("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
VISIBLE = {chr(code) for code in range(0x21, 0x100)} - {"\x7f"}


def slow_parse(text: str, max_headers: int, max_target: int) -> tuple[object, ...]:
    """(method, target, version, lines, index, authority), or (problem,). Origin-form only."""
    first, *rest = text.split("\r\n")[:-1]
    parts = first.split(" ")
    if len(parts) != 3 or not parts[0] or len(parts[0]) > 32 or not set(parts[0]) <= TOKEN:
        return ("bad-request",)
    method, target, version = parts
    if not target or not set(target) <= VISIBLE - {"#"} or version not in ("HTTP/1.0", "HTTP/1.1"):
        return ("bad-request",)
    if len(target) > max_target:
        return ("target-too-long",)
    lines = []
    for line in rest:
        name, colon, value = line.partition(":")
        if (
            not colon
            or not name
            or not set(name) <= TOKEN
            or not set(value) <= VISIBLE | set(" \t")
        ):
            return ("bad-request",)
        lines.append((name, value.strip(" \t")))
    if len(lines) > max_headers:
        return ("headers-too-large",)
    fields = Fields(lines)
    host = fields.get("host")
    if len(fields.all("host")) > 1 or (host and not valid_authority(host)):
        return ("bad-request",)
    if (host is None and version == "HTTP/1.1") or target[0] != "/":
        return ("bad-request",)
    return method, target, int(version[-1]) + 10, lines, fields.index, host or ""


def fast_parse(text: str, max_headers: int, max_target: int) -> tuple[object, ...]:
    try:
        head = parse(text, max_headers, max_target)
    except HeadError as refused:
        return (refused.problem,)
    fields = head.fields
    return head.method, head.target, head.version, fields.lines, fields.index, head.authority


NAMES = st.sampled_from(
    ["Host", "host", "Accept", "ACCEPT", "User-Agent", "X-Api-Key", "Cookie", "A", "a b", "", "A("]
)
VALUES = st.sampled_from(
    [
        "a",
        " a",
        " b:1 ",
        "\t*/*\t",
        "",
        " ",
        " x, y",
        ": c",
        " \xa0\xe9\xa0",
        " \x0b",
        " \x7f",
        " a\r",
    ]
)
LINES = st.lists(st.tuples(NAMES, st.sampled_from([":"] * 9 + [" :", ""]), VALUES).map("".join))
FIRST = st.sampled_from(
    ["GET / HTTP/1.1", "PUT /a?b=c HTTP/1.0", "GET /\xe9 HTTP/1.1", "BREW /a#b HTTP/1.1",
     "GET /aaaaaaaaa HTTP/1.1", "GET / HTTP/1.2", "GET /", "GET  / HTTP/1.1",
     "M" * 33 + " / HTTP/1.1"]
)  # fmt: skip
SOUND = st.tuples(
    st.just("GET / HTTP/1.1"),
    st.lists(
        st.sampled_from(
            ["Accept: */*", "accept:\t b", "Cookie: a=1", "cookie:b=2 ", "X: :", "Y: \xa0y\x85"]
        )
    ),
).map(lambda head: [head[0], "Host: a", *head[1]])
HEADS = SOUND | st.tuples(FIRST, LINES).map(lambda head: [head[0], *head[1]])
ENDS = st.sampled_from(["\r\n"] * 12 + ["\n", "\r", "\r\n ", "\n\r\n", "\0\r\n"])


@given(HEADS.flatmap(lambda lines: st.tuples(*[st.tuples(st.just(one), ENDS) for one in lines])))
def test_one_pass_says_what_the_rules_say_one_by_one(pieces: tuple[tuple[str, str], ...]) -> None:
    text = "".join(line + end for line, end in pieces).removesuffix("\r\n") + "\r\n"
    for _ in range(2):  # what is remembered of the first time must not show
        assert fast_parse(text, 5, 8) == slow_parse(text, 5, 8)


def test_lines_that_may_tell_who_asks_are_not_remembered() -> None:
    names = ["Authorization", "Cookie", "X-Api-Key", "Proxy-Authorization", "Referer", "X-Anything"]
    parse(f"GET / HTTP/1.1\r\n{HOST}" + "".join(f"{name}: s3cret\r\n" for name in names))
    assert "Host: a" in request._remembered
    assert "s3cret" not in repr(request._remembered)


def test_what_is_remembered_is_bounded() -> None:
    for number in range(3000):
        parse(f"GET / HTTP/1.1\r\n{HOST}User-Agent: {number}\r\n")
        parse(f"GET / HTTP/1.1\r\n{HOST}Accept: {'x' * 300}\r\n")
    assert 0 < len(request._remembered) <= request._MAX_REMEMBERED
    assert max(map(len, request._remembered)) <= request._MAX_REMEMBERED_CHARS


WHOLE = b"GET /a HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n"


@given(st.lists(st.integers(0, len(WHOLE)), max_size=6), st.sampled_from([b"", b"\r\n", b"NEXT"]))
def test_however_the_wire_cuts_it_the_head_is_the_same(cuts: list[int], behind: bytes) -> None:
    edges = [0, *sorted(cuts), len(WHOLE)]
    buffer = HeadBuffer(32768, 8192)
    found = None
    for start, stop in itertools.pairwise(edges):
        tail = behind if stop == len(WHOLE) else b""
        found = buffer.feed(WHOLE[start:stop] + tail) or found
    assert found is not None
    assert found[0] == WHOLE[:-2]
    assert behind.startswith(found[1]) or found[1] == behind


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_empty_lines_before_the_request_line_are_skipped(step: int) -> None:
    wire = b"\r\n\r\n" + WHOLE
    buffer = HeadBuffer(32768, 8192)
    found = None
    for at in range(0, len(wire), step):
        found = buffer.feed(wire[at : at + step]) or found
    assert found == (WHOLE[:-2], b"")


EARLY = [
    ("tls-hello", b"\x16\x03\x01\x02", "bad-request"),
    ("bare-lf", b"GET / HTTP/1.1\nHost: a\n\n", "bad-request"),
    ("bare-cr", b"GET / HTTP/1.1\rHost: a", "bad-request"),
    ("nul", b"GET / HTTP/1.1\r\nA: \0", "bad-request"),
    ("method-without-end", b"A" * 33, "bad-request"),
    ("endless-target", b"GET /" + b"a" * 9000, "target-too-long"),
    ("endless-head", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 6000, "headers-too-large"),
    ("whole-head-over", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 6000 + b"\r\n", "headers-too-large"),
]


@pytest.mark.parametrize("step", [1, 1 << 20], ids=["bytewise", "at-once"])
@pytest.mark.parametrize(("rule", "wire", "name"), EARLY, ids=[row[0] for row in EARLY])
def test_what_can_never_become_a_head_is_refused_early(
    rule: str, wire: bytes, name: str, step: int
) -> None:
    buffer = HeadBuffer(32768, 8192)
    with pytest.raises(HeadError) as refused:
        for at in range(0, len(wire), step):
            assert buffer.feed(wire[at : at + step]) is None
    assert refused.value.problem == name
