"""What a limit key costs in the process: memory per key for each algorithm, and the time of admit.

    python bench/memory_keys.py [--keys 1000000] [ALGORITHM ...]

Each algorithm runs in a process of its own, so that one's garbage is not another's. Memory is the
growth of the resident set while the keys are charged once each (keys included, as a gateway holds
them). `at the cap` is the worst case: every key busy, every request a new key.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from proxy.core.limits import ALGORITHMS
from proxy.core.limits.decision import Rate
from proxy.metrics import Metrics
from proxy.policy.limit_plans import LimitVariant
from proxy.store.charge import Charge
from proxy.store.memory.limits import MemoryLimits

HOUR = 3_600_000_000
ROUND = 200_000


def variant(name: str) -> LimitVariant:
    algorithm = ALGORITHMS[name]
    params = algorithm.compile(Rate(100, HOUR), None, refundable=False)
    return LimitVariant(
        name, name, algorithm, params, algorithm.capacity(params), 100, 3600, "", 1, None, False
    )


def resident(process: int | str = "self") -> int:
    """A process's resident set in bytes, by its pid."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{process}/status has no VmRSS")


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def charge(store: MemoryLimits, limit: LimitVariant, numbers: range) -> tuple[float, float]:
    """Charges each key once; (mean, slowest) in microseconds."""
    slowest = 0
    begun = time.perf_counter_ns()
    last = begun
    for number in numbers:
        store.decide([Charge(limit, key(number), 1, False)])
        now = time.perf_counter_ns()
        slowest = max(slowest, now - last)
        last = now
    return (last - begun) / len(numbers) / 1000, slowest / 1000


def measure(name: str, keys: int) -> None:
    store = MemoryLimits(lambda: int(time.time() * 1e6), Metrics(), max_keys=keys)
    limit = variant(name)
    charge(store, limit, range(1))
    before = resident()
    new, growing = charge(store, limit, range(1, keys))
    per_key = (resident() - before) / keys
    known, _ = charge(store, limit, range(1, min(keys, ROUND)))
    capped, slowest = charge(store, limit, range(keys, keys + ROUND))
    print(
        f"{name:<15} {per_key:>8.0f} B/key   new {new:5.2f} µs (slowest {growing:.0f} µs)"
        f"   known {known:5.2f} µs   at the cap {capped:5.2f} µs (slowest {slowest:.0f} µs)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="memory per limit key, and the time of admit")
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("algorithms", nargs="*", default=list(ALGORITHMS))
    args = parser.parse_args()
    for name in args.algorithms:
        if args.here:
            measure(name, args.keys)
        else:
            command = [sys.executable, __file__, "--keys", str(args.keys), "--here", name]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
