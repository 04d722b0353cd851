"""The strict HTTP/1.1 request head: one pattern, one verdict, no I/O (RFC 9112 §2–§6).

What a lenient front accepts, a different back reads differently: that gap is request smuggling.
So whatever is not exactly the grammar is refused: CL with TE, any TE but `chunked`, TE on
HTTP/1.0, other versions, a Content-Length that is not 1–18 digits, a bad, missing or second Host,
bare CR or LF, obs-fold, space before the colon, `#` or controls in the target.
"""

import re
from typing import Final

from proxy.core.fields import Fields, Lines
from proxy.core.identity import valid_authority

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
# Possessive quantifiers: a refused head costs one pass, whatever it is made of.
_TO_VERSION: Final = rf"({_TOKEN}{{1,32}}+) ([!\"$-~\x80-\xff]++) HTTP/"
_REQUEST_LINE: Final = re.compile(_TO_VERSION + r"([0-9]\.[0-9])\r\n")
_HEAD: Final = re.compile(rf"{_TO_VERSION}(1\.[01])\r\n((?:{_TOKEN}++:[\t -~\x80-\xff]*+\r\n)*+)")
_BAD_LINE_END: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)(?!\Z)|\x00")
_CONTENT_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_ABSOLUTE: Final = re.compile(r"(?i:https?)://([^/?]*)(.*)", re.DOTALL)
# Fields whose repetition would leave two readings of one message.
_SINGLE: Final = frozenset({"host", "content-length", "transfer-encoding"})
# What a Connection field mostly says: nothing that HTTP/1.1 does not do anyway.
_KEEP_ALIVE: Final = frozenset({None, "keep-alive", "Keep-Alive"})

# Lines that clients send again and again, taken apart once. Never one that could tell who asks
# (a credential may stand in a field of any other name), and never a long one.
RECURRING: Final = frozenset(
    {
        "accept", "accept-charset", "accept-encoding", "accept-language", "cache-control",
        "connection", "content-type", "dnt", "host", "keep-alive", "pragma", "priority",
        "sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform", "sec-fetch-dest", "sec-fetch-mode",
        "sec-fetch-site", "sec-fetch-user", "sec-gpc", "te", "upgrade-insecure-requests",
        "user-agent",
    }
)  # fmt: skip
_MAX_REMEMBERED: Final = 1024
"""Lines; then all are forgotten."""
_MAX_REMEMBERED_CHARS: Final = 256
_remembered: dict[str, tuple[tuple[str, str], str]] = {}


class HeadError(Exception):
    """A head that is refused. `problem` is the problem type's name; the connection must close."""

    def __init__(self, problem: str, detail: str) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail


class RequestHead:
    """A request head that passed every rule.

    `target` is the raw origin-form (or `*`, or CONNECT's authority); `authority` the Host, or
    absolute-form's (RFC 9112 §3.2.2), "" for an HTTP/1.0 request without one. `length` is the
    Content-Length or None; `chunked` excludes it. `upgrade` is "websocket" or None.
    """

    __slots__ = (
        "authority",
        "chunked",
        "expect_continue",
        "fields",
        "keep_alive",
        "length",
        "method",
        "target",
        "upgrade",
        "version",
    )

    def __init__(self, method: str, target: str, version: int, fields: Fields) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.fields = fields
        self.authority = ""
        self.length: int | None = None
        self.chunked = False
        self.keep_alive = version == 11
        self.expect_continue = False
        self.upgrade: str | None = None


def parse_request_head(block: bytes, max_headers: int, max_target_bytes: int) -> RequestHead:
    """`block` is the head up to and with the CRLF of its last field line (not the empty line).

    Raises HeadError.
    """
    text = block.decode("latin-1")
    found = _HEAD.fullmatch(text)
    if found is None:
        raise _refused(text, max_target_bytes)
    method, target, version, section = found.groups()
    if len(target) > max_target_bytes:
        raise _target_too_long(max_target_bytes)
    lines: Lines = []
    index: dict[str, str] = {}
    if section:
        remembered = _remembered.get
        for text in section[:-2].split("\r\n"):
            known = remembered(text)
            if known is None:
                name, _, value = text.partition(":")
                line, low = (name, value.strip(" \t")), name.lower()
                if low in RECURRING:
                    _remember(text, line, low)
            else:
                line, low = known
            lines.append(line)
            index[low] = line[1]
    if len(lines) > max_headers:
        raise HeadError("headers-too-large", f"The request has over {max_headers} header lines.")
    fields = Fields.indexed(lines, index) if len(index) == len(lines) else _repeated(lines)
    head = RequestHead(method, target, 11 if version == "1.1" else 10, fields)
    index = fields.index
    host = index.get("host")
    if host and target[0] == "/" and valid_authority(host):
        head.authority = host
    else:
        _authority(head)
    if "content-length" in index or "transfer-encoding" in index:
        _framing(head)
    if index.get("connection") not in _KEEP_ALIVE or "expect" in index:
        _connection(head)
    return head


