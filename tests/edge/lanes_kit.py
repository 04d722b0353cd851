"""A gateway with some of everything, and its connections as the edge has them."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import trustme
from edge_kit import GATEWAY, Running, StartGateway
from rawhttp import RawOrigin, Script, Seen, Wire, echo

from proxy.edge.protocol import GatewayProtocol

ROUTES = """\
  - {name: cached, match: {path: "/c/{rest:path}"}, upstream: origin, cache: things}
  - {name: limited, match: {path: "/l/{rest:path}"}, upstream: origin, limits: [two]}
  - {name: open, match: {path: "/o/{rest:path}"}, upstream: origin}
"""
LIMITS = 'two: {algorithm: fixed_window, rate: 2/d, key: ["path.rest", "query:n"]}'
CACHES = "caches: {things: {early_refresh: 0, lock_timeout: 30s}}\n"
BIG = 60_000
"""Bytes of `/c/big`: under what is written without a look at the client."""


async def until(truth: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not truth():
            await asyncio.sleep(0.002)


def ask(target: str, *lines: str, method: str = "GET") -> bytes:
    head = [f"{method} {target} HTTP/1.1", "Host: a", *lines, "", ""]
    return "\r\n".join(head).encode()


def _answer(*lines: str, body: bytes = b"hello") -> bytes:
    head = ["HTTP/1.1 200 OK", *lines, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode() + body


ANSWERS = {
    "/c/a": _answer("Cache-Control: max-age=60", 'ETag: "v1"'),
    "/c/big": _answer("Cache-Control: max-age=60", body=b"b" * BIG),
    "/c/large": _answer("Cache-Control: max-age=60", body=b"l" * 400_000),
    "/o/hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + _answer(),
    "/o/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "/o/empty": b"HTTP/1.1 204 No Content\r\n\r\n",
    "/o/closing": _answer("Connection: close"),
    "/o/odd": b"HTTP/1.1 299 Odd\r\nX-A: 1\r\nX-A: \xe4\r\nContent-Length: 0\r\n\r\n",
    "/o/ill": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
}


class Gate:
    """An origin's script: what `ANSWERS` has, else what `script` does (an echo); `/o/slow` is an
    echo that waits until the gate is opened."""

    def __init__(self, script: Script | None = None) -> None:
        self._script = script or echo
        self.open = asyncio.Event()
        self.waiting = 0
        self.left = 0

    async def __call__(self, wire: Wire, seen: Seen) -> None:
        if seen.target == "/o/slow":
            self.waiting += 1
            opened = asyncio.create_task(self.open.wait())
            gone = asyncio.create_task(wire.reader.read(1))
            done, _ = await asyncio.wait((opened, gone), return_when=asyncio.FIRST_COMPLETED)
            if gone in done:
                self.left += 1
                opened.cancel()
                raise ConnectionError
            gone.cancel()
            await asyncio.wait((gone,))
        if seen.target == "/o/cut":
            await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
            raise ConnectionError
        answer = ANSWERS.get(seen.target.partition("?")[0])
        if answer is None:
            script = echo if seen.target == "/o/slow" else self._script
            await script(wire, seen)
            return
        head, _, body = answer.rpartition(b"\r\n\r\n")
        await wire.send(head + b"\r\n\r\n" if seen.method == "HEAD" else head + b"\r\n\r\n" + body)


class Way:
    """How clients come: `tcp`, `tls` (over TCP), or `unix`."""

    def __init__(self, name: str = "tcp", folder: Path = Path()) -> None:
        self.name = name
        self.server = ""
        """What the gateway's file says of it."""
        self._path = folder / "gate.sock"
        self._tls: ssl.SSLContext | None = None
        if name == "tls":
            authority = trustme.CA()
            cert = authority.issue_cert("localhost")
            cert.private_key_pem.write_to_path(folder / "key.pem")
            cert.cert_chain_pems[0].write_to_path(folder / "cert.pem")
            self.server = "tls: {cert: cert.pem, key: key.pem}\n"
            self._tls = ssl.create_default_context()
            authority.configure_trust(self._tls)

    def at(self, text: str) -> str:
        """The gateway's file, listening there."""
        return text.replace("127.0.0.1:{port}", f"unix:{self._path}") if self.unix else text

    @property
    def unix(self) -> bool:
        return self.name == "unix"

    async def open(self, running: Running) -> tuple[Wire, GatewayProtocol]:
        """A connection's two ends."""
        before = connections(running)
        if self.unix:
            wire = Wire(*await asyncio.open_unix_connection(self._path))
        elif self._tls is not None:
            wire = await Wire.open(running.port, ssl=self._tls, server_hostname="localhost")
        else:
            wire = await Wire.open(running.port)

        def new() -> list[GatewayProtocol]:
            return [conn for conn in connections(running) if conn not in before]

        await until(new)
        return wire, new()[0]


TCP = Way()


async def start(
    start_gateway: StartGateway,
    origin: RawOrigin,
    folder: Path,
    *,
    store: str = "memory://",
    prefix: str = "lanes",
    server: str = "",
    upstream: str = "",
    way: Way = TCP,
) -> Running:
    """Routes `/c/` with a cache, `/l/` with two requests a day for each path, and `/o/`."""
    (folder / "policies").mkdir(exist_ok=True)
    (folder / "policies" / "caches.yaml").write_text(CACHES)
    text = f'store: {{{{url: "{store}", timeout: 5s, prefix: {prefix}}}}}\n' + GATEWAY.replace(
        "level: warning", "level: warning, access: json"
    )
    server = f"health_path: /-/ready\nmax_header_bytes: 4KiB\n{way.server}{server}"
    return await start_gateway(
        origin,
        text=way.at(text),
        server=server,
        upstream=upstream,
        routes=ROUTES,
        limits=LIMITS,
    )


def transports(running: Running) -> dict[GatewayProtocol, asyncio.Transport]:
    front = running.gateway._front
    assert front is not None
    return front.manager.connections_by_protocol


def connections(running: Running) -> list[GatewayProtocol]:
    return list(transports(running))


class Scene:
    """A client, its connection as the edge has it, and an origin that answers `/o/slow` when the
    gate is opened."""

    def __init__(self, running: Running, origin: RawOrigin, gate: Gate) -> None:
        self.running = running
        self.origin = origin
        self.gate = gate

    async def open(self, **options: object) -> "Scene":
        self.client = await Wire.open(self.running.port, **options)
        await until(lambda: connections(self.running))
        self.conn = connections(self.running)[-1]
        return self

    @property
    def transport(self) -> asyncio.Transport:
        """Known to the listener until the connection is lost, closed or not."""
        return transports(self.running)[self.conn]

    async def wait(self) -> None:
        """Asks for what takes its time; the origin has it."""
        before = self.gate.waiting
        await self.client.send(ask("/o/slow"))
        await until(lambda: self.gate.waiting > before)

    async def pile_up(self, enough: Callable[[], object]) -> int:
        """Asks for large hits, one by one, and reads none. Returns their number."""
        await self.client.ask(ask("/c/big"))
        served = self.running.gateway.metrics.route("cached").requests
        asked = 0

        def answered() -> bool:
            return sum(served.values()) > asked

        while not enough():
            await self.client.send(ask("/c/big"))
            asked += 1
            await until(lambda: enough() or answered())
        return asked

    async def take(self, count: int) -> None:
        """Reads so many large hits, each whole."""
        for _ in range(count):
            assert (await self.client.read_answer()).body == b"b" * BIG


StartScene = Callable[..., Awaitable[Scene]]
