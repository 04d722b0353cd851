"""What a failover by Sentinel costs: time without a shared count, and charges that are lost.

    python -m bench.failover [--turns 5] [--down-after 1.0]

In each turn a primary, a replica in step with it and one Sentinel are started, 64 calls are kept in
flight on one limit, and the primary is killed (SIGKILL), or told to hand over (SENTINEL FAILOVER).
Lost is what was admitted and the new primary does not know of. A call that failed may have been
counted: that is no loss.
"""

import argparse
import asyncio
import contextlib
import itertools
import logging
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import redis
import uvloop

from bench.redis_limits import key, variant
from bench.tools import RedisServer, find, free_port, redis_server, running
from proxy.core.store_urls import read_store_url
from proxy.metrics import Metrics
from proxy.policy.snapshot import StorePlan
from proxy.store.charge import Charge
from proxy.store.ports import StoreError
from proxy.store.redis.limits import RedisLimits
from proxy.store.redis.road import open_road

FLIGHTS = 64
AMOUNT = 1_000_000_000


class Trio(NamedTuple):
    """Ports and the primary's process."""

    primary: RedisServer
    replica: RedisServer
    sentinel: int


class Told(NamedTuple):
    """One turn: seconds from the blow to the first admission by the new primary, the longest time
    in which nothing was admitted, admissions before the blow per second, and how many of all are
    lost."""

    moved: float
    gap: float
    rate: float
    lost: int


@contextlib.contextmanager
def trio(
    folder: Path, down_after: float, at_least: int, link: Callable[[int], int] = lambda port: port
) -> Iterator[Trio]:
    """A primary, its replica in step, and a Sentinel that knows both. `link` gives the port at
    which the replica finds the primary."""
    with contextlib.ExitStack() as stack:
        quick: tuple[str, ...] = ("--repl-diskless-sync-delay", "0")
        quick += ("--min-replicas-to-write", str(at_least))
        primary = stack.enter_context(redis_server(folder, None, *quick))
        follow = ("--replicaof", f"127.0.0.1 {link(primary.port)}", "--min-replicas-to-write", "0")
        replica = stack.enter_context(redis_server(folder, None, *quick, *follow))
        port = free_port()
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {port}\ndir {folder}\nlogfile {folder}/sentinel.log\n"
            f"sentinel monitor main 127.0.0.1 {primary.port} 1\n"
            f"sentinel down-after-milliseconds main {down_after * 1000:.0f}\n"
        )
        binary = find("redis-server") or "redis-server"
        stack.enter_context(
            running(binary, config, "--sentinel", ready=f"redis://127.0.0.1:{port}")
        )
        with redis.Redis(port=replica.port) as client:
            until(lambda: client.info("replication").get("master_link_status") == "up")
        with redis.Redis(port=port) as client:
            until(lambda: _knows_a_replica(client))
        yield Trio(primary, replica, port)


def _knows_a_replica(sentinel: Any) -> bool:
    replicas = sentinel.sentinel_slaves("main")
    return bool(replicas) and not any(told["is_disconnected"] for told in replicas)


def until(holds: Callable[[], bool]) -> None:
    """Waits for it, for 20 s at most."""
    deadline = time.monotonic() + 20
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("the servers do not get together")
        time.sleep(0.05)


class Load:
    """Calls without a pause; the seconds in which they were admitted."""

    def __init__(self, store: RedisLimits) -> None:
        self.limit = variant("fixed_window", AMOUNT, "failover")
        self.admitted: list[float] = []
        self._store = store
        self._stop = False
        self._tasks = [asyncio.ensure_future(self._go()) for _ in range(FLIGHTS)]

    async def _go(self) -> None:
        while not self._stop:
            try:
                await self._store.admit([Charge(self.limit, key(1), 1, False)])
                self.admitted.append(time.monotonic())
            except StoreError:
                await asyncio.sleep(0.01)

    async def end(self) -> int:
        """How many units the store knows of."""
        self._stop = True
        await asyncio.gather(*self._tasks)
        left = await self._store.peek(Charge(self.limit, key(1), 0, False))
        return AMOUNT - left.remaining


async def turn(folder: Path, planned: bool, at_least: int, down_after: float) -> Told:
    with trio(folder, down_after, at_least) as servers:
        plan = StorePlan(read_store_url(f"redis+sentinel://127.0.0.1:{servers.sentinel}/main/0"))
        road = open_road(plan, Metrics())
        store = RedisLimits(road, "sg")
        if not await road.up(10):
            raise SystemExit("the primary is not found")
        load = Load(store)
        began = time.monotonic()
        await asyncio.sleep(1)
        blow = time.monotonic()
        rate = len(load.admitted) / (blow - began)
        if planned:
            with redis.Redis(port=servers.sentinel) as sentinel:
                sentinel.execute_command("SENTINEL", "FAILOVER", "main")
        else:
            servers.primary.process.send_signal(signal.SIGKILL)
        there = f"127.0.0.1:{servers.replica.port}"
        await _eventually(lambda: road.status()["server"] == there)
        await _eventually(lambda: bool(road.status()["connected"]))
        found = time.monotonic()
        await _eventually(lambda: load.admitted[-1] > found)
        known = await load.end()
        await store.close()
    times = [at for at in load.admitted if at > blow]
    gap = max(later - earlier for earlier, later in itertools.pairwise([blow, *times]))
    first = next(at for at in times if at > found)
    return Told(first - blow, gap, rate, len(load.admitted) - known)


async def _eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while True:
            if holds():
                return
            await asyncio.sleep(0.01)


async def run(turns: int, down_after: float) -> None:
    print(f"down-after-milliseconds {down_after * 1000:.0f}, {turns} turns, {FLIGHTS} in flight\n")
    print("| | admitted per s | new primary after, s | without an answer, s | lost, each turn |")
    print("|---|---|---|---|---|")
    for name, planned, at_least in (
        ("primary killed", False, 0),
        ("SENTINEL FAILOVER", True, 0),
        ("SENTINEL FAILOVER, `min-replicas-to-write 1`", True, 1),
    ):
        told = []
        for _ in range(turns):
            with tempfile.TemporaryDirectory() as folder:
                told.append(await turn(Path(folder), planned, at_least, down_after))
        rates, moved, gaps = (
            [getattr(each, part) for each in told] for part in ("rate", "moved", "gap")
        )
        print(
            f"| {name} | {statistics.median(rates):,.0f} "
            f"| {statistics.median(moved):.2f} (at most {max(moved):.2f}) "
            f"| {statistics.median(gaps):.2f} (at most {max(gaps):.2f}) "
            f"| {', '.join(f'{max(0, each.lost):,}' for each in told)} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="what a failover costs")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--down-after", type=float, default=1.0, help="seconds")
    asked = parser.parse_args()
    logging.disable()  # that the primary is gone is no news here
    uvloop.run(run(asked.turns, asked.down_after))


if __name__ == "__main__":
    main()
