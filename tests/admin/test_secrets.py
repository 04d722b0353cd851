"""What is secret stays secret: tokens and keys in no answer, log, dump or error text."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from admin_kit import GATEWAY, TOKEN, Gateway, admin_plan
from aiohttp import web
from aiohttp.test_utils import TestClient

from proxy import logs
from proxy.policy.compile import load_snapshot
from proxy.policy.problem import ConfigError
from proxy.policy.snapshot import LogPlan

Client = TestClient[web.Request, web.Application]
MakeClient = Callable[[web.Application], Awaitable[Client]]

API_KEY = "k3y-do-not-tell"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
JSON = {"Content-Type": "application/json"}
QUESTION = {
    "method": "GET",
    "target": "/users/1",
    "headers": [
        ["X-Api-Key", API_KEY],
        ["Authorization", f"Bearer {API_KEY}"],
        ["Cookie", f"session={API_KEY}"],
    ],
}


@pytest.fixture
def guarded(gateway: Gateway) -> Gateway:
    gateway.guard_by(admin_plan(TOKEN))
    return gateway


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("GET", "/status", {}),
        ("GET", "/metrics", {}),
        ("GET", "/readyz", {}),
        ("POST", "/config/reload", {}),
        ("POST", "/explain", {"json": QUESTION}),
        ("POST", "/explain", {"json": QUESTION | {"target": "/nowhere"}}),
        ("POST", "/explain", {"json": QUESTION | {"ip": "wrong"}}),
        ("POST", "/explain", {"json": QUESTION | {API_KEY: 1}}),
        ("POST", "/explain", {"json": QUESTION | {"headers": [["X Y", API_KEY]]}}),
        ("POST", "/explain", {"data": API_KEY}),
        ("POST", "/cache/purge", {"json": {"tags": [API_KEY]}}),
        ("POST", "/cache/purge", {"json": {"tags": [f"{API_KEY}\0"]}}),
        ("POST", "/cache/purge", {"json": {"urls": [API_KEY]}}),
        ("POST", "/cache/purge", {"json": {"prefix": API_KEY}}),
        ("POST", "/cache/purge", {"json": {API_KEY: True}}),
        ("GET", f"/limits/per-key?key={API_KEY}&key=r", {}),
        ("GET", f"/limits/per-key?key={API_KEY}", {}),
        ("GET", f"/limits/per-key?{API_KEY}", {}),
        ("GET", f"/limits/per-key?key=a&key=r&override={API_KEY}", {}),
        ("GET", f"/limits/{API_KEY}", {}),
        ("GET", f"/{API_KEY}", {}),
        ("DELETE", f"/limits/per-key?key={API_KEY}&key=r", {}),
    ],
)
async def test_no_answer_tells(
    admin: Client, guarded: Gateway, method: str, path: str, sent: dict[str, Any]
) -> None:
    await guarded.charge("per-key", API_KEY, "r")
    for bearer in (BEARER, {"Authorization": f"Bearer {API_KEY}"}):
        answer = await admin.request(method, path, headers={**JSON, **bearer}, **sent)
        told = await answer.text() + str(answer.headers)
        assert API_KEY not in told
        assert TOKEN not in told


async def test_no_log_tells(
    admin: Client, guarded: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even where the gateway itself fails at a call that carries them."""
    caplog.set_level(logging.DEBUG)
    guarded.limit_store = None  # type: ignore[assignment]
    for method, path in (
        ("GET", f"/limits/per-key?key={API_KEY}&key=r"),
        ("DELETE", f"/limits/per-key?key={API_KEY}&key=r"),
    ):
        assert (await admin.request(method, path, headers=BEARER)).status == 500
    formatter = logging.Formatter("%(message)s")
    ours = [record for record in caplog.records if record.name.startswith("proxy")]
    assert len(ours) == 2
    for record in ours:
        assert API_KEY not in formatter.format(record)
        assert TOKEN not in formatter.format(record)


async def test_a_broken_request_is_not_logged_with_its_bytes(admin: Client) -> None:
    read, write = os.pipe()
    logs.configure(LogPlan("debug", "plain", "off"), fd=write)
    try:
        assert admin.port is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", admin.port)
        writer.write(b"GET /?token=" + API_KEY.encode() + b" nonsense HTTP/1.1\r\n\r\n")
        assert (await reader.readline()).split()[1] == b"400"
        writer.close()
        await writer.wait_closed()
    finally:
        await asyncio.to_thread(logs.shutdown)
        logging.getLogger("proxy").setLevel(logging.NOTSET)
    os.close(write)
    with os.fdopen(read) as told:
        assert API_KEY not in await asyncio.to_thread(told.read)


def test_no_dump_of_the_configuration_tells(
    guarded: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the admin token nor what a route adds to requests, often a credential."""
    monkeypatch.setenv("UPSTREAM_KEY", API_KEY)
    path = tmp_path / "gateway.yaml"
    path.write_text(
        GATEWAY.replace(
            "[by-address]", "[by-address], request_headers: {set: {X-Key: $KEY}}"
        ).replace("$KEY", '"Bearer ${UPSTREAM_KEY}"')
    )
    config, _ = load_snapshot(path, guarded)
    assert config.routes["other"].request_headers is not None
    assert API_KEY in config.routes["other"].request_headers.set[0][1]
    for dump in (repr(config), str(config), repr(guarded.config)):
        assert API_KEY not in dump
        assert TOKEN not in dump


@pytest.mark.parametrize(
    "section",
    [
        "admin: {token: ['${SECRET}']}",
        "admin: {token: {secret: '${SECRET}'}}",
        "admin: {token: '${SECRET}', hosts: 3}",
        "admin: {token: '${SECRET} with spaces'}",
        'admin: {token: "${SECRET}\\n"}',
        "admin: {tokne: '${SECRET}'}",
        "admin: ['${SECRET}']",
        "admin: '${SECRET}'",
        "admin: {listen: '${SECRET}'}",
        "upstreams: {u: {endpoints: ['http://user:${SECRET}@127.0.0.1:9001']}}",
        "upstreams: {u: {endpoints: ['http://user:${SECRET}@127.0.0.1:x']}}",
        "store: {url: 'redis://:${SECRET}@127.0.0.1:x'}",
        "store: {url: 'postgres://:${SECRET}@127.0.0.1'}",
        "store: {url: 'redis://:${SECRET}@127.0.0.1', tls: {verify: true}}",
        'routes: [{request_headers: {set: {X-Key: "${SECRET}\\n"}}}]',
        "routes: [{request_headers: {set: {X-Key: ['${SECRET}']}}}]",
        "routes: [{request_headers: {set: {'X Key': '${SECRET}'}}}]",
    ],
)
def test_no_error_about_the_configuration_tells(
    section: str, tmp_path: Path, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", TOKEN)
    path = tmp_path / "wrong.yaml"
    path.write_text(section + "\n")
    with pytest.raises(ConfigError) as refused:
        load_snapshot(path, gateway)
    assert TOKEN not in str(refused.value)
