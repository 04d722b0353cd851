"""A request's body on its way from the socket to whoever reads it.

The intake feeds it, the flow reads it. Above HIGH_WATER unread bytes the connection stops
reading, below LOW_WATER it goes on: an upload costs this much memory, however large it is.
"""

import asyncio
from collections import deque
from typing import Final, Protocol

from proxy.core.message import BodyError

HIGH_WATER: Final = 64 * 1024
LOW_WATER: Final = 16 * 1024
_PIECE: Final = 64
"""Bytes that a piece weighs beside its own: of one-byte chunks the pieces cost most."""

LINGERING_BYTES: Final = 256 * 1024
"""What is thrown away, at most, of what a client sends that nobody will read: enough for one that
stops once it sees the answer, too little to fill the line with."""
_READING: Final = 0.01
"""Seconds in which the loop reads its sockets once."""

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class BodySource(Protocol):
    """The connection that a body comes from."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def write_interim(self, data: bytes) -> None: ...


class IncomingBody:
    """One request's body. Implements `RequestBody`, and what aiohttp's connection loop asks of a
    payload when the answer is out (`is_eof`, `readany`, `set_exception`)."""

    __slots__ = (
        "_discarding",
        "_dropped",
        "_ended",
        "_error",
        "_expects",
        "_max_bytes",
        "_paused",
        "_pieces",
        "_size",
        "_source",
        "_timeout",
        "_total",
        "_waiter",
        "length",
    )

    def __init__(
        self,
        source: BodySource,
        length: int | None,
        max_bytes: int,
        timeout: float,
        expects_continue: bool,
    ) -> None:
        self.length = length
        self._source = source
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._expects = expects_continue
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._total = 0
        self._ended = False
        self._error: BodyError | None = None
        self._discarding = False
        self._dropped = 0
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False

    # The intake's side.

    def feed(self, piece: bytes) -> None:
        """Takes content in order."""
        if self._error is not None or self._discarding:
            self._drop(len(piece))
            return
        self._total += len(piece)
        if self._total > self._max_bytes:
            self.fail(BodyError(413, f"The request body is over {self._max_bytes} bytes."))
            return
        self._pieces.append(piece)
        self._size += len(piece) + _PIECE
        if self._size > HIGH_WATER and not self._paused:
            self._paused = True
            self._source.pause_reading()
        self._wake()

    def finish(self) -> None:
        """The body is complete."""
        self._ended = True
        self._wake()

    def fail(self, error: BodyError) -> None:
        """The rest of the body will not come; what came is of no use."""
        if self._ended or (self._error is not None and error.status != 499):
            return
        self._error = error
        self._pieces.clear()
        self._size = 0
        self._wake()
        self._resume()

    # The flow's side.

    async def read(self) -> bytes:
        """The next piece, b"" at the end. Raises BodyError."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            await self._wait(self._timeout)
        piece = self._pieces.popleft()
        self._size -= len(piece) + _PIECE
        if self._paused and self._size < LOW_WATER:
            self._resume()
        return piece

    def proceed(self) -> None:
        if self._expects:
            self._expects = False
            if not self._total and not self._ended:
                self._source.write_interim(CONTINUE)

    @property
    def arrived(self) -> bool:
        """Whether all of it is here, read or not."""
        return self._ended

    # aiohttp's side, after the answer.

    def is_eof(self) -> bool:
        """Nothing more to take off the wire. A body that failed is not at its end before the
        connection is: what still comes is thrown away (RFC 9112 §9.6)."""
        return self._ended or (self._error is not None and self._error.status == 499)

    async def readany(self) -> bytes:
        """Throws away what comes, until the body or the connection ends. Raises TimeoutError,
        upon which aiohttp closes the connection, where too much comes."""
        self.set_exception(None)
        while not self.is_eof():
            if self._dropped > LINGERING_BYTES:
                raise TimeoutError
            await self._wait(None)
        return b""

    def set_exception(self, exc: BaseException | None) -> None:
        """Nobody reads any more."""
        self._discarding = True
        self._pieces.clear()
        self._size = 0
        self._resume()

    def _drop(self, size: int) -> None:
        """Throws bytes away, and stops reading where they have become too many."""
        self._dropped += size
        if self._dropped > LINGERING_BYTES:
            if not self._paused:
                self._paused = True
                self._source.pause_reading()
            self._wake()

    def _resume(self) -> None:
        if self._paused and self._dropped <= LINGERING_BYTES:
            self._paused = False
            self._source.resume_reading()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _wait(self, timeout: float | None) -> None:
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = None if timeout is None else loop.call_later(timeout, self._look_again, waiter)
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            self._waiter = None

    # A loop that was late finds timers due before it has read its sockets, and before what it has
    # read of them is handed on. So the time is over one reading of the sockets later.

    def _look_again(self, waiter: asyncio.Future[None]) -> None:
        asyncio.get_running_loop().call_later(_READING, self._look_last, waiter)

    def _look_last(self, waiter: asyncio.Future[None]) -> None:
        asyncio.get_running_loop().call_soon(self._time_out, waiter)

    def _time_out(self, waiter: asyncio.Future[None]) -> None:
        if waiter is self._waiter and not waiter.done():
            self.fail(BodyError(408, f"No byte of the request body came for {self._timeout:g} s."))


class _NoBody:
    """The payload of a request without one."""

    __slots__ = ()

    def is_eof(self) -> bool:
        return True

    def set_exception(self, exc: BaseException) -> None:
        pass

    async def readany(self) -> bytes:
        return b""


NO_BODY: Final = _NoBody()
