"""The scrape: the contract's names and labels, true sums, and a linter that has no complaint."""

import json
import os
import shutil
import subprocess
import sys
import threading

import pytest
from facts_kit import facts
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus_text

from proxy import __version__
from proxy.exposition import render
from proxy.metrics import DURATION_BUCKETS, Histogram, Metrics

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def busy() -> Metrics:
    """A process that has seen one of everything."""
    metrics = Metrics()
    users = metrics.route("users")
    users.count("GET", 200, 0.003)
    users.count("GET", 200, 0.02)
    users.count("other", 499, 31.0)
    metrics.no_route.count("GET", 404, 0.0001)
    keys = metrics.limit("per-key")
    keys.allowed, keys.denied, keys.shadow_denied, keys.degraded, keys.overflow = 5, 4, 3, 2, 1
    origin = metrics.upstream("origin")
    origin.in_flight = 7
    origin.duration.observe(0.004)
    pages = metrics.cache("pages")
    pages.hit, pages.miss, pages.stale = 6, 5, 4
    pages.revalidated, pages.collapsed, pages.bypass = 3, 2, 1
    pages.refuse("private", 7_000)
    payments = metrics.replay("payments")
    payments.new, payments.replayed, payments.conflict, payments.mismatch = 8, 7, 6, 5
    payments.missing, payments.unknown, payments.too_large, payments.unprotected = 4, 3, 2, 1
    metrics.cache_bytes["memory"] = 4096
    metrics.purges["tag"] = 3
    metrics.reloads["failed"] += 1
    return metrics


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    _, body = render(metrics, "")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in prometheus_text(body.decode())
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("sluicegate_requests_total", {"route": "users", "method": "GET", "status": "200"}, 2),
        ("sluicegate_requests_total", {"route": "users", "method": "other", "status": "499"}, 1),
        ("sluicegate_requests_total", {"route": "none", "method": "GET", "status": "404"}, 1),
        ("sluicegate_request_duration_seconds_count", {"route": "users"}, 3),
        ("sluicegate_request_duration_seconds_sum", {"route": "users"}, 31.023),
        ("sluicegate_request_duration_seconds_bucket", {"route": "none", "le": "0.0005"}, 1),
        ("sluicegate_request_duration_seconds_bucket", {"route": "users", "le": "0.0025"}, 0),
        ("sluicegate_request_duration_seconds_bucket", {"route": "users", "le": "0.005"}, 1),
        ("sluicegate_request_duration_seconds_bucket", {"route": "users", "le": "30.0"}, 2),
        ("sluicegate_request_duration_seconds_bucket", {"route": "users", "le": "+Inf"}, 3),
        ("sluicegate_upstream_duration_seconds_count", {"upstream": "origin"}, 1),
        ("sluicegate_in_flight_requests", {"upstream": "origin"}, 7),
        ("sluicegate_limit_decisions_total", {"limit": "per-key", "decision": "allowed"}, 5),
        ("sluicegate_limit_decisions_total", {"limit": "per-key", "decision": "denied"}, 4),
        ("sluicegate_limit_decisions_total", {"limit": "per-key", "decision": "shadow_denied"}, 3),
        ("sluicegate_limit_decisions_total", {"limit": "per-key", "decision": "degraded"}, 2),
        ("sluicegate_limit_overflow_total", {"limit": "per-key"}, 1),
        ("sluicegate_cache_requests_total", {"cache": "pages", "outcome": "hit"}, 6),
        ("sluicegate_cache_requests_total", {"cache": "pages", "outcome": "miss"}, 5),
        ("sluicegate_cache_requests_total", {"cache": "pages", "outcome": "stale"}, 4),
        ("sluicegate_cache_requests_total", {"cache": "pages", "outcome": "revalidated"}, 3),
        ("sluicegate_cache_requests_total", {"cache": "pages", "outcome": "collapsed"}, 2),
        ("sluicegate_cache_requests_total", {"cache": "pages", "outcome": "bypass"}, 1),
        ("sluicegate_idempotency_total", {"policy": "payments", "outcome": "new"}, 8),
        ("sluicegate_idempotency_total", {"policy": "payments", "outcome": "replayed"}, 7),
        ("sluicegate_idempotency_total", {"policy": "payments", "outcome": "conflict"}, 6),
        ("sluicegate_idempotency_total", {"policy": "payments", "outcome": "mismatch"}, 5),
        ("sluicegate_idempotency_total", {"policy": "payments", "outcome": "missing"}, 4),
        ("sluicegate_idempotency_total", {"policy": "payments", "outcome": "unknown"}, 3),
        ("sluicegate_idempotency_total", {"policy": "payments", "outcome": "too_large"}, 2),
        ("sluicegate_idempotency_total", {"policy": "payments", "outcome": "unprotected"}, 1),
        ("sluicegate_cache_bytes", {"tier": "memory"}, 4096),
        ("sluicegate_cache_purges_total", {"selector": "tag"}, 3),
        ("sluicegate_cache_purges_total", {"selector": "all"}, 0),
        ("sluicegate_config_reloads_total", {"outcome": "ok"}, 0),
        ("sluicegate_config_reloads_total", {"outcome": "failed"}, 1),
        ("sluicegate_build_info", {"version": __version__}, 1),
    ],
)
def test_contract_sample(name: str, labels: dict[str, str], value: float) -> None:
    assert samples(busy())[name, frozenset(labels.items())] == pytest.approx(value)


