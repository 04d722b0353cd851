"""Headers that are parts of keys, in both lanes: one line each, however often a request comes."""

from pathlib import Path

import pytest
from edge_kit import ROUTE, Running, StartGateway, StartOrigin
from lanes_kit import ask
from rawhttp import Wire

LIMIT = 'two: {algorithm: fixed_window, rate: 2/d, key: ["header:Authorization", "header:X-Key"]}'
LIMITED = ROUTE.replace("upstream: origin}", "upstream: origin, limits: [two]}")


@pytest.fixture
async def running(start_gateway: StartGateway, start_origin: StartOrigin) -> Running:
    return await start_gateway(await start_origin(), routes=LIMITED, limits=LIMIT)


@pytest.mark.parametrize("name", ["X-Key", "Authorization"])
@pytest.mark.parametrize("body", [b"", b"a"], ids=["express", "aiohttp"])
async def test_a_repeated_header_is_400_each_time(
    running: Running, tmp_path: Path, name: str, body: bytes
) -> None:
    """The same bytes come often enough to be remembered, beside a single line of the same."""
    length = [f"Content-Length: {len(body)}"] if body else []
    method = "POST" if body else "GET"
    double = ask("/a", f"{name}: k", f"{name.lower()}: k", *length, method=method) + body
    single = ask("/a", f"{name}: k", *length, method=method) + body
    async with await Wire.open(running.port) as client:
        for _ in range(6):
            answer = await client.ask(double)
            assert answer.status == 400
            assert answer.json()["type"] == "urn:sluicegate:problem:bad-request"
            assert name in answer.json()["detail"]
        statuses = [(await client.ask(single)).status for _ in range(4)]
        assert statuses == [200, 200, 429, 429]
        assert [(await client.ask(double)).status for _ in range(3)] == [400] * 3


async def test_a_scheme_in_another_case_is_no_other_key(running: Running) -> None:
    schemes = ("Bearer", "bearer", "BEARER", "bEARER ")
    async with await Wire.open(running.port) as client:
        answers = [await client.ask(ask("/a", f"Authorization: {s} x")) for s in schemes]
        other = await client.ask(ask("/a", "Authorization: Bearer X"))
    assert [answer.status for answer in answers] == [200, 200, 429, 429]
    assert other.status == 200
