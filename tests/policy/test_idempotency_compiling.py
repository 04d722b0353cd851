"""What the request path gets of idempotency policies in the YAML."""

from pathlib import Path

import pytest
from yaml_kit import write

from proxy.core.idempotency import Terms
from proxy.core.message import Outgoing, Reply
from proxy.metrics import Metrics
from proxy.policy.compile import Live, compile_snapshot
from proxy.policy.load import load
from proxy.policy.snapshot import Snapshot, UpstreamPlan

GATEWAY = """
policies: [policies.yaml]
store: %s
upstreams: {app: {endpoints: ["http://a"]}}
routes:
  - {name: pay, match: {path: /pay, methods: [POST]}, upstream: app, idempotency: x}
  - {name: all, match: {path: "/{rest:path}"}, upstream: app}
"""


class Idle:
    """An upstream that is never asked."""

    name = "app"

    async def send(self, request: Outgoing) -> Reply:
        raise NotImplementedError


class Still(Live):
    """A Live that keeps its figures."""

    def __init__(self) -> None:
        self.metrics = Metrics()

    def upstream(self, plan: UpstreamPlan) -> Idle:
        return Idle()


def compiled(
    folder: Path, policy: str = "", store: str = "{url: 'redis://h'}", live: Still | None = None
) -> Snapshot:
    scoped = f"idempotency: {{x: {{scope: ['header:X-Api-Key', ip], {policy}}}}}\n"
    write(folder, "policies.yaml", scoped)
    path = write(folder, "gateway.yaml", GATEWAY % store)
    return compile_snapshot(load(path, {}), live or Still())


def test_a_route_has_its_policy_and_no_other(tmp_path: Path) -> None:
    snapshot = compiled(tmp_path)
    assert snapshot.routes["pay"].idempotency is snapshot.idempotency["x"]
    assert snapshot.routes["all"].idempotency is None


def test_the_defaults(tmp_path: Path) -> None:
    plan = compiled(tmp_path).idempotency["x"]
    assert (plan.name, plan.methods, plan.required) == ("x", {"POST", "PATCH"}, False)
    assert plan.terms == Terms(ttl=86_400_000, release_unknown=False)
    assert plan.scope.parts == ("header:X-Api-Key", "ip")
    assert (plan.waits, plan.wait_timeout, plan.denies) == (False, 30, True)
    assert (plan.replicas, plan.max_body) == (0, 2**20)
    kept = [s for s in (200, 301, 404, 429, 500, 501, 503) if s in plan.kept]
    assert kept == [200, 301, 404, 500]


def test_every_term_arrives(tmp_path: Path) -> None:
    plan = compiled(
        tmp_path,
        "methods: [POST, PUT], required: true, ttl: 1500ms, in_flight: wait, wait_timeout: 250ms,"
        " store: [2xx, 503], on_unknown: release, on_store_failure: allow, replicas: 2,"
        " max_body: 4KiB",
    ).idempotency["x"]
    assert (plan.methods, plan.required) == ({"POST", "PUT"}, True)
    assert plan.terms == Terms(ttl=1500, release_unknown=True)
    assert (plan.waits, plan.wait_timeout, plan.denies) == (True, 0.25, False)
    assert (plan.replicas, plan.max_body) == (2, 4096)
    assert [s for s in (204, 404, 500, 503) if s in plan.kept] == [204, 503]


def test_figures_outlive_a_reload(tmp_path: Path) -> None:
    live = Still()
    before = compiled(tmp_path, live=live).idempotency["x"]
    before.tally.replayed += 1
    after = compiled(tmp_path, "ttl: 1h", live=live).idempotency["x"]
    assert after.tally is before.tally is live.metrics.idempotency["x"]


@pytest.mark.parametrize(
    ("store", "at"),
    [
        ("{url: 'redis://h'}", "redis://h:6379"),
        ("{url: 'redis://h', idempotency: {url: 'redis://other'}}", "redis://other:6379"),
        ("{url: 'redis://h', cache: {url: 'redis://other'}}", "redis://h:6379"),
        ("{url: 'redis://h', idempotency: {url: 'memory://'}}", "memory://"),
    ],
)
def test_where_records_are(store: str, at: str, tmp_path: Path) -> None:
    plan = compiled(tmp_path, store=store).store
    assert str(plan.idempotency_at) == at
    assert str(plan.url) == "redis://h:6379"
    assert str(plan.cache_at) == ("redis://other:6379" if "cache" in store else "redis://h:6379")


def test_the_hash_tells_nothing_of_the_records_password(tmp_path: Path) -> None:
    def hash_of(password: str) -> str:
        url = f"redis://:{password}@other"
        return compiled(tmp_path, store=f"{{idempotency: {{url: '{url}'}}}}").hash

    assert hash_of("one") == hash_of("two")
