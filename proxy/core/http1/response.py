"""An upstream's answer off the wire: interim heads, the final head, the body. Strict, no I/O.

Rules (RFC 9112 §4–§6, RFC 9110 §5.5, §15.2); whatever breaks one is an InvalidResponse, never
repaired, since what we repair another reader may read differently:
- lines end in CRLF; no folding, no whitespace before a colon, no controls, NUL or bare CR;
- versions 1.0 and 1.1; a final status is 200–599; 101 only where an upgrade was asked for;
- Content-Length is 1 to 18 digits, repeated only identically, and never beside Transfer-Encoding;
- Transfer-Encoding is exactly `chunked` and never in HTTP/1.0;
- answers to HEAD, and 1xx, 204 and 304, have no body, whatever their fields say (§6.3);
- a head has at most MAX_HEAD_BYTES and MAX_FIELDS, and at most MAX_INTERIM come before the final.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from operator import itemgetter
from typing import Final

from proxy.core.fields import Lines
from proxy.core.headers import HOP_BY_HOP, RESPONSE_DROP, connection_options, forward_response_lines
from proxy.core.http1.body import ChunkedDecoder, Decoder, FramingError, LengthDecoder, UntilClose
from proxy.core.layouts import Layouts, Names, form

MAX_HEAD_BYTES = 64 * 1024
MAX_FIELDS = 200
MAX_INTERIM = 100

_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([0-9]{3})(?: ([\t\x20-\x7e\x80-\xff]*))?")
# Each match is a line from end to end, so where nothing is left between the matches every line is a
# field line: one pass splits and checks. Nothing is given back once matched (the "+" behind a
# repetition), and a match can only begin with a line, so time is linear.
_FIELD_LINE = re.compile(
    r"^([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[ \t]*+([\t\x20-\x7e\x80-\xff]*+)\r\n", re.MULTILINE
)
_BARE_LF = re.compile(rb"(?<!\r)\n")
_KEEP_ALIVE_TIMEOUT = re.compile(r"(?:^|[,; \t])timeout[ \t]*=[ \t]*\"?([0-9]{1,9})", re.IGNORECASE)
_MATTERS = frozenset(
    ("connection", "content-length", "keep-alive", "transfer-encoding", "upgrade")
)  # fmt: skip
_RETOLD: Final = RESPONSE_DROP | {"x-request-id"}
_NO_OPTIONS: Final[frozenset[str]] = frozenset()
_MAX_DIGITS: Final = 18


class InvalidResponse(Exception):
    """An answer that is not HTTP as we accept it. `rule` names the rule it broke."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule
        self.detail = detail


class _Layout:
    """What the field names of a head tell of it.

    `framing`: the lower-case name of each line that matters to us; `pick` takes their values from
    those of all lines. `repeats`: whether one of the names comes twice.
    `text`: the form of the lines that go on to a client, where the text they make is a Reply's
    (with Date; X-Request-Id is made anew, X-RateLimit may be); else None.
    """

    __slots__ = ("framing", "pick", "repeats", "text")

    def __init__(self, names: Names) -> None:
        lower = [name.lower() for name in names]
        places = [place for place, low in enumerate(lower) if low in _MATTERS]
        self.framing = [lower[place] for place in places]
        # Once more than asked for, as of a single place it would not make a tuple.
        self.pick = itemgetter(*places, places[0]) if places else tuple
        self.repeats = len(set(self.framing)) < len(places)
        self.text = form(names, _RETOLD) if "date" in lower and not _rated(lower) else None


def _rated(names: list[str]) -> bool:
    return any(name.startswith("x-ratelimit-") for name in names)


_LAYOUTS: Final = Layouts(_Layout)


