"""Raw-socket origins that say exactly the bytes a test wants, and what asks them."""

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from proxy.core.fields import Lines
from proxy.core.message import Outgoing, ReplyStream
from proxy.edge.upstream.client import HttpUpstream
from proxy.metrics import UpstreamTally
from proxy.policy.snapshot import Endpoint, UpstreamPlan, UpstreamTls


class Peer:
    """One connection that an origin has accepted."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number
        """0 for the origin's first connection, and so on."""

    async def head(self) -> str:
        """The next request's head, up to its empty line; "" where the client closed."""
        try:
            return (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, ConnectionError):
            return ""

    async def take(self, size: int) -> bytes:
        return await self.reader.readexactly(size)

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> bytes:
        """Waits until the client has closed; what it sent before. A reset counts as closed."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""

    def reset(self) -> None:
        """Closes by RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class Origin:
    """A server that runs `script` for every connection, then closes it."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.peers: list[Peer] = []
        self.failures: list[BaseException] = []
        self.changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(reader, writer, len(self.peers))
        self.peers.append(peer)
        try:
            await self._script(peer)
        except (asyncio.CancelledError, ConnectionError):
            pass
        except BaseException as error:
            self.failures.append(error)
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await writer.wait_closed()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Lab:
    """Starts origins and upstreams; ends them with the test."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack
        self.origins: list[Origin] = []

    async def origin(
        self,
        script: Script,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        path: Path | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> tuple[Origin, Endpoint]:
        origin = Origin(script)
        self.origins.append(origin)
        if path is not None:
            server = await asyncio.start_unix_server(origin.accept, path)
            endpoint = Endpoint("http", "localhost", 80, "", socket=str(path))
        else:
            server = await asyncio.start_server(origin.accept, host, port, ssl=tls, limit=1 << 20)
            port = server.sockets[0].getsockname()[1]
            endpoint = Endpoint("https" if tls else "http", host, port, "")
        self._stack.push_async_callback(origin.stop)
        self._stack.callback(server.close)
        return origin, endpoint

    def upstream(self, *endpoints: Endpoint, **changes: Any) -> HttpUpstream:
        settings: dict[str, Any] = {
            "name": "u",
            "endpoints": endpoints,
            "balance": "round_robin",
            "connect_timeout": 5.0,
            "response_timeout": 10.0,
            "read_timeout": 10.0,
            "deadline": 20.0,
            "idle_timeout": 10.0,
            "max_connections": 16,
            "queue": 100,
            "queue_timeout": 5.0,
            "dns_refresh": 30.0,
            "tunnel_idle_timeout": 3600.0,
            "tls": UpstreamTls(),
            "host_header": "preserve",
        }
        upstream = HttpUpstream(UpstreamPlan(**settings | changes), UpstreamTally("u"))
        self._stack.push_async_callback(upstream.close)
        return upstream

    async def pair(self, script: Script, **changes: Any) -> tuple[Origin, HttpUpstream]:
        """One origin and an upstream of it alone."""
        origin, endpoint = await self.origin(script)
        return origin, self.upstream(endpoint, **changes)


def tcp_sockets() -> set[str]:
    """The TCP sockets that this process has open. (Loops open other ones for themselves.)"""
    tables = [Path(f"/proc/self/net/{table}").read_text() for table in ("tcp", "tcp6")]
    inodes = {line.split()[9] for table in tables for line in table.splitlines()[1:]}
    ours = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            ours.add(os.readlink(f"/proc/self/fd/{number}")[8:-1])
    return ours & inodes


async def settled(condition: Callable[[], bool]) -> None:
    """Lets the loop turn until the condition holds; the test's timeout is the limit."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.001)
    assert condition()


class Body:
    """A request body of given pieces. An exception among them is raised in its turn; an Event
    is waited for. `taken` counts the pieces read; `proceeded` the calls of `proceed`."""

    def __init__(self, *pieces: bytes | BaseException | asyncio.Event, length: int | None) -> None:
        self.length = length
        self.pieces = list(pieces)
        self.taken = 0
        self.proceeded = 0

    async def read(self) -> bytes:
        while self.pieces:
            piece = self.pieces.pop(0)
            if isinstance(piece, asyncio.Event):
                await piece.wait()
                continue
            self.taken += 1
            if isinstance(piece, BaseException):
                raise piece
            return piece
        return b""

    def proceed(self) -> None:
        self.proceeded += 1


def request(
    method: str = "GET",
    target: str = "/",
    lines: Lines | None = None,
    body: Body | None = None,
    **more: Any,
) -> Outgoing:
    return Outgoing(method, target, more.pop("host", "example.com"), lines or [], body, **more)


async def drink(stream: ReplyStream | None) -> bytes:
    """A stream's whole content."""
    assert stream is not None
    content = b""
    while piece := await stream.read():
        content += piece
    return content
