"""An answer that comes in one read: the short way says what the parser says, or nothing at all."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.http1 import response_head
from proxy.core.http1.body import FramingError
from proxy.core.http1.response import InvalidResponse, ResponseHead, ResponseParser, whole
from proxy.core.http1.response_head import LONGEST, REMEMBERED, head_of

FACTS = ("version", "status", "reason", "lines", "length", "body", "chunked", "keep_alive",
         "keep_alive_timeout", "options", "upgrade")  # fmt: skip

Said = tuple[dict[str, object], bytes] | str | None
"""A final head's facts and its body, the rule that was broken, or nothing yet."""


def told(head: ResponseHead) -> dict[str, object]:
    return {fact: getattr(head, fact) for fact in FACTS} | {"end_to_end": head.end_to_end()}


def by_the_parser(wire: bytes, method: str) -> tuple[Said, bool]:
    """What the general way makes of it, and whether that is a whole answer and nothing more."""
    parser = ResponseParser(method)
    try:
        heads = parser.feed(wire)
    except (InvalidResponse, FramingError) as error:
        return error.rule, False
    if len(heads) != 1 or heads[0].status < 200 or not parser.done:
        return None, False
    head = heads[0]
    in_a_read = not parser.rest and head.body == parser.size
    return (told(head), parser.take()), in_a_read


def at_once(wire: bytes, method: str) -> Said:
    try:
        answer = whole(wire, method == "HEAD")
    except InvalidResponse as error:
        return error.rule
    return None if answer is None else (told(answer[0]), answer[1])


STATUS = st.sampled_from(
    ["HTTP/1.1 200 OK", "HTTP/1.1 204 No Content", "HTTP/1.1 304 Not Modified", "HTTP/1.0 200 OK",
     "HTTP/1.1 503 ", "HTTP/1.1 103 Early Hints", "HTTP/1.1 101 Switching", "HTTP/1.1 600 X",
     "HTTP/2 200"]
)  # fmt: skip
FIELD = st.sampled_from(
    ["Content-Length: 0", "Content-Length: 4", "content-length: 4, 4", "Content-Length: +4",
     "Transfer-Encoding: chunked", "Connection: close", "Connection: keep-alive, X-Hop",
     "Keep-Alive: timeout=7", "Date: now", "X-Hop: theirs", "X-Empty:", "X-Blank:  a ", "X Bad: 1",
     "Set-Cookie: a=1", "X-Request-Id: theirs", "Upgrade: websocket", "X-Odd: \xe4"]
)  # fmt: skip
BODY = st.sampled_from(["", "abcd", "abc", "abcde", "4\r\nabcd\r\n0\r\n\r\n", "a\r\n\r\n"])


@given(STATUS, st.lists(FIELD, max_size=5), BODY, st.sampled_from(["GET", "HEAD", "POST"]))
@example("HTTP/1.1 200 OK", ["Content-Length: 4"], "abcd", "GET")
@example("HTTP/1.1 200 OK", ["Content-Length: 4"], "abcde", "GET")
@example("HTTP/1.1 200 OK", ["Content-Length: 4"], "", "HEAD")
def test_both_ways_say_the_same(status: str, fields: list[str], body: str, method: str) -> None:
    lines = "".join(f"{field}\r\n" for field in fields)
    wire = f"{status}\r\n{lines}\r\n{body}".encode("latin-1")
    said, in_a_read = by_the_parser(wire, method)
    short = at_once(wire, method)
    if in_a_read or isinstance(short, str):
        assert short == said
    else:
        assert short is None
    for _ in range(2):  # the second time its head is remembered, the third it is known
        assert at_once(wire, method) == short


@pytest.mark.parametrize("cut", range(1, 42))
def test_what_is_cut_anywhere_is_left_to_the_parser(cut: int) -> None:
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd"
    assert whole(wire, False) is not None
    assert whole(wire[:cut], False) is None


def test_a_head_means_another_body_to_a_head_request() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n"
    for _ in range(3):
        assert (head_of(raw, False).body, head_of(raw, True).body) == (4, 0)


def test_a_head_that_comes_again_is_not_made_each_time() -> None:
    raw = b"HTTP/1.1 200 OK\r\nX-Again: 1\r\n"
    first, second, third = (head_of(bytes(bytearray(raw)), False) for _ in range(3))
    assert first is not second
    assert second is third


def test_memory_is_bounded() -> None:
    for number in range(3 * REMEMBERED):
        for bodiless in (False, True, False, True):
            head_of(b"HTTP/1.1 200 OK\r\nX-Number: %d\r\n" % number, bodiless)
    for known in (response_head._KNOWN, response_head._KNOWN_BODILESS):
        assert REMEMBERED <= len(known) <= 2 * REMEMBERED
    long = b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * LONGEST + b"\r\n"
    assert all(head_of(long, False).values == ("x" * LONGEST,) for _ in range(3))
    assert response_head._KNOWN.get(long) is None
