"""What the request path gets of breakers, retries, hash keys and health checks in the YAML."""

from pathlib import Path

import pytest
from yaml_kit import write

from proxy.core.breaker import Breaker, BreakerTerms
from proxy.core.health import HealthTerms
from proxy.core.message import Outgoing, Reply
from proxy.core.retries import RetryTerms
from proxy.metrics import Metrics
from proxy.policy.compile import Live, compile_snapshot
from proxy.policy.load import load
from proxy.policy.snapshot import Destination, Fallback, StaticAnswer, UpstreamPlan

GATEWAY = """
policies: [policies.yaml]
store: {url: "redis://h"}
upstreams:
  app: {endpoints: ["http://a", "http://b"], %s}
  spare: {endpoints: ["http://c"]}
routes: [{name: all, match: {path: "/{user}"}, upstream: app}]
"""


class Idle:
    """An upstream that is never asked."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def send(self, request: Outgoing) -> Reply:
        raise NotImplementedError


class Noting(Live):
    """A Live that notes the terms of the breakers that it makes."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.terms: dict[tuple[str, str], BreakerTerms] = {}

    def upstream(self, plan: UpstreamPlan) -> Idle:
        return Idle(plan.name)

    def breaker(self, plan: UpstreamPlan, policy: str, terms: BreakerTerms) -> Breaker:
        self.terms[plan.name, policy] = terms
        return super().breaker(plan, policy, terms)


def compiled(folder: Path, app: str, policies: str = "") -> tuple[Noting, dict[str, Destination]]:
    """The live parts and the destinations of this upstream app and these policies."""
    write(folder, "policies.yaml", policies)
    live = Noting()
    snapshot = compile_snapshot(load(write(folder, "gateway.yaml", GATEWAY % app), {}), live)
    assert snapshot.routes["all"].upstream is snapshot.upstreams["app"]
    return live, dict(snapshot.upstreams)


def test_nothing_is_attached_that_is_not_named(tmp_path: Path) -> None:
    live, upstreams = compiled(tmp_path, "deadline: 5s", "breakers: {x: {}}\nretries: {y: {}}\n")
    app = upstreams["app"]
    assert (app.breaker, app.retry, app.affinity) == (None, None, None)
    assert (app.fallback, app.plan.health) == (Fallback(), None)
    assert live.terms == {}


def test_the_yamls_defaults_are_those_of_the_parts(tmp_path: Path) -> None:
    live, upstreams = compiled(
        tmp_path,
        "breaker: x, retry: y, health_check: {path: /up}",
        "breakers: {x: {}}\nretries: {y: {}}\n",
    )
    app = upstreams["app"]
    terms = live.terms["app", "x"]
    statuses = frozenset((500, 502, 503, 504))
    given = BreakerTerms(failure_statuses=statuses, probe_timeout=terms.probe_timeout)
    assert terms == given
    assert terms.probe_timeout >= app.plan.deadline
    assert app.policy == "x"
    assert app.retry is not None
    assert app.retry.terms == RetryTerms()
    assert app.plan.health == HealthTerms("/up")
    assert app.fallback == Fallback()


def test_every_term_arrives(tmp_path: Path) -> None:
    breaker = (
        "{consecutive_failures: 0, failure_rate: 50%, slow_rate: 12.5%, slow_after: 1s,"
        " minimum_requests: 7, window: 1m, open_for: 3s, open_max: 4s, half_open_requests: 5,"
        " failure_statuses: [429, 598-599], shared: true}"
    )
    retry = (
        "{attempts: 2, backoff: 10ms, backoff_max: 20ms, budget: 5%,"
        " on: [timeout, 429], methods: [GET]}"
    )
    health = "{path: /up, interval: 2s, timeout: 500ms, unhealthy_after: 4, healthy_after: 1}"
    live, upstreams = compiled(
        tmp_path,
        f"breaker: x, retry: y, health_check: {health}",
        f"breakers: {{x: {breaker}}}\nretries: {{y: {retry}}}\n",
    )
    terms = live.terms["app", "x"]
    assert terms == BreakerTerms(
        consecutive_failures=0,
        failure_rate=0.5,
        slow_rate=0.125,
        slow_after=1,
        minimum_requests=7,
        window=60,
        open_for=3,
        open_max=4,
        half_open_requests=5,
        failure_statuses=frozenset((429, 598, 599)),
        shared=True,
        probe_timeout=terms.probe_timeout,
    )
    app = upstreams["app"]
    assert app.retry is not None
    assert app.retry.terms == RetryTerms(
        2, 0.01, 0.02, 0.05, frozenset(("timeout", "429")), frozenset(("GET",))
    )
    assert app.plan.health == HealthTerms("/up", 2, 0.5, 4, 1)


def test_upstreams_that_share_a_breaker_have_circuits_of_their_own(tmp_path: Path) -> None:
    live, upstreams = compiled(
        tmp_path,
        'breaker: x}\n  other: {endpoints: ["http://d"], breaker: x',
        "breakers: {x: {}}\n",
    )
    assert set(live.terms) == {("app", "x"), ("other", "x")}
    assert upstreams["app"].breaker is not upstreams["other"].breaker


def test_a_fallback_is_bound_to_the_upstream_that_routes_see(tmp_path: Path) -> None:
    """Whichever of the two the YAML has first."""
    policies = "breakers: {x: {fallback: {upstream: spare}}}\n"
    _, upstreams = compiled(tmp_path, "breaker: x", policies)
    assert upstreams["app"].fallback.other is upstreams["spare"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("none", Fallback()),
        ("stale", Fallback(stale=True)),
        ("{body: später}", Fallback(answer=StaticAnswer(503, (), "später".encode()))),
        (
            "{status: 200, headers: {X-Note: é}}",
            Fallback(answer=StaticAnswer(200, (("X-Note", "Ã©"),), b"")),
        ),
    ],
)
def test_fallbacks(written: str, meant: Fallback, tmp_path: Path) -> None:
    policies = f"breakers: {{x: {{fallback: {written}}}}}\n"
    _, upstreams = compiled(tmp_path, "breaker: x", policies)
    assert upstreams["app"].fallback == meant


def test_a_hash_key_is_compiled(tmp_path: Path) -> None:
    _, upstreams = compiled(tmp_path, 'balance: hash, hash_key: ["path.user", "query:q|ip"]')
    app = upstreams["app"]
    assert app.plan.balance == "hash"
    assert app.affinity is not None
    assert app.affinity.parts == ("path.user", "query:q|ip")
