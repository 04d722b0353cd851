"""CPU time of one decision without any store around it, beside two libraries in memory.

    python -m bench.core_steps [--rounds 5] [--calls 50000]

*step* is the pure core of an algorithm on one state; *admit* is the memory store around it, with
one limit and 1,000 keys. The libraries (`limits` and `throttled-py`, dependency group `bench`)
decide on memory stores of their own, with as many keys; they are left out where they are not
installed. Nothing is refused. The contestants take turns; the table has the medians.
"""

import argparse
import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

from bench.redis_limits import KEYS, LARGE, key, variant
from proxy.core.limits import ALGORITHMS
from proxy.metrics import Metrics
from proxy.store.charge import Charge
from proxy.store.memory.limits import MemoryLimits

Decide = Callable[[int], Any]
BEGIN = 1_800_000_000_000_000
SECOND = 1_000_000


def amount(name: str) -> int:
    return 10_000 if name == "sliding_log" else LARGE


def steps() -> dict[str, Decide]:
    """The cores; time goes on by a second for each call, so a log holds 3,600 units."""

    def made(name: str) -> Decide:
        limit = variant(name, amount(name), name)
        step, params = limit.algorithm.step, limit.params
        state: Any = None

        def decide(number: int) -> None:
            nonlocal state
            state, decision = step(state, params, BEGIN + number * SECOND, 1)
            assert decision.allowed

        return decide

    return {name: made(name) for name in ALGORITHMS}


def admits() -> dict[str, Decide]:
    """The memory store, asked as the gateway does."""

    def made(name: str) -> Decide:
        store = MemoryLimits(lambda: int(time.time() * 1e6), Metrics())
        limit = variant(name, amount(name), name)
        keys = [key(number) for number in range(KEYS)]
        return lambda number: store.decide([Charge(limit, keys[number % KEYS], 1, False)])

    return {name: made(name) for name in ALGORITHMS}


def of_limits() -> dict[str, Decide]:
    limits = importlib.import_module("limits")
    strategies = importlib.import_module("limits.strategies")
    storage = importlib.import_module("limits.storage").MemoryStorage()
    keys = [str(number) for number in range(KEYS)]

    def made(name: str, strategy: Any) -> Decide:
        limiter = strategy(storage)
        item = limits.RateLimitItemPerHour(amount(name), namespace=name)
        return lambda number: limiter.hit(item, keys[number % KEYS])

    return {
        "fixed_window": made("fixed_window", strategies.FixedWindowRateLimiter),
        "sliding_window": made("sliding_window", strategies.SlidingWindowCounterRateLimiter),
        "sliding_log": made("sliding_log", strategies.MovingWindowRateLimiter),
    }


def of_throttled() -> dict[str, Decide]:
    throttled = importlib.import_module("throttled")
    keys = [str(number) for number in range(KEYS)]

    def made(name: str) -> Decide:
        quota = throttled.rate_limiter.per_hour(LARGE, burst=LARGE)
        limiter = throttled.Throttled(
            using="leaking_bucket" if name == "leaky_bucket" else name,
            quota=quota,
            store=throttled.MemoryStore(options={"MAX_SIZE": 2 * KEYS}),
        )
        return lambda number: limiter.limit(keys[number % KEYS])

    names = ("fixed_window", "sliding_window", "token_bucket", "leaky_bucket")
    return {name: made(name) for name in names}


def measured(decide: Decide, first: int, calls: int) -> float:
    """µs of CPU per call."""
    begun = time.process_time_ns()
    for number in range(first, first + calls):
        decide(number)
    return (time.process_time_ns() - begun) / calls / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=50_000)
    asked = parser.parse_args()
    contestants = {"step": steps(), "admit": admits()}
    for name, made in (("limits", of_limits), ("throttled-py", of_throttled)):
        try:
            contestants[name] = made()
        except ModuleNotFoundError:
            print(f"{name} is not installed: left out")
    told: dict[tuple[str, str], list[float]] = {}
    for turn in range(asked.rounds):
        for who, decisions in contestants.items():
            for name, decide in decisions.items():
                spent = measured(decide, turn * asked.calls, asked.calls)
                told.setdefault((name, who), []).append(spent)
    print("| algorithm | " + " | ".join(contestants) + " |")
    print("|---|" + "---|" * len(contestants))
    for name in ALGORITHMS:
        cells = (told.get((name, who)) for who in contestants)
        said = (f"{statistics.median(spent):.1f} µs" if spent else "" for spent in cells)
        print(f"| {name} | " + " | ".join(said) + " |")


if __name__ == "__main__":
    main()
