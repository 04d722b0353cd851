"""What passing a request through costs inside the gateway, without sockets.

    python -m bench.pass_path [--rounds 60] [--profile]

As bench/hit_path.py, for a route without a cache: the upstream's connection leads to an origin in
the same process that answers in the next turn of the event loop. One request at a time.
"""

import argparse
import asyncio
import cProfile
import pstats
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench.hit_path import BODY, REQUESTS, HitPath, least, reference
from proxy.core.dates import imf_fixdate
from proxy.edge.upstream.client import HttpUpstream
from proxy.edge.upstream.connection import Connection
from proxy.loops import loop_factory

ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.24.0\r\nDate: %b\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nConnection: keep-alive\r\n"
    b'ETag: "69239f10-320"\r\nCache-Control: max-age=600\r\n\r\n%b'
    % (imf_fixdate(int(time.time())).encode(), len(BODY), BODY)
)
"""As nginx would have said it: every server with a clock sends Date (RFC 9110 §6.6.1)."""


class Origin(asyncio.Transport):
    """An upstream's connection that answers whatever is written."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._ours, self._theirs = socket.socketpair()

    def write(self, data: Any) -> None:
        self._loop.call_soon(self._answer)

    def _answer(self) -> None:
        size = len(ANSWER)
        self._connection.get_buffer(size)[:size] = ANSWER
        self._connection.buffer_updated(size)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._ours if name == "socket" else default

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing waits here."""

    def pause_reading(self) -> None:
        """The answers are small."""

    def resume_reading(self) -> None:
        """See above."""

    def abort(self) -> None:
        self._ours.close()
        self._theirs.close()
        self._loop.call_soon(self._connection.connection_lost, None)


class PassPath:
    """A running gateway, a connection to it, and the requests, none of which is cached."""

    def __init__(self, path: HitPath) -> None:
        self._path = path
        passed = [one.replace(b"/api/items/", b"/service-7/", 1) for one in path.requests]
        self.requests = [one.replace(b" HTTP", b"/view HTTP", 1) for one in passed]
        # The upstream's connection to an Origin, to be used before any other.
        upstream = path.gateway.front.snapshot.upstreams["origin"].upstream
        assert isinstance(upstream, HttpUpstream)
        connection = Connection(upstream.pool, 0, "")
        connection.connection_made(Origin(connection))
        upstream.pool.give(connection, None)

    @classmethod
    async def open(cls, folder: Path) -> "PassPath":
        return cls(await HitPath.open(folder))

    @property
    def last(self) -> bytes:
        """The answer to the last request."""
        return bytes(self._path.transport.last)

    async def run(self, count: int = REQUESTS) -> None:
        """So many of the requests, once each."""
        protocol = self._path.protocol
        receive = protocol.received
        for one in self.requests[:count]:
            receive(one)
            while not protocol.idle:  # noqa: ASYNC110  there is no event to wait for
                await asyncio.sleep(0)

    async def close(self) -> None:
        await self._path.close()


async def run(rounds: int, profiler: cProfile.Profile | None) -> tuple[float, float]:
    """µs per request, and how many references that is; the least of the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        path = await PassPath.open(Path(folder))
        await path.run()
        costs, units = [], []
        if profiler is not None:
            profiler.enable()
        for _ in range(rounds):
            costs.append(await _timed(path.run) / REQUESTS)
            units.append(least(reference, REQUESTS) / REQUESTS)
        if profiler is not None:
            profiler.disable()
        await path.close()
    return min(costs) * 1e6, min(costs) / min(units)


async def _timed(call: Callable[[], Awaitable[None]]) -> float:
    began = time.process_time()
    await call()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="What passing through costs without sockets.")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    profiler = cProfile.Profile() if asked.profile else None
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        microseconds, references = runner.run(run(10 if profiler else asked.rounds, profiler))
    if profiler is not None:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(60)
    print(f"{microseconds:.1f} µs of CPU per request passed, {references:.2f} references")


if __name__ == "__main__":
    main()
