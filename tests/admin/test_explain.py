"""Explain: the whole way from YAML to what is said of a request, with nothing sent or counted."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proxy.admin.explain import Running, explain, explain_command, render
from proxy.admin.question import Question
from proxy.cli import main
from proxy.core.keys import shown_key
from proxy.core.limits.decision import Decision
from proxy.core.message import Outgoing, Reply
from proxy.metrics import Metrics
from proxy.policy.compile import Live, load_snapshot
from proxy.policy.snapshot import Snapshot, UpstreamPlan
from proxy.store.charge import Charge
from proxy.store.memory.limits import MemoryLimits
from proxy.store.ports import StoreError

SALT = b"a-salt-of-some-length"

GATEWAY = """
server:
  trusted_proxies: [10.0.0.0/8]
  trusted_headers: [X-Plan, X-Cost]
policies: [limits.yaml]
upstreams:
  users:
    endpoints: ["http://127.0.0.1:9001/base", "http://127.0.0.1:9002"]
  socket:
    endpoints: ["http+unix:///run/app.sock"]
routes:
  - name: users-read
    match: {path: "/api/users/{id}", methods: [GET]}
    upstream: users
    rewrite: "/v2/users/{id}"
    limits: [per-key, costly, whole-service]
    cache: users
  - name: local
    match: {path: "/local/{rest:path}"}
    upstream: socket
    strip_prefix: /local
    limits: [leaky]
"""

LIMITS = """
caches:
  users:
    tags: ["user:{path.id}", users]
    key: {query: {exclude: ["utm_*"]}, cookies: [s]}
limits:
  per-key:
    algorithm: token_bucket
    rate: 2/h
    key: ["header:X-Api-Key|ip", path.id]
    overrides:
      - when: {"header:X-Plan": gold}
        rate: unlimited
      - {when: {"header:X-Plan": [silver, bronze]}, rate: 4/10s, burst: 8, mode: shadow}
  leaky: {algorithm: leaky_bucket, rate: 2/s, burst: 3, key: [global]}
  costly:
    algorithm: fixed_window
    rate: 10/h
    key: [global]
    cost: header:X-Cost
  whole-service:
    algorithm: fixed_window
    rate: 100/h
    key: [route, "cookie:s"]
"""


class Unsent:
    """An upstream that must not be asked."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def send(self, request: Outgoing) -> Reply:
        raise AssertionError("explaining a request must not send it")


class Idle(Live):
    def __init__(self) -> None:
        self.metrics = Metrics()

    def upstream(self, plan: UpstreamPlan) -> Unsent:
        return Unsent(plan.name)


@pytest.fixture
def gateway(tmp_path: Path) -> Path:
    (tmp_path / "limits.yaml").write_text(LIMITS)
    (tmp_path / "gateway.yaml").write_text(GATEWAY)
    return tmp_path / "gateway.yaml"


@pytest.fixture
def snapshot(gateway: Path) -> Snapshot:
    return load_snapshot(gateway, Idle())[0]


@pytest.fixture
def store() -> MemoryLimits:
    return MemoryLimits(lambda: 1_000_000_000_000_000, Metrics())


async def ask(
    snapshot: Snapshot, store: MemoryLimits | None, target: str = "/api/users/7?x=1", **facts: Any
) -> dict[str, Any]:
    ip = facts.get("ip", "192.0.2.1")
    question = Question(facts.get("method", "GET"), target, facts.get("headers", []), ip)
    return await explain(snapshot, question, Running(store, facts.get("salt", SALT)))


def limit(name: str, key: str, by: list[str], rate: str, left: int, **more: Any) -> dict[str, Any]:
    """A limit that would let a request pass, of which none came before."""
    return {
        "name": name,
        "key": key,
        "by": by,
        "algorithm": "fixed_window",
        "rate": rate,
        "burst": None,
        "override": None,
        "charge": "request",
        "mode": "enforce",
        "cost": 1,
        "allowed": True,
        "remaining": left,
        "reset_s": 0.0,
        "retry_after_s": 0.0,
        "delay_s": 0.0,
        **more,
    }


