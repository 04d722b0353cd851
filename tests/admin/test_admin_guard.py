"""Who may ask: Host, token, Content-Type, and the form of every refusal."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from admin_kit import TOKEN, Gateway, admin_plan
from aiohttp import web
from aiohttp.test_utils import TestClient

from proxy.admin.app import make_admin_app
from proxy.admin.guard import bears, host_is_ours

Client = TestClient[web.Request, web.Application]
MakeClient = Callable[[web.Application], Awaitable[Client]]

JSON = {"Content-Type": "application/json"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:9090", True),
        ("10.1.2.3:80", True),
        ("[::1]", True),
        ("[::1]:9090", True),
        ("[2001:db8::1]:9090", True),
        ("localhost", True),
        ("LocalHost:9090", True),
        ("localhost.", True),
        ("admin.internal", True),
        ("Admin.Internal.:9090", True),
        # A page that rebinds its own name sends its own name.
        ("evil.example", False),
        ("evil.example:9090", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil@localhost", False),
        ("localhost@evil", False),
        ("evil#localhost", False),
        ("::1", False),
        ("[::1", False),
        ("[::1]evil", False),
        ("x[::1]", False),
        ("[localhost]", False),
        ("localhost:evil", False),
        ("localhost:80:80", False),
        ("0x7f.1", False),
        ("", False),
    ],
)
def test_host(host: str, ours: bool) -> None:
    assert host_is_ours([host], frozenset({"admin.internal"})) is ours


def test_exactly_one_host() -> None:
    assert not host_is_ours([], frozenset())
    assert not host_is_ours(["localhost", "localhost"], frozenset())


@pytest.mark.parametrize(
    ("values", "good"),
    [
        (["Bearer s3cret"], True),
        (["bearer s3cret"], True),
        (["Bearer  s3cret"], True),
        (["Bearer s3cre"], False),
        (["Bearer s3cret2"], False),
        (["Bearer"], False),
        (["Basic s3cret"], False),
        (["s3cret"], False),
        (["Bearer s3cr\udce9t"], False),
        (["Bearer s3cret", "Bearer s3cret"], False),
        ([], False),
    ],
)
def test_bearer_token(values: list[str], good: bool) -> None:
    assert bears(values, "s3cret") is good


CALLS = [
    ("GET", "/status"),
    ("GET", "/metrics"),
    ("GET", "/limits/per-key?key=a&key=b"),
    ("DELETE", "/limits/per-key?key=a&key=b"),
    ("POST", "/config/reload"),
    ("POST", "/explain"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_every_call_refuses_a_strange_host(
    admin: Client, gateway: Gateway, method: str, path: str
) -> None:
    answer = await admin.request(method, path, headers={**JSON, "Host": "evil.example"})
    assert answer.status == 421
    assert (await answer.json(content_type=None))["type"] == "urn:sluicegate:problem:misdirected"
    assert gateway.reloads == 0


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize("sent", [{}, {"Authorization": "Bearer wrong"}], ids=["none", "wrong"])
async def test_every_call_but_the_probes_needs_the_token(
    admin: Client, gateway: Gateway, method: str, path: str, sent: dict[str, str]
) -> None:
    gateway.guard_by(admin_plan(TOKEN))
    await gateway.charge("per-key", "a", "b")
    answer = await admin.request(method, path, headers={**JSON, **sent})
    if path in ("/livez", "/readyz"):
        assert answer.status == 200
        return
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert TOKEN not in await answer.text()
    assert (gateway.reloads, len(gateway.limit_store)) == (0, 1)


async def test_the_token_opens(admin: Client, gateway: Gateway) -> None:
    gateway.guard_by(admin_plan(TOKEN))
    for path in ("/status", "/metrics", "/limits/per-key?key=a&key=b"):
        assert (await admin.get(path, headers=BEARER)).status == 200


async def test_a_path_that_is_not_there_needs_the_token_too(
    admin: Client, gateway: Gateway
) -> None:
    gateway.guard_by(admin_plan(TOKEN))
    assert (await admin.get("/nothing")).status == 401
    assert (await admin.get("/nothing", headers=BEARER)).status == 404


async def test_a_reload_changes_token_and_hosts(admin: Client, gateway: Gateway) -> None:
    named = {"Host": "admin.internal"}
    assert (await admin.get("/status", headers=named)).status == 421
    gateway.guard_by(admin_plan(TOKEN, "admin.internal"))
    assert (await admin.get("/status", headers=named)).status == 401
    assert (await admin.get("/status", headers={**named, **BEARER})).status == 200
    gateway.guard_by(admin_plan("another"))
    assert (await admin.get("/status", headers=BEARER)).status == 401


async def test_before_the_first_configuration(aiohttp_client: MakeClient) -> None:
    """The plan given at the start guards; what needs a configuration says that there is none."""
    gateway = Gateway()
    gateway.ready = (False, {"reason": "starting"})
    admin = await aiohttp_client(make_admin_app(gateway, admin_plan(TOKEN)))
    assert (await admin.get("/status")).status == 401
    for path in ("/status", "/limits/x?key=a"):
        answer = await admin.get(path, headers=BEARER)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert (await admin.get("/livez")).status == 200
    assert (await admin.get("/readyz")).status == 503


@pytest.mark.parametrize("path", ["/config/reload", "/explain"])
@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "json"],
)
async def test_a_body_needs_json(
    admin: Client, gateway: Gateway, path: str, content_type: str | None
) -> None:
    """What a web page can post without asking first never gets through."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = await admin.post(path, data=b"{}", headers=headers, skip_auto_headers=["Content-Type"])
    assert answer.status == 415
    assert answer.headers["Accept"] == "application/json"
    assert gateway.reloads == 0


