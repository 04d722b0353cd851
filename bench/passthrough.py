"""Requests per second of the whole flow with one limit, beside a bare aiohttp pass-through.

    python -m bench.passthrough [--rounds 5] [--seconds 6] [--connections 32]

An nginx origin answers 0.8 KB; wrk sends 1,000 different requests over keep-alive connections. The
proxy under test has one core to itself; origin and wrk share the other. The contestants take turns
in every round, so that a noisy moment hits all of them; the table shows medians over the rounds.
"""

import contextlib
import sys
import tempfile
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
    rate,
    tell_conditions,
)
from bench.proxies import Place
from bench.tools import BODY, Load, free_port, get, nginx_origin, running

TARGET = 0.85


def gateway(stack: contextlib.ExitStack, folder: Path, origin: int) -> str:
    # Its limit refuses nothing: what is measured is what an admitted request costs.
    place = Place(folder, free_port(), free_port(), origin, 0)
    started = proxies.gateway(place, sys.executable)
    stack.enter_context(running(*started.command, ready=started.ready, core=PROXY_CORE))
    return f"http://127.0.0.1:{place.port}"


def bare(stack: contextlib.ExitStack, origin: str) -> str:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = (sys.executable, "-m", "bench.bare_aiohttp", str(port), origin)
    stack.enter_context(running(*command, ready=url, core=PROXY_CORE))
    return url


def table(rounds: dict[str, list[Load]]) -> str:
    """The results as Markdown."""
    yardstick = rate(rounds["bare aiohttp"])
    rows = [
        [name, *cells(loads), f"{rate(loads) / yardstick:.2f}"] for name, loads in rounds.items()
    ]
    return markdown(["proxy", *HEADS, "of bare aiohttp"], rows)


def main() -> int:
    asked = ask(str(__doc__), seconds=6)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        origin = stack.enter_context(nginx_origin(folder, LOAD_CORE))
        contestants = {
            "bare aiohttp": bare(stack, origin.url),
            "Sluicegate, one limit": gateway(stack, folder, origin.port),
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

    ratio = rate(rounds["Sluicegate, one limit"]) / rate(rounds["bare aiohttp"])
    tell_conditions(asked)
    print(f"\n{table(rounds)}\n\nratio {ratio:.2f} (target: at least {TARGET})")
    return 0 if ratio >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