async def test_has_exactly_the_members_of_the_contract(
    snapshot: Snapshot, store: MemoryLimits
) -> None:
    said = await ask(snapshot, store)
    assert said == {
        "route": "users-read",
        "upstream_url": "http://127.0.0.1:9001/base/v2/users/7?x=1",
        "client_ip": "192.0.2.1",
        "limits": [
            limit(
                *("per-key", shown(snapshot, "per-key", "192.0.2.1", "7"), ["ip", "path.id"]),
                *("2/h", 2),
                algorithm="token_bucket",
                burst=2,
            ),
            limit("costly", shown(snapshot, "costly"), ["global"], "10/h", 10),
            limit(
                *("whole-service", shown(snapshot, "whole-service", "users-read", None)),
                *(["route", "cookie:s (absent)"], "100/h", 100),
            ),
        ],
        "cache": {
            "name": "users",
            "key": said["cache"]["key"],
            "tags": ["user:7", "users"],
        },
        "breaker": None,
        "idempotency": None,
    }


def shown(snapshot: Snapshot, name: str, *values: str | None) -> str:
    return shown_key(SALT, snapshot.limits[name].key.digest_values(values))


async def test_counts_nothing(snapshot: Snapshot, store: MemoryLimits) -> None:
    first = await ask(snapshot, store)
    assert [await ask(snapshot, store) for _ in range(5)] == [first] * 5
    assert len(store) == 0


async def test_says_what_is_left(snapshot: Snapshot, store: MemoryLimits) -> None:
    plan = snapshot.limits["per-key"]
    key = plan.key.digest_values(["192.0.2.1", "7"])
    await store.admit([Charge(plan.base, key, 2, False)])
    said = (await ask(snapshot, store))["limits"][0]
    assert (said["allowed"], said["remaining"]) == (False, 0)
    assert (said["reset_s"], said["retry_after_s"]) == (1800, 1800)


async def test_without_a_store_says_nothing_of_what_is_left(snapshot: Snapshot) -> None:
    for limit in (await ask(snapshot, None))["limits"]:
        for figure in ("allowed", "remaining", "reset_s", "retry_after_s", "delay_s"):
            assert limit[figure] is None


