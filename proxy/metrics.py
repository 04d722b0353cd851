"""Figures: plain integers on the request path, turned into Prometheus families at scrape time.

Tallies are bound into the plans when the YAML is loaded, so counting is an attribute away. They
live in one `Metrics` by name and outlive reloads, as counters must.
"""

from bisect import bisect_left

DURATION_BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip


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
