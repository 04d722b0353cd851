"""A constant load, and how long its answers take, counted from when each request was due.

    python -m bench.constant_rate URL [--rate 5000] [--seconds 5] [--connections 32]

Requests are due at even intervals, whatever becomes of those before. Each takes the connection that
has been free the longest; where none is free it waits for one, and the wait is part of its latency.
A load that only asks again once it was answered leaves out all those who would have come during a
slow answer (coordinated omission); this one does not. One process without threads, which
sleeps by select(2): its timeout is in microseconds, that of an event loop in milliseconds, and
would send in bursts. It yields the core to whoever wants it, as an origin beside it that had to
wait for the end of a time slice would be taken for a slow proxy. How late it was itself is told,
too.
"""

import argparse
import gc
import json
import os
import random
import re
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

PATIENCE = 10.0
"""Seconds without any answer after which it gives up."""

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)


@dataclass(frozen=True)
class Timed:
    """What was seen. Times in microseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    p999: float
    slowest: float
    late: float
    """By how much the sender itself was late, p99: a request was due, and a connection free."""

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


class Connection:
    """One connection, with at most one request on it."""

    __slots__ = ("due", "freed", "seen", "socket")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0
        """When its request should have been sent, in ns."""
        self.freed = 0
        """Since when it has none, in ns."""
        self.seen = b""

    def read(self) -> bool:
        """Whether the answer is whole; raises where it is not a 200 with a Content-Length."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the connection was closed")
        self.seen = data = self.seen + data if self.seen else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return False
        found = _LENGTH.search(data, 0, end + 2)
        if found is None or not data.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(f"not an answer that can be counted: {data[:end]!r}")
        missing = end + 4 + int(found[1]) - len(data)
        if missing < 0:
            raise ConnectionError("more than one answer")
        if missing == 0:
            self.seen = b""
        return missing == 0


def differing(host: str) -> list[bytes]:
    """The 1,000 requests of differing.lua."""
    chance = random.Random(1)
    return [
        f"GET /api/users/{number}?page={number % 7} HTTP/1.1\r\nHost: {host}\r\n"
        f"X-Api-Key: key-{number}\r\nAccept: application/json\r\nUser-Agent: constant\r\n"
        f"traceparent: 00-{chance.getrandbits(128):032x}-{chance.getrandbits(64):016x}-01\r\n"
        "\r\n".encode()
        for number in range(1, 1001)
    ]


def send(
    address: tuple[str, int],
    requests: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    connections: int,
) -> Timed:
    """Sends `rate` requests per second for so long; raises ConnectionError where an answer is not
    as it should be, TimeoutError where none comes."""
    free = deque(Connection(address) for _ in range(connections))
    every = select.epoll()
    known = {connection.socket.fileno(): connection for connection in free}
    for number in known:
        every.register(number, select.EPOLLIN)
    count, step = max(1, round(rate * seconds)), 1e9 / rate
    latencies: list[int] = []
    late: list[int] = []
    clock = time.perf_counter_ns
    gc.disable()  # its pauses would be taken for those of the server
    began = clock()
    sent = 0
    try:
        while len(latencies) < count:
            now = clock()
            while free and sent < count and (due := began + int(sent * step)) <= now:
                connection = free.popleft()
                connection.due = due
                connection.socket.sendall(requests[sent % len(requests)])
                late.append(now - max(due, connection.freed))
                sent += 1
                now = clock()
            waits = free and sent < count
            timeout = max(0.0, (began + sent * step - now) / 1e9) if waits else PATIENCE
            if not select.select([every], [], [], timeout)[0]:
                if not waits:
                    raise TimeoutError(f"no answer for {PATIENCE:g} s")
                continue
            for number, _ in every.poll(0):
                connection = known[number]
                if connection.read():
                    connection.freed = now = clock()
                    latencies.append(now - connection.due)
                    free.append(connection)
        taken = (clock() - began) / 1e9
    finally:
        gc.enable()
        every.close()
        for connection in known.values():
            connection.socket.close()
    return _summary(latencies, late, taken)


def percentile(ordered: Sequence[int], share: float) -> float:
    """The value that this share of the others does not exceed (nearest rank); in the same unit."""
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def _summary(latencies: list[int], late: list[int], seconds: float) -> Timed:
    latencies.sort()
    late.sort()
    p50, p99, p999 = (percentile(latencies, share) / 1000 for share in (0.5, 0.99, 0.999))
    slowest, behind = latencies[-1] / 1000, percentile(late, 0.99) / 1000
    return Timed(len(latencies), seconds, p50, p99, p999, slowest, behind)


def constant(url: str, *, rate: float, seconds: float, connections: int, core: int) -> Timed:
    """The same in a process of its own, pinned to a core."""
    shape = ["--rate", str(rate), "--seconds", str(seconds), "--connections", str(connections)]
    command = ["taskset", "-c", str(core), sys.executable, "-m", "bench.constant_rate", url]
    told = subprocess.run([*command, *shape], stdout=subprocess.PIPE, text=True, check=True)
    return Timed(**json.loads(told.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=5000, help="requests per second")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=32)
    asked = parser.parse_args()
    parts = urlsplit(asked.url)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    timed = send(
        (parts.hostname or "127.0.0.1", parts.port or 80), differing(parts.netloc),
        rate=asked.rate, seconds=asked.seconds, connections=asked.connections,
    )  # fmt: skip
    print(json.dumps(asdict(timed)))


if __name__ == "__main__":
    main()
