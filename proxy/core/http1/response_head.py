"""The head of an upstream's answer: its lines, what they say of the body and of the connection.

Rules: those of `response`, where what breaks one is told apart.
- Equal bytes are an equal head: what was made of those that come again is remembered, so nothing
  may change a head once it is made.
"""

import re
from functools import lru_cache
from typing import Any, Final

from proxy.core.fields import Lines
from proxy.core.headers import HOP_BY_HOP, RESPONSE_DROP, connection_options, forward_response_lines
from proxy.core.layouts import Layouts, Names, form
from proxy.core.recent import Recent

MAX_HEAD_BYTES = 64 * 1024
MAX_FIELDS = 200

_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([0-9]{3})(?: ([\t\x20-\x7e\x80-\xff]*))?")
# Each match is a line from end to end, so where nothing is left between the matches every line is a
# field line: one pass splits and checks. Nothing is given back once matched (the "+" behind a
# repetition), and a match can only begin with a line, so time is linear.
_FIELD_LINE = re.compile(
    r"^([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[ \t]*+([\t\x20-\x7e\x80-\xff]*+)\r\n", re.MULTILINE
)
_KEEP_ALIVE_TIMEOUT = re.compile(r"(?:^|[,; \t])timeout[ \t]*=[ \t]*\"?([0-9]{1,9})", re.IGNORECASE)
_RETOLD: Final = RESPONSE_DROP | {"x-request-id"}
_MAX_DIGITS: Final = 18

REMEMBERED: Final = 256
"""Heads; as many of answers to HEAD, whose framing is another."""
REMEMBERED_BYTES: Final = 4 * 1024 * 1024
"""What they hold at most."""
LONGEST: Final = 2048
"""Bytes of a head beyond which it is not worth remembering."""


class InvalidResponse(Exception):
    """An answer that is not HTTP as we accept it. `rule` names the rule it broke."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule
        self.detail = detail


class _Layout:
    """What the field names of a head tell of it.

    `length` to `upgrade`: where the values that matter to us are in what `_FIELD_LINE` split a head
    into; its first piece, None, stands for absent ones. `repeated`: one of them has several lines.
    `text`: the form of the lines that go on to a client, where the text they make is a Reply's
    (with Date; X-Request-Id is made anew, X-RateLimit may be); else None.
    """

    __slots__ = (
        "coding", "connection", "keep_alive", "length", "lower", "repeated", "text", "upgrade",
    )  # fmt: skip

    def __init__(self, names: Names) -> None:
        lower = [name.lower() for name in names]
        self.lower = lower
        self.length = _place(lower, "content-length")
        self.connection = _place(lower, "connection")
        self.keep_alive = _place(lower, "keep-alive")
        self.coding = _place(lower, "transfer-encoding")
        self.upgrade = _place(lower, "upgrade")
        self.repeated = len(lower) != len(set(lower))
        limited = any(name.startswith("x-ratelimit-") for name in lower)
        self.text = form(names, _RETOLD) if "date" in lower and not limited else None

    def value(self, parts: list[Any], place: int) -> str | None:
        """The value of the field that is first at `place`, repeated lines joined."""
        if not place or not self.repeated:
            value: str | None = parts[place]
            return value
        name = self.lower[place // 3]
        return ", ".join([parts[3 * at + 2] for at, low in enumerate(self.lower) if low == name])


def _place(names: list[str], name: str) -> int:
    """Where, of the pieces of a head, the value of the first field called `name` is; 0: nowhere."""
    return 3 * names.index(name) + 2 if name in names else 0


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
        "_form",
        "_text",
        "body",
        "chunked",
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
        self, start: tuple[int, int, str], names: Names, layout: _Layout, parts: list[Any]
    ) -> None:
        """`parts`: what `_FIELD_LINE` split the lines into, None in place of the first."""
        self.version, self.status, self.reason = start
        self.names = names
        self.values: tuple[str, ...] = tuple(parts[2::3])
        self.options, self.keep_alive, self.keep_alive_timeout = _persistence(
            self.version,
            layout.value(parts, layout.connection),
            layout.value(parts, layout.keep_alive),
        )
        self.upgrade = layout.value(parts, layout.upgrade)
        self.length: int | None = None
        self.body: int | None = 0
        self.chunked = False
        self._form = layout.text if self.options <= HOP_BY_HOP else None
        self._text: str | None = None

    def frame(self, said: str | None, coding: str | None, bodiless: bool) -> None:
        """Decides how the body ends (RFC 9112 §6.3) by Content-Length and Transfer-Encoding as
        `said`. `bodiless`: it answers a HEAD."""
        status = self.status
        if said is not None:
            # Latin-1 text has no decimal digits but 0 to 9 ("²" is a digit, not a decimal).
            plain = said.isdecimal() and len(said) <= _MAX_DIGITS
            self.length = int(said) if plain else _repeated(said)
        if coding is not None:
            _check_coding(coding, said, self.version)
        if bodiless or status == 204 or status == 304:
            # §6.3 rule 1. An upstream that announces a body in a 204 may well send it: what would
            # arrive late must not meet the next request.
            if status == 204 and (coding is not None or self.length):
                self.keep_alive = False
            if status == 204 or coding is not None:
                self.length = None
            return
        self.body = self.length
        self.chunked = coding is not None
        if said is None and coding is None:
            self.keep_alive = False

    @property
    def lines(self) -> Lines:
        """All of them, hop by hop too."""
        return list(zip(self.names, self.values, strict=True))

    def end_to_end(self) -> Lines | str:
        """What of a final head goes on to the client, as `Reply.head` has it: as text where nothing
        of it has to be looked at line by line."""
        text = self._text
        if text is None:
            form = self._form
            if form is None:
                return forward_response_lines(self.lines)
            text = self._text = form % self.values
        return text


def _weigh(raw: bytes, head: ResponseHead) -> int:
    return 4 * len(raw) + 200 * len(head.names)


_Known = Recent[bytes, ResponseHead]
_KNOWN: Final[_Known] = Recent(REMEMBERED, REMEMBERED_BYTES, _weigh)
_KNOWN_BODILESS: Final[_Known] = Recent(REMEMBERED, REMEMBERED_BYTES, _weigh)


def head_of(raw: bytes, bodiless: bool) -> ResponseHead:
    """A head from its bytes, up to and with the CRLF of its last line, with its framing where it is
    a final one. `bodiless`: it answers a HEAD. Raises InvalidResponse."""
    known = _KNOWN_BODILESS if bodiless else _KNOWN
    head = known.get(raw)
    if head is None:
        head = _parse(raw, bodiless)
        if len(raw) <= LONGEST and known.again(raw):
            known.put(raw, head)
    return head


def _parse(raw: bytes, bodiless: bool) -> ResponseHead:
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
    head = ResponseHead(start, names, layout, parts)
    if head.status >= 200:
        length, coding = layout.value(parts, layout.length), layout.value(parts, layout.coding)
        head.frame(length, coding, bodiless)
    return head


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
