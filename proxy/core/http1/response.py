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
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any, Final

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
_MATTERS: Final = ("content-length", "connection", "keep-alive", "transfer-encoding", "upgrade")
_RETOLD: Final = RESPONSE_DROP | {"x-request-id"}
_MAX_DIGITS: Final = 18


class InvalidResponse(Exception):
    """An answer that is not HTTP as we accept it. `rule` names the rule it broke."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule
        self.detail = detail


_Framing = tuple[str | None, str | None, str | None, str | None, str | None]
"""The values of the fields that `_MATTERS` names, in its order, repeated lines joined; None where
absent."""


class _Layout:
    """What the field names of a head tell of it.

    `framing` finds the values that matter to us in what `_FIELD_LINE` split a head into, its first
    piece None for absent ones.
    `text`: the form of the lines that go on to a client, where the text they make is a Reply's
    (with Date; X-Request-Id is made anew, X-RateLimit may be); else None.
    """

    __slots__ = ("framing", "text")

    def __init__(self, names: Names) -> None:
        lower = [name.lower() for name in names]
        places = [_places(lower, name) for name in _MATTERS]
        self.framing: Callable[[list[Any]], _Framing]
        if any(len(several) > 1 for several in places):
            self.framing = partial(_joined, places)
        else:
            self.framing = itemgetter(*(several[0] if several else 0 for several in places))
        limited = any(name.startswith("x-ratelimit-") for name in lower)
        self.text = form(names, _RETOLD) if "date" in lower and not limited else None


def _places(names: list[str], name: str) -> list[int]:
    """Where, of the pieces of a head, the values of the fields called `name` are."""
    return [3 * line + 2 for line, low in enumerate(names) if low == name]


def _joined(places: list[list[int]], parts: list[Any]) -> _Framing:
    """As a `_Layout.framing`, where lines are repeated."""
    length, connection, keep_alive, coding, upgrade = (
        ", ".join([parts[place] for place in several]) if several else None for several in places
    )
    return length, connection, keep_alive, coding, upgrade


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
        "_coding",
        "_form",
        "_said",
        "body",
        "keep_alive",
        "keep_alive_timeout",
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
        self,
        start: tuple[int, int, str],
        names: Names,
        values: tuple[str, ...],
        form: str | None,
        framing: _Framing,
    ) -> None:
        self.version, self.status, self.reason = start
        self.names = names
        self.values = values
        self._form = form
        self._said, connection, timeout, self._coding, self.upgrade = framing
        self.options, self.keep_alive, self.keep_alive_timeout = _persistence(
            self.version, connection, timeout
        )
        self.length: int | None = None
        self.body: int | None = 0

    def frame(self, method: str) -> None:
        """Decides how the body of this answer to `method` ends (RFC 9112 §6.3)."""
        said, coding, status = self._said, self._coding, self.status
        if said is not None:
            # Latin-1 text has no decimal digits but 0 to 9 ("²" is a digit, not a decimal).
            plain = said.isdecimal() and len(said) <= _MAX_DIGITS
            self.length = int(said) if plain else _repeated(said)
        if coding is not None:
            _check_coding(coding, said, self.version)
        if method == "HEAD" or status == 204 or status == 304:
            # §6.3 rule 1. An upstream that announces a body in a 204 may well send it: what would
            # arrive late must not meet the next request.
            if status == 204 and (coding is not None or self.length):
                self.keep_alive = False
            if status == 204 or coding is not None:
                self.length = None
            return
        self.body = self.length
        if said is None and coding is None:
            self.keep_alive = False

    @property
    def chunked(self) -> bool:
        """Whether the body is in chunks."""
        return self.body is None and self._coding is not None

    @property
    def lines(self) -> Lines:
        """All of them, hop by hop too."""
        return list(zip(self.names, self.values, strict=True))

    def end_to_end(self) -> Lines | str:
        """What of a final head goes on to the client, as `Reply.head` has it: as text where nothing
        of it has to be looked at line by line."""
        form = self._form
        if form is None or not self.options <= HOP_BY_HOP:
            return forward_response_lines(self.lines)
        return form % self.values


class ResponseParser:
    """Reads the answer to one request of `method`; `upgrade`: whether it asked for an upgrade."""

    __slots__ = (
        "_decoder",
        "_held",
        "_interim",
        "_method",
        "_scanned",
        "_upgrade",
        "done",
        "pieces",
        "rest",
        "size",
    )

    def __init__(self, method: str, upgrade: bool = False) -> None:
        self._method = method
        self._upgrade = upgrade
        self._decoder: Decoder | None = None
        self._held = b""  # a head that has begun
        self._interim = 0
        self._scanned = 0  # of `_held`: searched for the head's end already
        self.pieces: list[bytes] = []
        """Of the body: what has come and was not taken. `size`: bytes."""
        self.size = 0
        self.done = False
        """The answer is complete."""
        self.rest = b""
        """What came behind it: an upgraded connection's first bytes, else nothing that belongs."""

    def feed(self, data: bytes) -> Sequence[ResponseHead]:
        """The heads that `data` completes: interim ones, then the final one. What it has of the
        body goes to `pieces`.

        Raises InvalidResponse, and FramingError for a broken body.
        """
        decoder = self._decoder
        if decoder is None:
            if not self.done:
                return self._heads(data)
            self.rest += data
            return ()
        pieces, rest = decoder.feed(data)
        self.pieces += pieces
        self.size += sum(map(len, pieces))
        self.rest += rest
        self.done = decoder.done
        return ()

    def take(self) -> bytes:
        """The pieces, as one."""
        pieces = self.pieces
        self.pieces = []
        self.size = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def eof(self) -> bool:
        """The stream ends here: True where the answer is complete with that."""
        if not self.done and self._decoder is not None:
            self.done = self._decoder.eof()
        return self.done

    def _heads(self, data: bytes) -> Sequence[ResponseHead]:
        if self._held:
            data = self._held + data
            self._held = b""
        heads: list[ResponseHead] = []
        while True:
            end = data.find(b"\r\n\r\n", self._scanned)
            if end < 0:
                self._hold(data)
                return heads
            self._scanned = 0
            head = _parse(data[: end + 2])
            data = data[end + 4 :]
            heads.append(head)
            if head.status >= 200:
                head.frame(self._method)
                break
            if self._is_switch(head):
                break
        size = head.body
        if size is not None and size <= len(data):
            self.done = True
            self.pieces = [data[:size]]
            self.size = size
            self.rest = data[size:]
        else:
            if size is not None:
                self._decoder = LengthDecoder(size)
            else:
                self._decoder = ChunkedDecoder() if head.chunked else UntilClose()
            self.feed(data)
        return heads

    def _is_switch(self, head: ResponseHead) -> bool:
        """Whether an interim head is the last one: the protocol changes behind it."""
        if head.status == 101:
            if not self._upgrade:
                raise InvalidResponse("upgrade", "101 without having been asked to upgrade")
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
    line, _, lines = raw.decode("latin-1").partition("\r\n")
    start = _status(line)
    # What is between two matches, a name, a value, in turns.
    parts: list[Any] = _FIELD_LINE.split(lines)
    if any(parts[::3]):
        raise InvalidResponse("field-line", "a header line is malformed")
    if " \r\n" in lines or "\t\r\n" in lines:
        parts = [part.rstrip(" \t") for part in parts]
    names = tuple(parts[1::3])
    if len(names) > MAX_FIELDS:
        raise InvalidResponse("too-many-fields", "the head has too many fields")
    layout = _LAYOUTS[names]
    parts[0] = None
    return ResponseHead(start, names, tuple(parts[2::3]), layout.text, layout.framing(parts))


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


@lru_cache(maxsize=64)  # as with `_status`
def _persistence(
    version: int, connection: str | None, keep_alive: str | None
) -> tuple[frozenset[str], bool, int | None]:
    """Connection's options, whether the connection may be used again, and for how many seconds if
    that is said (RFC 9112 §9.3; HTTP/1.0's own way is not used)."""
    options = connection_options(connection)
    timeout = None if keep_alive is None else _KEEP_ALIVE_TIMEOUT.search(keep_alive)
    seconds = None if timeout is None else int(timeout[1])
    return options, version == 11 and "close" not in options, seconds


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
