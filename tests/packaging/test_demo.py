"""The demo keeps its promises: what it prints leads through its routes to what its origin has."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, WSMsgType, web

from proxy import demo
from proxy.demo import curl_lines, start_origin
from proxy.resources import config_file

BASE = "http://127.0.0.1:8080"
PRINTED = sorted(set(re.findall(rf"{BASE}(/[^\s';]*)", curl_lines(BASE))))
CONFIG = config_file("demo.yaml")


@pytest.fixture
async def origin() -> AsyncIterator[str]:
    runner = await start_origin("127.0.0.1", 0)
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def client() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


async def explained(method: str, target: str) -> dict[str, str]:
    command = ("-m", "proxy", "explain", "--json", "-c", CONFIG, method, target)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out
    answer: dict[str, str] = json.loads(out)
    return answer


def test_it_prints_the_address_that_it_was_given() -> None:
    assert PRINTED == ["/api/users/ada", "/echo", "/report", "/slow?s=30", "/stream"]
    assert "https://gw.example" in curl_lines("https://gw.example")


@pytest.mark.parametrize("target", PRINTED)
async def test_what_is_printed_reaches_the_origin(
    target: str, origin: str, client: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "REPORT_SECONDS", 0.0)
    method = "POST" if target == "/echo" else "GET"
    upstream = (await explained(method, target))["upstream_url"]
    path = re.sub(r"^http://127\.0\.0\.1:9001", origin, upstream).replace("s=30", "s=0")
    async with client.request(method, path, data=b"x" if method == "POST" else None) as answer:
        assert answer.status == 200


async def test_a_user_sees_what_the_gateway_sent(origin: str, client: ClientSession) -> None:
    async with client.get(f"{origin}/users/ada", headers={"Via": "1.1 sluicegate"}) as answer:
        assert (await answer.json())["seen"] == {"Via": "1.1 sluicegate"}


async def test_echo_gives_the_body_back(origin: str, client: ClientSession) -> None:
    body = b"0123456789" * 100_000
    async with client.post(f"{origin}/echo", data=body) as answer:
        assert await answer.read() == body


async def test_events_come_one_at_a_time(origin: str, client: ClientSession) -> None:
    async with client.get(f"{origin}/stream") as answer:
        assert answer.content_type == "text/event-stream"
        first = await answer.content.readuntil(b"\n\n")
        assert re.fullmatch(rb"id: 0\ndata: \S+\n\n", first)


async def test_slow_refuses_what_is_no_number(origin: str, client: ClientSession) -> None:
    async with client.get(f"{origin}/slow?s=soon") as answer:
        assert answer.status == web.HTTPBadRequest.status_code


async def test_websocket_counts(origin: str, client: ClientSession) -> None:
    async with client.ws_connect(f"{origin}/ws") as socket:
        for count in (1, 2):
            await socket.send_str("hello")
            message = await socket.receive()
            assert message.type is WSMsgType.TEXT
            assert json.loads(message.data) == {"count": count, "said": "hello"}
