"""An upgraded connection (RFC 9110 §7.8): bytes both ways, untouched, until either side ends
or nothing has passed for too long."""

import asyncio
from collections import deque
from typing import Final, Protocol

from proxy.core.message import Tunnel

HIGH_WATER: Final = 64 * 1024


class TunnelOutlet(Protocol):
    """The client connection as a tunnel needs it."""

    transport: asyncio.Transport | None

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    async def drain(self) -> None: ...


class ClientHalf:
    """What the client sends into a tunnel, waiting to go upstream."""

    __slots__ = ("_ended", "_outlet", "_paused", "_pieces", "_size", "_waiter")

    def __init__(self, outlet: TunnelOutlet) -> None:
        self._outlet = outlet
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, data: bytes) -> None:
        """Takes bytes from the client's socket."""
        if not data:
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER and not self._paused:
            self._paused = True
            self._outlet.pause_reading()
        self._wake()

    def feed_eof(self) -> None:
        """The client's connection ended."""
        self._ended = True
        self._wake()

    async def read(self) -> bytes:
        """All that is there; b"" at the end."""
        while not self._pieces:
            if self._ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            self._outlet.resume_reading()
        return data

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def relay(client: ClientHalf, outlet: TunnelOutlet, upstream: Tunnel) -> int:
    """Runs the tunnel to its end; the number of bytes sent to the client.

    When one side ends, what it sent last is still delivered, then the other side is closed. Where
    no byte has come from either side for the tunnel's `idle_timeout`, both are.
    """
    sent = 0
    loop = asyncio.get_running_loop()
    idle_since = loop.time()

    async def downwards() -> None:
        nonlocal sent, idle_since
        while data := await upstream.read():
            idle_since = loop.time()
            if outlet.transport is None:
                return
            outlet.transport.write(data)
            sent += len(data)
            await outlet.drain()

    async def upwards() -> None:
        nonlocal idle_since
        while data := await client.read():
            idle_since = loop.time()
            await upstream.write(data)
        upstream.write_eof()

    halves = [asyncio.create_task(downwards()), asyncio.create_task(upwards())]
    try:
        done: set[asyncio.Task[None]] = set()
        while not done and (left := idle_since + upstream.idle_timeout - loop.time()) > 0:
            done, _ = await asyncio.wait(halves, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        for half in done:
            half.exception()  # either end going away is how tunnels end
    finally:
        for half in halves:
            half.cancel()
        await asyncio.gather(*halves, return_exceptions=True)
        upstream.close()
    return sent
