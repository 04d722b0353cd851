"""Why no route takes a request: which come nearest, and what of each fails."""

import json
from pathlib import Path
from typing import Any

import pytest
from admin_kit import Gateway
from hypothesis import given
from hypothesis import strategies as st

from proxy.admin.explain import explain, explain_command, render
from proxy.admin.nearest import accepts_host, first_mismatch
from proxy.admin.question import Question
from proxy.core.fields import Fields
from proxy.core.matching import Match, PathPattern, RouteMatch, RouteTable
from proxy.policy.compile import load_snapshot
from proxy.policy.snapshot import Snapshot

GATEWAY = """
policies: []
upstreams: {app: {endpoints: ["http://127.0.0.1:9001"]}}
routes:
  - {name: users, match: {path: "/api/users/{id:int}", methods: [GET, PUT]}, upstream: app}
  - name: orders
    match: {path: "/api/orders/{id}", hosts: [api.test, "*.api.test"]}
    upstream: app
  - name: beta
    match: {path: /beta, headers: {X-Beta: s3cret}, methods: [POST], hosts: [beta.test]}
    upstream: app
  - {name: files, match: {path: "/files/{rest:path}"}, upstream: app}
"""

HOSTED = GATEWAY.replace('"}', '", hosts: [a.test]}').replace("T]}", "T], hosts: [a.test]}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "gateway.yaml").write_text(GATEWAY)
    return tmp_path / "gateway.yaml"


@pytest.fixture
def snapshot(path: Path) -> Snapshot:
    return load_snapshot(path, Gateway())[0]


async def answer(
    snapshot: Snapshot, method: str, target: str, headers: list[tuple[str, str]]
) -> dict[str, Any]:
    said = await explain(snapshot, Question(method, target, headers, "192.0.2.1"))
    assert said["route"] is None
    return said


@pytest.mark.parametrize(
    ("method", "target", "headers", "status", "lines"),
    [
        ("GET", "/api/user/7", [], 404, [
            'users (/api/users/{id:int}): segment 2 is "user", not users',
        ]),
        ("GET", "/api/users/me", [], 404, [
            'users (/api/users/{id:int}): segment 3 is "me", not {id:int}',
        ]),
        ("GET", "/api/users/7/", [], 404, [
            'users (/api/users/{id:int}): segment 4 ("") is one too many',
        ]),
        ("GET", "/files", [], 404, [
            "files (/files/{rest:path}): segment 2 is missing, which is to be {rest:path}",
        ]),
        ("DELETE", "/api/users/7", [], 405, [
            "users (/api/users/{id:int}): method DELETE is not GET or HEAD or PUT",
        ]),
        ("GET", "/api/orders/7", [], 404, [
            "orders (/api/orders/{id}): host localhost is not api.test or *.api.test",
        ]),
        ("GET", "/beta", [("Host", "beta.test"), ("X-Beta", "0th3r")], 404, [
            "beta (/beta): header x-beta has another value; method GET is not POST",
        ]),
        ("POST", "/beta", [("Host", "beta.test")], 404, ["beta (/beta): header x-beta is missing"]),
        ("PUT", "/api/order/%C3%A9", [("Host", "a.api.test")], 404, [
            'orders (/api/orders/{id}): segment 2 is "order", not orders',
        ]),
    ],
)  # fmt: skip
async def test_the_nearest_and_what_fails(
    snapshot: Snapshot,
    method: str,
    target: str,
    headers: list[tuple[str, str]],
    status: int,
    lines: list[str],
) -> None:
    said = await answer(snapshot, method, target, headers)
    assert said["answer"]["status"] == status
    told = [line for line in render(said).splitlines() if line.startswith("nearest")]
    assert told[: len(lines)] == [f"nearest   {line}" for line in lines]
    assert len(told) <= 3
    for secret in ("s3cret", "0th3r"):
        assert secret not in json.dumps(said) + "".join(told)


async def test_routes_whose_path_matches_are_all_that_is_told(snapshot: Snapshot) -> None:
    said = (await answer(snapshot, "DELETE", "/api/users/7", []))["answer"]
    assert said["nearest"] == [
        {
            "route": "users",
            "path": "/api/users/{id:int}",
            "failed": [{"part": "method", "wanted": ["GET", "HEAD", "PUT"], "got": "DELETE"}],
        }
    ]


@pytest.mark.parametrize(
    ("method", "target"), [("TRACE", "/api/users/7"), ("GET", "/a/../b"), ("OPTIONS", "*")]
)
async def test_what_is_no_question_of_routes(snapshot: Snapshot, method: str, target: str) -> None:
    assert "nearest" not in (await answer(snapshot, method, target, []))["answer"]


def test_a_host_that_no_route_names(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """421, as all routes name hosts."""
    path.write_text(HOSTED)
    question = ("GET", "/files/7", [("Host", "b.test")], "127.0.0.1")
    assert explain_command(path, False, *question) == 1
    said = capsys.readouterr().out
    assert "answer    421" in said
    assert "nearest   files (/files/{rest:path}): host b.test is not a.test" in said


def test_the_command(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain_command(path, False, "GET", "/api/users/me", [], "127.0.0.1") == 1
    assert 'segment 3 is "me", not {id:int}' in capsys.readouterr().out


PARTS = st.sampled_from(["a", "b", "{x}", "{y:int}"])
PATHS = st.tuples(st.lists(PARTS, max_size=3, unique=True), st.sampled_from(["", "/", "/{z:path}"]))
WORDS = st.lists(st.sampled_from(["a", "b", "7", "", "%61"]), min_size=1, max_size=4)
HOSTS = st.sampled_from(["a.test", "b.a.test", "c.b.a.test", "test", "xa.test"])


@given(PATHS, WORDS)
def test_mismatches_are_those_of_the_route_table(
    made: tuple[list[str], str], words: list[str]
) -> None:
    parts, end = made
    pattern = PathPattern.parse("".join(f"/{part}" for part in parts) + end or "/")
    table = RouteTable([(RouteMatch(pattern), "it")])
    found = table.search("GET", "h", words, Fields())
    assert (first_mismatch(pattern, words) is None) == isinstance(found, Match)


@given(st.lists(st.sampled_from(["a.test", "*.a.test", "*.test"]), unique=True), HOSTS)
def test_hosts_are_those_of_the_route_table(hosts: list[str], host: str) -> None:
    match = RouteMatch(PathPattern.parse("/"), hosts=tuple(hosts))
    found = RouteTable([(match, "it")]).search("GET", host, [""], Fields())
    assert accepts_host(match, host) == isinstance(found, Match)
