"""The rows of bench/targets.py: how each is measured, and what it must be.

Every row starts its contestants, lets them take turns and stops them. Ratios are made within a
round, so that what else the machine does in it hits both.
"""

import contextlib
import itertools
import statistics
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import redis

from bench import cache, cache_proxies, everything_on, peers, proxies, resident
from bench.constant_rate import Timed, constant
from bench.contest import LOAD_CORE, differing, measure, rate
from bench.proxies import Place, Proxy, Started
from bench.tools import Origin, RedisServer, get
from bench.verdicts import Bound, Spread, Verdict, unmeasured

OURS = "Sluicegate"
INTERPRETED = "Sluicegate, interpreted"
"""Beside the compiled build, where that is measured."""
NOTHING = (None, None)

Runner = peers.Runner | cache.Runner
Bounds = tuple[Bound | None, Bound | None]
"""must, aim"""


@dataclass
class Ground:
    """What the rows share, and what they leave behind beside their verdicts."""

    asked: Namespace
    folder: Path
    origin: Origin
    fresh: Origin
    """The same with `Cache-Control: max-age=600`, asked by nobody who checks its health."""
    checked: Origin
    """The same again, for who does."""
    redis: RedisServer
    program: str
    """The Python that runs the gateway under test."""
    spreads: list[Spread] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    _places: Iterator[int] = field(default_factory=itertools.count)

    @property
    def compares(self) -> bool:
        """Whether there is another build than the one under test: the one that this Python runs."""
        return self.program != sys.executable

    def place(self) -> Path:
        """A folder for the next contestant; it is not made yet."""
        return self.folder / str(next(self._places))

    def start(self, stack: contextlib.ExitStack, proxy: Proxy) -> peers.Runner | None:
        """A contestant that passes through, warm; None where its program is not there."""
        runner = peers.start(stack, proxy, self.place(), self.origin.port, self.redis)
        if runner is not None:
            runner.check()
            measure(runner.url, 1, self.asked.connections)
        return runner

    def ours(self, prepare: Callable[[Place, str], Started], *, shared: bool = False) -> Proxy:
        """The gateway under test, told by one of bench/everything_on.py."""
        return Proxy(OURS, "token bucket", shared, lambda: self.program, "", prepare)

    def interpreted(self, prepare: Callable[[Place, str], Started]) -> list[Proxy]:
        """The other build, where there are two."""
        if not self.compares:
            return []
        return [self.ours(prepare)._replace(name=INTERPRETED, program=lambda: sys.executable)]

    def take_turns(self, workload: str, runners: Sequence[Runner], times: int = 1) -> None:
        """The rounds, in the other direction in every second one; with so many `times` the
        connections."""
        for turn in range(self.asked.rounds):
            for runner in runners if turn % 2 == 0 else reversed(runners):
                runner.turn(self.asked.seconds, times * self.asked.connections)
        self.spreads += [
            Spread(workload, title(runner), runner.loads, runner.cpu) for runner in runners
        ]


def title(runner: Runner) -> str:
    return f"{runner.proxy.name} {runner.version}".strip()


def among(name: str, *, shared: bool = False) -> Proxy:
    """One of bench/proxies.py."""
    found = [proxy for proxy in proxies.PROXIES if (proxy.name, proxy.shared) == (name, shared)]
    return found[0]


def beside(
    workload: str, runners: Sequence[Runner], bounds: Mapping[str, Bounds], what: str = "req/s"
) -> list[Verdict]:
    """A line for each peer, by name: our rate through theirs. The first runner is ours."""
    own, verdicts = runners[0], []
    for name, (must, aim) in bounds.items():
        peer = next((runner for runner in runners[1:] if runner.proxy.name == name), None)
        if peer is None:
            verdicts.append(unmeasured(workload, name, must, aim))
            continue
        ratios = [
            mine.per_second / other.per_second
            for mine, other in zip(own.loads, peer.loads, strict=True)
        ]
        mine, other = (f"{rate(runner.loads):,.0f} {what}" for runner in (own, peer))
        verdicts.append(Verdict(workload, title(peer), mine, other, ratios, must, aim))
    return verdicts


# Hits


