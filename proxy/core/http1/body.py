"""Message bodies off the wire: three ways to find the end, one interface, no I/O.

Rules (RFC 9112 §6.3, §7.1), all strict, since two readers that disagree about where a body ends
are how requests are smuggled:
- a chunk size is 1 to 16 hex digits and nothing else: no sign, `0x`, `_` or whitespace;
- every line ends in CRLF; a bare CR or LF is refused, also inside extensions and trailers;
- chunk extensions are ignored, but must be free of control characters and are capped in total;
- trailers must be field lines, are capped in total, and are dropped (RFC 9110 §6.5.1).
What the decoders hand out does not depend on how the wire was cut into reads.
"""

import re
from typing import Protocol

_TEXT = rb"[\t\x20-\x7e\x80-\xff]*"
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(;" + _TEXT + rb")?\r\n")
_SIZE_BEGUN = re.compile(rb"[0-9A-Fa-f]{1,16}(?:;" + _TEXT + rb")?\r?")
_SIZE_EXTENDED = re.compile(rb"[0-9A-Fa-f]{1,16};")
_TRAILER_LINE = re.compile(_TOKEN + rb":" + _TEXT + rb"\r\n")
_TRAILER_BEGUN = re.compile(rb"\r|" + _TOKEN + rb"(?::" + _TEXT + rb"\r?)?")

# The longest size, and the CR of a line that has not ended yet: what `held` may add to the caps.
_LINE_SLACK = 17

_SIZE, _DATA, _DATA_END, _TRAILER, _DONE = range(5)


class FramingError(Exception):
    """A body whose framing cannot be trusted. `rule` names the rule it broke."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule
        self.detail = detail


class Decoder(Protocol):
    """Takes a message's bytes after the head; gives its content and what lies behind it."""

    done: bool
    """The body is complete."""

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Content pieces in order (none empty), and the bytes after the body's end, b"" until
        then. Raises FramingError; the decoder is of no use afterwards."""

    def eof(self) -> bool:
        """The stream ends here: True where the body is complete with that."""


class LengthDecoder:
    """A body of `length` bytes (Content-Length)."""

    __slots__ = ("done", "left")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        size = len(data)
        left = self.left
        if size < left:
            self.left = left - size
            return ([data] if size else []), b""
        if not left:
            return [], data
        self.left = 0
        self.done = True
        if size == left:
            return [data], b""
        return [data[:left]], data[left:]

    def eof(self) -> bool:
        return self.done


class UntilClose:
    """A response body that ends with its connection (RFC 9112 §6.3, last rule)."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        return ([data] if data else []), b""

    def eof(self) -> bool:
        self.done = True
        return True


class ChunkedDecoder:
    """A chunked body. The caps are bytes over the whole body, lines' ends not counted."""

    __slots__ = ("_extensions_left", "_held", "_left", "_state", "_trailers_left", "done")

    def __init__(self, max_extension_bytes: int = 4096, max_trailer_bytes: int = 8192) -> None:
        self._extensions_left = max_extension_bytes
        self._trailers_left = max_trailer_bytes
        self._state = _SIZE
        self._left = 0
        self._held = b""  # a line that has begun; never content
        self.done = False

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        if self._held:
            data = self._held + data
            self._held = b""
        pieces: list[bytes] = []
        pos = 0
        end = len(data)
        while pos < end:
            state = self._state
            if state == _DATA:
                stop = pos + self._left
                pieces.append(data[pos:stop] if pos or stop < end else data)
                if stop > end:
                    self._left = stop - end
                    return pieces, b""
                self._state = _DATA_END
                pos = stop
            elif state == _DATA_END:
                if not data.startswith(b"\r\n", pos):
                    if data[pos:] != b"\r":
                        raise FramingError("chunk-end", "a chunk's data is not followed by CRLF")
                    self._held = b"\r"
                    return pieces, b""
                self._state = _SIZE
                pos += 2
            elif state == _SIZE:
                pos = self._size(data, pos)
            elif state == _TRAILER:
                pos = self._trailer(data, pos)
            else:
                return pieces, data[pos:] if pos else data
        return pieces, b""

    def eof(self) -> bool:
        return self.done

    def _size(self, data: bytes, pos: int) -> int:
        """Reads a chunk's size line at `pos`; the position after it."""
        line = _SIZE_LINE.match(data, pos)
        if line is None:
            if not _SIZE_BEGUN.fullmatch(data, pos):
                if _SIZE_EXTENDED.match(data, pos):
                    raise FramingError("chunk-extension", "a control character in an extension")
                raise FramingError("chunk-size", "a chunk size is not 1 to 16 hex digits and CRLF")
            return self._hold(
                data, pos, self._extensions_left + _LINE_SLACK, "extensions-too-large"
            )
        if line[2]:
            self._extensions_left -= len(line[2])
            if self._extensions_left < 0:
                raise FramingError("extensions-too-large", "chunk extensions exceed their limit")
        self._left = int(line[1], 16)
        self._state = _DATA if self._left else _TRAILER
        return line.end()

    def _trailer(self, data: bytes, pos: int) -> int:
        """Reads a trailer line, or the empty line that ends the body; the position after it."""
        if data.startswith(b"\r\n", pos):
            self._state = _DONE
            self.done = True
            return pos + 2
        line = _TRAILER_LINE.match(data, pos)
        if line is None:
            if not _TRAILER_BEGUN.fullmatch(data, pos):
                raise FramingError("trailer", "a trailer is not a field line")
            return self._hold(data, pos, self._trailers_left + 1, "trailers-too-large")
        self._trailers_left -= line.end() - pos - 2
        if self._trailers_left < 0:
            raise FramingError("trailers-too-large", "trailers exceed their limit")
        return line.end()

    def _hold(self, data: bytes, pos: int, most: int, rule: str) -> int:
        """Keeps a line that has begun for the next feed; the position after it."""
        held = data[pos:]
        if len(held) > most:
            raise FramingError(rule, "a line of the chunked framing exceeds its limit")
        self._held = held
        return len(data)
