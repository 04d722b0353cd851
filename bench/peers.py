"""Requests per second beside other proxies: pass-through with one limit, local or in Redis.

    python -m bench.peers [--rounds 5] [--seconds 4] [--connections 32] [--only NAME ...]

Starts an nginx origin (0.8 KB), a redis-server, the gateway and the peers of bench/proxies.py that
it finds. The proxy under test has one core; origin, Redis and wrk share the other. wrk sends 1,000
different requests (path, query, API key, traceparent) over and over. The contestants take turns in
every round; the tables show medians over the rounds, and the CPU time per request, which other
work on the machine disturbs less.
"""

import contextlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import redis

from bench.contest import (
    HEADS,
    LOAD_CORE,
    PROXY_CORE,
    ask,
    cells,
    markdown,
    measure,
    rate,
    tell_conditions,
    tell_load_average,
)
from bench.proxies import PROXIES, Place, Proxy
from bench.tools import (
    BODY,
    Load,
    RedisServer,
    cpu_seconds,
    free_port,
    get,
    nginx_origin,
    redis_server,
    running,
)

TARGET = 0.6
"""Of the requests per second with a memory limit, what a limit in Redis has to leave."""


@dataclass
class Runner:
    """A contestant that runs, and what was measured of it."""

    proxy: Proxy
    version: str
    url: str
    pid: int
    redis: RedisServer
    admin: str | None = None
    refused: bool = False
    """Whether it is to answer every request with an error."""
    loads: list[Load] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """µs of CPU per request, the proxy's own."""
    redis_cpu: list[float] = field(default_factory=list)
    """The same of Redis."""

    @property
    def rate(self) -> float:
        return rate(self.loads)

    def turn(self, seconds: float, connections: int) -> None:
        """One measurement."""
        own, server = cpu_seconds(self.pid), cpu_seconds(self.redis.process.pid)
        load = measure(self.url, seconds, connections, refused=self.refused)
        self.loads.append(load)
        self.cpu.append((cpu_seconds(self.pid) - own) / load.requests * 1e6)
        self.redis_cpu.append((cpu_seconds(self.redis.process.pid) - server) / load.requests * 1e6)

    def check(self) -> None:
        """It passes through what the origin answered, soon: Traefik listens before it has read
        its routes."""
        until = time.monotonic() + 10
        while True:
            answer = get(f"{self.url}/api/users/1")
            if (answer.status, answer.body) == (200, BODY):
                return
            if time.monotonic() > until:
                raise RuntimeError(f"{self.proxy.name} does not pass through: {answer}")
            time.sleep(0.1)

    def never_alone(self) -> None:
        """What counts in Redis did so all the time."""
        if self.admin is None:
            return
        text = get(f"{self.admin}/metrics").body.decode()
        for number in re.findall(r'decision="degraded"\} ([0-9.e+]+)', text):
            if float(number):
                raise RuntimeError(f"{number} decisions were made without Redis: measure again")


def version(program: str) -> str:
    """What a program says of its version, as numbers; "" where it says nothing."""
    for option in ("version", "-v"):
        told = subprocess.run([program, option], capture_output=True, text=True, check=False)
        found = re.search(r"\d+\.\d+\.\d+", told.stdout + told.stderr)
        if found:
            return found[0]
    return ""


def start(
    stack: contextlib.ExitStack, proxy: Proxy, folder: Path, origin: int, server: RedisServer
) -> Runner | None:
    """Starts one contestant, if its program is there."""
    program = proxy.program()
    if program is None:
        print(f"{proxy.name} is not there ({proxy.hint}): left out", file=sys.stderr)
        return None
    folder.mkdir()
    place = Place(folder, free_port(), free_port(), origin, server.port)
    started = proxy.prepare(place, program)
    process = stack.enter_context(
        running(*started.command, ready=started.ready, core=PROXY_CORE, env={"HOME": str(folder)})
    )
    is_ours = proxy.name.startswith("Sluicegate")
    told = "" if is_ours else version(program)
    admin = f"http://127.0.0.1:{place.admin}" if is_ours else None
    url = f"http://127.0.0.1:{place.port}"
    return Runner(proxy, told, url, process.pid, server, admin)


def counted_in_redis(runners: list[Runner], server: RedisServer) -> None:
    """After the warm-up every contestant that counts in Redis has keys there (a database each)."""
    with redis.Redis(port=server.port) as client:
        databases = client.info("keyspace")
    expected = sum(runner.proxy.shared for runner in runners)
    if len(databases) != expected or any(told["keys"] < 900 for told in databases.values()):
        raise RuntimeError(f"{expected} proxies should count in Redis, but it has {databases}")


def title(runner: Runner) -> str:
    return f"{runner.proxy.name} {runner.version}".strip()


def table(runners: list[Runner], memory: dict[str, float]) -> str:
    """One table as Markdown. `memory`: req/s of the same proxies with a limit of their own."""
    shared = runners[0].proxy.shared
    ours = next((runner.rate for runner in runners if runner.proxy.name == "Sluicegate"), None)
    heads = ["proxy", "its limit", *HEADS, "µs CPU"]
    heads += ["µs CPU of Redis", "of its own local limit"] if shared else []
    heads += ["ratio"] if ours else []
    rows = []
    for runner in runners:
        row = [title(runner), runner.proxy.limit, *cells(runner.loads)]
        row.append(f"{statistics.median(runner.cpu):.1f}")
        if shared:
            before = memory.get(runner.proxy.name)
            row.append(f"{statistics.median(runner.redis_cpu):.1f}")
            row.append(f"{runner.rate / before:.2f}" if before else "")
        if ours:
            row.append(f"{runner.rate / ours:.2f}")
        rows.append(row)
    return markdown(heads, rows)


def report(runners: list[Runner]) -> int:
    """Prints the tables; the exit status."""
    local = [runner for runner in runners if not runner.proxy.shared]
    shared = [runner for runner in runners if runner.proxy.shared]
    memory = {runner.proxy.name: runner.rate for runner in local}
    if local:
        print(f"\nOne limit in the process\n\n{table(local, memory)}")
    if shared:
        print(f"\nOne limit in Redis\n\n{table(shared, memory)}")
    ours = [runner.rate for runner in shared if runner.proxy.name == "Sluicegate"]
    if not ours or "Sluicegate" not in memory:
        return 0
    ratio = ours[0] / memory["Sluicegate"]
    print(f"\nSluicegate with its limit in Redis: {ratio:.2f} of memory (target: {TARGET})")
    return 0 if ratio >= TARGET else 1


def main() -> int:
    asked = ask(str(__doc__), seconds=4, only="Sluicegate Traefik")
    tell_conditions(asked)
    tell_load_average("start")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        origin = stack.enter_context(nginx_origin(folder, LOAD_CORE))
        server = stack.enter_context(redis_server(folder, LOAD_CORE))
        runners: list[Runner] = []
        for place, proxy in enumerate(PROXIES):
            if asked.only and proxy.name not in asked.only:
                continue
            runner = start(stack, proxy, folder / str(place), origin.port, server)
            if runner is not None:
                runner.check()
                measure(runner.url, 1, asked.connections)  # warm up
                runners.append(runner)
        counted_in_redis(runners, server)
        for _ in range(asked.rounds):
            for runner in runners:
                runner.turn(asked.seconds, asked.connections)
        for runner in runners:
            runner.never_alone()
    tell_load_average("end")
    return report(runners)


if __name__ == "__main__":
    sys.exit(main())
