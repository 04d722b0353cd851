"""CPU time of the cache's decision on a plain GET for which a fresh answer is stored.

    python -m bench.cache_steps [--rounds 200] [--calls 500]

*plain hit*: what the flow does with such a request, from the key to the reply that is then written
(proxy/stages/cache/hit.py). The others are what it does where something is out of the ordinary, on
the same request: *decision* is the pure core: what the request is filed under, its directives,
which variant it selects, and whether that may be used now; *look* the same with the memory and what
was purged; *looked answer* with the reply. By an entry alone, and by one of four variants. Medians
of the rounds; nothing is sent, and 1,000 other URLs are stored.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from bench.cache_world import EPOCH, HOST, World, target
from bench.contest import markdown
from proxy.core.cache import keys, reuse, vary
from proxy.core.cache.directives import read_request
from proxy.core.cache.seen import Seen
from proxy.core.fields import Fields
from proxy.core.message import Reply
from proxy.exchange import Exchange
from proxy.stages import identity, route
from proxy.stages.cache.hit import hit
from proxy.stages.cache.look import Look
from proxy.store.memory.cache import Held

URLS = 1000
ACCEPT = ("application/json", "text/html", "text/plain", "*/*")
Call = Callable[[], object]


def asked(world: World) -> Exchange:
    """A plain GET, as it comes to the cache."""
    lines = [
        ("Host", HOST),
        ("User-Agent", "bench"),
        ("Accept", ACCEPT[0]),
        ("Accept-Encoding", "gzip, deflate, br"),
    ]
    ex = Exchange(
        world.snapshot, "GET", target(7), 11, Fields(lines),
        authority=HOST, scheme="http", peer="192.0.2.1",
    )  # fmt: skip
    if (refused := identity.resolve(ex) or route.find(ex)) is not None:
        raise RuntimeError(f"the request was refused with {refused.status}")
    return ex


def vary_it(world: World, key: bytes) -> None:
    """Puts four variants in place of the one."""
    memory = world.caching.memory
    (one,) = memory.get(key)
    memory.drop(key, one)
    for accept in ACCEPT:
        stored = replace(one.stored, vary=(("accept", accept),))
        memory.put(key, Held(stored, one.body, one.tags, one.target, one.began, one.lines))


def calls(world: World, ex: Exchange) -> dict[str, Call]:
    """What is measured, by name."""
    assert ex.route is not None
    assert ex.route.cache is not None
    plan, space, caching = ex.route.cache, ex.route.cache_space, world.caching
    variants = [held.stored for held in caching.memory.get(keys.primary(plan.key, space, ex))]

    def decision() -> object:
        seen = Seen(ex)
        keys.primary(plan.key, space, ex, seen)
        stored = vary.select(variants, seen, "GET")
        assert stored is not None
        return reuse.decide(stored, read_request(ex.fields), EPOCH)

    def plain() -> Reply:
        reply = hit(ex, caching)
        assert reply is not None
        return reply

    def look() -> Look:
        return Look(ex, plan, caching, unasked, unasked)

    def answer() -> Reply:
        reply = look().served()
        assert reply is not None
        return reply

    return {"plain hit": plain, "decision": decision, "look": look, "looked answer": answer}


def unasked(ex: Exchange) -> Awaitable[Reply]:
    raise RuntimeError("a hit asks nobody")


def measured(call: Call, times: int) -> float:
    """µs of CPU per call."""
    begun = time.process_time_ns()
    for _ in range(times):
        call()
    return (time.process_time_ns() - begun) / times / 1000


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--calls", type=int, default=500)
    args = parser.parse_args()
    world = World(URLS, 64 << 20, 800)
    for url in range(URLS):
        await world.ask("GET", target(url))
    await world.quiet()
    ex = asked(world)
    assert ex.route is not None
    assert ex.route.cache is not None
    rows, heads = [], ["stored"]
    for name in ("one answer", "four variants"):
        if name != "one answer":
            vary_it(world, keys.primary(ex.route.cache.key, ex.route.cache_space, ex))
        made = calls(world, ex)
        told: dict[str, list[float]] = {what: [] for what in made}
        for _ in range(args.rounds):
            for what, call in made.items():
                told[what].append(measured(call, args.calls))
        rows.append([name, *(f"{statistics.median(told[what]):.1f} µs" for what in made)])
        heads[1:] = made
    print(markdown(heads, rows))


if __name__ == "__main__":
    asyncio.run(main())
