"""What a stored answer takes beside its size: in a process' memory, and in Redis.

    python -m bench.cache_memory [--objects 20000] [SIZE ...]

Each size of body (bytes) has a process of its own. `process`: growth of the resident set per answer
while so many are stored by the flow, with four field lines and three tags each (one of all, one of
four, one of its own URL); `own account`: what the cache takes it for, which `store.cache.memory`
bounds. `Redis`: growth of `used_memory` of a `redis-server` of its own, per answer, and the
`MEMORY USAGE` of what it has of one, which leaves out its share of the tables.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

import redis
import uvloop

from bench.cache_world import World, target
from bench.memory_keys import resident
from bench.tools import redis_server
from proxy.core.store_urls import read_store_url
from proxy.policy.snapshot import StorePlan
from proxy.store.redis.cache import open_cache

WARM = 500
AT_ONCE = 32
MOST = 256 << 20
"""Bytes of bodies that one measurement stores at most."""
FIELDS = 4


async def fill(world: World, first: int, last: int) -> None:
    """Has the URLs from `first` on stored."""
    for at in range(first, last, AT_ONCE):
        urls = range(at, min(at + AT_ONCE, last))
        await asyncio.gather(*(world.ask("GET", target(url)) for url in urls))
        await world.quiet()


async def in_process(objects: int, size: int) -> tuple[float, float]:
    """(growth of the resident set, own account), bytes per answer."""
    world = World(WARM + objects, 8 * MOST, size)
    await fill(world, 0, WARM)
    memory = world.caching.memory
    before, counted = resident(), memory.size
    await fill(world, WARM, WARM + objects)
    if len(memory) != WARM + objects:
        raise RuntimeError(f"{len(memory)} answers are stored, not {WARM + objects}")
    return (resident() - before) / objects, (memory.size - counted) / objects


async def in_redis(objects: int, size: int, port: int) -> tuple[float, float]:
    """(growth of `used_memory`, `MEMORY USAGE`), bytes per answer."""
    world = World(objects, 8 * MOST, size)
    plan = StorePlan(read_store_url(f"redis://127.0.0.1:{port}"), timeout=5.0)
    shared = open_cache(plan, world.metrics)
    with redis.Redis(port=port) as client:
        world.caching.share(shared)
        if not await shared.up(5):
            raise RuntimeError("the redis-server does not answer")
        before = client.info("memory")["used_memory"]
        await fill(world, 0, objects)
        await world.caching.close()  # what is on its way is written first
        grown = client.info("memory")["used_memory"] - before
        entries = list(client.scan_iter("*:c:*", count=10_000))
        if len(entries) != objects:
            raise RuntimeError(f"{len(entries)} answers are in Redis, not {objects}")
        name = entries[0]
        bodies = list(client.scan_iter(name.replace(b":c:", b":b:") + b":*", count=10_000))
        usage = sum(client.memory_usage(key, samples=0) for key in [name, *bodies])
    return grown / objects, float(usage)


def measure(objects: int, size: int) -> None:
    """Prints one row."""
    objects = min(objects, MOST // size)
    process, account = uvloop.run(in_process(objects, size))
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as server:
        grown, usage = uvloop.run(in_redis(objects, size, server.port))
    cells = [size, objects, process, account, grown, usage, process - size, grown - size]
    print("| " + " | ".join(f"{cell:,.0f}" for cell in cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--objects", type=int, default=20_000)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("sizes", nargs="*", type=int, default=[800, 8000, 64_000])
    asked = parser.parse_args()
    if asked.here:
        for size in asked.sizes:
            measure(asked.objects, size)
        return
    heads = ["body", "answers", "process", "own account", "Redis, by used_memory"]
    heads += ["by MEMORY USAGE", "beside the body: process", "Redis"]
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads), flush=True)
    for size in asked.sizes:
        options = ("--objects", str(asked.objects), "--here", str(size))
        subprocess.run([sys.executable, "-m", "bench.cache_memory", *options], check=True)


if __name__ == "__main__":
    main()
