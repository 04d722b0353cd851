"""CPU per request of the upstream client beside aiohttp's ClientSession, on uvloop.

Both ask the same origin, an asyncio server in a process of its own, over keep-alive connections
with 32 requests at a time. What is measured is the client's own CPU time, so the origin's speed
does not matter. Usage: python bench/upstream_client.py [REQUESTS]
"""

import asyncio
import multiprocessing
import socket
import sys
import time
from collections.abc import Awaitable, Callable

import aiohttp
import uvloop

from proxy.core.message import Outgoing
from proxy.edge.upstream.client import HttpUpstream
from proxy.metrics import UpstreamTally
from proxy.policy.snapshot import Endpoint, UpstreamPlan, UpstreamTls

CONCURRENCY = 32
LINES = [
    ("Accept", "application/json"),
    ("User-Agent", "bench"),
    ("X-Forwarded-For", "192.0.2.7"),
    ("X-Forwarded-Proto", "http"),
    ("X-Forwarded-Host", "api.example.com"),
    ("Via", "1.1 sluicegate"),
    ("X-Request-Id", "0123456789abcdef0123456789abcdef"),
]
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Mon, 24 Nov 2025 04:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 800\r\nConnection: keep-alive\r\n"
    b'ETag: "69239f1-320"\r\nCache-Control: max-age=60\r\n\r\n' + b"x" * 800
)


class Origin(asyncio.Protocol):
    """Answers every read, which is one whole request here."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER)  # type: ignore[attr-defined]


def serve(listener: socket.socket) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Origin, sock=listener)
        await server.serve_forever()

    uvloop.run(main())


async def measure(name: str, ask: Callable[[], Awaitable[int]], requests: int) -> None:
    async def ask_on(times: int) -> None:
        for _ in range(times):
            assert await ask() == 800

    await asyncio.gather(*(ask_on(20) for _ in range(CONCURRENCY)))
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(ask_on(requests // CONCURRENCY) for _ in range(CONCURRENCY)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"{name:>24}: {cpu / requests * 1e6:6.1f} µs CPU/request, {requests / wall:8.0f} req/s")


async def ours(port: int, requests: int) -> None:
    plan = UpstreamPlan(
        name="bench",
        endpoints=(Endpoint("http", "127.0.0.1", port, ""),),
        balance="round_robin",
        connect_timeout=1.0,
        response_timeout=10.0,
        read_timeout=30.0,
        deadline=30.0,
        idle_timeout=4.0,
        max_connections=256,
        queue=100,
        queue_timeout=1.0,
        dns_refresh=30.0,
        tunnel_idle_timeout=3600.0,
        tls=UpstreamTls(),
        host_header="preserve",
    )
    upstream = HttpUpstream(plan, UpstreamTally("bench"))

    async def ask() -> int:
        reply = await upstream.send(Outgoing("GET", "/items/1", "api.example.com", LINES, None))
        return len(reply.body)

    await measure("HttpUpstream", ask, requests)
    await upstream.close()


async def theirs(port: int, requests: int) -> None:
    url = f"http://127.0.0.1:{port}/items/1"
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=256),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    ) as session:

        async def ask() -> int:
            async with session.get(url, headers=LINES, allow_redirects=False) as answer:
                return len(await answer.read())

        await measure("aiohttp.ClientSession", ask, requests)


def main() -> None:
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 64_000
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    origin = multiprocessing.Process(target=serve, args=(listener,), daemon=True)
    origin.start()
    port = listener.getsockname()[1]
    for _ in range(3):
        uvloop.run(ours(port, requests))
        uvloop.run(theirs(port, requests // 4))
    origin.terminate()
    origin.join()


if __name__ == "__main__":
    main()
