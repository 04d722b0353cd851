"""What limits cost in Redis: memory per key, and one admit beside two libraries on the same server.

    python -m bench.redis_limits [--keys 100000] [--rounds 5] [--seconds 1]

Starts a `redis-server` of its own. The libraries (`limits` and `throttled-py`, dependency group
`bench`) are left out where they are not installed. All run on uvloop with hiredis; each is asked
for one of 1,000 keys after the other and refuses nothing. `alone` has one call in flight, `64` has
sixty-four; `server` is the server's own time per decision. The contestants take turns.
"""

import argparse
import asyncio
import importlib
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import redis
import uvloop

from bench.tools import redis_server
from proxy.core.limits import ALGORITHMS
from proxy.core.limits.decision import Rate
from proxy.core.store_urls import read_store_url
from proxy.metrics import Metrics
from proxy.policy.limit_plans import LimitVariant
from proxy.policy.snapshot import StorePlan
from proxy.store.charge import Charge
from proxy.store.redis.limits import RedisLimits
from proxy.store.redis.road import open_road
from proxy.store.redis.road_port import Road

HOUR = 3_600_000_000
KEYS = 1000
LARGE = 1_000_000
Ask = Callable[[int], Awaitable[Any]]


class Contestant(NamedTuple):
    """One way to decide: `ask(number)` charges one key once."""

    who: str
    algorithm: str
    ask: Ask


def variant(name: str, amount: int, space: str) -> LimitVariant:
    algorithm = ALGORITHMS[name]
    burst = amount if name.endswith("bucket") else None
    params = algorithm.compile(Rate(amount, HOUR), burst, refundable=False)
    return LimitVariant(
        name, space, algorithm, params, algorithm.capacity(params), amount, 3600, "", 1, None, False
    )


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


async def road_to(port: int) -> Road:
    road = open_road(StorePlan(read_store_url(f"redis://127.0.0.1:{port}"), timeout=5.0), Metrics())
    if not await road.up(5):
        raise SystemExit("the redis-server does not answer")
    return road


# Memory