def test_nothing_beside_the_contract_and_the_process() -> None:
    names = {name for name, _ in samples(busy())}
    ours = {name for name in names if name.startswith("sluicegate_")}
    assert names - ours == {name for name in names if name.startswith("process_")}
    assert (
        len(
            {name.removesuffix("_bucket") for name in ours if not name.endswith(("_sum", "_count"))}
        )
        == 12
    )


def test_process_figures_are_there() -> None:
    assert samples(Metrics())["process_resident_memory_bytes", frozenset()] > 1e6


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("text/plain;version=0.0.4;q=0.5", "text/plain; version=0.0.4"),
        (OPEN_METRICS, "application/openmetrics-text; version=1.0.0"),
        (OPEN_METRICS + ",text/plain;q=0.5", "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text; version=abc", "text/plain; version=0.0.4"),
        ("application/openmetrics-text; version=", "application/openmetrics-text; version=1.0.0"),
    ],
)
def test_negotiation(accept: str, content_type: str) -> None:
    got, body = render(busy(), accept)
    assert got.startswith(content_type)
    assert body.endswith(b"# EOF\n") == got.startswith("application/openmetrics-text")


def test_open_metrics_parses_strictly() -> None:
    _, body = render(busy(), OPEN_METRICS)
    parsed = open_metrics(body.decode())  # type: ignore[no-untyped-call]
    families = {family.name: family.type for family in parsed}
    assert families["sluicegate_requests"] == "counter"
    assert families["sluicegate_request_duration_seconds"] == "histogram"
    assert families["sluicegate_build"] == "info"


@pytest.mark.skipif(
    shutil.which("promtool") is None and not os.environ.get("CI"),
    reason="promtool (Debian: prometheus) is not here, and this is no CI run",
)
@pytest.mark.parametrize("metrics", [Metrics(), busy()], ids=["at rest", "busy"])
def test_promtool_has_no_complaint(metrics: Metrics) -> None:
    _, body = render(metrics, "")
    run = subprocess.run(
        ["promtool", "check", "metrics"], input=body, capture_output=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    ("method", "label"),
    [
        ("GET", "GET"),
        ("PROPFIND", "PROPFIND"),
        ("VERSION-CONTROL", "VERSION-CONTROL"),
        ("get", "other"),  # methods are case-sensitive (RFC 9110 §9.1)
        ("PRI", "other"),
        ("X" * 32, "other"),
    ],
)
def test_method_label(method: str, label: str) -> None:
    tally = Metrics().route("r")
    tally.count(method, 200, 0.0)
    assert tally.requests == {(label, 200): 1}


@given(st.lists(st.floats(min_value=0, max_value=100), max_size=50))
def test_histogram_agrees_with_counting_one_by_one(seconds: list[float]) -> None:
    metrics = Metrics()
    for second in seconds:
        metrics.no_route.duration.observe(second)
    got = samples(metrics)
    for bound in (*DURATION_BUCKETS, float("inf")):
        le = "+Inf" if bound == float("inf") else str(bound)
        key = frozenset({("route", "none"), ("le", le)})
        expected = sum(second <= bound for second in seconds)
        assert got["sluicegate_request_duration_seconds_bucket", key] == expected


