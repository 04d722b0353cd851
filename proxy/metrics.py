"""Figures: plain integers on the request path; `proxy.exposition` shows them to Prometheus.

Tallies are bound into the plans when the YAML is loaded, so counting is an attribute away. They
live in one `Metrics` by name and outlive reloads, as counters must. Label values come from the
configuration or from a fixed set, never from a request, so their number is bounded.

Where several processes share the work, each one's figures go to the supervisor as JSON (`dump`)
and are summed there (`add`): a tally is its `figures`, each a number, a Histogram or a dict of
numbers.
"""

from bisect import bisect_left
from collections.abc import Callable
from typing import Any, ClassVar, Final

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


class Histogram:
    """Seconds counted into `DURATION_BUCKETS`, not yet cumulative."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(DURATION_BUCKETS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        # Nearly all that is answered here falls into the first.
        place = 0 if seconds <= 0.0005 else bisect_left(DURATION_BUCKETS, seconds)
        self.counts[place] += 1
        self.sum += seconds


class Tally:
    """What the tallies share: figures that can be sent to another process, and summed there."""

    figures: ClassVar[tuple[str, ...]] = ()
    """The attributes that count."""
    gauges: ClassVar[frozenset[str]] = frozenset()
    """The figures that tell of now: they end with their process, as counters do not."""
    highest: ClassVar[frozenset[str]] = frozenset()
    """The figures of which, over several processes, the highest counts."""

    def __init__(self, name: str) -> None:
        self.name = name

    def dump(self) -> dict[str, Any]:
        """The figures, as JSON can carry them."""
        return {name: _as_json(getattr(self, name)) for name in self.figures}

    def add(self, figures: dict[str, Any], *, gauges: bool = True) -> None:
        """Adds a dump's figures; its gauges only where they still hold."""
        for name, value in figures.items():
            mine = getattr(self, name)
            if name in self.highest:
                setattr(self, name, max(mine, value) if gauges else mine)
            elif gauges or name not in self.gauges:
                setattr(self, name, _sum(mine, value))

    def take(self, other: "Tally") -> None:
        """Has the figures of the other one, which is not used on."""
        for name in self.figures:
            setattr(self, name, getattr(other, name))


def _as_json(value: Any) -> Any:
    if isinstance(value, Histogram):
        return [value.counts.copy(), value.sum]
    return list(value.copy().items()) if isinstance(value, dict) else value


def _sum(mine: Any, figures: Any) -> Any:
    if isinstance(mine, Histogram):
        counts, total = figures
        mine.counts = [one + other for one, other in zip(mine.counts, counts, strict=True)]
        mine.sum += total
        return mine
    if isinstance(mine, dict):
        for key, count in figures:
            held = tuple(key) if isinstance(key, list) else key
            mine[held] = mine.get(held, 0) + count
        return mine
    return mine + figures


class RouteTally(Tally):
    """One route's requests by (method label, status), and their durations."""

    figures = ("duration", "requests")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.requests: dict[tuple[str, int], int] = {}
        self.duration = Histogram()

    def count(self, method: str, status: int, seconds: float) -> None:
        """Counts one answered request. `status` 499 where the client left; `seconds` from the
        head's arrival to the last byte handed to the socket."""
        key = (method if method in REGISTERED_METHODS else "other", status)
        requests = self.requests
        requests[key] = requests.get(key, 0) + 1
        self.duration.observe(seconds)


class LimitTally(Tally):
    """One limit's decisions. `degraded` counts beside the others."""

    figures = ("allowed", "degraded", "denied", "overflow", "shadow_denied")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.allowed = 0
        self.denied = 0
        self.shadow_denied = 0
        self.degraded = 0
        self.overflow = 0


class CacheTally(Tally):
    """One cache's requests, by what came of them, and why answers were not stored."""

    figures = ("bypass", "collapsed", "hit", "last", "miss", "not_stored", "revalidated", "stale")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.hit = 0
        self.miss = 0
        self.stale = 0
        self.revalidated = 0
        self.collapsed = 0
        self.bypass = 0
        self.not_stored: dict[str, int] = {}
        """By `NotStored.reason`."""
        self.last: dict[str, tuple[str, int]] = {}
        """Of each outcome, and of `not_stored`: the last one's reason, and when it was (ms)."""

    def count(self, outcome: str, reason: str, now: int) -> None:
        """Counts one request. `outcome` is one of OUTCOMES, `reason` a word of the code's own."""
        setattr(self, outcome, getattr(self, outcome) + 1)
        self.last[outcome] = (reason, now)

    def refuse(self, reason: str, now: int) -> None:
        """Counts an answer that is not stored."""
        self.not_stored[reason] = self.not_stored.get(reason, 0) + 1
        self.last["not_stored"] = (reason, now)

    def add(self, figures: dict[str, Any], *, gauges: bool = True) -> None:
        """As any tally; of two last reasons the later one stays."""
        counts = dict(figures)
        for outcome, (reason, at) in counts.pop("last"):
            if at >= self.last.get(outcome, ("", 0))[1]:
                self.last[outcome] = (reason, at)
        super().add(counts, gauges=gauges)


class IdempotencyTally(Tally):
    """One idempotency policy's requests, by what came of their keys. `unprotected` are those that
    went through without a record because the store gave no answer."""

    figures = (
        "conflict",
        "mismatch",
        "missing",
        "new",
        "replayed",
        "too_large",
        "unknown",
        "unprotected",
    )

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.new = 0
        self.replayed = 0
        self.conflict = 0
        self.mismatch = 0
        self.missing = 0
        """A key that is required and is not there, or is none."""
        self.unknown = 0
        self.too_large = 0
        self.unprotected = 0