def _refused(text: str, max_target_bytes: int) -> HeadError:
    """What is wrong with a head that does not follow the grammar."""
    line = _REQUEST_LINE.match(text)
    if line is None:
        return HeadError("bad-request", "The request line is not valid HTTP/1.1.")
    if line[3] not in ("1.1", "1.0"):
        return HeadError("bad-request", "Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    if len(line[2]) > max_target_bytes:
        return _target_too_long(max_target_bytes)
    return HeadError("bad-request", "A header line is not valid HTTP/1.1.")


def _target_too_long(max_target_bytes: int) -> HeadError:
    return HeadError("target-too-long", f"The request target is over {max_target_bytes} bytes.")


def _repeated(lines: Lines) -> Fields:
    """The fields where some name stands more than once."""
    seen: set[str] = set()
    for name, _ in lines:
        low = name.lower()
        if low in _SINGLE and low in seen:
            raise HeadError("bad-request", f"The {low} header is given twice.")
        seen.add(low)
    return Fields(lines)


def _remember(text: str, line: tuple[str, str], low: str) -> None:
    """`low` is the lower-case name of the line that stands in this text."""
    if len(text) <= _MAX_REMEMBERED_CHARS:
        if len(_remembered) >= _MAX_REMEMBERED:
            _remembered.clear()
        _remembered[text] = line, low


def _authority(head: RequestHead) -> None:
    """Host and the form of the target (RFC 9112 §3.2)."""
    host = head.fields.index.get("host")
    if host is None:
        if head.version == 11:
            raise HeadError("bad-request", "The Host header is missing.")
    elif host and not valid_authority(host):
        raise HeadError("bad-request", "The Host header is not valid.")
    head.authority = host or ""
    target = head.target
    if target[0] == "/" or (target == "*" and head.method == "OPTIONS"):
        return
    if head.method == "CONNECT":
        return  # authority-form; refused later as a method, whatever it says
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not valid_authority(absolute[1]):
        raise HeadError("bad-request", "The request target is not valid.")
    head.authority = absolute[1]
    rest = absolute[2]
    head.target = rest if rest.startswith("/") else "/" + rest


def _framing(head: RequestHead) -> None:
    """How long the body is (RFC 9112 §6): one way to say it, or none."""
    index = head.fields.index
    coding = index.get("transfer-encoding")
    length = index.get("content-length")
    if coding is not None:
        if length is not None:
            raise HeadError("bad-request", "Content-Length and Transfer-Encoding exclude another.")
        if head.version == 10:
            raise HeadError("bad-request", "HTTP/1.0 has no Transfer-Encoding.")
        if coding.lower() != "chunked":
            raise HeadError("bad-request", "The only Transfer-Encoding known here is chunked.")
        head.chunked = True
    elif length is not None:
        if _CONTENT_LENGTH.fullmatch(length) is None:
            raise HeadError("bad-request", "The Content-Length is not a number of bytes.")
        head.length = int(length)


def _connection(head: RequestHead) -> None:
    """Keep-alive, Upgrade and Expect; an HTTP/1.0 client gets none of them."""
    if head.version == 10:
        return
    index = head.fields.index
    options = [option.strip() for option in index.get("connection", "").lower().split(",")]
    if "close" in options:
        head.keep_alive = False
    has_body = head.chunked or bool(head.length)
    if (
        "upgrade" in options
        and index.get("upgrade", "").lower() == "websocket"
        and head.method == "GET"
        and not has_body
    ):
        head.upgrade = "websocket"
    if has_body and index.get("expect", "").lower() == "100-continue":
        head.expect_continue = True


class HeadBuffer:
    """Collects one request head from pieces, refusing early what can never become one.

    `feed` returns (block for `parse_request_head`, rest) once the head is whole, else None.
    """

    __slots__ = ("_held", "_max_bytes", "_max_target_bytes", "_scanned")

    def __init__(self, max_bytes: int, max_target_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._max_target_bytes = max_target_bytes
        self._held = bytearray()
        self._scanned = 0

    @property
    def started(self) -> bool:
        """Whether a byte of a head has come."""
        return bool(self._held)

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Takes the next bytes. Raises HeadError."""
        if not self._held:
            # RFC 9112 §2.2: an empty line or two before the request line is skipped.
            if data[:1] in (b"\r", b"\n"):
                data = _skip_empty_lines(data)
            end = data.find(b"\r\n\r\n")
            if 0 <= end < self._max_bytes:
                return data[: end + 2], data[end + 4 :]
            if not data:
                return None
        held = self._held
        held += data
        while held.startswith(b"\r\n"):
            del held[:2]
        end = held.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if 0 <= end < self._max_bytes:
            block, rest = bytes(held[: end + 2]), bytes(held[end + 4 :])
            self._held = bytearray()
            self._scanned = 0
            return block, rest
        self._refuse_early()
        self._scanned = len(held)
        return None

    def _refuse_early(self) -> None:
        held = self._held
        if not held or held == b"\r":
            return  # an empty line, or the first half of one
        if _BAD_LINE_END.search(held, max(0, self._scanned - 1)):
            raise HeadError("bad-request", "A line does not end in CRLF, or holds a NUL.")
        line = held.find(b"\r\n", 0, self._max_target_bytes + 64)
        if line < 0 and len(held) > self._max_target_bytes + 64:
            raise _target_too_long(self._max_target_bytes)
        if line < 0 and not _could_be_method(held):
            raise HeadError("bad-request", "This is not HTTP.")
        if len(held) > self._max_bytes:
            raise HeadError(
                "headers-too-large", f"The request head is over {self._max_bytes} bytes."
            )


_METHOD_START: Final = re.compile(rf"{_TOKEN}{{1,32}}(?: |\Z)".encode())


def _could_be_method(held: bytearray) -> bool:
    return _METHOD_START.match(held) is not None


def _skip_empty_lines(data: bytes) -> bytes:
    for _ in range(4):
        if not data.startswith(b"\r\n"):
            break
        data = data[2:]
    return data
