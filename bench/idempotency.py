"""What a POST with an Idempotency-Key costs beside a plain one, and what its replay does.

    python -m bench.idempotency [--rounds 9] [--seconds 3] [--connections 32]

The gateway with one limit, without a policy, and with one whose records are in memory or in Redis:
the same program, origin and load, 200 bytes up and 0.8 KB back. The one under test has one core;
origin, Redis and wrk share the other. The contestants take turns, in the other direction in every
second round. Costs are compared within a round only, so that what else the machine does in it hits
all of them; the table has medians over the rounds.
"""

import contextlib
import statistics
import sys
import tempfile
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from bench import proxies
from bench.contest import (
    HEADS,
    LOAD_CORE,
    PROXY_CORE,
    ask,
    cells,
    markdown,
    tell_conditions,
    tell_load_average,
)
from bench.proxies import Place
from bench.tools import (
    Load,
    cpu_seconds,
    finish_wrk,
    free_port,
    nginx_origin,
    redis_server,
    running,
    start_wrk,
)

POLICY = """
idempotency: {{pay: {{scope: ["header:X-Api-Key"], ttl: {ttl}}}}}
"""
ROUTE = "    idempotency: pay"
SHORT, LONG = "5s", "24h"
"""ttl. New keys are forgotten soon, as memory holds no more than some seconds of them."""
NEW, AGAIN = "/api/pay", "/api/again"


@dataclass
class Contestant:
    """What is asked of which gateway, and what was measured, round by round."""

    url: str
    pid: int
    redis: int
    """The pid of Redis."""
    loads: list[Load] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """µs of the gateway's CPU per request."""
    redis_cpu: list[float] = field(default_factory=list)

    def turn(self, seconds: float, connections: int) -> None:
        own, servers = cpu_seconds(self.pid), cpu_seconds(self.redis)
        load = measure(self.url, seconds, connections)
        self.loads.append(load)
        self.cpu.append((cpu_seconds(self.pid) - own) / load.requests * 1e6)
        self.redis_cpu.append((cpu_seconds(self.redis) - servers) / load.requests * 1e6)


def measure(url: str, seconds: float, connections: int) -> Load:
    """One turn of wrk; raises where a request failed or was refused."""
    wrk = start_wrk(url, "payments.lua", seconds=seconds, connections=connections, core=LOAD_CORE)
    load = finish_wrk(wrk)
    if any(load.socket_errors.values()):
        raise RuntimeError(f"{url}: {load.socket_errors}")
    return load


def start(
    stack: contextlib.ExitStack, folder: Path, origin: int, store: str, ttl: str | None
) -> tuple[str, int]:
    """A gateway, with a policy where it has a ttl: its URL and its pid."""
    folder.mkdir()
    place = Place(folder, free_port(), free_port(), origin, 0)
    keys = {"route": ROUTE, "more": POLICY.format(ttl=ttl)} if ttl else {}
    started = proxies.gateway(place, sys.executable, store=store, **keys)
    process = stack.enter_context(running(*started.command, ready=started.ready, core=PROXY_CORE))
    url = f"http://127.0.0.1:{place.port}"
    see_replayed(url, ttl is not None)
    return url, process.pid


def see_replayed(url: str, policy: bool) -> None:
    """Raises where a repeat is not what it should be."""
    fields = {"Idempotency-Key": url.rpartition(":")[2], "X-Api-Key": "key-1"}
    request = urllib.request.Request(f"{url}{NEW}", b"{}", fields)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    told = []
    for _ in range(2):
        with opener.open(request, timeout=5) as answer:
            told.append(answer.headers.get("Idempotent-Replayed") is not None)
    if told != [False, policy]:
        raise RuntimeError(f"{url}: replayed {told}")


def table(contestants: dict[str, Contestant]) -> str:
    """The results as Markdown."""
    plain = next(iter(contestants.values()))
    rows = []
    for name, one in contestants.items():
        more = [own - bare for own, bare in zip(one.cpu, plain.cpu, strict=True)]
        rows.append(
            [
                name,
                *cells(one.loads),
                f"{statistics.median(one.cpu):.0f}",
                ""
                if one is plain
                else f"{statistics.median(more):+.0f} ({min(more):+.0f} to {max(more):+.0f})",
                f"{statistics.median(one.redis_cpu):.0f}" if "Redis" in name else "",
            ]
        )
    heads = ["", *HEADS, "µs CPU", "beside plain", "Redis' µs CPU"]
    return markdown(heads, rows)


def main() -> int:
    asked = ask(str(__doc__), seconds=3)
    tell_conditions(asked)
    tell_load_average("start")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        origin = stack.enter_context(nginx_origin(folder, LOAD_CORE)).port
        redis = stack.enter_context(redis_server(folder, LOAD_CORE))
        memory = 'url: "memory://"'
        shared = f'{memory}, timeout: 1s, idempotency: {{url: "redis://127.0.0.1:{redis.port}"}}'
        contestants = {}
        for place, (name, store, ttl, path) in enumerate(
            (
                ("plain", memory, None, NEW),
                ("claimed, memory", memory, SHORT, NEW),
                ("claimed, Redis", shared, SHORT, NEW),
                ("replayed, memory", memory, LONG, AGAIN),
                ("replayed, Redis", shared, LONG, AGAIN),
            )
        ):
            url, pid = start(stack, folder / str(place), origin, store, ttl)
            contestants[name] = Contestant(f"{url}{path}", pid, redis.process.pid)
        for contestant in contestants.values():
            measure(contestant.url, 2, asked.connections)  # warm up
        for turn in range(asked.rounds):
            order = list(contestants.values())
            for contestant in order if turn % 2 == 0 else reversed(order):
                contestant.turn(asked.seconds, asked.connections)
    tell_load_average("end")
    print(f"\n{table(contestants)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