async def memory(port: int, keys: int) -> None:
    print(f"\nMemory of {keys:,} keys, by one charge each (sliding_log also by 100 each)\n")
    print("| algorithm | bytes per key, by used_memory | by MEMORY USAGE |\n|---|---|---|")
    store = RedisLimits(await road_to(port), "sg")
    with redis.Redis(port=port) as client:
        for name in ALGORITHMS:
            await _fill(store, client, name, keys, 1)
        await _fill(store, client, "sliding_log", keys // 10, 100)
    await store.close()


async def _fill(store: RedisLimits, client: Any, name: str, keys: int, times: int) -> None:
    client.flushall()
    before = client.info("memory")["used_memory"]
    limit = variant(name, 100, name)
    for _ in range(times):
        for begun in range(0, keys, 500):
            numbers = range(begun, min(begun + 500, keys))
            await asyncio.gather(*(store.admit([Charge(limit, key(n), 1, False)]) for n in numbers))
    grown = (client.info("memory")["used_memory"] - before) / keys
    told = statistics.mean(client.memory_usage(client.randomkey()) for _ in range(200))
    label = name if times == 1 else f"{name}, {times} charges"
    print(f"| {label} | {grown:.0f} | {told:.0f} |", flush=True)


# Time


async def ours(port: int) -> tuple[list[Contestant], Callable[[], Awaitable[None]]]:
    store = RedisLimits(await road_to(port), "sg")
    made = []
    for name in ALGORITHMS:
        limit = variant(name, 10_000 if name == "sliding_log" else LARGE, name)

        def ask(number: int, limit: LimitVariant = limit) -> Awaitable[Any]:
            return store.admit([Charge(limit, key(number), 1, False)])

        made.append(Contestant("Sluicegate", name, ask))
    three = [variant("fixed_window", LARGE, space) for space in "abc"]

    def several(number: int) -> Awaitable[Any]:
        return store.admit([Charge(limit, key(number), 1, False) for limit in three])

    made.append(Contestant("Sluicegate", "three fixed_windows at once", several))
    return made, store.close


def of_limits(port: int) -> list[Contestant]:
    """The library `limits`, by its asyncio strategies over redis-py."""
    limits = importlib.import_module("limits")
    strategies = importlib.import_module("limits.aio.strategies")
    storage = importlib.import_module("limits.aio.storage").RedisStorage(
        f"async+redis://127.0.0.1:{port}", implementation="redispy"
    )
    made = []
    for algorithm, strategy, amount in (
        ("fixed_window", strategies.FixedWindowRateLimiter, LARGE),
        ("sliding_window", strategies.SlidingWindowCounterRateLimiter, LARGE),
        ("sliding_log", strategies.MovingWindowRateLimiter, 10_000),
    ):
        item = limits.RateLimitItemPerHour(amount, namespace=algorithm)

        limiter = strategy(storage)

        def ask(number: int, limiter: Any = limiter, item: Any = item) -> Awaitable[Any]:
            done: Awaitable[Any] = limiter.hit(item, str(number))
            return done

        made.append(Contestant("limits", algorithm, ask))
    return made


def of_throttled(port: int) -> list[Contestant]:
    """The library `throttled-py`, by its asyncio half over redis-py."""
    throttled = importlib.import_module("throttled.asyncio")
    store = throttled.RedisStore(server=f"redis://127.0.0.1:{port}/0")
    made = []
    names = {
        "fixed_window": "",
        "sliding_window": "",
        "token_bucket": "",
        "leaky_bucket": "leaking_bucket",
    }
    for algorithm, theirs in names.items():
        quota = throttled.rate_limiter.per_hour(LARGE, burst=LARGE)
        limiter = throttled.Throttled(using=theirs or algorithm, quota=quota, store=store)

        def ask(number: int, limiter: Any = limiter, algorithm: str = algorithm) -> Awaitable[Any]:
            done: Awaitable[Any] = limiter.limit(f"{algorithm}:{number}")
            return done

        made.append(Contestant("throttled-py", algorithm, ask))
    return made


async def alone(ask: Ask, seconds: float) -> float:
    """The median time of a call with nothing else in flight, µs."""
    taken = []
    until = time.perf_counter() + seconds
    number = 0
    while (begun := time.perf_counter()) < until:
        await ask(number % KEYS)
        taken.append(time.perf_counter() - begun)
        number += 1
    return statistics.median(taken) * 1e6


async def together(ask: Ask, seconds: float, flights: int = 64) -> float:
    """Calls per second with `flights` in flight."""
    until = time.perf_counter() + seconds
    done = 0

    async def one(first: int) -> None:
        nonlocal done
        number = first
        while time.perf_counter() < until:
            await ask(number % KEYS)
            number += flights
            done += 1

    begun = time.perf_counter()
    await asyncio.gather(*(one(first) for first in range(flights)))
    return done / (time.perf_counter() - begun)


def server_time(client: Any) -> float:
    """What the server has spent on decisions, µs. A script's figure holds its commands'."""
    stats = client.info("commandstats")
    scripts = [told for name, told in stats.items() if name.startswith("cmdstat_eval")]
    return sum(float(told["usec"]) for told in scripts or stats.values())


async def times(port: int, rounds: int, seconds: float) -> None:
    contestants, close = await ours(port)
    for made, package in ((of_limits, "limits"), (of_throttled, "throttled-py")):
        try:
            print(f"{package} {version(package)}")
        except PackageNotFoundError:
            print(f"{package} is not installed: left out")
            continue
        contestants += made(port)
    told: dict[Contestant, list[tuple[float, float, float]]] = {c: [] for c in contestants}
    with redis.Redis(port=port) as client:
        for _ in range(rounds):
            for contestant in contestants:
                latency = await alone(contestant.ask, seconds / 2)
                client.config_resetstat()
                rate = await together(contestant.ask, seconds)
                spent = server_time(client) / (rate * seconds)
                told[contestant].append((latency, rate, spent))
    print("\n| | algorithm | alone, µs | 64 in flight, per s | server, µs |\n|---|---|---|---|---|")
    for contestant, figures in told.items():
        latency, rate, spent = (statistics.median(column) for column in zip(*figures, strict=True))
        print(
            f"| {contestant.who} | {contestant.algorithm} "
            f"| {latency:.0f} | {rate:,.0f} | {spent:.1f} |"
        )
    await close()


async def run(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as server:
        with redis.Redis(port=server.port) as client:
            print("Redis", client.info("server")["redis_version"])
        await times(server.port, args.rounds, args.seconds)
        await memory(server.port, args.keys)


def main() -> None:
    parser = argparse.ArgumentParser(description="what limits cost in Redis")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
