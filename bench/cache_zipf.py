"""How many requests reach the origin: a Zipf trace through the cache, with writes that purge tags.

    python -m bench.cache_zipf [--requests 1000000] [--urls 100000] [--writes 0.01] [--exponent 1]

The whole flow in this process, without HTTP, by a clock of its own: 1,000 requests a second, and
answers that are fresh for longer than the trace. Four URLs are one user's and carry the user's tag;
a write changes a user, as often as its URLs are popular, and its tag is purged. Once with room for
everything, once with the default of `store.cache.memory`.

*Least* is what a cache must fetch that never forgets, and never serves what has changed. The
command exits with 1 where a stale answer was served, or where the cache with room fetched more.
"""

import argparse
import itertools
import random
import sys
import time
from dataclasses import dataclass
from multiprocessing import get_context

import uvloop

from bench.cache_world import VIEWS, World, target

MIB = 1 << 20
ROOMY, DEFAULT = 2048 * MIB, 64 * MIB
BODY = 800


@dataclass(frozen=True)
class Shape:
    """A trace. `writes`: of all requests."""

    requests: int
    urls: int
    writes: float
    exponent: float


@dataclass(frozen=True)
class Outcome:
    """What came of a trace."""

    memory: int
    reads: int
    writes: int
    fetched: int
    least: int
    stale: int
    entries: int
    microseconds: float
    """Per request."""

    @property
    def right(self) -> bool:
        return not self.stale and (self.memory < ROOMY or self.fetched == self.least)


def drawn(shape: Shape) -> list[int]:
    """The trace: URLs; a write to the user of one is its complement (~url)."""
    rng = random.Random(9111)
    weights = itertools.accumulate(1 / rank**shape.exponent for rank in range(1, shape.urls + 1))
    by_rank = list(range(shape.urls))
    rng.shuffle(by_rank)
    urls = rng.choices(by_rank, cum_weights=list(weights), k=shape.requests)
    return [~url if rng.random() < shape.writes else url for url in urls]


async def played(shape: Shape, memory: int) -> Outcome:
    """Plays a trace, one request after the other."""
    trace = drawn(shape)
    world = World(shape.urls, memory, BODY)
    known: dict[int, int] = {}  # what one that never forgets has, by URL
    reads = least = stale = 0
    begun = time.perf_counter()
    for url in trace:
        world.now += 1
        if url < 0:
            reply = await world.ask("PUT", f"/users/{~url // VIEWS}")
            assert reply.status == 204
            continue
        reads += 1
        version = world.versions[url // VIEWS]
        if known.get(url) != version:
            known[url] = version
            least += 1
        fetched = world.fetched
        reply = await world.ask("GET", target(url))
        stale += int(reply.body[:11]) != version
        if world.fetched != fetched:
            await world.quiet()
    took = (time.perf_counter() - begun) / len(trace) * 1e6
    entries = len(world.caching.memory)
    return Outcome(
        memory, reads, len(trace) - reads, world.fetched, least, stale, entries, took
    )  # fmt: skip


def play(shape: Shape, memory: int) -> Outcome:
    return uvloop.run(played(shape, memory))


def row(outcome: Outcome) -> str:
    hits = 1 - outcome.fetched / outcome.reads
    most = 1 - outcome.least / outcome.reads
    cells = [
        f"{outcome.memory // MIB:,} MiB", f"{outcome.reads:,}", f"{outcome.writes:,}",
        f"{outcome.fetched:,}", f"{outcome.least:,}", f"{hits:.2%}", f"{most:.2%}",
        f"{outcome.entries:,}", f"{outcome.stale}", f"{outcome.microseconds:.0f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--urls", type=int, default=100_000)
    parser.add_argument("--writes", type=float, default=0.01, help="of all requests")
    parser.add_argument("--exponent", type=float, default=1.0)
    asked = parser.parse_args()
    shape = Shape(asked.requests, asked.urls, asked.writes, asked.exponent)
    with get_context("spawn").Pool(2) as pool:
        outcomes = pool.starmap(play, [(shape, ROOMY), (shape, DEFAULT)])
    heads = ["memory", "reads", "writes", "origin fetches", "least", "hit ratio", "most possible"]
    heads += ["stored at the end", "stale served", "µs per request"]
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads))
    for outcome in outcomes:
        print(row(outcome))
    return 0 if all(outcome.right for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
