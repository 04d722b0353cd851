"""The memory of one whole gateway: at rest, with 1,000,000 limit keys, with its cache full.

    python -m bench.resident

The resident set (VmRSS) of one worker with everything on (bench/everything_on.py), a new one each
time. The keys come over HTTP, one request each, as hits on one URL: a token_bucket per key, none of
which is idle at the end. The answers are 0.8 KB each, of different URLs, until the cache's own
account has its 64 MiB full: beside a small answer its record takes the most, so this is the worst.
"""

import contextlib
import itertools
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench import everything_on
from bench.contest import LOAD_CORE, PROXY_CORE
from bench.memory_keys import resident
from bench.proxies import Place
from bench.tools import Origin, finish_wrk, free_port, get, nginx_origin, running, start_wrk

KEYS = 1_000_000
CACHE = 64 << 20
"""Bytes: the default of `store.cache.memory`."""
MIB = 1 << 20


class Gateway(NamedTuple):
    """One that runs."""

    url: str
    admin: str
    pid: int

    @property
    def mebibytes(self) -> float:
        return resident(self.pid) / MIB

    def metric(self, name: str) -> float:
        """The sum of a metric's samples, by their name with labels, as a pattern."""
        text = get(f"{self.admin}/metrics").body.decode()
        return sum(map(float, re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)))


@contextlib.contextmanager
def _gateway(origin: Origin, program: str) -> Iterator[Gateway]:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), free_port(), free_port(), origin.port, 0)
        started = everything_on.many_keys(place, program)
        with running(*started.command, ready=started.ready, core=PROXY_CORE) as process:
            url, admin = (f"http://127.0.0.1:{port}" for port in (place.port, place.admin))
            yield Gateway(url, admin, process.pid)


def _load(gateway: Gateway, path: str, first: int, seconds: float) -> int:
    """Sends what was never sent before, counted from `first` on; how many answers came."""
    url = f"{gateway.url}{path}/{first}"
    load = finish_wrk(start_wrk(url, "unique.lua", seconds=seconds, core=LOAD_CORE))
    if any(load.socket_errors.values()):
        raise RuntimeError(f"{url}: {load.socket_errors}")
    return load.requests


def at_rest(origin: Origin, program: str = sys.executable) -> float:
    """MiB after one answer."""
    with _gateway(origin, program) as gateway:
        get(f"{gateway.url}/api/users/1")
        return gateway.mebibytes


def with_keys(origin: Origin, program: str = sys.executable) -> float:
    """MiB after a request by each of so many keys, or a few more."""
    with _gateway(origin, program) as gateway:
        done = _load(gateway, "/api/keys", 0, 2)
        per_second = done / 2
        while done < KEYS:
            # Ten seconds at most, so that the last turn is not much longer than it has to be.
            seconds = min(10, max(1, round((KEYS - done) / per_second)))
            done += _load(gateway, "/api/keys", 2 * done, seconds)
        return gateway.mebibytes


def with_answers(origin: Origin, program: str = sys.executable) -> float:
    """MiB when the cache has no room left."""
    with _gateway(origin, program) as gateway:
        for turn in itertools.count():
            _load(gateway, "/api/urls", turn * 1_000_000, 2)
            if gateway.metric(r'sluicegate_cache_bytes\{tier="memory"\}') > 0.99 * CACHE:
                return gateway.mebibytes
            if turn == 20:
                raise RuntimeError("the cache does not fill")
    raise AssertionError("counting does not end")


def main() -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        origin = stack.enter_context(
            nginx_origin(folder, LOAD_CORE, {"Cache-Control": "max-age=600"})
        )
        print(f"at rest: {at_rest(origin):.0f} MiB", flush=True)
        print(f"with {KEYS:,} keys: {with_keys(origin):.0f} MiB", flush=True)
        print(f"with {CACHE // MIB} MiB cached: {with_answers(origin):.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