class UpstreamTally(Tally):
    """One upstream's requests in flight, its times to the response head, and what was sent again
    (by `core.retries.Failure.reason`)."""

    figures = ("duration", "in_flight", "retries")
    gauges = frozenset(("in_flight",))

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.in_flight = 0
        self.duration = Histogram()
        self.retries: dict[str, int] = {}


class BreakerTally(Tally):
    """One upstream's circuit: its state (0 closed, 1 half-open, 2 open) and the transitions, by
    the state that they led to."""

    figures = ("state", "transitions")
    gauges = frozenset(("state",))
    highest = frozenset(("state",))

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.state = 0
        self.transitions: dict[str, int] = {}


class StoreTally(Tally):
    """One operation on the shared store: how long it took, whatever came of it, and how often it
    gave no answer."""

    figures = ("duration", "errors")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.errors = 0
        self.duration = Histogram()


class Metrics:
    """Every tally of the process, by name."""

    def __init__(self) -> None:
        self.routes: dict[str, RouteTally] = {}
        self.limits: dict[str, LimitTally] = {}
        self.upstreams: dict[str, UpstreamTally] = {}
        self.breakers: dict[str, BreakerTally] = {}
        """By upstream."""
        self.caches: dict[str, CacheTally] = {}
        self.idempotency: dict[str, IdempotencyTally] = {}
        """By policy."""
        self.cache_bytes: dict[str, int] = {}
        """By tier; none before a cache is used."""
        self.purges: dict[str, int] = {}
        """What was purged on demand, by kind: one of SELECTORS."""
        self.stores: dict[str, StoreTally] = {}
        """By operation; none without a shared store."""
        self.store_alarms: dict[str, int] = {"degraded": 0, "evicts": 0, "blind": 0}
        """1 where limits count without the shared store; where it may drop keys that count; where
        the cache may miss purges."""
        self.reloads: dict[str, int] = {"ok": 0, "failed": 0}
        self.no_route = self.route("none")
        self.workers: tuple[int, ...] = ()
        """The processes (their ids) whose figures are summed here, beside this one's own."""

    def route(self, name: str) -> RouteTally:
        return self.routes.setdefault(name, RouteTally(name))

    def limit(self, name: str) -> LimitTally:
        return self.limits.setdefault(name, LimitTally(name))

    def upstream(self, name: str) -> UpstreamTally:
        return self.upstreams.setdefault(name, UpstreamTally(name))

    def breaker(self, upstream: str) -> BreakerTally:
        return self.breakers.setdefault(upstream, BreakerTally(upstream))

    def cache(self, name: str) -> CacheTally:
        return self.caches.setdefault(name, CacheTally(name))

    def replay(self, policy: str) -> IdempotencyTally:
        return self.idempotency.setdefault(policy, IdempotencyTally(policy))

    def store(self, operation: str) -> StoreTally:
        return self.stores.setdefault(operation, StoreTally(operation))

    def dump(self) -> dict[str, Any]:
        """Every figure, as JSON can carry it."""
        families = {
            family: {name: tally.dump() for name, tally in getattr(self, family).items()}
            for family in _FAMILIES
        }
        return {
            **families,
            "reloads": dict(self.reloads),
            "purges": dict(self.purges),
            "cache_bytes": dict(self.cache_bytes),
            "store_alarms": dict(self.store_alarms),
        }

    def add(self, figures: dict[str, Any], *, gauges: bool = True) -> None:
        """Adds a dump of another process; without its gauges where that process has ended."""
        for family, make in _FAMILIES.items():
            for name, tally in figures[family].items():
                make(self, name).add(tally, gauges=gauges)
        for outcome, count in figures["reloads"].items():
            self.reloads[outcome] += count
        for selector, count in figures["purges"].items():
            self.purges[selector] = self.purges.get(selector, 0) + count
        for tier, held in figures["cache_bytes"].items() if gauges else ():
            self.cache_bytes[tier] = self.cache_bytes.get(tier, 0) + held
        for alarm, is_on in figures["store_alarms"].items() if gauges else ():
            self.store_alarms[alarm] |= is_on

    def take(self, other: "Metrics") -> None:
        """Has the figures of the other one, which is not used on. The tallies stay the objects
        that they are, as a snapshot is bound to them; a scrape beside this sees no gap."""
        for family, make in _FAMILIES.items():
            for name, tally in getattr(other, family).items():
                make(self, name).take(tally)
        self.reloads = other.reloads
        self.purges = other.purges
        self.cache_bytes = other.cache_bytes
        self.store_alarms = other.store_alarms


_FAMILIES: Final[dict[str, Callable[[Metrics, str], Tally]]] = {
    "routes": Metrics.route,
    "limits": Metrics.limit,
    "upstreams": Metrics.upstream,
    "breakers": Metrics.breaker,
    "caches": Metrics.cache,
    "idempotency": Metrics.replay,
    "stores": Metrics.store,
}

DECISIONS: Final = ("allowed", "denied", "shadow_denied", "degraded")
OUTCOMES: Final = ("hit", "miss", "stale", "revalidated", "collapsed", "bypass")
KEY_OUTCOMES: Final = (
    "new", "replayed", "conflict", "mismatch", "missing", "unknown", "too_large", "unprotected",
)  # fmt: skip
SELECTORS: Final = ("tag", "url", "prefix", "all")
