"""Compiling: what the request path gets of the YAML, and what a reload keeps."""

from ipaddress import ip_network
from pathlib import Path

import pytest

from proxy.core.cache.keys import space
from proxy.core.cache.record import CacheTerms
from proxy.core.fields import Fields
from proxy.core.matching import Match
from proxy.core.message import Outgoing, Reply
from proxy.metrics import Metrics
from proxy.policy.compile import Live, compile_snapshot, load_snapshot
from proxy.policy.load import load
from proxy.policy.snapshot import Endpoint, Listen, Snapshot, UpstreamPlan


class Remembered:
    """An upstream that only has its plan."""

    def __init__(self, plan: UpstreamPlan) -> None:
        self.plan = plan
        self.name = plan.name

    async def send(self, request: Outgoing) -> Reply:
        raise NotImplementedError


class Keeper(Live):
    """A Live that makes each upstream anew."""

    def __init__(self) -> None:
        self.metrics = Metrics()

    def upstream(self, plan: UpstreamPlan) -> Remembered:
        return Remembered(plan)


GATEWAY = """
server:
  listen: "[::1]:0"
  trusted_proxies: [10.0.0.0/8, unix, "fd00::/8"]
  trusted_headers: [X-Plan, X-Cost]
  client_ip_header: forwarded
  max_body_bytes: 1MiB
  body_buffer: 32MiB
  idle_timeout: 1500ms
admin: {listen: unix:/run/admin.sock, hosts: [Admin.Example.COM.]}
policies: [limits.yaml]
upstreams:
  users:
    endpoints:
      - http://one:9001/base/
      - {url: "https://two", weight: 3}
      - http+unix:///run/app.sock
    balance: least_requests
    tls: {server_name: Users.Internal}
    host_header: upstream
routes:
  - name: read
    match:
      path: "/api/users/{id}"
      methods: [GET]
      hosts: ["*.Example.com"]
      headers: {X-Beta: é}
    upstream: users
    strip_prefix: /api
    limits: [plan, all]
    request_headers: {set: {X-Env: é}, remove: [X-Debug]}
    response_headers: {}
  - {name: rest, match: {path: "/{rest:path}"}, upstream: users, rewrite: "/old/{rest}"}
"""

LIMITS = """
limits:
  all: {algorithm: leaky_bucket, rate: 3/s, burst: 2, key: [global], mode: shadow}
  plan:
    rate: 10/s
    key: ["header:X-Key|ip", path.id]
    cost: header:X-Cost
    charge: miss
    overrides:
      - {when: {"header:X-Plan": [gold, platinum]}, rate: 100/s, burst: 500, cost: 2}
      - {when: {ip: 127.0.0.0/8}, rate: unlimited}
      - {when: {method: HEAD}, mode: shadow}
"""


def snapshot(folder: Path, gateway: str = GATEWAY, limits: str = LIMITS) -> Snapshot:
    (folder / "limits.yaml").write_text(limits)
    (folder / "gateway.yaml").write_text(gateway)
    return compile_snapshot(load(folder / "gateway.yaml", {}), Keeper())


def test_the_server_and_admin_plans(tmp_path: Path) -> None:
    compiled = snapshot(tmp_path)
    server = compiled.server
    assert server.listen == Listen("::1", 0)
    assert server.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert server.trust_unix
    assert server.trusted_headers == {"x-plan", "x-cost"}
    assert server.client_ip_header == "forwarded"
    assert (server.max_body_bytes, server.idle_timeout) == (2**20, 1.5)
    assert server.body_buffer == 2**25
    assert compiled.admin.listen == Listen(path="/run/admin.sock")
    assert compiled.admin.hosts == {"admin.example.com"}


def test_the_upstream_plan(tmp_path: Path) -> None:
    plan = snapshot(tmp_path).upstreams["users"].plan
    assert plan.endpoints == (
        Endpoint("http", "one", 9001, "/base"),
        Endpoint("https", "two", 443, "", weight=3),
        Endpoint("http", "localhost", 80, "", socket="/run/app.sock"),
    )
    assert (plan.balance, plan.host_header) == ("least_requests", "upstream")
    assert plan.tls.server_name == "users.internal"
    assert plan.tls.verify


