"""Load on keep-alive connections, every answer of it kept, and an origin that counts what reaches
it: what was admitted is what arrived there."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

PATIENCE = 10.0


@dataclass(slots=True)
class Shot:
    """One request and its answer. `at` is when it was sent (monotonic seconds)."""

    target: str
    at: float
    seconds: float
    status: int
    head: bytes
    body: bytes

    def get(self, name: str) -> str | None:
        """A field of the answer."""
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name:
                return value.strip()
        return None

    @property
    def left(self) -> int:
        """RateLimit's r."""
        field = self.get("ratelimit")
        assert field is not None, self.head
        return int(field.partition(";r=")[2].partition(";")[0])


class Client(asyncio.Protocol):
    """One connection that asks one request after another."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._answer: asyncio.Future[tuple[bytes, bytes]] | None = None

    @classmethod
    async def open(cls, port: int) -> "Client":
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            return (await loop.create_connection(cls, "127.0.0.1", port))[1]

    async def get(
        self,
        target: str,
        method: str = "GET",
        lines: str = "",
        body: bytes = b"",
        patience: float = PATIENCE,
    ) -> Shot:
        """Raises ConnectionError where the connection ends first, TimeoutError. Whoever has a body
        says so in the lines."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        at = time.monotonic()
        head = f"{method} {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"
        self._transport.write(head.encode() + body)
        async with asyncio.timeout(patience):
            head, body = await self._answer
        return Shot(target, at, time.monotonic() - at, int(head[9:12]), head, body)

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        if len(body) >= length and self._answer is not None and not self._answer.done():
            self._received = body[length:]
            self._answer.set_result((head, body[:length]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("cut off within an answer"))


class Load:
    """Clients that ask on and on, from `async with` to its end. An answer that does not come fails
    the test at the end.

    `each` clients for every port and target, each `pause` seconds between two requests.
    """

    def __init__(
        self, ports: Sequence[int], targets: Sequence[str], *, each: int, pause: float = 0.0
    ) -> None:
        self.shots: list[Shot] = []
        self.clients = each * len(ports) * len(targets)
        self._aims = [(port, target) for _ in range(each) for port in ports for target in targets]
        self._pause = pause
        self._over = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Load":
        clients = await asyncio.gather(*(Client.open(port) for port, _ in self._aims))
        for place, (client, (_, target)) in enumerate(zip(clients, self._aims, strict=True)):
            lead = self._pause * place / len(clients)
            self._tasks.append(asyncio.create_task(self._go(client, target, lead)))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    async def _go(self, client: Client, target: str, lead: float) -> None:
        try:
            await asyncio.sleep(lead)
            while not self._over:
                self.shots.append(await client.get(target))
                if self._pause:
                    await asyncio.sleep(self._pause)
        finally:
            client.close()


async def volley(ports: Sequence[int], target: str, *, clients: int, each: int) -> list[Shot]:
    """So many clients, spread over the ports, each with so many requests, as fast as it goes."""

    async def go(port: int) -> list[Shot]:
        client = await Client.open(port)
        try:
            return [await client.get(target) for _ in range(each)]
        finally:
            client.close()

    shots = await asyncio.gather(*(go(ports[n % len(ports)]) for n in range(clients)))
    return [shot for some in shots for shot in some]


def aimed(shots: Iterable[Shot], target: str) -> list[Shot]:
    return [shot for shot in shots if shot.target == target]


def statuses(shots: Iterable[Shot]) -> Counter[int]:
    return Counter(shot.status for shot in shots)


class Origin:
    """Answers every GET at once, and counts them by target."""

    ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    def __init__(self, port: int) -> None:
        self.seen: Counter[str] = Counter()
        self._port = port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Transport] = set()

    async def __aenter__(self) -> "Origin":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Asked(self.seen, self._open), "127.0.0.1", self._port, backlog=2048
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for transport in self._open:
            transport.close()
        await self._server.wait_closed()


class _Asked(asyncio.Protocol):
    """The origin's end of one connection."""

    def __init__(self, seen: Counter[str], open_: set[asyncio.Transport]) -> None:
        self._seen = seen
        self._open = open_
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._open.add(self._transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            self._seen[head.split(b" ", 2)[1].decode()] += 1
            self._transport.write(Origin.ANSWER)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self._transport)
