"""One connection to an upstream: bytes out, bytes in to whichever call it serves, back-pressure.

A connection serves one call at a time. Between two calls nothing may arrive on it: bytes or an
end of stream then (RFC 9112 §9.2) make it unusable, also while they are still in the kernel.
"""

import asyncio
import select
from typing import Protocol, cast

WRITE_HIGH_WATER = 64 * 1024
READ_SIZE = 64 * 1024
"""The most that one read takes: an asyncio.Protocol would be handed 256 KiB at a time."""

_READABLE = select.POLLIN | select.POLLRDHUP


class Receiver(Protocol):
    """The call that a connection serves."""

    def feed(self, data: bytes) -> None: ...
    def ended(self) -> bool:
        """The upstream sends no more; True keeps our own half open."""

    def lost(self, error: Exception | None) -> None: ...


class Keeper(Protocol):
    """Whoever keeps connections between calls. They share its `buffer`, of READ_SIZE bytes: what
    is read into it is taken out before anything else is read."""

    buffer: memoryview

    def lost(self, connection: "Connection") -> None: ...


class Connection(asyncio.BufferedProtocol):
    """A connection to `address`, one of the addresses of the endpoint at `index`."""

    __slots__ = (
        "_buffer",
        "_can_write",
        "_keeper",
        "_poll",
        "address",
        "call",
        "closed",
        "congested",
        "expires",
        "index",
        "reading_paused",
        "transport",
        "used",
    )

    transport: asyncio.Transport

    def __init__(self, keeper: Keeper, index: int, address: str) -> None:
        self.index = index
        self.address = address
        self.call: Receiver | None = None
        self.closed = False
        """Given up or lost."""
        self.used = False
        """Has carried a request before."""
        self.expires = 0.0
        """While idle, on the loop's clock: not to be used again from then on."""
        self._keeper = keeper
        self._buffer = keeper.buffer
        self._poll = select.poll()
        self.reading_paused = False
        self.congested = False
        """The upstream has not taken what was written: `drain` would wait."""
        self._can_write: asyncio.Future[None] | None = None

    def usable(self, now: float) -> bool:
        """Whether the idle connection can take a request: alive, with nothing unread on it."""
        if self.closed or self.expires <= now or self.transport.is_closing():
            return False
        # The loop may not have got to the upstream's close yet, or to bytes nobody asked for.
        return not self._poll.poll(0)

    def abort(self) -> None:
        """Gives the connection up at once; harmless twice."""
        self.closed = True
        self.transport.abort()

    # What its call does with it.

    async def drain(self) -> None:
        """Waits until the upstream has taken enough of what was written. Raises
        ConnectionError."""
        if self.congested and not self.closed:
            self._can_write = asyncio.get_running_loop().create_future()
            try:
                await self._can_write
            finally:
                self._can_write = None
        if self.closed:
            raise ConnectionResetError("the upstream connection is closed")

    def pause_reading(self) -> None:
        if not self.reading_paused and not self.closed:
            self.reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.reading_paused and not self.closed:
            self.reading_paused = False
            self.transport.resume_reading()

    # asyncio.BufferedProtocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        self._poll.register(transport.get_extra_info("socket").fileno(), _READABLE)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        call = self.call
        if call is not None:
            call.feed(bytes(self._buffer[:nbytes]))
        else:
            self.abort()

    def eof_received(self) -> bool:
        if self.call is not None:
            return self.call.ended()
        self.closed = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._wake()
        self._keeper.lost(self)
        if self.call is not None:
            self.call.lost(exc)

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        self._wake()

    def _wake(self) -> None:
        if self._can_write is not None and not self._can_write.done():
            self._can_write.set_result(None)
