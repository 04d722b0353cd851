"""SIGTERM under load: a client whose connection was established is answered, never reset.

Every client connects anew for each request, so at any moment some connections are in the accept
queue, and some are accepted whose request was not read yet.
"""

import asyncio
import signal
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from fleet_kit import BIG, Fleet
from rawhttp import RawOrigin, echo
from redisservers import RedisServer, RedisServers

ROUNDS = 5
CLIENTS = 12
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    servers = RedisServers(tmp_path_factory.mktemp("redis"))
    yield servers.start()
    servers.stop()


@pytest.fixture(params=[1, 2], ids=["one-worker-memory", "two-workers-redis"])
async def fleet(
    tmp_path: Path, request: pytest.FixtureRequest, redis: RedisServer
) -> AsyncIterator[Fleet]:
    """Not started. Every answer but the first few is a 429: many connections a second."""
    async with AsyncExitStack() as stack:
        origin = await RawOrigin(echo).start()
        stack.push_async_callback(origin.stop)
        workers: int = request.param
        fleet = Fleet(tmp_path, origin.port, workers, f"  workers: {workers}", BIG)
        store = f"store: {{url: {redis.url}, timeout: 2s}}" if workers > 1 else ""
        fleet.write("first", more=store)
        stack.push_async_callback(fleet.stop)
        yield fleet


class Clients:
    """Threads that connect, ask and read to the end, until the port refuses them. `seen` counts
    what became of connections that were established."""

    def __init__(self, port: int) -> None:
        self.seen: Counter[str] = Counter()
        self._port = port
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while True:
            try:
                client = socket.create_connection(("127.0.0.1", self._port), timeout=10)
            except OSError:
                return  # refused: it may be
            with client:
                try:
                    client.sendall(REQUEST)
                    answer = client.recv(65536)
                except OSError as error:
                    self.seen[type(error).__name__] += 1
                else:
                    self.seen["answered" if answer.startswith(b"HTTP/1.1 ") else "cut"] += 1


@pytest.mark.timeout(120)
async def test_sigterm_resets_no_established_connection(fleet: Fleet) -> None:
    seen: Counter[str] = Counter()
    for _ in range(ROUNDS):
        await fleet.start_by_file()
        await fleet.until_ready()
        clients = Clients(fleet.port)
        while clients.seen["answered"] < 20 * CLIENTS:
            await asyncio.sleep(0.01)
        fleet.signal(signal.SIGTERM)
        status, log = await fleet.end()
        assert status == 0, log
        await asyncio.to_thread(clients.join)
        seen += clients.seen
    assert set(seen) == {"answered"}, seen
