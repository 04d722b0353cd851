"""Raw HTTP over real sockets: a client that sends exact bytes, and origins that answer them.

No HTTP library stands in between, so a test sees and says what is really on the wire.
"""

import asyncio
import json
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType

PATIENCE = 10.0


_given: deque[int] = deque(maxlen=100)


def free_port() -> int:
    """A TCP port that nobody listens on now, and that was not given out a moment ago: who asks for
    two wants two."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given.append(port)
            return port


@dataclass
class Answer:
    """One answer as it stood on the wire."""

    status: int
    reason: str
    lines: list[tuple[str, str]]
    body: bytes
    head: bytes = b""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.lines if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) < 2, f"{name} is there {len(values)} times"
        return values[0] if values else None

    def json(self) -> dict[str, object]:
        document = json.loads(self.body)
        assert isinstance(document, dict)
        return document


class Cut(Exception):
    """The connection ended before the message did."""


class Wire:
    """One connection: write bytes, read answers (or, at an origin, requests)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, host: str = "127.0.0.1", **options: object) -> "Wire":
        return cls(*await asyncio.open_connection(host, port, **options))  # type: ignore[arg-type]

    async def __aenter__(self) -> "Wire":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (ConnectionError, OSError):
            pass

    async def send(self, data: bytes | str) -> None:
        self.writer.write(data.encode("latin-1") if isinstance(data, str) else data)
        await self.writer.drain()

    async def read_head(self) -> bytes:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as short:
            raise Cut(f"after {short.partial!r}") from None

    async def exactly(self, size: int) -> bytes:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.reader.readexactly(size)
        except asyncio.IncompleteReadError as short:
            raise Cut(f"after {len(short.partial)} of {size} bytes") from None

    async def some(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read(65536)

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read(-1)

    async def read_chunks(self) -> bytes:
        body = b""
        while size := int(await self._line(), 16):
            body += await self.exactly(size)
            assert await self.exactly(2) == b"\r\n"
        while await self._line():
            pass
        return body

    async def _line(self) -> bytes:
        try:
            async with asyncio.timeout(PATIENCE):
                return (await self.reader.readuntil(b"\r\n"))[:-2]
        except asyncio.IncompleteReadError as short:
            raise Cut(f"after {short.partial!r}") from None

    async def read_answer(self, method: str = "GET") -> Answer:
        """The next answer, interim ones included. Raises Cut where it is not complete."""
        head = await self.read_head()
        line, *fields = head[:-4].decode("latin-1").split("\r\n")
        _, status_text, reason = [*line.split(" ", 2), ""][:3]
        status = int(status_text)
        lines = [(name, value.strip()) for name, _, value in (f.partition(":") for f in fields)]
        lengths = [value for name, value in lines if name.lower() == "content-length"]
        codings = [value for name, value in lines if name.lower() == "transfer-encoding"]
        if method == "HEAD" or status < 200 or status in (204, 304):
            body = b""
        elif codings:
            assert not lengths
            body = await self.read_chunks()
        elif lengths:
            body = await self.exactly(int(lengths[0]))
        else:
            body = await self.rest()
        return Answer(status, reason, lines, body, head)

    async def ask(self, data: bytes | str, method: str | None = None) -> Answer:
        """Sends one request and reads its answer."""
        await self.send(data)
        text = data if isinstance(data, str) else data.decode("latin-1")
        return await self.read_answer(method or text.partition(" ")[0])

    async def closed(self) -> bool:
        """Waits until the other side has ended the connection; nothing may come before."""
        try:
            return await self.rest() == b""
        except ConnectionError:
            return True


@dataclass
class Seen:
    """A request as an origin saw it."""

    method: str
    target: str
    lines: list[tuple[str, str]]
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.lines if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) < 2, f"{name} is there {len(values)} times"
        return values[0] if values else None


Script = Callable[[Wire, Seen], Awaitable[None]]


@dataclass
class RawOrigin:
    """An origin that reads requests strictly and answers by its script.

    `script` gets the wire and the request's head; the body is read already unless
    `read_body` is False. `seen` has all requests, `connections` counts accepts, `open` those
    that are still there.
    """

    script: Script
    read_body: bool = True
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    port: int = 0
    server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, **options: object) -> "RawOrigin":
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, **options)  # type: ignore[arg-type]
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        assert self.server is not None
        self.server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        wire = Wire(reader, writer)
        try:
            while True:
                seen = await self._request(wire)
                await self.script(wire, seen)
        except (Cut, ConnectionError, asyncio.CancelledError, TimeoutError):
            pass
        finally:
            self._tasks.discard(task)
            self.open -= 1
            writer.close()

    async def _request(self, wire: Wire) -> Seen:
        head = (await wire.read_head())[:-4].decode("latin-1")
        line, *fields = head.split("\r\n")
        method, target, version = line.split(" ")
        assert version == "HTTP/1.1"
        lines = [(name, value.strip()) for name, _, value in (f.partition(":") for f in fields)]
        seen = Seen(method, target, lines)
        self.seen.append(seen)
        if self.read_body:
            seen.body = await read_body(wire, seen)
        return seen


async def read_body(wire: Wire, seen: Seen) -> bytes:
    """The body of a request whose head is read, by the one framing that it may have."""
    length, coding = seen.get("content-length"), seen.get("transfer-encoding")
    assert length is None or coding is None, "two framings"
    if coding is not None:
        return await wire.read_chunks()
    return await wire.exactly(int(length)) if length else b""


def answering(wire_bytes: bytes) -> Script:
    """A script that answers every request with exactly these bytes."""

    async def script(wire: Wire, seen: Seen) -> None:
        await wire.send(wire_bytes)

    return script


async def echo(wire: Wire, seen: Seen) -> None:
    """Answers with JSON that tells what came."""
    document = {
        "method": seen.method,
        "target": seen.target,
        "lines": seen.lines,
        "body": seen.body.decode("latin-1"),
    }
    body = json.dumps(document).encode()
    await wire.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % len(body)
        + (b"" if seen.method == "HEAD" else body)
    )
