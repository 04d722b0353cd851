"""What each call of the admin API answers."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from admin_kit import SECOND, Gateway
from aiohttp import web
from aiohttp.test_utils import TestClient
from yarl import URL

from proxy import __version__
from proxy.admin.answers import Refusal
from proxy.admin.question import read_question
from proxy.core.cache import storing
from proxy.core.cache.record import CacheTerms, Stored
from proxy.core.fields import Fields
from proxy.core.keys import shown_key
from proxy.store.memory.cache import Held

Client = TestClient[web.Request, web.Application]

JSON = {"Content-Type": "application/json"}


async def refused(admin: Client, method: str, path: str, status: int, **more: Any) -> str:
    """The detail of the problem that this call must end in."""
    answer = await admin.request(method, path, **more)
    assert answer.status == status, await answer.text()
    document = await answer.json(content_type="application/problem+json")
    detail = document["detail"]
    assert isinstance(detail, str)
    return detail


# /livez, /readyz


async def test_livez(admin: Client) -> None:
    answer = await admin.get("/livez")
    assert (answer.status, await answer.json()) == (200, {"alive": True})


@pytest.mark.parametrize(
    ("ready", "status", "document"),
    [
        ((True, {"store": "memory"}), 200, {"ready": True, "store": "memory"}),
        ((False, {"reason": "draining"}), 503, {"ready": False, "reason": "draining"}),
    ],
)
async def test_readyz(
    admin: Client,
    gateway: Gateway,
    ready: tuple[bool, dict[str, object]],
    status: int,
    document: dict[str, object],
) -> None:
    gateway.ready = ready
    answer = await admin.get("/readyz")
    assert (answer.status, await answer.json()) == (status, document)
    assert (await admin.head("/readyz")).status == status


# /metrics


async def test_metrics(admin: Client, gateway: Gateway) -> None:
    gateway.metrics.route("users-read").count("GET", 200, 0.01)
    answer = await admin.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    sample = 'sluicegate_requests_total{method="GET",route="users-read",status="200"} 1.0\n'
    assert sample in await answer.text()


async def test_metrics_as_open_metrics(admin: Client) -> None:
    answer = await admin.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert answer.content_type == "application/openmetrics-text"
    assert (await answer.text()).endswith("# EOF\n")


@pytest.mark.skipif(
    shutil.which("promtool") is None and not os.environ.get("CI"),
    reason="promtool (Debian: prometheus) is not here, and this is no CI run",
)
async def test_promtool_has_no_complaint_about_a_live_scrape(admin: Client) -> None:
    body = await (await admin.get("/metrics")).read()
    done = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True)  # noqa: ASYNC221
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


# /status


async def test_status(admin: Client, gateway: Gateway, tmp_path: Path) -> None:
    assert gateway.config is not None
    tally = gateway.metrics.route("users-read")
    tally.count("GET", 429, 0.01)
    tally.count("GET", 200, 0.01)
    tally.count("POST", 200, 0.01)
    gateway.metrics.no_route.count("GET", 404, 0.01)
    gateway.metrics.limit("by-address").shadow_denied += 3
    cache = gateway.metrics.cache("users")
    cache.hit, cache.miss = 5, 2
    cache.refuse("private", 1_000)
    cache.refuse("no-store", 2_000)
    cache.last["hit"] = ("fresh", 3_000)
    gateway.metrics.purges["tag"] = 2
    await gateway.charge("per-key", "a", "users-read")
    document = await (await admin.get("/status")).json()
    assert document.pop("uptime_s") > 0
    last = document["caches"][0]["last"]
    assert list(last) == ["hit", "not_stored"]  # the latest first
    newer, older = [last[outcome].pop("ago_s") for outcome in last]
    assert older - newer == pytest.approx(1)
    assert document == {
        "version": __version__,
        "ready": {"ready": True, "store": "memory"},
        "configuration": {
            "hash": gateway.config.hash,
            "files": [str(tmp_path / name) for name in ("gateway.yaml", "limits.yaml")],
        },
        "store": {"kind": "memory", "healthy": True, "keys": 1},
        "connections": 5,
        "routes": [
            {
                "name": "users-read",
                "upstream": "users",
                "limits": ["per-key", "whole"],
                "cache": "users",
                "requests": 3,
                "statuses": {"200": 2, "429": 1},
            },
            {
                "name": "other",
                "upstream": "users",
                "limits": ["by-address"],
                "cache": None,
                "requests": 0,
                "statuses": {},
            },
        ],
        "unrouted": {"requests": 1, "statuses": {"404": 1}},
        "limits": [
            limit("per-key", ["header:X-Api-Key|ip", "route"], overrides=2),
            limit("whole", ["global"]),
            limit("by-address", ["ip"], mode="shadow", shadow_denied=3),
        ],
        "cache": {"entries": 7, "bytes": 4096, "purges": {"tag": 2}},
        "caches": [
            {
                "name": "users",
                "routes": ["users-read"],
                "tags": ["user:{path.id}"],
                "hit": 5,
                "miss": 2,
                "stale": 0,
                "revalidated": 0,
                "collapsed": 0,
                "bypass": 0,
                "not_stored": {"no-store": 1, "private": 1},
                "last": {"hit": {"reason": "fresh"}, "not_stored": {"reason": "no-store"}},
            }
        ],
        "upstreams": [
            {"name": "users", "in_flight": 2, "connections": 3, "waiting": 1, "endpoints": []}
        ],
        "breakers": [],
        "idempotency": {"policies": []},
    }


def limit(name: str, key: list[str], **figures: object) -> dict[str, object]:
    return {
        "name": name,
        "algorithm": "fixed_window",
        "key": key,
        "mode": "enforce",
        "overrides": 0,
        "allowed": 0,
        "denied": 0,
        "shadow_denied": 0,
        "degraded": 0,
        "overflow": 0,
        **figures,
    }


# GET /limits/NAME


async def test_a_fresh_key(admin: Client, gateway: Gateway) -> None:
    document = await (await admin.get("/limits/per-key?key=a&key=users-read")).json()
    assert gateway.config is not None
    key = gateway.config.limits["per-key"].key.digest_values(["a", "users-read"])
    base = {
        "limit": "per-key",
        "key": shown_key(b"salt", key),
        "algorithm": "fixed_window",
        "remaining": 10,
        "reset_s": 0,
        "retry_after_s": 0,
    }
    none = {"remaining": None, "reset_s": None, "retry_after_s": None}
    assert document == {
        **base,
        "overrides": [
            {**base, "when": {"header:X-Plan": ["gold"]}, "remaining": 100},
            {**base, "when": {"header:X-Plan": ["partner"]}, **none},
        ],
    }


async def test_the_key_is_shown_as_explain_shows_it(admin: Client, gateway: Gateway) -> None:
    headers = [["X-Api-Key", "a"]]
    question = {"method": "GET", "target": "/users/1", "headers": headers}
    seen = set()
    for salt in (b"salt", b"another", None):
        gateway.salt = salt
        limit = await (await admin.get("/limits/per-key?key=a&key=users-read")).json()
        explained = await (await admin.post("/explain", json=question)).json()
        (per_key,) = (one for one in explained["limits"] if one["name"] == "per-key")
        assert limit["key"] == per_key["key"]
        seen.add(limit["key"])
    assert len(seen) == 3
    assert None in seen


async def test_a_used_key_and_nothing_is_charged_by_looking(
    admin: Client, gateway: Gateway
) -> None:
    await gateway.charge("per-key", "a", "users-read", times=3)
    for _ in range(3):
        document = await (await admin.get("/limits/per-key?key=a&key=users-read")).json()
        assert (document["remaining"], document["reset_s"]) == (7, 40)
        assert document["retry_after_s"] == 0


async def test_a_spent_key(admin: Client, gateway: Gateway) -> None:
    await gateway.charge("per-key", "a", "users-read", times=10)
    gateway.now += 39 * SECOND + 999_501
    document = await (await admin.get("/limits/per-key?key=a&key=users-read")).json()
    assert document["remaining"] == 0
    assert document["reset_s"] == document["retry_after_s"] == 0.001  # 499 µs, rounded up


async def test_retry_after_is_for_the_limits_own_cost(admin: Client, gateway: Gateway) -> None:
    """10 a minute at 4 a request: after two, 2 are left, and the next request must wait."""
    await gateway.charge("whole", times=2)
    document = await (await admin.get("/limits/whole")).json()
    assert (document["remaining"], document["retry_after_s"]) == (2, 40)


@pytest.mark.parametrize(
    ("charged", "query"),
    [
        (("a", "r"), "key=a&key=r"),
        (("", "r"), "key=&key=r"),
        (("", "r"), "key&key=r"),
        ((None, "r"), "absent&key=r"),
        ((None, "r"), "absent=&key=r"),
        ((None, None), "absent&absent"),
        (("a", None), "key=a&absent"),
        (("a b+c&d=e", "r"), "key=a%20b%2Bc%26d%3De&key=r"),
        (("a b", "r"), "key=a+b&key=r"),
        # Values are bytes: UTF-8 here, a lone latin-1 byte there.
        (("caf\xc3\xa9", "r"), "key=caf%C3%A9&key=r"),
        (("caf\xe9", "r"), "key=caf%E9&key=r"),
        # An address, where the part falls back to one.
        (("192.0.2.1", "r"), "key=192.0.2.1&key=r"),
        (("2001:db8::1", "r"), "key=2001:db8::ffff&key=r"),
    ],
)
async def test_key_values(
    admin: Client, gateway: Gateway, charged: tuple[str | None, ...], query: str
) -> None:
    await gateway.charge("per-key", *charged)
    answer = await admin.get(URL(f"/limits/per-key?{query}", encoded=True))
    assert (await answer.json())["remaining"] == 9


async def test_absent_is_not_empty(admin: Client, gateway: Gateway) -> None:
    await gateway.charge("per-key", None, "r")
    answer = await admin.get("/limits/per-key?key=&key=r")
    assert (await answer.json())["remaining"] == 10


async def test_an_override_has_a_state_of_its_own(admin: Client, gateway: Gateway) -> None:
    await gateway.charge("per-key", "a", "r", times=2, override=1)
    base = await (await admin.get("/limits/per-key?key=a&key=r")).json()
    gold = base["overrides"][0]
    assert (base["remaining"], gold["remaining"], gold["reset_s"]) == (10, 98, 40)


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/limits/per-kye?key=a&key=b", 404, 'did you mean "per-key"?'),
        ("/limits/zzz?key=a", 404, "no limit of this name"),
        ("/limits/per-key?key=a", 422, "1 key values given, the parts are: header:X-Api-Key|ip"),
        ("/limits/per-key?key=a&key=b&key=c", 422, "3 key values given"),
        ("/limits/per-key", 422, "0 key values given"),
        ("/limits/whole?key=a", 422, "the key is global"),
        ("/limits/per-key?key=a&keys=b", 422, 'did you mean "key"?'),
        ("/limits/per-key?absent=1&key=b", 422, "absent takes no value"),
        ("/limits/per-key?key=a&key=b&override=1", 422, "the query takes key and absent"),
        ("/limits/per-key?" + "key=a&" * 101, 422, "more than 100 items"),
    ],
)
async def test_a_wrong_question(admin: Client, path: str, status: int, said: str) -> None:
    assert said in await refused(admin, "GET", path, status)


async def test_the_parts_expected_are_a_member(admin: Client) -> None:
    answer = await admin.get("/limits/per-key?key=a")
    assert (await answer.json(content_type=None))["parts"] == ["header:X-Api-Key|ip", "route"]


# DELETE /limits/NAME


async def test_delete_forgets_the_key_everywhere_and_no_other(
    admin: Client, gateway: Gateway
) -> None:
    await gateway.charge("per-key", "a", "r", times=10)
    await gateway.charge("per-key", "a", "r", times=5, override=1)
    await gateway.charge("per-key", "b", "r", times=4)
    answer = await admin.delete("/limits/per-key?key=a&key=r")
    assert (answer.status, await answer.read()) == (204, b"")
    for query, remaining, of_gold in (("key=a&key=r", 10, 100), ("key=b&key=r", 6, 100)):
        document = await (await admin.get(f"/limits/per-key?{query}")).json()
        assert document["remaining"] == remaining
        assert document["overrides"][0]["remaining"] == of_gold


async def test_delete_of_an_unknown_key_is_fine(admin: Client) -> None:
    assert (await admin.delete("/limits/per-key?key=never&key=seen")).status == 204


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/limits/per-kye?key=a&key=b", 404, 'did you mean "per-key"?'),
        ("/limits/per-key?key=a", 422, "1 key values given"),
        ("/limits/per-key?key=a&key=b&override=1", 422, "the query takes key and absent"),
    ],
)
async def test_a_wrong_delete(admin: Client, path: str, status: int, said: str) -> None:
    assert said in await refused(admin, "DELETE", path, status)


# POST /config/reload


@pytest.mark.parametrize("body", [b"", b"{}", b" {} \n"])
async def test_reload(admin: Client, gateway: Gateway, body: bytes) -> None:
    answer = await admin.post("/config/reload", data=body, headers=JSON)
    assert gateway.config is not None
    assert (answer.status, await answer.json()) == (200, {"hash": gateway.config.hash})
    assert gateway.reloads == 1


async def test_a_reload_that_is_refused_tells_every_error(admin: Client, gateway: Gateway) -> None:
    gateway.reload_errors = ["g.yaml:1:2: server: wrong", "g.yaml:3:4: routes: wrong too"]
    answer = await admin.post("/config/reload", headers=JSON)
    assert answer.status == 422
    document = await answer.json(content_type="application/problem+json")
    assert document["errors"] == gateway.reload_errors


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b'{"now": true}', 422), (b"[]", 422), (b"0", 422)]
)
async def test_a_reload_takes_nothing(
    admin: Client, gateway: Gateway, body: bytes, status: int
) -> None:
    await refused(admin, "POST", "/config/reload", status, data=body, headers=JSON)
    assert gateway.reloads == 0


# POST /explain


def test_a_question() -> None:
    asked = read_question(
        {
            "method": "GET",
            "target": "/caf\xe9?x=1",
            "headers": [["X-Api-Key", " caf\xe9 "], ["X-Api-Key", ""]],
            "ip": "192.0.2.1",
        }
    )
    assert asked.method == "GET"
    assert asked.target == "/caf\xc3\xa9?x=1"  # UTF-8, one character per byte
    assert asked.headers == [("X-Api-Key", "caf\xc3\xa9"), ("X-Api-Key", "")]
    assert asked.ip == "192.0.2.1"


def test_headers_and_ip_may_be_left_out() -> None:
    assert read_question({"method": "GET", "target": "/"})[2:] == ([], "127.0.0.1")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"method": None}, "method must be a string"),
        ({"method": ""}, "method must be a token"),
        ({"method": "G ET"}, "method must be a token"),
        ({"method": "M" * 33}, "method must be a token"),
        ({"target": 1}, "target must be a string"),
        ({"target": ""}, "target must be a path"),
        ({"target": "/a b"}, "target must be a path"),
        ({"target": "/a\r\nX: y"}, "target must be a path"),
        ({"target": "/a\x00"}, "target must be a path"),
        ({"target": "/a#b"}, "target must be a path"),
        ({"target": "/\ud800"}, "surrogate"),
        ({"headers": {"a": "b"}}, "list of [name, value] pairs"),
        ({"headers": [["a"]]}, "list of [name, value] pairs"),
        ({"headers": [["a", 1]]}, "list of [name, value] pairs"),
        ({"headers": ["ab"]}, "list of [name, value] pairs"),
        ({"headers": [["a b", "c"]]}, "no request can carry"),
        ({"headers": [["a", "b\r\nc: d"]]}, "no request can carry"),
        ({"headers": [["a", "b\x00"]]}, "no request can carry"),
        ({"ip": "somewhere"}, "ip must be an IP address"),
        ({"ip": 1}, "ip must be a string"),
        ({"header": []}, 'did you mean "headers"?'),
    ],
)
def test_a_wrong_member(changed: dict[str, object], said: str) -> None:
    with pytest.raises(Refusal) as refusal:
        read_question({"method": "GET", "target": "/", **changed})
    assert refusal.value.status == 422
    assert said in refusal.value.detail


@pytest.mark.parametrize("member", ["method", "target"])
def test_a_missing_member(member: str) -> None:
    document = {"method": "GET", "target": "/"}
    del document[member]
    with pytest.raises(Refusal, match=f"{member} is missing"):
        read_question(document)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"null", 422),
        (b"[]", 422),
        (b"{", 400),
        (b'{"method": NaN}', 400),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
    ],
)
async def test_a_body_that_is_no_question(admin: Client, body: bytes, status: int) -> None:
    await refused(admin, "POST", "/explain", status, data=body, headers=JSON)


async def test_explain_answers_and_counts_nothing(admin: Client, gateway: Gateway) -> None:
    question = {
        "method": "GET",
        "target": "/users/7?x=1",
        "headers": [["X-Api-Key", "a"], ["X-Forwarded-For", "192.0.2.9"]],
        "ip": "127.0.0.1",
    }
    await gateway.charge("per-key", "a", "users-read", times=3)
    for _ in range(2):
        answer = await admin.post("/explain", json=question)
        assert answer.status == 200
        document = await answer.json()
        assert (document["route"], document["client_ip"]) == ("users-read", "192.0.2.9")
        assert document["upstream_url"] == "http://127.0.0.1:9001/users/7?x=1"
        assert [(each["name"], each["remaining"]) for each in document["limits"]] == [
            ("per-key", 7),
            ("whole", 10),
        ]


async def test_explain_tells_what_is_stored_but_not_what_it_says(
    admin: Client, gateway: Gateway
) -> None:
    question: dict[str, Any] = {"method": "GET", "target": "/users/7"}
    said = await (await admin.post("/explain", json=question)).json()
    assert (said["cache"]["stored"], said["cache"]["decision"]) == (
        [],
        {"action": "fetch", "reason": "uri-miss", "hit_for_miss": False},
    )
    now = gateway.now // 1000
    head = Fields([("Cache-Control", "max-age=60"), ("Vary", "X-Token"), ("X-Secret", "s3cret")])
    request = Fields([("X-Token", "t0ken")])
    stored = storing.judge(
        "GET", request, 200, "OK", head, CacheTerms(), now - 5000, now - 4500, length=4
    )
    assert isinstance(stored, Stored)
    stored.tags = ("user:7", "Ã©", "\0path:0")
    held = Held(stored, b"body", (), "/users/7", 0, stored.lines)
    gateway.caching.adopt(bytes.fromhex(said["cache"]["key"]), held)
    question["headers"] = [["X-Token", "t0ken"]]
    answer = await admin.post("/explain", json=question)
    cache = (await answer.json())["cache"]
    assert cache["stored"] == [
        {
            "tier": "memory",
            "selected": True,
            "method": "GET",
            "status": 200,
            "vary": ["x-token"],
            "age_s": 5,
            "lifetime_s": 60,
            "ttl_s": 55,
            "stale_while_revalidate_s": 0,
            "stale_if_error_s": 0,
            "must_revalidate": False,
            "no_cache": False,
            "validators": [],
            "purged": None,
            "bytes": held.size,
            "tags": ["user:7", "é"],
        }
    ]
    assert cache["decision"] == {"action": "serve", "reason": "fresh", "tier": "memory"}
    assert "s3cret" not in await answer.text()
    assert "t0ken" not in await answer.text()
