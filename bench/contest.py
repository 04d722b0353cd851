"""What the comparisons of bench/ share: two cores, rounds, and what a table says of the loads."""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from bench.tools import Load, finish_wrk, start_wrk

PROXY_CORE, LOAD_CORE = 0, 1


def ask(
    doc: str,
    *,
    seconds: float,
    only: str | None = None,
    rows: Sequence[str] = (),
    builds: bool = False,
) -> argparse.Namespace:
    """The command line: rounds, seconds, connections and, where `only` gives examples, only; where
    there are `rows` to choose from, those; where there are `builds` of the gateway, whose Python
    runs it. Exits where the machine has one core."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=seconds, help="per contestant and round")
    parser.add_argument("--connections", type=int, default=32)
    if only is not None:
        parser.add_argument("--only", nargs="*", help=f"names of proxies, such as {only}")
    if rows:
        parser.add_argument("--rows", nargs="*", choices=rows, default=rows)
    if builds:
        parser.add_argument(
            "--compiled", metavar="PYTHON", help="of the environment that has the compiled build"
        )
    asked = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        print("two cores are needed: one for the proxy, one for the others", file=sys.stderr)
        sys.exit(1)
    return asked


def tell_conditions(asked: argparse.Namespace) -> None:
    """Prints the day, the machine and what is measured."""
    tell_machine()
    print(
        f"{asked.rounds} rounds of {asked.seconds:g} s, {asked.connections} connections", flush=True
    )


def tell_machine() -> None:
    """Prints the day and the machine."""
    print(f"{datetime.now(UTC):%Y-%m-%d}, {processor()}, {os.cpu_count()} cores,", end=" ")
    print(f"Python {platform.python_version()}, Linux {platform.release()}", flush=True)


def tell_load_average(moment: str) -> None:
    """Prints what else the machine was doing at the `start` or the `end`."""
    figures = " ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"load average at the {moment}: {figures}", flush=True)


def tell_noise(moment: str) -> None:
    """Prints the load average, and what a busy process gets of each core while nothing is being
    measured: all of it, if nobody else is at work."""
    tell_load_average(moment)
    shares = (f"{share_of(core):.0%} of core {core}" for core in (PROXY_CORE, LOAD_CORE))
    print(f"    a busy process gets {' and '.join(shares)}", flush=True)


def share_of(core: int, seconds: float = 0.3) -> float:
    """The share of so much time on a core that this process gets when it asks for all of it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        began, spent = time.perf_counter(), time.process_time()
        while (taken := time.perf_counter() - began) < seconds:
            pass
        return (time.process_time() - spent) / taken
    finally:
        os.sched_setaffinity(0, before)


def processor() -> str:
    with open("/proc/cpuinfo") as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def measure(url: str, seconds: float, connections: int, *, refused: bool = False) -> Load:
    """One turn of wrk with 1,000 different requests; raises where one of them failed, or, of those
    that are to be `refused`, where more than one in a hundred was not."""
    load = differing(url, seconds, connections)
    wrong = dict(load.socket_errors)
    if refused and wrong["status"] >= 0.99 * load.requests:
        wrong["status"] = 0
    elif refused:
        wrong["admitted"] = load.requests - wrong["status"]
    if any(wrong.values()):
        raise RuntimeError(f"{url}: {wrong}")
    return load


def differing(url: str, seconds: float, connections: int) -> Load:
    """The same, whatever is answered."""
    return finish_wrk(
        start_wrk(url, "differing.lua", seconds=seconds, connections=connections, core=LOAD_CORE)
    )


def rate(loads: Sequence[Load]) -> float:
    """The median of the requests per second."""
    return statistics.median(load.per_second for load in loads)


def cells(loads: Sequence[Load]) -> list[str]:
    """A contestant's cells under HEADS."""
    rates = [load.per_second for load in loads]
    p50, p99 = (
        statistics.median(getattr(load, part) for load in loads) / 1000 for part in ("p50", "p99")
    )
    return [
        f"{rate(loads):,.0f}",
        f"{min(rates):,.0f}–{max(rates):,.0f}",
        f"{p50:.2f} ms",
        f"{p99:.2f} ms",
    ]


HEADS = ["req/s (median)", "lowest–highest", "p50", "p99"]


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
