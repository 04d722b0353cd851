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
from collections.abc import Sequence
from typing import Final

from proxy.core.http1.body import ChunkedDecoder, Decoder, FramingError, LengthDecoder, UntilClose
from proxy.core.http1.response_head import (
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    InvalidResponse,
    ResponseHead,
    head_of,
)

MAX_INTERIM: Final = 100

_BARE_LF = re.compile(rb"(?<!\r)\n")


def whole(data: bytes, bodiless: bool) -> tuple[ResponseHead, bytes] | None:
    """A final head and its body, where that, all of it and no more, is what the first read of an
    answer brought. None for anything else: a ResponseParser takes it from its first byte.

    `bodiless`: it answers a HEAD. Raises InvalidResponse, as the parser would.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = head_of(data[: end + 2], bodiless)
    body = data[end + 4 :]
    if head.body != len(body) or head.status < 200:
        return None
    return head, body


class ResponseParser:
    """Reads the answer to one request of `method`; `upgrade`: whether it asked for an upgrade."""

    __slots__ = (
        "_bodiless",
        "_decoder",
        "_held",
        "_interim",
        "_scanned",
        "_upgrade",
        "done",
        "pieces",
        "rest",
        "size",
    )

    def __init__(self, method: str, upgrade: bool = False) -> None:
        self._bodiless = method == "HEAD"
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
            head = head_of(data[: end + 2], self._bodiless)
            data = data[end + 4 :]
            heads.append(head)
            if head.status >= 200:
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


__all__ = [
    "MAX_FIELDS",
    "MAX_HEAD_BYTES",
    "MAX_INTERIM",
    "FramingError",
    "InvalidResponse",
    "ResponseHead",
    "ResponseParser",
    "whole",
]