def test_routes_are_found_and_bound(tmp_path: Path) -> None:
    compiled = snapshot(tmp_path)
    # Header values are wire text: the bytes of the YAML's UTF-8, one character each.
    fields = Fields([("x-beta", "é".encode().decode("latin-1"))])
    path = "/api/users/7"
    found = compiled.table.find("HEAD", "a.example.com", path, fields)
    assert isinstance(found, Match)
    route = found.item
    assert route is compiled.routes["read"]
    assert found.captures == {"id": "7"}
    assert route.rewrite is not None
    assert route.rewrite.apply("/api/users/7", found.captures) == "/users/7"
    assert route.limits == (compiled.limits["plan"], compiled.limits["all"])
    assert route.request_headers is not None
    assert route.request_headers.set == (("X-Env", "Ã©"),)
    assert route.request_headers.remove == {"x-debug"}
    assert route.response_headers is None
    assert route.upstream is compiled.upstreams["users"]
    other = compiled.table.find("GET", "a.example.com", path, Fields())
    assert isinstance(other, Match)
    assert other.item.name == "rest"
    assert other.item.rewrite is not None
    assert other.item.rewrite.apply("/a/b", {"rest": "a/b"}) == "/old/a/b"


def test_limits_and_their_overrides(tmp_path: Path) -> None:
    compiled = snapshot(tmp_path)
    plan, shared = compiled.limits["plan"], compiled.limits["all"]
    assert (plan.algorithm, plan.charge, plan.key.parts) == (
        "token_bucket",
        "miss",
        ("header:X-Key|ip", "path.id"),
    )
    base = plan.base
    assert (base.capacity, base.quota, base.window) == (10, 10, 1)
    assert (base.cost, base.cost_header, base.shadow) == (None, "x-cost", False)
    assert base.policy_item == '"plan";q=10;w=1'
    gold, local, head = (variant for _, variant in plan.overrides)
    assert gold is not None
    assert (gold.capacity, gold.cost, gold.cost_header) == (500, 2, None)
    assert gold.policy_item == '"plan";q=500;w=5'
    assert local is None
    assert head is not None
    assert (head.shadow, head.quota, head.cost_header) == (True, 10, "x-cost")
    assert (shared.base.quota, shared.base.window, shared.base.shadow) == (3, 1, True)
    assert plan.tally.name == "plan"


CACHES = """
caches:
  users:
    default_ttl: 1500ms
    ttl: 1m
    ttl_by_status: {404: 10s, 410: 1h}
    stale_while_revalidate: 30s
    stale_if_error: 1d
    tags: ["user:{path.id}", é]
    expose_tags: true
    store_set_cookie: true
    key: {query: {exclude: ["utm_*"]}, headers: [X-Plan, Accept], cookies: [theme]}
    max_object: 2MiB
    lock_timeout: 3s
    max_waiters: 10
    hit_for_miss: 5s
    early_refresh: 0.5
  pages: {key: {query: none}}
"""

CACHED = """
policies: [limits.yaml]
store: {cache: {memory: 1MiB, url: "redis://:s3cret@h1", blind: 3s}}
upstreams: {app: {endpoints: ["http://one"], response_timeout: 7s}}
routes:
  - {name: user, match: {path: "/u/{id}"}, upstream: app, cache: users, invalidate: ["u:{path.id}"]}
  - {name: page, match: {path: "/p/{id}"}, upstream: app, cache: pages,
     invalidate_on: [204, 300-303, 4xx]}
  - {name: rest, match: {path: "/{rest:path}"}, upstream: app}
"""


