"""Requests per second of cache hits with one local limit, beside nginx, HAProxy and Varnish.

    python -m bench.cache [--rounds 5] [--seconds 3] [--connections 32] [--only NAME ...]

Starts an nginx origin (0.8 KB, `Cache-Control: max-age=600`), the gateway and those of
bench/cache_proxies.py that it finds. The proxy under test has one core; origin and wrk share the
other. wrk sends 1,000 different requests (path, query, API key, traceparent) over and over. The
contestants take turns in every round; the tables show medians over the rounds. The origin counts
what reaches it: where that is anything after the warm-up, the measurement fails.
"""

import contextlib
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from bench.cache_proxies import PROXIES, CachingProxy, version
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
from bench.proxies import Place
from bench.tools import (
    BODY,
    Load,
    Origin,
    cpu_seconds,
    free_port,
    get,
    nginx_origin,
    running,
)


@dataclass
class Runner:
    """A contestant that runs, and what was measured of it."""

    proxy: CachingProxy
    version: str
    url: str
    pid: int
    origin: Origin
    checks: int = 0
    """How often in a second it asks the origin for itself (health checks)."""
    loads: list[Load] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """µs of CPU per request, the proxy's own."""

    @property
    def title(self) -> str:
        return f"{self.proxy.name} {self.version}".strip()

    @property
    def rate(self) -> float:
        return rate(self.loads)

    def probe(self) -> None:
        """The second of two equal requests comes from the cache, and is the same."""
        url = f"{self.url}/api/probe"
        asked = []
        for _ in range(2):
            before = self.origin.requests()
            answer = get(url)
            asked.append(self.origin.requests() - before - 1)
            if (answer.status, answer.body) != (200, BODY):
                raise RuntimeError(f"{self.title}: not what the origin answered: {answer}")
            if answer.headers["Cache-Control"] != "max-age=600":
                raise RuntimeError(f"{self.title}: fields are missing: {answer}")
        if asked != [1, 0] and not self.checks:  # where there are checks, `turn` sees it
            raise RuntimeError(f"{self.title} does not cache: the origin was asked {asked} times")

    def turn(self, seconds: float, connections: int) -> None:
        """One measurement, of hits alone."""
        own, before = cpu_seconds(self.pid), self.origin.requests()
        load = measure(self.url, seconds, connections)
        fetched = self.origin.requests() - before - 1
        if fetched > self.checks * (seconds + 1):
            raise RuntimeError(f"{self.title} asked the origin {fetched} times")
        self.loads.append(load)
        self.cpu.append((cpu_seconds(self.pid) - own) / load.requests * 1e6)


def start(
    stack: contextlib.ExitStack, proxy: CachingProxy, folder: Path, origin: Origin
) -> Runner | None:
    """Starts one contestant, if its program is there."""
    program = proxy.program()
    if program is None:
        print(f"{proxy.name} is not there ({proxy.hint}): left out", file=sys.stderr)
        return None
    folder.mkdir()
    place = Place(folder, free_port(), free_port(), origin.port, 0)
    started = proxy.prepare(place, program)
    process = stack.enter_context(
        running(*started.command, ready=started.ready, core=PROXY_CORE, env={"HOME": str(folder)})
    )
    url = f"http://127.0.0.1:{place.port}"
    return Runner(proxy, version(proxy, program), url, process.pid, origin)


def table(runners: list[Runner]) -> str:
    """The results as Markdown."""
    ours = next((runner.rate for runner in runners if runner.proxy.name == "Sluicegate"), None)
    rows = [
        [
            runner.title,
            runner.proxy.cache,
            runner.proxy.limit,
            *cells(runner.loads),
            f"{statistics.median(runner.cpu):.1f}",
            *([f"{runner.rate / ours:.2f}"] if ours else []),
        ]
        for runner in runners
    ]
    heads = ["proxy", "its cache", "its limit", *HEADS, "µs CPU", *(["ratio"] if ours else [])]
    return markdown(heads, rows)


def main() -> int:
    asked = ask(str(__doc__), seconds=3, only="Sluicegate Varnish")
    tell_conditions(asked)
    tell_load_average("start")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o711)  # nginx's worker is another user, where this one is root
        fresh = {"Cache-Control": "max-age=600"}
        origin = stack.enter_context(nginx_origin(folder, LOAD_CORE, fresh))
        runners: list[Runner] = []
        for place, proxy in enumerate(PROXIES):
            if asked.only and proxy.name not in asked.only:
                continue
            runner = start(stack, proxy, folder / str(place), origin)
            if runner is not None:
                runner.probe()
                measure(runner.url, 2, asked.connections)  # everything is stored, and warm
                runners.append(runner)
        for _ in range(asked.rounds):
            for runner in runners:
                runner.turn(asked.seconds, asked.connections)
    tell_load_average("end")
    print(f"\n{table(runners)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