class ResponseHead:
    """One head, interim or final, with all its field lines: a name and a value each.

    `length`: Content-Length, also where it only describes (HEAD, 304); None where absent.
    `body`: the body's length where it is known beforehand (0: none); None where it is `chunked`,
    or else ends with the connection.
    `keep_alive`: the connection may carry another request once the body is read.
    `keep_alive_timeout`: seconds the upstream keeps an idle connection, where it says so.
    `options`: Connection's options, lower case.  `upgrade`: the Upgrade field's value, or None.
    """

    __slots__ = (
        "body",
        "chunked",
        "keep_alive",
        "keep_alive_timeout",
        "layout",
        "length",
        "names",
        "options",
        "reason",
        "status",
        "upgrade",
        "values",
        "version",
    )

    def __init__(
        self, version: int, status: int, reason: str, names: Names, values: list[str]
    ) -> None:
        self.version = version
        self.status = status
        self.reason = reason
        self.names = names
        self.values = values
        self.layout = _LAYOUTS[names]
        self.length: int | None = None
        self.body: int | None = 0
        self.chunked = False
        self.keep_alive = version == 11
        self.keep_alive_timeout: int | None = None
        self.options = _NO_OPTIONS
        self.upgrade: str | None = None

    @property
    def lines(self) -> Lines:
        """All of them, hop by hop too."""
        return list(zip(self.names, self.values, strict=True))

    def end_to_end(self) -> Lines | str:
        """What of a final head goes on to the client, as `Reply.head` has it: as text where nothing
        of it has to be looked at line by line."""
        text = self.layout.text
        if text is None or not self.options <= HOP_BY_HOP:
            return forward_response_lines(self.lines)
        return text % tuple(self.values)


class ResponseParser:
    """Reads the answer to one request of `method`; `upgrade`: whether it asked for an upgrade."""

    __slots__ = ("_decoder", "_held", "_interim", "_method", "_scanned", "_upgrade", "done", "rest")

    def __init__(self, method: str, upgrade: bool = False) -> None:
        self._method = method
        self._upgrade = upgrade
        self._decoder: Decoder | None = None
        self._held = b""  # a head that has begun
        self._interim = 0
        self._scanned = 0  # of `_held`: searched for the head's end already
        self.done = False
        """The answer is complete."""
        self.rest = b""
        """What came behind it: an upgraded connection's first bytes, else nothing that belongs."""

    def feed(self, data: bytes) -> list[ResponseHead | bytes]:
        """What `data` completes, in order: interim heads, the final head, pieces of the body.

        Raises InvalidResponse, and FramingError for a broken body.
        """
        decoder = self._decoder
        if decoder is None:
            if not self.done:
                return self._heads(data)
            self.rest += data
            return []
        pieces, rest = decoder.feed(data)
        self.rest += rest
        self.done = decoder.done
        return list(pieces)

    def eof(self) -> bool:
        """The stream ends here: True where the answer is complete with that."""
        if not self.done and self._decoder is not None:
            self.done = self._decoder.eof()
        return self.done

    def _heads(self, data: bytes) -> list[ResponseHead | bytes]:
        if self._held:
            data = self._held + data
            self._held = b""
        events: list[ResponseHead | bytes] = []
        while True:
            end = data.find(b"\r\n\r\n", self._scanned)
            if end < 0:
                self._hold(data)
                return events
            self._scanned = 0
            head = _parse(data[: end + 2])
            data = data[end + 4 :]
            events.append(head)
            if head.status >= 200:
                _frame(head, self._method)
                break
            if self._is_switch(head):
                break
        size = head.body
        if size is None:
            self._decoder = ChunkedDecoder() if head.chunked else UntilClose()
        elif size > len(data):
            self._decoder = LengthDecoder(size)
        else:
            self.done = True
            if size:
                events.append(data[:size])
            self.rest = data[size:]
            return events
        return events + self.feed(data)

    def _is_switch(self, head: ResponseHead) -> bool:
        """Whether an interim head is the last one: the protocol changes behind it."""
        if head.status == 101:
            if not self._upgrade:
                raise InvalidResponse("upgrade", "101 without having been asked to upgrade")
            _connection(head)
            return True
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise InvalidResponse("interim", "interim answers without an end")
        return False

    def _hold(self, data: bytes) -> None:
        """Keeps a head that has begun, unless it can already be refused."""
        if not data.startswith(b"HTTP/1."[: len(data)]):
            raise InvalidResponse("status-line", "what came is not an HTTP/1 answer")
        if len(data) > MAX_HEAD_BYTES:
            raise InvalidResponse("head-too-large", "the head exceeds its limit")
        if _BARE_LF.search(data, self._scanned):
            raise InvalidResponse("line-end", "a line ends in a bare LF")
        self._held = data
        self._scanned = max(0, len(data) - 3)