def test_caches_and_the_routes_that_use_them(tmp_path: Path) -> None:
    compiled = snapshot(tmp_path, CACHED, CACHES)
    user, page, rest = compiled.routes.values()
    cache = user.cache
    assert cache is compiled.caches["users"]
    assert cache.terms == CacheTerms(
        default_ttl=1500,
        ttl=60_000,
        ttl_by_status=((404, 10_000), (410, 3_600_000)),
        stale_while_revalidate=30_000,
        stale_if_error=86_400_000,
        store_set_cookie=True,
        keyed_cookies=frozenset({"theme"}),
        keyed_headers=frozenset({"x-plan", "accept"}),
    )
    assert (cache.key.headers, cache.key.cookies) == (("accept", "x-plan"), ("theme",))
    assert cache.key.keyed_query("utm_source=x&page=2") == "page=2"
    assert [tag.fill({"id": "7"}) for tag in cache.tags] == ["user:7", "Ã©"]
    assert (cache.expose_tags, cache.max_object, cache.max_waiters) == (True, 2**21, 10)
    assert (cache.hit_for_miss, cache.early_refresh) == (5000, 0.5)
    assert cache.tally.name == "users"
    assert (user.lock_timeout, page.lock_timeout) == (3.0, 8.0)
    assert [tag.text for tag in user.invalidate] == ["u:{path.id}"]
    assert user.invalidate_on == frozenset(range(200, 300))
    assert page.invalidate_on == {204, 300, 301, 302, 303, *range(400, 500)}
    assert user.cache_space == space("users", "user") != page.cache_space
    assert page.cache is not None
    assert page.cache.key.keyed_query("page=2") is None
    assert page.cache.terms == CacheTerms()
    assert (rest.cache, rest.invalidate) == (None, ())


def test_trusted_headers_outside_the_key_are_credentials(tmp_path: Path) -> None:
    server = "server: {trusted_proxies: [10.0.0.0/8], trusted_headers: [X-Plan, X-User]}"
    compiled = snapshot(tmp_path, f"{server}\n{CACHED}", CACHES)
    keyed, plain = compiled.caches["users"].terms, compiled.caches["pages"].terms
    assert (keyed.trusted_headers, plain.trusted_headers) == ({"x-user"}, {"x-user", "x-plan"})


def test_where_answers_are_kept(tmp_path: Path) -> None:
    store = snapshot(tmp_path, CACHED, CACHES).store
    assert (store.cache_memory, store.cache_blind) == (2**20, 3.0)
    assert (store.url.kind, str(store.cache_url)) == ("memory", "redis://h1:6379")
    assert "s3cret" not in repr(store)


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("ttl: 1m", "ttl: 60s", True),
        ("{query: none}", "{query: none, headers: []}", True),
        ("s3cret", "another", True),
        ("{query: none}", "{query: all}", False),
        ("404: 10s", "404: 11s", False),
        ("cache: pages", "cache: pages, invalidate: [a]", False),
        ("blind: 3s", "blind: 4s", False),
    ],
)
def test_the_hash_has_the_caches(old: str, new: str, same: bool, tmp_path: Path) -> None:
    before = snapshot(tmp_path, CACHED, CACHES).hash
    changed = snapshot(tmp_path, CACHED.replace(old, new), CACHES.replace(old, new))
    assert (changed.hash == before) is same


def spaces(compiled: Snapshot) -> list[str]:
    plan = compiled.limits["plan"]
    return [plan.base.space, *(v.space for _, v in plan.overrides if v is not None)]


def test_every_override_has_a_state_of_its_own(tmp_path: Path) -> None:
    found = spaces(snapshot(tmp_path))
    assert len(set(found)) == len(found) == 3


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ("rate: 10/s", "rate: 20/s", True),
        ("rate: 10/s", "rate: 10/1s", True),
        ("cost: header:X-Cost", "cost: 3", True),
        ("charge: miss", "mode: shadow", True),
        ("rate: 10/s", "rate: 10/s\n    burst: 50", True),
        ("rate: 10/s", "rate: 10/m", False),  # another period
        ("rate: 10/s", "rate: 10/s\n    algorithm: leaky_bucket\n    burst: 9", False),
        ('"header:X-Key|ip", path.id', "path.id, ip", False),
    ],
)
def test_state_survives_unless_algorithm_key_or_period_change(
    old: str, new: str, kept: bool, tmp_path: Path
) -> None:
    before = spaces(snapshot(tmp_path))
    after = spaces(snapshot(tmp_path, limits=LIMITS.replace(old, new)))
    assert (before[0] == after[0]) is kept