def hits(ground: Ground) -> list[Verdict]:
    workload = "cache hit, limit per key"
    bounds: dict[str, Bounds] = {
        "nginx": (Bound(0.7), Bound(1.0)),
        "HAProxy": (None, Bound(1.0)),
        "Varnish": (Bound(1.0), Bound(1.5)),
    }
    usual = cache_proxies.PROXIES[0]._replace(prepare=everything_on.caching)
    own = [usual._replace(program=lambda: ground.program)]
    if ground.compares:
        own.append(usual._replace(name=INTERPRETED))
        bounds[INTERPRETED] = NOTHING
    runners = []
    with contextlib.ExitStack() as stack:
        for proxy in (*own, *cache_proxies.PROXIES[1:]):
            origin = ground.checked if proxy in own else ground.fresh
            runner = cache.start(stack, proxy, ground.place(), origin)
            if runner is None:
                continue
            # Those of both builds, which share an origin.
            runner.checks = everything_on.CHECKS * len(own) if proxy in own else 0
            runner.probe()
            measure(runner.url, 2, ground.asked.connections)  # everything is stored, and warm
            runners.append(runner)
        ground.take_turns(workload, runners)
    return beside(workload, runners, bounds)


# Pass-through


def passed(ground: Ground) -> list[Verdict]:
    workload = "pass-through, limit per key"
    bounds: dict[str, Bounds] = {
        "Traefik": (Bound(1.5), Bound(3)),
        "Caddy": (Bound(1.5), Bound(3)),
        "nginx": (Bound(0.3), Bound(0.6)),
        "HAProxy": NOTHING,
    }
    with contextlib.ExitStack() as stack:
        peers_there = map(among, bounds)
        both = (ground.ours(everything_on.gateway), *ground.interpreted(everything_on.gateway))
        started = [ground.start(stack, proxy) for proxy in (*both, *peers_there)]
        runners = [runner for runner in started if runner is not None]
        ground.take_turns(workload, runners)
    if ground.compares:
        bounds[INTERPRETED] = NOTHING
    return beside(workload, runners, bounds)


def in_redis(ground: Ground) -> list[Verdict]:
    workload = "pass-through, limit in Redis"
    bounds = {"Traefik": (Bound(1.5), Bound(3))}
    _forget(ground.redis)
    with contextlib.ExitStack() as stack:
        both = (ground.ours(everything_on.in_redis, shared=True), among("Traefik", shared=True))
        runners = [runner for proxy in both if (runner := ground.start(stack, proxy)) is not None]
        peers.counted_in_redis(runners, ground.redis)
        ground.take_turns(workload, runners)
        runners[0].never_alone()
    return beside(workload, runners, bounds)


def _forget(server: RedisServer) -> None:
    with redis.Redis(port=server.port) as client:
        client.flushall()


# Refusals


def _nginx_refusing(place: Place, program: str) -> Started:
    # Refusals are logged as errors otherwise, which is a write to a file for each.
    told = "limit_req_status 429; limit_req_log_level info;"
    return proxies.nginx(place, program, location=told, admits="")


def refusals(ground: Ground) -> list[Verdict]:
    workload = "429 answers"
    bounds = {"nginx": (Bound(0.7), Bound(1.0))}
    nginx = among("nginx")._replace(prepare=_nginx_refusing)
    runners = []
    with contextlib.ExitStack() as stack:
        for proxy in (ground.ours(everything_on.refusing), nginx):
            runner = peers.start(stack, proxy, ground.place(), ground.origin.port, ground.redis)
            if runner is None:
                continue
            key = {"X-Api-Key": "probe"}
            answers = [get(f"{runner.url}/api/users/1", headers=key).status for _ in range(2)]
            if answers != [200, 429]:
                raise RuntimeError(f"{title(runner)} is to refuse the second: {answers}")
            # Every key has had its request after the first turn.
            differing(runner.url, 2, ground.asked.connections)
            runner.refused = True
            runners.append(runner)
        ground.take_turns(workload, runners)
    return beside(workload, runners, bounds, "429/s")


# Latency


