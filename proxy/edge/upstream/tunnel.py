"""An upgraded upstream connection (101): bytes both ways, back-pressure."""

import asyncio
from typing import Final, Protocol

from proxy.edge.upstream.connection import Connection

HIGH_WATER: Final = 64 * 1024


class Holder(Protocol):
    """The call that holds the slot while the tunnel is open."""

    def close(self) -> None: ...


class UpstreamTunnel:
    """Implements `Tunnel`. `first`: bytes that came right behind the 101."""

    __slots__ = ("_connection", "_ended", "_holder", "_pieces", "_size", "_waiter", "idle_timeout")

    def __init__(
        self, holder: Holder, connection: Connection, first: bytes, idle_timeout: float
    ) -> None:
        self.idle_timeout = idle_timeout
        self._holder = holder
        self._connection = connection
        self._pieces = [first] if first else []
        self._size = len(first)
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        connection.call = self

    async def read(self) -> bytes:
        while not self._pieces:
            if self._ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        self._connection.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        if self._connection.closed:
            raise ConnectionResetError("the upstream connection is closed")
        self._connection.transport.write(data)
        await self._connection.drain()

    def write_eof(self) -> None:
        transport = self._connection.transport
        if not self._connection.closed and transport.can_write_eof():
            transport.write_eof()

    def close(self) -> None:
        self._end()
        self._holder.close()

    # The connection's side.

    def feed(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER:
            self._connection.pause_reading()
        self._wake()

    def ended(self) -> bool:
        self._end()
        return self._connection.transport.can_write_eof()  # TLS has no half-closed state

    def lost(self, error: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