def test_a_bound_counts_as_within() -> None:
    histogram = Histogram()
    histogram.observe(0.0005)
    histogram.observe(30.0)
    histogram.observe(30.000001)
    assert histogram.counts[0] == 1
    assert histogram.counts[-2:] == [1, 1]


def through_json(metrics: Metrics) -> dict[str, object]:
    figures = json.loads(json.dumps(metrics.dump()))
    assert isinstance(figures, dict)
    return figures


def test_two_processes_add_up() -> None:
    both = Metrics()
    both.add(through_json(busy()))
    both.add(through_json(busy()))
    alone = samples(busy())
    process = {key for key in alone if key[0].startswith("process_")}
    build = {key for key in alone if key[0] == "sluicegate_build_info"}
    summed = {key: 2 * value for key, value in alone.items() if key not in process | build}
    got = samples(both)
    assert {key: got[key] for key in summed} == pytest.approx(summed)


def test_counters_outlive_their_process_and_gauges_do_not() -> None:
    left = Metrics()
    left.add(through_json(busy()), gauges=False)
    assert left.upstreams["origin"].in_flight == 0
    assert left.cache_bytes == {}
    assert left.purges == {"tag": 3}
    assert left.upstreams["origin"].duration.counts == busy().upstreams["origin"].duration.counts
    assert left.limits["per-key"].denied == 4


def test_of_the_last_reasons_the_latest_stays() -> None:
    both, one, other = Metrics(), busy(), busy()
    one.cache("pages").refuse("no-store", 9_000)
    other.cache("pages").count("miss", "uri-miss", 1_000)
    for process in (one, other):
        both.add(through_json(process), gauges=False)
    told = both.caches["pages"]
    assert told.last == {"not_stored": ("no-store", 9_000), "miss": ("uri-miss", 1_000)}
    assert (told.not_stored, told.miss) == ({"private": 2, "no-store": 1}, 11)


def test_every_figure_is_dumped() -> None:
    """A new family of tallies, or a new slot, must not be forgotten among several processes."""
    metrics = busy()
    kept = {name for name, value in facts(metrics).items() if isinstance(value, dict)}
    assert metrics.dump().keys() == kept


def test_totals_arrive_in_the_tallies_that_plans_hold() -> None:
    shown = Metrics()
    bound = shown.route("users"), shown.limit("per-key"), shown.upstream("origin"), shown.no_route
    shown.take(busy())
    assert samples(shown).keys() == samples(busy()).keys()
    assert bound == (
        shown.routes["users"], shown.limits["per-key"], shown.upstreams["origin"],
        shown.routes["none"],
    )  # fmt: skip
    assert bound[0].requests == busy().routes["users"].requests


def test_process_figures_of_workers_are_summed() -> None:
    metrics = Metrics()
    alone = samples(metrics)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker:
        metrics.workers = (worker.pid,)
        both = samples(metrics)
        assert worker.stdin is not None
        worker.stdin.close()
    none: frozenset[tuple[str, str]] = frozenset()
    virtual, limit = "process_virtual_memory_bytes", "process_max_fds"
    assert both[virtual, none] > alone[virtual, none]
    assert both[limit, none] == alone[limit, none]
    ended = samples(metrics)  # its CPU time counts on, its memory does not
    assert ended["process_cpu_seconds_total", none] >= both["process_cpu_seconds_total", none]
    assert ended[virtual, none] < both[virtual, none]


def test_a_scrape_beside_counting_is_whole() -> None:
    """Tallies grow while the scrape's thread reads them; no bucket may exceed its count."""
    metrics = Metrics()
    done = threading.Event()

    def count() -> None:
        number = 0
        while not done.is_set():
            number += 1
            route = metrics.route(f"r{number % 50}")
            route.count(f"M{number % 7}", 200 + number % 11, number % 40)

    counting = threading.Thread(target=count)
    counting.start()
    try:
        for _ in range(5):
            render(metrics, OPEN_METRICS)
    finally:
        done.set()
        counting.join()
