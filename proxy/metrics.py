"""Figures: plain integers on the request path, turned into Prometheus families at scrape time.

Tallies are bound into the plans when the YAML is loaded, so counting is an attribute away. They
live in one `Metrics` by name and outlive reloads, as counters must. Label values come from the
configuration or from a fixed set, never from a request, so their number is bounded.
"""

from bisect import bisect_left
from collections.abc import Iterator
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

DURATION_BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip

REGISTERED_METHODS: Final = frozenset((
    "ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "CONNECT", "COPY", "DELETE",
    "GET", "HEAD", "LABEL", "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL",
    "MKREDIRECTREF", "MKWORKSPACE", "MOVE", "OPTIONS", "ORDERPATCH", "PATCH", "POST",
    "PROPFIND", "PROPPATCH", "PUT", "QUERY", "REBIND", "REPORT", "SEARCH", "TRACE", "UNBIND",
    "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE", "UPDATEREDIRECTREF", "VERSION-CONTROL",
))  # fmt: skip
"""IANA's method registry, without `*` and PRI, which no request may carry."""


def method_label(method: str) -> str:
    """The method as a label value: itself where IANA registers it, else `other`."""
    return method if method in REGISTERED_METHODS else "other"


class Histogram:
    """Seconds counted into `DURATION_BUCKETS`, not yet cumulative."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(DURATION_BUCKETS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(DURATION_BUCKETS, seconds)] += 1
        self.sum += seconds


class RouteTally:
    """One route's requests by (method label, status), and their durations."""

    __slots__ = ("duration", "name", "requests")

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests: dict[tuple[str, int], int] = {}
        self.duration = Histogram()

    def count(self, method: str, status: int, seconds: float) -> None:
        """Counts one answered request. `method` is a `method_label`; `status` 499 where the
        client left; `seconds` from the head's arrival to the last byte handed to the socket."""
        key = (method, status)
        requests = self.requests
        requests[key] = requests.get(key, 0) + 1
        self.duration.observe(seconds)


class LimitTally:
    """One limit's decisions. `degraded` counts beside the others."""

    __slots__ = ("allowed", "degraded", "denied", "name", "overflow", "shadow_denied")

    def __init__(self, name: str) -> None:
        self.name = name
        self.allowed = 0
        self.denied = 0
        self.shadow_denied = 0
        self.degraded = 0
        self.overflow = 0


class UpstreamTally:
    """One upstream's requests in flight, and its times to the response head."""

    __slots__ = ("duration", "in_flight", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.in_flight = 0
        self.duration = Histogram()


class Metrics:
    """Every tally of the process, by name."""

    def __init__(self) -> None:
        self.routes: dict[str, RouteTally] = {}
        self.limits: dict[str, LimitTally] = {}
        self.upstreams: dict[str, UpstreamTally] = {}
        self.reloads: dict[str, int] = {"ok": 0, "failed": 0}
        self.no_route = self.route("none")

    def route(self, name: str) -> RouteTally:
        return self.routes.setdefault(name, RouteTally(name))

    def limit(self, name: str) -> LimitTally:
        return self.limits.setdefault(name, LimitTally(name))

    def upstream(self, name: str) -> UpstreamTally:
        return self.upstreams.setdefault(name, UpstreamTally(name))


DECISIONS: Final = ("allowed", "denied", "shadow_denied", "degraded")

_BOUNDS: Final = (*map(str, DURATION_BUCKETS), "+Inf")


def _histogram(
    name: str, text: str, label: str, tallies: list[RouteTally] | list[UpstreamTally]
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


class _Scrape(Collector):
    """What one scrape shows: our tallies, and the process's own figures (process_*)."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from TallyCollector(self._metrics).collect()
        yield from ProcessCollector(registry=None).collect()


def render(metrics: Metrics, accept: str) -> tuple[str, bytes]:
    """A scrape as (Content-Type, body): OpenMetrics where `accept` asks for it, else Prometheus
    text. Reads /proc, so it belongs in a thread, never on the event loop."""
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # the library trips over versions that are no numbers
        encode, content_type = choose_encoder("")
    return content_type, encode(_Scrape(metrics))
