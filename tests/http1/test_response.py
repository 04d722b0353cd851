"""The response parser: what it takes, what it refuses, and that the wire's cuts do not matter."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.fields import Lines, read_written, written
from proxy.core.headers import forward_response_lines
from proxy.core.http1.body import FramingError
from proxy.core.http1.response import (
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    InvalidResponse,
    ResponseHead,
    ResponseParser,
)


class Heard:
    """What a parser said: interim statuses, the final head, the content."""

    def __init__(self) -> None:
        self.interim: list[ResponseHead] = []
        self.final: ResponseHead | None = None
        self.content = b""

    def take(self, heads: Sequence[ResponseHead], parser: ResponseParser) -> None:
        for head in heads:
            assert self.final is None
            if head.status < 200 and head.status != 101:
                self.interim.append(head)
            else:
                self.final = head
        assert parser.size == sum(map(len, parser.pieces))
        content = parser.take()
        assert self.final is not None or not content
        self.content += content


def hear(
    wire: bytes, method: str = "GET", *, cuts: tuple[int, ...] = (), upgrade: bool = False
) -> tuple[Heard, ResponseParser]:
    parser = ResponseParser(method, upgrade=upgrade)
    heard = Heard()
    edges = [0, *sorted(cuts), len(wire)]
    for start, stop in pairwise(edges):
        heard.take(parser.feed(wire[start:stop]), parser)
    return heard, parser


def final(wire: bytes, method: str = "GET") -> ResponseHead:
    head = hear(wire, method)[0].final
    assert head is not None
    return head


def test_a_head_keeps_every_line_as_it_came() -> None:
    head = final(
        b"HTTP/1.1 299 Fine, \xfc so\r\nX-A:1\r\nx-a: \t 2 \t\r\nEmpty:\r\nBlank: \t \r\n"
        b"Bytes: \x80\xff\ttab\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 0\r\n\r\n"
    )
    assert (head.version, head.status, head.reason) == (11, 299, "Fine, ü so")
    assert head.lines == [
        ("X-A", "1"),
        ("x-a", "2"),
        ("Empty", ""),
        ("Blank", ""),
        ("Bytes", "\x80\xff\ttab"),
        ("Set-Cookie", "a=b"),
        ("Set-Cookie", "c=d"),
        ("Content-Length", "0"),
    ]


@pytest.mark.parametrize("line", [b"HTTP/1.1 200\r\n", b"HTTP/1.1 200 \r\n"])
def test_a_reason_may_be_missing(line: bytes) -> None:
    assert final(line + b"Content-Length: 0\r\n\r\n").reason == ""


OK = b"HTTP/1.1 200 OK\r\n"
REFUSED = [
    ("status-line", "HTTP/2.0", b"HTTP/2.0 200 OK\r\n\r\n"),
    ("status-line", "HTTP/1.2", b"HTTP/1.2 200 OK\r\n\r\n"),
    ("status-line", "HTTP/0.9", b"<html>"),
    ("status-line", "lower case", b"http/1.1 200 OK\r\n\r\n"),
    ("status-line", "two spaces", b"HTTP/1.1  200 OK\r\n\r\n"),
    ("status-line", "leading empty line", b"\r\nHTTP/1.1 200 OK\r\n\r\n"),
    ("status-line", "two digits", b"HTTP/1.1 20 OK\r\n\r\n"),
    ("status-line", "four digits", b"HTTP/1.1 2000 OK\r\n\r\n"),
    ("status-line", "a sign", b"HTTP/1.1 +20 OK\r\n\r\n"),
    ("status-line", "NUL in the reason", b"HTTP/1.1 200 O\x00K\r\n\r\n"),
    ("status-line", "bare CR in the reason", b"HTTP/1.1 200 O\rK\r\n\r\n"),
    ("status", "status 000", b"HTTP/1.1 000 Z\r\n\r\n"),
    ("status", "status 099", b"HTTP/1.1 099 Z\r\n\r\n"),
    ("status", "status 600", b"HTTP/1.1 600 Z\r\n\r\n"),
    ("status", "status 999", b"HTTP/1.1 999 Z\r\n\r\n"),
    ("upgrade", "101 that nobody asked for", b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n"),
    ("field-line", "space before the colon", OK + b"A : b\r\n\r\n"),
    ("field-line", "tab before the colon", OK + b"A\t: b\r\n\r\n"),
    ("field-line", "folded line", OK + b"A: b\r\n c\r\n\r\n"),
    ("field-line", "fold as the first line", OK + b" A: b\r\n\r\n"),
    ("field-line", "no colon", OK + b"A b\r\n\r\n"),
    ("field-line", "no name", OK + b": b\r\n\r\n"),
    ("field-line", "a name that is no token", OK + b"A(b): c\r\n\r\n"),
    ("field-line", "a name of Latin-1", OK + b"\xc4: c\r\n\r\n"),
    ("field-line", "NUL in a name", OK + b"A\x00: b\r\n\r\n"),
    ("field-line", "NUL in a value", OK + b"A: b\x00\r\n\r\n"),
    ("field-line", "bare CR in a value", OK + b"A: b\rc\r\n\r\n"),
    ("field-line", "bare LF in a value", OK + b"A: b\nC: d\r\n\r\n"),
    ("field-line", "DEL in a value", OK + b"A: \x7f\r\n\r\n"),
    ("field-line", "a control in a value", OK + b"A: \x1b[0m\r\n\r\n"),
    ("line-end", "bare LF only", b"HTTP/1.1 200 OK\nA: b\n\n"),
    ("head-too-large", "a head over its cap", OK + b"A: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n"),
    ("head-too-large", "a head without an end", OK + b"A: " + b"x" * MAX_HEAD_BYTES),
    ("too-many-fields", "a field too many", OK + b"A: b\r\n" * (MAX_FIELDS + 1) + b"\r\n"),
    ("content-length", "conflicting lines", OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"),
    ("content-length", "conflicting list", OK + b"Content-Length: 1, 2\r\n\r\n"),
    ("content-length", "equal numbers, other digits", OK + b"Content-Length: 1, 01\r\n\r\n"),
    ("content-length", "plus sign", OK + b"Content-Length: +1\r\n\r\n"),
    ("content-length", "minus sign", OK + b"Content-Length: -1\r\n\r\n"),
    ("content-length", "hex", OK + b"Content-Length: 0x1\r\n\r\n"),
    ("content-length", "two numbers", OK + b"Content-Length: 1 1\r\n\r\n"),
    ("content-length", "underscore", OK + b"Content-Length: 1_0\r\n\r\n"),
    ("content-length", "fraction", OK + b"Content-Length: 1.0\r\n\r\n"),
    ("content-length", "empty", OK + b"Content-Length:\r\n\r\n"),
    ("content-length", "empty in a list", OK + b"Content-Length: 1,\r\n\r\n"),
    ("content-length", "superscript digit", OK + b"Content-Length: \xb2\r\n\r\n"),
    ("content-length", "19 digits", OK + b"Content-Length: 1000000000000000000\r\n\r\n"),
    ("length-and-encoding", "CL with TE",
     OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("length-and-encoding", "TE with CL",
     OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"),
    ("transfer-encoding", "TE in HTTP/1.0",
     b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("transfer-encoding", "identity", OK + b"Transfer-Encoding: identity\r\n\r\n"),
    ("transfer-encoding", "gzip first", OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
    ("transfer-encoding", "chunked not last", OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n"),
    ("transfer-encoding", "chunked twice", OK + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n"),
    ("transfer-encoding", "a parameter", OK + b"Transfer-Encoding: chunked;q=1\r\n\r\n"),
    ("transfer-encoding", "xchunked", OK + b"Transfer-Encoding: xchunked\r\n\r\n"),
    ("transfer-encoding", "vertical tab is no whitespace",
     OK + b"Transfer-Encoding: chunked\xa0\r\n\r\n"),
    ("transfer-encoding", "empty", OK + b"Transfer-Encoding:\r\n\r\n"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "case", "wire"), REFUSED, ids=[c for _, c, _ in REFUSED])
@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"])
def test_refuses(rule: str, case: str, wire: bytes, before: bytes) -> None:
    with pytest.raises(InvalidResponse) as error:
        hear(before + wire)
    assert error.value.rule == rule


@pytest.mark.parametrize(("rule", "case", "wire"), REFUSED, ids=[c for _, c, _ in REFUSED])
def test_refuses_however_it_is_cut(rule: str, case: str, wire: bytes) -> None:
    if len(wire) > MAX_HEAD_BYTES:
        cuts = tuple(range(1, len(wire), 4096))
    else:
        cuts = tuple(range(1, len(wire)))
    with pytest.raises(InvalidResponse):
        hear(wire, cuts=cuts)


# (rule, method, wire, content, done without the stream's end, may be used again, length)
FRAMED = [
    ("§6.3 (6): length", "GET", OK + b"Content-Length: 3\r\n\r\nabc", b"abc", True, True, 3),
    ("Content-Length 0", "GET", OK + b"Content-Length: 0\r\n\r\n", b"", True, True, 0),
    ("18 digits", "HEAD", OK + b"Content-Length: 999999999999999999\r\n\r\n", b"", True, True,
     999999999999999999),
    ("identical lengths collapse", "GET",
     OK + b"Content-Length: 3\r\nContent-Length: 3, 3\r\n\r\nabc", b"abc", True, True, 3),
    ("§6.3 (4): chunked", "GET",
     OK + b"Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc", True, True, None),
    ("§6.3 (8): until the close", "GET", OK + b"\r\nabc", b"abc", False, False, None),
    ("HEAD has no body", "HEAD", OK + b"Content-Length: 3\r\n\r\n", b"", True, True, 3),
    ("HEAD ignores Transfer-Encoding", "HEAD",
     OK + b"Transfer-Encoding: chunked\r\n\r\n", b"", True, True, None),
    ("HEAD without a length", "HEAD", OK + b"\r\n", b"", True, True, None),
    ("304 has no body", "GET", b"HTTP/1.1 304 N\r\nContent-Length: 9\r\n\r\n", b"", True, True, 9),
    ("204 has no body", "GET", b"HTTP/1.1 204 N\r\n\r\n", b"", True, True, None),
    ("204 that announces a body is not trusted further", "GET",
     b"HTTP/1.1 204 N\r\nContent-Length: 5\r\n\r\n", b"", True, False, None),
    ("204 with chunked is not trusted further", "GET",
     b"HTTP/1.1 204 N\r\nTransfer-Encoding: chunked\r\n\r\n", b"", True, False, None),
    ("205 has one, if it says so", "GET",
     b"HTTP/1.1 205 R\r\nContent-Length: 1\r\n\r\nx", b"x", True, True, 1),
    ("Connection: close", "GET",
     OK + b"Connection: x, Close\r\nContent-Length: 1\r\n\r\nx", b"x", True, False, 1),
    ("HTTP/1.0 is never used again", "GET",
     b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx", b"x", True, False,
     1),
    ("599 is a final status", "GET", b"HTTP/1.1 599 X\r\nContent-Length: 0\r\n\r\n", b"", True,
     True, 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "method", "wire", "content", "done", "again", "length"),
    FRAMED,
    ids=[row[0] for row in FRAMED],
)
@pytest.mark.parametrize("split", [False, True])
def test_framing(
    rule: str,
    method: str,
    wire: bytes,
    content: bytes,
    done: bool,
    again: bool,
    length: int | None,
    split: bool,
) -> None:
    heard, parser = hear(wire, method, cuts=tuple(range(1, len(wire))) if split else ())
    assert heard.final is not None
    assert heard.content == content
    assert parser.done == done
    assert heard.final.keep_alive == again
    assert heard.final.length == length
    assert parser.rest == b""
    assert parser.eof()


@pytest.mark.parametrize(
    "wire",
    [
        OK + b"Content-Length: 3\r\n\r\nab",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        OK + b"Content-Length: 3\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"",
    ],
)
def test_an_end_before_the_answers_own_is_not_clean(wire: bytes) -> None:
    _, parser = hear(wire)
    assert not parser.eof()


def test_what_comes_behind_an_answer_is_kept_apart() -> None:
    heard, parser = hear(OK + b"Content-Length: 1\r\n\r\nxHTTP/1.1 200")
    heard.take(parser.feed(b" OK"), parser)
    assert heard.content == b"x"
    assert parser.rest == b"HTTP/1.1 200 OK"


def test_a_broken_chunk_is_a_framing_error() -> None:
    with pytest.raises(FramingError):
        hear(OK + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\n")


def test_interim_answers_come_before_the_final_one() -> None:
    heard, parser = hear(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 P\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\nLink: </s>; rel=preload\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
    )
    assert [head.status for head in heard.interim] == [100, 102, 103]
    assert heard.interim[2].lines[1] == ("Link", "</s>; rel=preload")
    assert heard.content == b"x"
    assert parser.done


def test_an_upgrade_ends_http() -> None:
    heard, parser = hear(
        b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00",
        upgrade=True,
    )
    assert heard.final is not None
    assert heard.final.upgrade == "websocket"
    assert "upgrade" in heard.final.options
    assert parser.done
    assert parser.rest == b"\x81\x00"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"timeout=5", 5),
        (b"timeout=5, max=100", 5),
        (b"max=100, Timeout = 7", 7),
        (b'timeout="15"', 15),
        (b"max=100", None),
        (b"xtimeout=5", None),
        (b"timeout=x", None),
    ],
)
def test_keep_alive_timeout(value: bytes, seconds: int | None) -> None:
    head = final(OK + b"Content-Length: 0\r\nKeep-Alive: " + value + b"\r\n\r\n")
    assert head.keep_alive_timeout == seconds


token = st.from_regex(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,8}", fullmatch=True)
value = st.binary(max_size=12).filter(
    lambda v: all(b == 9 or (b >= 32 and b != 127) for b in v) and v == v.strip(b" \t")
)


@given(
    st.lists(st.tuples(token, value), max_size=5),
    st.binary(max_size=30),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_any_split_gives_the_same_answer(
    fields: list[tuple[str, bytes]], body: bytes, chunked: bool, hints: bool, data: st.DataObject
) -> None:
    fields = [(f"X-{name}", text) for name, text in fields]
    lines = b"".join(name.encode() + b": " + text + b"\r\n" for name, text in fields)
    wire = b"HTTP/1.1 103 Early Hints\r\n" + lines + b"\r\n" if hints else b""
    wire += OK + lines
    if chunked:
        wire += b"Transfer-Encoding: chunked\r\n\r\n"
        wire += b"".join(b"1;x\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    else:
        wire += b"Content-Length: %d\r\n\r\n" % len(body) + body
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=8))
    heard, parser = hear(wire, cuts=tuple(cuts))
    assert heard.final is not None
    assert heard.final.lines[: len(fields)] == [(n, t.decode("latin-1")) for n, t in fields]
    assert len(heard.interim) == hints
    assert heard.content == body
    assert parser.done
    assert parser.rest == b""


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "Date",
                    "X",
                    "Set-Cookie",
                    "X-Request-ID",
                    "Connection",
                    "Keep-Alive",
                    "TE",
                    "%s",
                    "X-RateLimit-A",
                ]
            ),
            st.sampled_from(["a", "keep-alive", "x, close", "%s", "TE", ""]),
        ),
        max_size=6,
    )
)
def test_what_goes_on_is_the_same_as_text_and_as_lines(lines: Lines) -> None:
    text = written(lines).encode("latin-1")
    head = final(OK + text + b"Content-Length: 0\r\n\r\n")
    goes_on = head.end_to_end()
    if isinstance(goes_on, str):
        assert "date: " in goes_on.lower()
        assert "x-ratelimit" not in goes_on.lower()
        goes_on = read_written(goes_on)
        lines = [line for line in lines if line[0].lower() != "x-request-id"]
    assert goes_on == forward_response_lines(lines)


def test_a_usual_answer_goes_on_as_text() -> None:
    head = final(
        b"HTTP/1.1 200 OK\r\nDate: x\r\nConnection: keep-alive\r\nX-Request-Id: theirs\r\n"
        b"Content-Length: 0\r\nETag: y\r\n\r\n"
    )
    assert head.end_to_end() == "Date: x\r\nETag: y\r\n"


@pytest.mark.parametrize(
    "connection", [b"X-Hop", b"close, x-hop", b"keep-alive\r\nconnection: X-HOP"]
)
def test_what_connection_names_does_not_go_on(connection: bytes) -> None:
    head = final(
        b"HTTP/1.1 200 OK\r\nDate: x\r\nConnection: " + connection + b"\r\nX-Hop: theirs\r\n"
        b"Content-Length: 0\r\nETag: y\r\n\r\n"
    )
    assert head.end_to_end() == [("Date", "x"), ("ETag", "y")]
