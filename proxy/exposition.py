"""What a scrape shows: the tallies as Prometheus families, with the process's own figures."""

import resource
from collections.abc import Iterator
from functools import partial
from typing import Final

from prometheus_client import ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.metrics import (
    DECISIONS,
    DURATION_BUCKETS,
    KEY_OUTCOMES,
    OUTCOMES,
    SELECTORS,
    Metrics,
    RouteTally,
    StoreTally,
    UpstreamTally,
)

_BOUNDS: Final = (*map(str, DURATION_BUCKETS), "+Inf")


def _histogram(
    name: str,
    text: str,
    label: str,
    tallies: list[RouteTally] | list[UpstreamTally] | list[StoreTally],
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=[label])
    for tally in tallies:
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip(_BOUNDS, tally.duration.counts.copy(), strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric([tally.name], buckets, tally.duration.sum)
    return family


class TallyCollector(Collector):
    """The contract's families over the tallies of one process.

    A scrape runs in a thread beside the event loop, so whatever the loop may grow is copied first;
    each copy is one step under the interpreter's lock.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._traffic()
        yield from self._limits()
        if self._metrics.breakers:
            yield from self._breakers()
        if self._metrics.caches:
            yield from self._caches()
        if self._metrics.idempotency:
            yield self._idempotency()
        if self._metrics.stores:
            yield from self._store()
        reloads = CounterMetricFamily(
            "sluicegate_config_reloads", "Attempts to reload the configuration.", labels=["outcome"]
        )
        for outcome, count in self._metrics.reloads.copy().items():
            reloads.add_metric([outcome], count)
        yield reloads
        yield InfoMetricFamily(
            "sluicegate_build", "The version that runs.", value={"version": __version__}
        )

    def _traffic(self) -> Iterator[Metric]:
        routes = list(self._metrics.routes.copy().values())
        upstreams = list(self._metrics.upstreams.copy().values())
        requests = CounterMetricFamily(
            "sluicegate_requests",
            "Requests answered; status 499 where the client left first.",
            labels=["route", "method", "status"],
        )
        for route in routes:
            for (method, status), count in route.requests.copy().items():
                requests.add_metric([route.name, method, str(status)], count)
        yield requests
        yield _histogram(
            "sluicegate_request_duration_seconds",
            "From a request's head to the last byte of its answer.",
            "route",
            routes,
        )
        yield _histogram(
            "sluicegate_upstream_duration_seconds",
            "From sending a request upstream to the head of its answer.",
            "upstream",
            upstreams,
        )
        in_flight = GaugeMetricFamily(
            "sluicegate_in_flight_requests",
            "Requests that an upstream is working on.",
            labels=["upstream"],
        )
        for upstream in upstreams:
            in_flight.add_metric([upstream.name], upstream.in_flight)
        yield in_flight
        retries = CounterMetricFamily(
            "sluicegate_retries",
            "Requests sent again, by what was wrong with the attempt before.",
            labels=["upstream", "reason"],
        )
        for upstream in upstreams:
            for reason, count in upstream.retries.copy().items():
                retries.add_metric([upstream.name, reason], count)
        yield retries

    def _breakers(self) -> Iterator[Metric]:
        tallies = list(self._metrics.breakers.copy().values())
        state = GaugeMetricFamily(
            "sluicegate_breaker_state",
            "An upstream's circuit: 0 closed, 1 half-open, 2 open.",
            labels=["upstream"],
        )
        transitions = CounterMetricFamily(
            "sluicegate_breaker_transitions",
            "How often a circuit turned, by the state that it turned to.",
            labels=["upstream", "to"],
        )
        for tally in tallies:
            state.add_metric([tally.name], tally.state)
            for to, count in tally.transitions.copy().items():
                transitions.add_metric([tally.name, to], count)
        yield state
        yield transitions

    def _limits(self) -> Iterator[Metric]:
        decisions = CounterMetricFamily(
            "sluicegate_limit_decisions",
            "What limits decided; degraded counts beside, where the store could not be asked.",
            labels=["limit", "decision"],
        )
        overflow = CounterMetricFamily(
            "sluicegate_limit_overflow",
            "Requests counted in the one shared bucket because the store was full.",
            labels=["limit"],
        )
        for tally in self._metrics.limits.copy().values():
            for decision in DECISIONS:
                decisions.add_metric([tally.name, decision], getattr(tally, decision))
            overflow.add_metric([tally.name], tally.overflow)
        yield decisions
        yield overflow

    def _caches(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "sluicegate_cache_requests",
            "Requests by what the cache made of them.",
            labels=["cache", "outcome"],
        )
        for tally in self._metrics.caches.copy().values():
            for outcome in OUTCOMES:
                requests.add_metric([tally.name, outcome], getattr(tally, outcome))
        yield requests
        held = GaugeMetricFamily(
            "sluicegate_cache_bytes",
            "Bytes that the cache takes: answers, hit-for-miss marks, names of purged tags.",
            labels=["tier"],
        )
        for tier, count in self._metrics.cache_bytes.copy().items():
            held.add_metric([tier], count)
        yield held
        purges = CounterMetricFamily(
            "sluicegate_cache_purges",
            "Tags, URLs and prefixes that operators purged, and purges of everything.",
            labels=["selector"],
        )
        purged = self._metrics.purges.copy()
        for selector in SELECTORS:
            purges.add_metric([selector], purged.get(selector, 0))
        yield purges

    def _idempotency(self) -> Metric:
        requests = CounterMetricFamily(
            "sluicegate_idempotency",
            "Requests of an idempotency policy by what came of their keys; unprotected went "
            "through without a record, as the store gave no answer.",
            labels=["policy", "outcome"],
        )
        for tally in self._metrics.idempotency.copy().values():
            for outcome in KEY_OUTCOMES:
                requests.add_metric([tally.name, outcome], getattr(tally, outcome))
        return requests

    def _store(self) -> Iterator[Metric]:
        tallies = list(self._metrics.stores.copy().values())
        errors = CounterMetricFamily(
            "sluicegate_store_errors",
            "Calls that the shared store gave no answer to: too late, not connected, refused.",
            labels=["operation"],
        )
        for tally in tallies:
            errors.add_metric([tally.name], tally.errors)
        yield errors
        yield _histogram(
            "sluicegate_store_duration_seconds",
            "From a call to the shared store to its answer or failure.",
            "operation",
            tallies,
        )
        alarms = GaugeMetricFamily(
            "sluicegate_store_alarm",
            "1 while limits count without the shared store (degraded); "
            "where it may drop keys that count (evicts); "
            "while the cache may miss purges (blind).",
            labels=["alarm"],
        )
        for alarm, is_on in self._metrics.store_alarms.copy().items():
            alarms.add_metric([alarm], is_on)
        yield alarms


class _Scrape(Collector):
    """What one scrape shows: our tallies, and the process's own figures (process_*)."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from TallyCollector(self._metrics).collect()
        yield from _process_figures(self._metrics.workers)


_SUMMED: Final = frozenset((
    "process_virtual_memory_bytes", "process_resident_memory_bytes", "process_open_fds",
    "process_cpu_seconds",
))  # fmt: skip


def _process_figures(workers: tuple[int, ...]) -> Iterator[Metric]:
    """This process's figures, those of `workers` added where a sum means something."""
    extra = dict.fromkeys(_SUMMED, 0.0)
    for pid in workers:
        for family in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            if family.name in extra:
                extra[family.name] += family.samples[0].value
    if workers:
        # Workers that have ended count on: a counter never goes down.
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        extra["process_cpu_seconds"] += ended.ru_utime + ended.ru_stime
    for family in ProcessCollector(registry=None).collect():
        added = extra.get(family.name, 0.0)
        family.samples = [s._replace(value=s.value + added) for s in family.samples]
        yield family


def render(metrics: Metrics, accept: str) -> tuple[str, bytes]:
    """A scrape as (Content-Type, body): OpenMetrics where `accept` asks for it, else Prometheus
    text. Reads /proc, so it belongs in a thread, never on the event loop."""
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # the library trips over versions that are no numbers
        encode, content_type = choose_encoder("")
    return content_type, encode(_Scrape(metrics))
