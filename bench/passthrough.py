"""Requests per second of the whole flow with one limit, beside a bare aiohttp pass-through.

    python -m bench.passthrough [--rounds 5] [--seconds 6] [--connections 32]

An nginx origin answers 0.8 KB; wrk sends 1,000 different requests over keep-alive connections. The
proxy under test has one core to itself; origin and wrk share the other. The contestants take turns
in every round, so that a noisy moment hits all of them; the table shows medians over the rounds.
"""

import argparse
import contextlib
import os
import platform
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from bench.tools import BODY, Load, finish_wrk, free_port, get, nginx_origin, running, start_wrk

PROXY_CORE, LOAD_CORE = 0, 1
TARGET = 0.85

GATEWAY = """
server: {{listen: "127.0.0.1:{port}"}}
log: {{level: warning}}
admin: {{listen: "127.0.0.1:{admin}"}}
policies: [limits.yaml]
upstreams:
  origin: {{endpoints: ["{origin}"]}}
routes:
  - name: api
    match: {{path: "/api/{{rest:path}}"}}
    upstream: origin
    limits: [per-key]
"""

# High enough to refuse nothing: what is measured is what an admitted request costs.
LIMITS = """
limits:
  per-key: {algorithm: token_bucket, rate: 100000/s, key: ["header:X-Api-Key"]}
"""


def gateway(stack: contextlib.ExitStack, folder: Path, origin: str) -> str:
    port, admin = free_port(), free_port()
    config = folder / "gateway.yaml"
    config.write_text(GATEWAY.format(port=port, admin=admin, origin=origin))
    (folder / "limits.yaml").write_text(LIMITS)
    command = (sys.executable, "-m", "proxy", "run", "-c", config)
    stack.enter_context(
        running(*command, ready=f"http://127.0.0.1:{admin}/readyz", core=PROXY_CORE)
    )
    return f"http://127.0.0.1:{port}"


def bare(stack: contextlib.ExitStack, origin: str) -> str:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = (sys.executable, "-m", "bench.bare_aiohttp", str(port), origin)
    stack.enter_context(running(*command, ready=url, core=PROXY_CORE))
    return url


def measure(url: str, seconds: float, connections: int) -> Load:
    wrk = start_wrk(url, "differing.lua", seconds=seconds, connections=connections, core=LOAD_CORE)
    load = finish_wrk(wrk)
    if any(load.socket_errors.values()):
        raise RuntimeError(f"{url}: {load.socket_errors}")
    return load


def table(rounds: dict[str, list[Load]]) -> str:
    """The results as Markdown."""
    yardstick = statistics.median(load.per_second for load in rounds["bare aiohttp"])
    lines = [
        "| proxy | req/s (median) | lowest–highest | p50 | p99 | of bare aiohttp |",
        "|---|---|---|---|---|---|",
    ]
    for name, loads in rounds.items():
        rates = [load.per_second for load in loads]
        median = statistics.median(rates)
        p50, p99 = (
            statistics.median(getattr(load, part) for load in loads) / 1000
            for part in ("p50", "p99")
        )
        lines.append(
            f"| {name} | {median:,.0f} | {min(rates):,.0f}–{max(rates):,.0f} "
            f"| {p50:.2f} ms | {p99:.2f} ms | {median / yardstick:.2f} |"
        )
    return "\n".join(lines)


def processor() -> str:
    with open("/proc/cpuinfo") as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6, help="per contestant and round")
    parser.add_argument("--connections", type=int, default=32)
    asked = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        print("two cores are needed: one for the proxy, one for origin and load", file=sys.stderr)
        return 1

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        origin = stack.enter_context(nginx_origin(folder, LOAD_CORE)).url
        contestants = {
            "bare aiohttp": bare(stack, origin),
            "Sluicegate, one limit": gateway(stack, folder, origin),
        }
        for name, url in contestants.items():
            answer = get(f"{url}/api/users/1")
            if (answer.status, answer.body) != (200, BODY):
                raise RuntimeError(f"{name} does not pass through: {answer}")
            measure(url, 1, asked.connections)  # warm up
        rounds: dict[str, list[Load]] = {name: [] for name in contestants}
        for _ in range(asked.rounds):
            for name, url in contestants.items():
                rounds[name].append(measure(url, asked.seconds, asked.connections))

    medians = {
        name: statistics.median(load.per_second for load in loads) for name, loads in rounds.items()
    }
    ratio = medians["Sluicegate, one limit"] / medians["bare aiohttp"]
    print(f"{datetime.now(UTC):%Y-%m-%d}, {processor()}, {os.cpu_count()} cores,", end=" ")
    print(f"Python {platform.python_version()}, Linux {platform.release()}")
    print(f"{asked.rounds} rounds of {asked.seconds:g} s, {asked.connections} connections\n")
    print(table(rounds))
    print(f"\nratio {ratio:.2f} (target: at least {TARGET})")
    return 0 if ratio >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
