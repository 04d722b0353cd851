"""What clients see of an endpoint that dies: how many errors, and until when.

    python -m bench.endpoint_loss [--turns 3] [--rate 100] [--watch 10] [--only NAME ...]

Two origins that take 20 ms for an answer, and before them every proxy of bench/loss_proxies.py
that is found, each under the same constant load: so many GETs a second, each on a connection of
its own, sent at its time whatever became of those before. One origin is killed (SIGKILL: its
connections end, new ones are refused) or goes silent (SIGSTOP: the kernel accepts for it, and
nothing is answered), under all proxies at once. An error is anything but a whole 200.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import aiohttp
import uvloop

from bench.contest import markdown, tell_load_average, tell_machine
from bench.loss_proxies import PROXIES, Means, Spot
from bench.peers import version
from bench.tools import BODY, free_port, get, running

WARM = 2.0
PATIENCE = 15.0
"""How long a client waits, in seconds."""
LASTING = 1.0
"""An error of a request this shortly before the end of the watch means that they did not end."""
BLOWS = {"killed": signal.SIGKILL, "silent": signal.SIGSTOP}
MEANS = (Means(False, False), Means(True, False), Means(False, True), Means(True, True))


class Seen(NamedTuple):
    """One request: when it began and ended, in seconds of the monotonic clock."""

    began: float
    ended: float
    good: bool


class Loss(NamedTuple):
    """What the clients of one proxy saw in one turn."""

    errors: int
    last: float
    """Seconds from the blow to the end of the last error; 0 without any."""
    lasting: bool
    """Whether there still were errors when the watch ended."""
    slowest: float
    """Seconds, of the good answers to what was sent after the blow."""


async def _one(session: aiohttp.ClientSession, url: str, seen: list[Seen]) -> None:
    began = time.monotonic()
    try:
        async with session.get(url) as answer:
            good = answer.status == 200 and await answer.read() == BODY
    except (aiohttp.ClientError, TimeoutError):
        good = False
    seen.append(Seen(began, time.monotonic(), good))


async def load(
    urls: dict[str, str], rate: float, watch: float, strike: Callable[[], None]
) -> tuple[float, dict[str, list[Seen]]]:
    """The same load on each, with the blow after WARM seconds; the time of the blow."""
    seen: dict[str, list[Seen]] = {name: [] for name in urls}
    blow = 0.0
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(PATIENCE)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        asyncio.TaskGroup() as group,
    ):
        began = time.monotonic()
        for number in range(int((WARM + watch) * rate)):
            due = number / rate
            if due >= WARM and not blow:
                strike()
                blow = time.monotonic()
            await asyncio.sleep(began + due - time.monotonic())
            for name, url in urls.items():
                group.create_task(_one(session, f"{url}/{number}", seen[name]))
    return blow, seen


def judge(blow: float, watch: float, seen: list[Seen]) -> Loss:
    """Raises RuntimeError where there were errors before the blow."""
    errors = [one for one in seen if not one.good]
    if any(one.ended < blow for one in errors):
        raise RuntimeError("there were errors before anything was lost: measure again")
    return Loss(
        len(errors),
        max((one.ended - blow for one in errors), default=0.0),
        any(one.began - blow > watch - LASTING for one in errors),
        max(one.ended - one.began for one in seen if one.good and one.began > blow),
    )


@contextlib.contextmanager
def origin() -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """An origin that may be stopped; its port and its process."""
    port = free_port()
    command = (sys.executable, "-m", "bench.late_origin", str(port))
    with running(*command, ready=f"http://127.0.0.1:{port}/") as process:
        try:
            yield port, process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)


@contextlib.contextmanager
def proxies(first: int, second: int, means: Means, only: list[str]) -> Iterator[dict[str, str]]:
    """Every proxy that is found, passing through; their URLs by name."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls: dict[str, str] = {}
        for proxy in PROXIES:
            program = proxy.program()
            if program is None or (only and proxy.name not in only):
                continue
            if not (means.retries or proxy.always):
                continue
            spot = Spot(folder / proxy.name, free_port(), free_port(), first, second)
            spot.folder.mkdir()
            started = proxy.prepare(spot, program, means)
            environment = {"HOME": str(spot.folder)}
            stack.enter_context(running(*started.command, ready=started.ready, env=environment))
            urls[proxy.name] = f"http://127.0.0.1:{spot.port}"
        for url in urls.values():
            _until_it_passes(url)
        yield urls


def _until_it_passes(url: str) -> None:
    """Traefik listens before it has read its routes."""
    deadline = time.monotonic() + 10
    while get(f"{url}/").body != BODY:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{url} does not pass through")
        time.sleep(0.1)


def turn(blow: str, means: Means, asked: argparse.Namespace) -> dict[str, Loss]:
    """One loss, under all proxies at once."""
    with (
        origin() as (first, victim),
        origin() as (second, _),
        proxies(first, second, means, asked.only) as urls,
    ):
        strike = partial(victim.send_signal, BLOWS[blow])
        at, seen = uvloop.run(load(urls, asked.rate, asked.watch, strike))
    return {name: judge(at, asked.watch, those) for name, those in seen.items()}


def row(name: str, losses: list[Loss], watch: float) -> list[str]:
    """One proxy's cells: medians, and each turn's errors."""
    errors = ", ".join(str(loss.errors) for loss in losses)
    if any(loss.lasting for loss in losses):
        last = f"over {watch:g} s"
    elif not any(loss.errors for loss in losses):
        last = "none"
    else:
        lasts = [loss.last for loss in losses]
        last = f"{statistics.median(lasts):.2f} s (at most {max(lasts):.2f})"
    slowest = statistics.median(loss.slowest for loss in losses)
    return [name, errors, last, f"{slowest:.2f} s"]


def titles() -> dict[str, str]:
    """The names that stand in the table, of those that are there."""
    named = {}
    for proxy in PROXIES:
        program = proxy.program()
        if program is None:
            print(f"{proxy.name} is not there ({proxy.hint}): left out", file=sys.stderr)
            continue
        told = "" if program == sys.executable else version(program)
        named[proxy.name] = f"{proxy.name} {told}".strip()
    return named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rate", type=float, default=100, help="requests a second for each proxy")
    parser.add_argument("--watch", type=float, default=10, help="seconds after the blow")
    parser.add_argument("--only", nargs="*", default=[], help="names of proxies")
    asked = parser.parse_args()
    tell_machine()
    print(f"{asked.turns} turns, {asked.rate:g} requests a second for each proxy", flush=True)
    tell_load_average("start")
    named = titles()
    rows = []
    for blow in BLOWS:
        for means in MEANS:
            turns = [turn(blow, means, asked) for _ in range(asked.turns)]
            rows += [
                [blow, str(means), *row(named[name], [told[name] for told in turns], asked.watch)]
                for name in turns[0]
            ]
    tell_load_average("end")
    heads = ["origin", "with", "proxy", "errors, each turn", "last error after", "slowest good"]
    print(f"\n{markdown(heads, rows)}")


if __name__ == "__main__":
    main()
