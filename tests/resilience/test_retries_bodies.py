"""Retries of requests with a body: what has gone out once goes out again, byte for byte, from its
first one, wherever the try before had stopped; or not at all."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from rawhttp import Cut, Script, Seen, Wire, read_body
from retries_kit import BUSY, OK, QUICK, Bench, chunked, head, sized, until

pytestmark = pytest.mark.usefixtures("lane")

BODY: Final = os.urandom(10 * 1024)
KEPT: Final = 64 * 1024


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Bench(tmp_path) as bench:
        yield bench


async def early(wire: Wire, seen: Seen) -> None:
    """Answers 503 before it has read the body."""
    await wire.exactly(1)
    await wire.send(head("503 Busy", "Connection: close"))
    raise Cut


async def late(wire: Wire, seen: Seen) -> None:
    """Answers 503 after it has read the body."""
    await read_body(wire, seen)
    await BUSY(wire, seen)


async def midway(wire: Wire, seen: Seen) -> None:
    """Resets the connection before it has read the body."""
    await wire.exactly(1)
    raise Cut


@pytest.mark.parametrize("framed", [sized, chunked])
@pytest.mark.parametrize("first", [early, late, midway])
@pytest.mark.parametrize("pieces", [1, 2])
async def test_a_body_is_sent_again_byte_for_byte(
    bench: Bench, framed: Any, first: Script, pieces: int
) -> None:
    """In two pieces, the second one comes when the first try has failed (or is read by it)."""
    bad, good = await bench.origin(first, read_body=False), await bench.origin()
    gateway = await bench.gateway(bad, good, retry=QUICK)
    request = framed(BODY)
    async with await Wire.open(gateway.port) as client:
        if pieces == 2:
            await client.send(request[:6000])
            await until(lambda: bad.seen and (first is late or not bad.open))
            request = request[6000:]
        assert (await client.ask(request, "PUT")).status == 200
        # The connection is at a message boundary.
        assert (await client.ask("OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200
    assert good.seen[0].body == BODY
    assert (good.seen[0].get("Content-Length") is None) == (framed is chunked)


@pytest.mark.parametrize(("size", "again"), [(KEPT, True), (KEPT + 1, False), (1 << 20, False)])
@pytest.mark.parametrize("framed", [sized, chunked])
async def test_a_body_that_was_not_kept_is_not_sent_again(
    bench: Bench, framed: Any, size: int, again: bool
) -> None:
    body = os.urandom(size)
    bad, good = await bench.origin(BUSY), await bench.origin()
    gateway = await bench.gateway(bad, good, retry=QUICK)
    assert (await gateway.ask(framed(body))).status == (200 if again else 503)
    assert bad.seen[0].body == body
    assert [seen.body for seen in good.seen] == ([body] if again else [])


async def test_a_body_that_breaks_off_is_nobodys_second_try(bench: Bench) -> None:
    """The client left while it was being sent to the second endpoint."""
    bad, good = await bench.origin(midway, read_body=False), await bench.origin()
    gateway = await bench.gateway(bad, good, retry=QUICK)
    async with await Wire.open(gateway.port) as client:
        await client.send(sized(BODY)[:6000])
        await until(lambda: good.seen)
    await until(lambda: not good.open)
    assert (len(bad.seen), len(good.seen), good.seen[0].body) == (1, 1, b"")


@pytest.mark.parametrize("asked", [True, False])
async def test_expect_goes_on_with_the_second_try(bench: Bench, asked: bool) -> None:
    """Whether or not the first endpoint had asked for the body, the client hears of it once."""

    async def first(wire: Wire, seen: Seen) -> None:
        if asked:
            await wire.send("HTTP/1.1 100 Continue\r\n\r\n")
            await read_body(wire, seen)
        await wire.send(head("503 Busy", "Connection: close"))
        raise Cut

    async def second(wire: Wire, seen: Seen) -> None:
        assert seen.get("Expect") == "100-continue"
        await wire.send("HTTP/1.1 100 Continue\r\n\r\n")
        seen.body = await read_body(wire, seen)
        await wire.send(OK)

    bad = await bench.origin(first, read_body=False)
    good = await bench.origin(second, read_body=False)
    gateway = await bench.gateway(bad, good, retry=QUICK)
    request = sized(BODY).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n", 1)
    async with await Wire.open(gateway.port) as client:
        await client.send(request[: -len(BODY)])
        assert (await client.read_answer()).status == 100
        assert len(good.seen) == int(not asked)
        await client.send(BODY)
        answer = await client.read_answer()
    assert (answer.status, good.seen[0].body) == (200, BODY)


@pytest.mark.parametrize("framed", [sized, chunked])
async def test_an_upstream_that_takes_over_gets_the_whole_body(bench: Bench, framed: Any) -> None:
    """The first try has read of it before the breaker opened."""
    bad, good = await bench.origin(BUSY), await bench.origin()
    gateway = await bench.gateway(
        bad,
        upstream={"breaker": "fragile"},
        retry=QUICK,
        policies={
            "breakers": {"fragile": {"consecutive_failures": 1, "fallback": {"upstream": "other"}}}
        },
        others={"other": {"endpoints": [f"http://127.0.0.1:{good.port}"]}},
    )
    assert (await gateway.ask(framed(BODY))).status == 200
    assert (len(bad.seen), [seen.body for seen in good.seen]) == (1, [BODY])