def test_an_override_that_moves_keeps_its_state(tmp_path: Path) -> None:
    before = spaces(snapshot(tmp_path))
    more = "    overrides:\n      - {when: {host: a.b}, rate: 1/s}\n"
    after = spaces(snapshot(tmp_path, limits=LIMITS.replace("    overrides:\n", more)))
    assert set(before) < set(after)


def test_the_hash_is_of_what_the_yaml_means(tmp_path: Path) -> None:
    plain = snapshot(tmp_path)
    reworded = GATEWAY.replace("1500ms", "1500ms # 1.5 s").replace(
        "balance", "queue: 100\n    balance"
    )
    assert snapshot(tmp_path, reworded).hash == plain.hash
    assert snapshot(tmp_path, reworded).content != plain.content
    assert snapshot(tmp_path, GATEWAY.replace("1500ms", "1501ms")).hash != plain.hash
    assert snapshot(tmp_path, limits=LIMITS.replace("10/s", "11/s")).hash != plain.hash


def test_the_hash_tells_nothing_of_the_salt_of_keys(tmp_path: Path) -> None:
    salted = snapshot(tmp_path, GATEWAY + "log: {key_salt: s3cret-and-long-enough}\n")
    assert salted.log.key_salt == b"s3cret-and-long-enough"
    assert "s3cret" not in repr(salted)
    assert salted.hash == snapshot(tmp_path).hash


def test_the_hash_tells_nothing_of_the_token(tmp_path: Path) -> None:
    with_token = GATEWAY.replace("admin: {", "admin: {token: my-token, ")
    assert snapshot(tmp_path, with_token).hash == snapshot(tmp_path).hash
    assert "my-token" not in repr(snapshot(tmp_path, with_token))


def test_loading_gives_snapshot_and_warnings(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text("policies: []\n")
    compiled, warnings = load_snapshot(tmp_path / "gateway.yaml", Keeper())
    assert compiled.files == (tmp_path / "gateway.yaml",)
    assert compiled.routes == {}
    assert warnings == [
        f"{tmp_path}/gateway.yaml:1:1: routes: warning: no routes: every request is answered 404"
    ]


REFUNDING = """
limits:
  first: {rate: 1/s, key: [ip]}
  beside: {rate: 1/s, key: [ip]}
  whole: {rate: 1/s, key: [global]}
  miss: {rate: 1/s, key: [ip], charge: miss}
  alone: {rate: 1/s, key: [ip]}
caches: {pages: {}}
"""
REFUNDING_ROUTES = """
routes:
  - {name: a, match: {path: /a}, upstream: o, limits: [first, miss], cache: pages}
  - {name: b, match: {path: /b}, upstream: o, limits: [beside, miss]}
  - {name: c, match: {path: /c}, upstream: o, limits: [beside, first]}
  - {name: d, match: {path: /d}, upstream: o, limits: [beside, whole]}
  - {name: e, match: {path: /e}, upstream: o, limits: [alone]}
"""


@pytest.mark.parametrize(
    ("url", "refundable"),
    [
        ("memory://", {"first"}),
        ("redis://127.0.0.1", {"first"}),
        ("redis+cluster://127.0.0.1:1", {"first", "beside", "whole"}),
    ],
)
def test_whose_charges_may_be_given_back(tmp_path: Path, url: str, refundable: set[str]) -> None:
    """Those of limits that some route charges before it asks another one, which may refuse."""
    head = f"store: {{url: '{url}'}}\npolicies: [limits.yaml]\n"
    upstreams = "upstreams: {o: {endpoints: ['http://127.0.0.1:1']}}\n"
    compiled = snapshot(tmp_path, head + upstreams + REFUNDING_ROUTES, REFUNDING)
    found = {name for name, plan in compiled.limits.items() if plan.base.refundable}
    assert found == refundable