async def test_without_a_body_there_is_nothing_to_declare(admin: Client, gateway: Gateway) -> None:
    answer = await admin.post("/config/reload", skip_auto_headers=["Content-Type"])
    assert (answer.status, gateway.reloads) == (200, 1)
    answer = await admin.put("/breakers/users", skip_auto_headers=["Content-Type"])
    assert answer.status == 404  # this upstream has no breaker: the call was made


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ({"Origin": "http://localhost:9090"}, True),
        ({"Origin": "http://LOCALHOST:9090", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Origin": "http://localhost"}, False),
        ({"Origin": "http://localhost:9091"}, False),
        ({"Origin": "http://localhost:9090.evil.example"}, False),
        ({"Origin": "http://localhost:9090", "Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "anything-new"}, False),
    ],
)
@pytest.mark.parametrize("body", [b"", b"{}"])
async def test_a_page_of_another_site_changes_nothing(
    admin: Client, gateway: Gateway, fields: dict[str, str], passes: bool, body: bytes
) -> None:
    headers = {"Host": "localhost:9090", **fields, **(JSON if body else {})}
    answer = await admin.post(
        "/config/reload", data=body or None, headers=headers, skip_auto_headers=["Content-Type"]
    )
    assert (answer.status, gateway.reloads) == ((200, 1) if passes else (403, 0))
    if not passes:
        assert answer.content_type == "application/problem+json"
        assert json.loads(await answer.text())["type"] == "urn:sluicegate:problem:cross-site"
    assert (await admin.get("/status", headers=headers)).status == 200


async def test_json_with_a_charset_is_json(admin: Client, gateway: Gateway) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert (await admin.post("/config/reload", headers=headers)).status == 200
    assert gateway.reloads == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/", 404, "not-found"),
        ("GET", "/limits", 404, "not-found"),
        ("GET", "/limits/per-key/x", 404, "not-found"),
        ("GET", "/cache/purge", 405, "method-not-allowed"),
        ("DELETE", "/idempotency/payments", 404, "not-found"),
        ("POST", "/status", 405, "method-not-allowed"),
        ("OPTIONS", "/config/reload", 405, "method-not-allowed"),
        ("GET", "/config/reload", 405, "method-not-allowed"),
        ("DELETE", "/metrics", 405, "method-not-allowed"),
    ],
)
async def test_what_is_not_there(
    admin: Client, method: str, path: str, status: int, name: str
) -> None:
    answer = await admin.request(method, path, headers=JSON)
    assert answer.status == status
    assert answer.content_type == "application/problem+json"
    document: dict[str, Any] = json.loads(await answer.text())
    assert document["type"] == f"urn:sluicegate:problem:{name}"
    assert document["status"] == status
    assert ("Allow" in answer.headers) is (status == 405)


async def test_allow_names_the_methods(admin: Client) -> None:
    answer = await admin.post("/limits/per-key", headers=JSON)
    assert answer.headers["Allow"] == "DELETE, GET, HEAD"


@pytest.mark.parametrize("path", ["/status", "/metrics", "/livez", "/readyz", "/nothing"])
async def test_every_answer_says_what_it_is_and_is_not_kept(admin: Client, path: str) -> None:
    answer = await admin.get(path)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Server"] == "sluicegate"
    assert re.match("application/(problem.)?json|text/plain", answer.headers["Content-Type"])


async def test_too_large_a_body(admin: Client) -> None:
    answer = await admin.post("/explain", data=b" " * (256 * 1024 + 1), headers=JSON)
    assert answer.status == 413
    assert answer.content_type == "application/problem+json"


async def test_an_absolute_target_brings_a_host_of_its_own(admin: Client) -> None:
    """RFC 9112 §3.2.2: it would replace the Host that was checked."""
    assert admin.port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", admin.port)
    writer.write(b"GET http://evil.example/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"400"
    writer.close()
    await writer.wait_closed()


async def test_a_failure_of_ours_tells_the_log_not_the_caller(
    admin: Client, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.limit_store = None  # type: ignore[assignment]
    answer = await admin.get("/limits/per-key?key=a&key=b")
    assert answer.status == 500
    assert "NoneType" not in await answer.text()
    (record,) = caplog.records
    assert record.getMessage() == "admin: GET /limits/per-key failed"
    assert record.exc_info is not None


# The probes listener


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_probes_ask_for_neither_token_nor_host(
    probes: Client, gateway: Gateway, method: str, path: str
) -> None:
    gateway.guard_by(admin_plan(TOKEN))
    answer = await probes.request(method, path, headers={"Host": "sidecar.default.svc"})
    assert answer.status == 200
    assert bool(await answer.read()) is (method == "GET")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/status", 404),
        ("GET", "/limits/per-key?key=a&key=b", 404),
        ("DELETE", "/limits/per-key?key=a&key=b", 404),
        ("POST", "/config/reload", 404),
        ("POST", "/explain", 404),
        ("POST", "/livez", 405),
    ],
)
async def test_probes_have_nothing_else(
    probes: Client, gateway: Gateway, method: str, path: str, status: int
) -> None:
    answer = await probes.request(method, path, headers=JSON)
    assert answer.status == status
    assert answer.content_type == "application/problem+json"
    assert gateway.reloads == 0
