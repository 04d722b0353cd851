"""What breaker, retries and health checks cost on pass-through, when all is well.

    python -m bench.resilience [--rounds 5] [--seconds 1] [--connections 32]

The gateway with one limit, once plain and once with each of the three and with all: the same
program, origin and load. The one under test has one core; origin and wrk share the other. The
contestants take turns, in the other direction in every second round. Compared is within a round
only, so that what else the machine does in it hits both; the table has medians over the rounds.
Exits with 1 where all three together cost more than TARGET of the CPU time of a request.
"""

import contextlib
import statistics
import sys
import tempfile
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
    measure,
    tell_conditions,
    tell_load_average,
)
from bench.proxies import Place
from bench.tools import BODY, Load, cpu_seconds, free_port, get, nginx_origin, running

TARGET = 0.10

BREAKER = """
breakers:
  well: {failure_rate: 50%, slow_rate: 50%, slow_after: 1s}
"""
RETRY = "\nretries: {well: {}}\n"
HEALTH = ", health_check: {path: /api/health, interval: 1s}"
VARIANTS = {
    "plain": ("", ""),
    "breaker": (", breaker: well", BREAKER),
    "retry": (", retry: well", RETRY),
    "health check": (HEALTH, ""),
    "all three": (f", breaker: well, retry: well{HEALTH}", BREAKER + RETRY),
}
"""What goes on the upstream, and what into the policy file."""


@dataclass
class Variant:
    """One gateway that runs, and what was measured of it, round by round."""

    url: str
    pid: int
    loads: list[Load] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """µs of CPU per request."""

    def turn(self, seconds: float, connections: int) -> None:
        before = cpu_seconds(self.pid)
        load = measure(self.url, seconds, connections)
        self.loads.append(load)
        self.cpu.append((cpu_seconds(self.pid) - before) / load.requests * 1e6)


def start(
    stack: contextlib.ExitStack, folder: Path, origin: int, upstream: str, policies: str
) -> Variant:
    """A gateway whose upstream has these further keys, which name these policies."""
    folder.mkdir()
    place = Place(folder, free_port(), free_port(), origin, 0)
    started = proxies.gateway(place, sys.executable, upstream=upstream, more=policies)
    process = stack.enter_context(running(*started.command, ready=started.ready, core=PROXY_CORE))
    variant = Variant(f"http://127.0.0.1:{place.port}", process.pid)
    answer = get(f"{variant.url}/api/users/1")
    if (answer.status, answer.body) != (200, BODY):
        raise RuntimeError(f"it does not pass through: {answer}")
    return variant


def costs(variant: Variant, plain: Variant) -> list[float]:
    """The CPU time that a request takes more than in plain, as a share, in each round."""
    return [own / bare - 1 for own, bare in zip(variant.cpu, plain.cpu, strict=True)]


def table(variants: dict[str, Variant]) -> str:
    """The results as Markdown."""
    plain = variants["plain"]
    rows = []
    for name, variant in variants.items():
        shares = costs(variant, plain)
        more = f"{statistics.median(shares):+.1%} ({min(shares):+.1%} to {max(shares):+.1%})"
        rates = [
            own.per_second / bare.per_second
            for own, bare in zip(variant.loads, plain.loads, strict=True)
        ]
        rows.append(
            [
                name,
                *cells(variant.loads),
                f"{statistics.median(rates):.2f}",
                f"{statistics.median(variant.cpu):.1f}",
                "" if variant is plain else more,
            ]
        )
    return markdown(["", *HEADS, "of plain", "µs CPU", "more CPU than plain"], rows)


def main() -> int:
    asked = ask(str(__doc__), seconds=1)
    tell_conditions(asked)
    tell_load_average("start")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        origin = stack.enter_context(nginx_origin(folder, LOAD_CORE))
        variants = {
            name: start(stack, folder / str(place), origin.port, *more)
            for place, (name, more) in enumerate(VARIANTS.items())
        }
        for variant in variants.values():
            measure(variant.url, 2, asked.connections)  # warm up
        for turn in range(asked.rounds):
            order = list(variants.values())
            for variant in order if turn % 2 == 0 else reversed(order):
                variant.turn(asked.seconds, asked.connections)
    tell_load_average("end")
    cost = statistics.median(costs(variants["all three"], variants["plain"]))
    print(f"\n{table(variants)}\n\nall three: {cost:+.1%} CPU (target: at most {TARGET:.0%})")
    return 0 if cost <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
