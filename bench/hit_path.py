"""What a cache hit costs inside the gateway, without sockets: from the bytes of a request to the
bytes of its answer.

    python -m bench.hit_path [--rounds 60] [--profile]

A whole gateway with everything on that a user has on: a route among 200, two limits, a breaker, a
retry policy, the cache. 1,000 different requests (path, key, traceparent) go through one connection
whose transport leads nowhere; every one is a hit in memory. The table has the CPU time per request
and, since that depends on the machine and on who else works on it, what it is in units of a
*reference*: a fixed piece of plain Python, timed in turns with the requests. The least of the
rounds counts. `tests/test_hit_path.py` holds the units.
"""

import argparse
import asyncio
import cProfile
import pstats
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proxy.app import Gateway
from proxy.edge.protocol import GatewayProtocol
from proxy.loops import loop_factory

ROUTES = 200
REQUESTS = 1000
URLS = 100
KEYS = 50
BODY = b"x" * 800

GATEWAY = """
server: {{listen: "127.0.0.1:0"}}
log: {{level: warning}}
admin: {{listen: "127.0.0.1:0"}}
policies: [policies.yaml]
upstreams:
  origin: {{endpoints: ["http://127.0.0.1:{port}"], breaker: usual, retry: usual}}
routes:
{others}
  - name: items
    match: {{path: "/api/items/{{id}}"}}
    upstream: origin
    limits: [per-key, whole]
    cache: items
"""
POLICIES = """
limits:
  per-key: {algorithm: token_bucket, rate: 1000000/s, key: ["header:X-Api-Key|ip"]}
  whole: {algorithm: token_bucket, rate: 1000000/s, key: [global]}
caches: {items: {default_ttl: 600s}}
breakers: {usual: {consecutive_failures: 5}}
retries: {usual: {attempts: 3}}
"""
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: origin\r\n"
    b"Cache-Control: max-age=600\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


class Nowhere(asyncio.Transport):
    """A client's connection without a client."""

    last = b""
    """What was written last."""

    def write(self, data: Any) -> None:
        self.last = data

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 40000) if name == "peername" else default

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is open."""

    abort = pause_reading = resume_reading = close

    def get_write_buffer_size(self) -> int:
        return 0


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER)
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        writer.close()


def request(number: int) -> bytes:
    """One of the requests, as wrk or a service behind a tracer sends them."""
    return (
        f"GET /api/items/{number % URLS} HTTP/1.1\r\nHost: localhost:8080\r\n"
        f"User-Agent: bench\r\nAccept: */*\r\nX-Api-Key: key-{number % KEYS}\r\n"
        f"traceparent: 00-{number:032x}-{number:016x}-01\r\n\r\n"
    ).encode()


def reference() -> int:
    """Plain Python that no change of ours makes faster or slower: calls, texts, maps, lists."""
    index: dict[str, str] = {}
    for number in range(40):
        name, _, value = f"X-Name-{number}: value {number}".partition(": ")
        index[name.lower()] = value
    lines = [f"{name}: {value}\r\n" for name, value in index.items() if value]
    return len("".join(lines).encode("latin-1"))


class HitPath:
    """A running gateway, a connection to it, and the requests, all of them stored."""

    def __init__(self, gateway: Gateway, origin: asyncio.Server) -> None:
        self.gateway = gateway
        self._origin = origin
        self.requests = [request(number) for number in range(REQUESTS)]
        self.protocol: GatewayProtocol = gateway.front.manager()
        self.transport = Nowhere()
        self.protocol.connection_made(self.transport)

    @classmethod
    async def open(cls, folder: Path) -> "HitPath":
        origin = await asyncio.start_server(_serve, "127.0.0.1", 0)
        port = origin.sockets[0].getsockname()[1]
        others = "\n".join(
            f'  - {{name: r{n}, match: {{path: "/service-{n}/{{id}}/view"}}, upstream: origin}}'
            for n in range(ROUTES)
        )
        (folder / "gateway.yaml").write_text(GATEWAY.format(port=port, others=others))
        (folder / "policies.yaml").write_text(POLICIES)
        gateway = Gateway(folder / "gateway.yaml")
        await gateway.start()
        path = cls(gateway, origin)
        for one in path.requests[:URLS]:
            path.protocol.received(one)
            while not path.protocol.idle:  # noqa: ASYNC110  there is no event to wait for
                await asyncio.sleep(0.001)
        path.protocol.received(path.requests[0])
        if b"Cache-Status: sluicegate; hit" not in path.transport.last:
            raise RuntimeError(f"no hit: {path.transport.last!r}")
        return path

    def run(self) -> None:
        """Every request once."""
        receive = self.protocol.received
        for one in self.requests:
            receive(one)

    async def close(self) -> None:
        self.protocol.connection_lost(None)
        await self.gateway.stop()
        self._origin.close()
        await self._origin.wait_closed()


def least(call: Callable[[], object], times: int) -> float:
    """CPU seconds of `times` calls."""
    began = time.process_time()
    for _ in range(times):
        call()
    return time.process_time() - began


async def measure(rounds: int) -> tuple[float, float]:
    """µs per hit, and how many references that is; the least of the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        path = await HitPath.open(Path(folder))
        hits, units = [], []
        for _ in range(rounds):
            hits.append(least(path.run, 1) / REQUESTS)
            units.append(least(reference, REQUESTS) / REQUESTS)
        await path.close()
    return min(hits) * 1e6, min(hits) / min(units)


async def profile() -> None:
    """Prints where the time goes (with the profiler's own share, which calls pay)."""
    with tempfile.TemporaryDirectory() as folder:
        path = await HitPath.open(Path(folder))
        profiler = cProfile.Profile()
        profiler.enable()
        for _ in range(10):
            path.run()
        profiler.disable()
        await path.close()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(50)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a cache hit costs without sockets.")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        if asked.profile:
            runner.run(profile())
            return
        microseconds, references = runner.run(measure(asked.rounds))
    print(f"{microseconds:.1f} µs of CPU per hit, {references:.2f} references")


if __name__ == "__main__":
    main()