class Paced(NamedTuple):
    """A contestant under a constant load."""

    runner: peers.Runner
    timed: list[Timed]

    def told(self) -> str:
        """Its medians, in ms."""
        middle, slow = (
            statistics.median(getattr(one, part) for one in self.timed) / 1000
            for part in ("p50", "p99")
        )
        return f"p99 {slow:.2f} ms, p50 {middle:.2f} ms"


def latency(ground: Ground) -> list[Verdict]:
    workload, must = "p99 at half load, pass-through", Bound(2.0, most=True, unit="ms")
    asked = ground.asked
    with contextlib.ExitStack() as stack:
        own = ground.start(stack, ground.ours(everything_on.gateway))
        peer = ground.start(stack, among("nginx"))
        assert own is not None
        if peer is None:
            return [unmeasured(workload, "nginx", must, None)]
        both = (Paced(own, []), Paced(peer, []))
        halves = []
        for turn in range(asked.rounds + 1):
            # Anew in every round: the machine may be half as fast as in the one before, and half
            # of what it did then would be all that it can do.
            half = measure(own.url, asked.seconds, asked.connections).per_second / 2
            for paced in both if turn % 2 == 0 else reversed(both):
                shape = {"rate": half, "seconds": asked.seconds}
                paced.timed.append(
                    constant(
                        paced.runner.url, **shape, connections=asked.connections, core=LOAD_CORE
                    )
                )
            halves.append(half)
        # In the first round its requests were new to whoever remembers requests.
        for paced in both:
            del paced.timed[0]
        half = statistics.median(halves[1:])
        workload = f"{workload}: {half:,.0f} req/s"
    more = [(one.p99 - two.p99) / 1000 for one, two in zip(*(p.timed for p in both), strict=True)]
    for paced in both:
        slowest = max(one.slowest for one in paced.timed) / 1000
        late = statistics.median(one.late for one in paced.timed) / 1000
        ground.remarks.append(
            f"{title(paced.runner)} at {half:,.0f} req/s: {paced.told()}, slowest of all rounds "
            f"{slowest:.1f} ms; the sender itself was up to {late:.2f} ms late (p99)"
        )
    return [
        Verdict(
            workload, title(peer), both[0].told(), both[1].told(), more, must, form="{:+.2f} ms"
        )
    ]


# Workers and memory


def workers(ground: Ground) -> list[Verdict]:
    """Two workers need a Redis store, so one has it here, too. There are connections for two: each
    worker is to have as many as one has elsewhere, as it does together what comes together."""
    workload = "CPU per request, two workers"
    _forget(ground.redis)
    with contextlib.ExitStack() as stack:
        one = ground.start(stack, ground.ours(everything_on.in_redis))
        two = ground.start(stack, ground.ours(everything_on.two_workers))
        assert one is not None
        assert two is not None
        ground.take_turns(workload, [one, two], times=2)
        for runner in (one, two):
            runner.never_alone()
    first, second = ground.spreads[-2:]
    ground.spreads[-2:] = [first._replace(title="one worker"), second._replace(title="two workers")]
    ratios = [more / less for more, less in zip(two.cpu, one.cpu, strict=True)]
    mine, theirs = (f"{statistics.median(runner.cpu):.1f} µs" for runner in (two, one))
    must = Bound(1.15, most=True)
    return [Verdict(workload, "one worker", mine, theirs, ratios, must)]


def memory(ground: Ground) -> list[Verdict]:
    """Once, not in rounds: it does not depend on what else runs."""
    measured: list[tuple[str, Callable[[Origin, str], float], float]] = [
        ("at rest", resident.at_rest, 80),
        ("1,000,000 token_bucket keys", resident.with_keys, 400),
        ("64 MiB cached", resident.with_answers, 200),
    ]
    verdicts = []
    for what, ask, most in measured:
        seen = ask(ground.checked, ground.program)
        must = Bound(most, most=True, unit="MiB")
        verdicts.append(
            Verdict(f"RSS of one worker, {what}", "", f"{seen:.0f} MiB", "", [seen], must, form="")
        )
    return verdicts


ROWS: dict[str, Callable[[Ground], list[Verdict]]] = {
    "hits": hits,
    "pass": passed,
    "redis": in_redis,
    "refusals": refusals,
    "latency": latency,
    "workers": workers,
    "memory": memory,
}
