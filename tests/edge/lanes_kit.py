"""A gateway with some of everything, and its connections as the edge has them."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from edge_kit import GATEWAY, Running, StartGateway
from rawhttp import RawOrigin, Seen, Wire, echo

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
    """An origin's script: what `ANSWERS` has, else an echo; `/o/slow` waits until it is opened."""

    def __init__(self) -> None:
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
            await echo(wire, seen)
            return
        head, _, body = answer.rpartition(b"\r\n\r\n")
        await wire.send(head + b"\r\n\r\n" if seen.method == "HEAD" else head + b"\r\n\r\n" + body)


async def start(
    start_gateway: StartGateway,
    origin: RawOrigin,
    folder: Path,
    *,
    store: str = "memory://",
    prefix: str = "lanes",
    server: str = "",
) -> Running:
    """Routes `/c/` with a cache, `/l/` with two requests a day for each path, and `/o/`."""
    (folder / "policies").mkdir(exist_ok=True)
    (folder / "policies" / "caches.yaml").write_text(CACHES)
    text = f'store: {{{{url: "{store}", timeout: 5s, prefix: {prefix}}}}}\n' + GATEWAY.replace(
        "level: warning", "level: warning, access: json"
    )
    server = f"health_path: /-/ready\nmax_header_bytes: 4KiB\n{server}"
    return await start_gateway(origin, text=text, server=server, routes=ROUTES, limits=LIMITS)


def connections(running: Running) -> list[GatewayProtocol]:
    front = running.gateway._front
    assert front is not None
    return list(front.manager.connections_by_protocol)


async def connected(running: Running, wire: Wire) -> GatewayProtocol:
    """The gateway's end of a client's connection."""
    name = wire.writer.get_extra_info("sockname")

    def mine() -> list[GatewayProtocol]:
        return [
            conn
            for conn in connections(running)
            if conn.transport is not None and conn.transport.get_extra_info("peername") == name
        ]

    await until(mine)
    return mine()[0]