async def test_a_store_in_trouble_takes_nothing_but_the_figures(
    snapshot: Snapshot, store: MemoryLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def peek(charge: Charge) -> Decision:
        raise StoreError("down", "no connection")

    trouble: Any = SimpleNamespace(peek=peek)
    assert await ask(snapshot, trouble) == await ask(snapshot, None)


async def test_without_a_salt_no_key_is_shown(snapshot: Snapshot) -> None:
    salted, bare = await ask(snapshot, None), await ask(snapshot, None, salt=None)
    assert all(len(bytes.fromhex(limit["key"])) == 16 for limit in salted["limits"])
    assert [limit["key"] for limit in bare["limits"]] == [None] * 3
    other = await ask(snapshot, None, salt=b"another")
    assert all(
        one["key"] != two["key"] for one, two in zip(other["limits"], salted["limits"], strict=True)
    )


async def test_shows_no_credential(snapshot: Snapshot, store: MemoryLimits) -> None:
    headers = [("X-Api-Key", "secret-1"), ("Cookie", "s=secret-2")]
    said = await ask(snapshot, store, headers=headers)
    assert "secret" not in json.dumps(said)
    assert said["limits"][0]["by"] == ["header:X-Api-Key", "path.id"]
    assert said == await ask(snapshot, store, headers=headers)
    others = await ask(snapshot, store, headers=[("X-Api-Key", "secret-3")])
    assert others["limits"][0]["key"] != said["limits"][0]["key"]


async def test_believes_whom_the_gateway_believes(snapshot: Snapshot, store: MemoryLimits) -> None:
    headers = [("X-Forwarded-For", "203.0.113.9"), ("X-Plan", "gold")]
    proxied = await ask(snapshot, store, headers=headers, ip="10.0.0.1")
    assert proxied["client_ip"] == "203.0.113.9"
    gold = proxied["limits"][0]
    assert (gold["rate"], gold["override"]) == ("unlimited", {"header:X-Plan": ["gold"]})
    assert (gold["allowed"], gold["remaining"], gold["key"]) == (True, None, None)
    stranger = await ask(snapshot, store, headers=headers)
    assert stranger["client_ip"] == "192.0.2.1"
    assert (stranger["limits"][0]["rate"], stranger["limits"][0]["override"]) == ("2/h", None)


async def test_the_override_that_holds(snapshot: Snapshot, store: MemoryLimits) -> None:
    headers = [("X-Plan", "silver")]
    (silver, *_) = (await ask(snapshot, store, headers=headers, ip="10.0.0.1"))["limits"]
    assert silver["override"] == {"header:X-Plan": ["silver", "bronze"]}
    assert (silver["rate"], silver["burst"], silver["mode"]) == ("4/10s", 8, "shadow")
    assert silver["remaining"] == 8


async def test_a_header_in_several_lines(snapshot: Snapshot, store: MemoryLimits) -> None:
    said = await ask(snapshot, store, headers=[("X-Api-Key", "a"), ("X-Api-Key", "b")])
    refused, *others = said["limits"]
    assert (refused["allowed"], refused["key"], refused["remaining"]) == (False, None, None)
    assert "X-Api-Key" in refused["problem"]
    assert "would be refused (400): The request has several X-Api-Key" in render(said)
    assert all(other["allowed"] for other in others)


async def test_a_leaky_bucket_makes_it_wait(snapshot: Snapshot, store: MemoryLimits) -> None:
    plan = snapshot.limits["leaky"]
    await store.admit([Charge(plan.base, plan.key.digest_values([]), 1, False)])
    (leaky,) = (await ask(snapshot, store, "/local/x"))["limits"]
    assert (leaky["rate"], leaky["burst"]) == ("2/s", 3)
    assert (leaky["allowed"], leaky["delay_s"]) == (True, 0.5)
    said = render(await ask(snapshot, store, "/local/x"))
    assert "leaky: leaky_bucket 2/s burst 3; by global; key " in said
    assert "; would pass after 0.5 s; 3 left" in said


@pytest.mark.parametrize(
    ("rule", "target", "headers", "same"),
    [
        ("what is not keyed", "/api/users/7?utm_a=2&x=1", [("Cookie", "t=1")], True),
        ("a keyed cookie", "/api/users/7?x=1", [("Cookie", "s=secret")], False),
        ("another spelling is another key", "/api/users/%37?x=1", [], False),
        ("a parameter", "/api/users/7?x=2", [], False),
        ("a host", "/api/users/7?x=1", [("Host", "other")], False),
    ],
)
async def test_cache_keys_tell_answers_apart(
    snapshot: Snapshot, rule: str, target: str, headers: list[tuple[str, str]], same: bool
) -> None:
    one = (await ask(snapshot, None))["cache"]
    other = (await ask(snapshot, None, target, headers=headers))["cache"]
    assert len(bytes.fromhex(one["key"])) == 16
    assert (one["key"] == other["key"]) is same
    assert other["tags"] == ["user:7", "users"]  # captures are decoded


async def test_no_cache_for_what_is_not_looked_up(snapshot: Snapshot) -> None:
    assert (await ask(snapshot, None, "/local/x"))["cache"] is None
    assert (await ask(snapshot, None, method="HEAD"))["cache"] is not None


@pytest.mark.parametrize(
    ("rule", "target", "url"),
    [
        ("strip_prefix", "/local/a//b?q", "http+unix:///run/app.sock:/a//b?q"),
        ("raw captures", "/api/users/%37", "http://127.0.0.1:9001/base/v2/users/%37"),
        ("an absolute target", "http://a.example/local/x", "http+unix:///run/app.sock:/x"),
    ],
)
async def test_upstream_url(snapshot: Snapshot, rule: str, target: str, url: str) -> None:
    assert (await ask(snapshot, None, target))["upstream_url"] == url


@pytest.mark.parametrize(
    ("rule", "method", "target", "headers", "status"),
    [
        ("no route", "GET", "/nowhere", [], 404),
        ("a method that is not allowed", "POST", "/api/users/7", [], 405),
        ("a traversal", "GET", "/local/%2e%2e/x", [], 400),
        ("no path", "GET", "local", [], 400),
        ("a broken Host", "GET", "/local/", [("Host", "a@evil")], 400),
        ("a loop", "GET", "/local/", [("Via", "1.1 sluicegate")] * 8, 508),
        ("a header that no request can carry", "GET", "/local/", [("A B", "1")], 400),
    ],
)
async def test_answers_of_the_gateway_itself(
    snapshot: Snapshot,
    rule: str,
    method: str,
    target: str,
    headers: list[tuple[str, str]],
    status: int,
) -> None:
    said = await ask(snapshot, None, target, method=method, headers=headers)
    assert said["route"] is None
    assert said["upstream_url"] is None
    assert said["answer"]["status"] == status
    assert said["answer"]["detail"]


async def test_a_cost_that_cannot_be(snapshot: Snapshot, store: MemoryLimits) -> None:
    said = await ask(snapshot, store, headers=[("X-Cost", "11")], ip="10.0.0.1")
    assert said["route"] == "users-read"
    (refused,) = (limit for limit in said["limits"] if not limit["allowed"])
    assert (refused["name"], refused["cost"], refused["remaining"]) == ("costly", None, 10)
    assert "X-Cost".lower() in refused["problem"].lower()


async def test_renders_for_a_person(snapshot: Snapshot, store: MemoryLimits) -> None:
    lines = render(await ask(snapshot, store)).splitlines()
    key, terms = shown(snapshot, "per-key", "192.0.2.1", "7"), "per-key: token_bucket 2/h burst 2"
    assert lines[:4] == [
        "client    192.0.2.1",
        "route     users-read",
        "upstream  http://127.0.0.1:9001/base/v2/users/7?x=1",
        f"limit     {terms}; by ip, path.id; key {key}; would pass; 2 left",
    ]
    plan = snapshot.limits["per-key"]
    await store.admit([Charge(plan.base, plan.key.digest_values(["192.0.2.1", "7"]), 2, False)])
    assert "would be refused (429), Retry-After 1800; 0 left, more in 1800 s" in render(
        await ask(snapshot, store)
    )
    silver = await ask(snapshot, None, headers=[("X-Plan", "silver")], ip="10.0.0.1", salt=None)
    assert render(silver).splitlines()[3] == (
        "limit     per-key: token_bucket 4/10s burst 8; by ip, path.id; "
        "override where header:X-Plan is silver or bronze; shadow"
    )
    cached = (await ask(snapshot, None))["cache"]["key"]
    assert lines[-1] == f"cache     users: key {cached}; tags user:7, users"
    refused = render(await ask(snapshot, store, method="POST"))
    assert "answer    405: POST is not allowed here. Allow: GET, HEAD" in refused


def test_the_command(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["explain", "-c", str(gateway), "GET", "/local/x", "-H", "X-A: b", "--ip", "::1"]
    assert main(command) == 0
    assert "route     local" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["client_ip"] == "::1"


def test_the_command_shows_keys_where_the_salt_is_known(
    gateway: Path, snapshot: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", "-c", str(gateway), "GET", "/api/users/7", "--ip", "192.0.2.1"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "key " not in said.partition("cache ")[0]
    assert "set log.key_salt, or POST /explain" in said
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["limits"][0]["key"] is None
    gateway.write_text(GATEWAY + f"log: {{key_salt: {SALT.decode()}}}\n")
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"key {shown(snapshot, 'per-key', '192.0.2.1', '7')}" in said
    assert "note" not in said
    assert SALT.decode() not in said


def test_the_command_without_a_route(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain_command(gateway, True, "GET", "/nowhere", [], "127.0.0.1") == 1
    assert json.loads(capsys.readouterr().out)["answer"]["status"] == 404


def test_the_command_with_a_bad_configuration(
    gateway: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.write_text(GATEWAY + "nonsense: 1\n")
    assert explain_command(gateway, False, "GET", "/", [], "127.0.0.1") == 2
    assert "nonsense" in capsys.readouterr().out