def _parse(raw: bytes) -> ResponseHead:
    """A head from its bytes, up to and with the CRLF of its last line."""
    if len(raw) > MAX_HEAD_BYTES:
        raise InvalidResponse("head-too-large", "the head exceeds its limit")
    start, _, lines = raw.decode("latin-1").partition("\r\n")
    version, status, reason = _status(start)
    parts = _FIELD_LINE.split(lines)  # what is between two matches, a name, a value, in turns
    if any(parts[::3]):
        raise InvalidResponse("field-line", "a header line is malformed")
    names = tuple(parts[1::3])
    values = parts[2::3]
    if len(names) > MAX_FIELDS:
        raise InvalidResponse("too-many-fields", "the head has too many fields")
    if " \r\n" in lines or "\t\r\n" in lines:
        values = [value.rstrip(" \t") for value in values]
    return ResponseHead(version, status, reason, names, values)


@lru_cache(maxsize=64)  # an upstream says the same few again and again
def _status(line: str) -> tuple[int, int, str]:
    """Version, status and reason."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise InvalidResponse("status-line", "the status line is not HTTP/1.0 or HTTP/1.1")
    minor, digits, reason = match.groups("")
    status = int(digits)
    if not 100 <= status <= 599:
        raise InvalidResponse("status", "the status is not 100 to 599")
    return 11 if minor == "1" else 10, status, reason


def _connection(head: ResponseHead) -> dict[str, str]:
    """Reads Connection, Keep-Alive and Upgrade into `head`; all the fields that matter to us, by
    lower-case name, repeated lines joined."""
    layout = head.layout
    lines = zip(layout.framing, layout.pick(head.values), strict=False)
    found = _joined(lines) if layout.repeats else dict(lines)
    connection = found.get("connection")
    if connection is not None:
        head.options = connection_options(connection)
        if "close" in head.options:
            head.keep_alive = False
    keep_alive = found.get("keep-alive")
    if keep_alive is not None:
        timeout = _KEEP_ALIVE_TIMEOUT.search(keep_alive)
        head.keep_alive_timeout = int(timeout[1]) if timeout else None
    head.upgrade = found.get("upgrade")
    return found


def _joined(lines: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in lines:
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _frame(head: ResponseHead, method: str) -> None:
    """Decides how a final answer's body ends (RFC 9112 §6.3)."""
    found = _connection(head)
    said = found.get("content-length")
    coding = found.get("transfer-encoding")
    if said is not None:
        # Latin-1 text has no decimal digits but 0 to 9 ("²" is a digit, not a decimal).
        plain = said.isdecimal() and len(said) <= _MAX_DIGITS
        head.length = int(said) if plain else _repeated(said)
    if coding is not None:
        _check_coding(coding, said, head.version)
    if method == "HEAD" or head.status in (204, 304):
        # §6.3 rule 1. An upstream that announces a body in a 204 may well send it: what would
        # arrive late must not meet the next request.
        if head.status == 204 and (coding is not None or head.length):
            head.keep_alive = False
        if head.status == 204 or coding is not None:
            head.length = None
        return
    if coding is not None:
        head.body = None
        head.chunked = True
    else:
        head.body = head.length
        if head.length is None:
            head.keep_alive = False


def _check_coding(coding: str, length: str | None, version: int) -> None:
    """Refuses a Transfer-Encoding that leaves two readings, also of an answer without a body: who
    writes such a head is not to be trusted with the next one."""
    if length is not None:
        raise InvalidResponse("length-and-encoding", "Content-Length beside Transfer-Encoding")
    if version == 10:
        raise InvalidResponse("transfer-encoding", "Transfer-Encoding in HTTP/1.0")
    if coding.lower() != "chunked":
        raise InvalidResponse("transfer-encoding", "a Transfer-Encoding that is not chunked")


def _repeated(value: str) -> int:
    """The number of a Content-Length that is not plain: identical repetitions collapse (RFC 9110
    §8.6)."""
    values = {part.strip(" \t") for part in value.split(",")}
    value = values.pop()
    if values:
        raise InvalidResponse("content-length", "conflicting Content-Length values")
    if not value.isdecimal() or len(value) > _MAX_DIGITS:
        raise InvalidResponse("content-length", "Content-Length is not 1 to 18 digits")
    return int(value)


__all__ = ["FramingError", "InvalidResponse", "ResponseHead", "ResponseParser"]
