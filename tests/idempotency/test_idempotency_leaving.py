"""Clients that leave, or take their time, while an answer to a request with a key is on its way."""

import asyncio
import gc

import pytest
from rawhttp import Seen, Wire
from replay_kit import (
    BODY,
    CHUNKED,
    PIECES,
    Gate,
    Origin,
    Shop,
    StartShop,
    chunk,
    is_replay,
    message,
    paid,
    post,
    respond,
    trouble,
    until,
)
from stage_plans import exchange

from proxy.buffer import Buffer
from proxy.core.message import Reply
from proxy.exchange import Exchange
from proxy.stages.idempotency.claim import Claim
from proxy.stages.idempotency.execution import Execution

in_memory = pytest.mark.parametrize("store", ["memory"], indirect=True)


class Held:
    """A ReplyStream that somebody has to let go of."""

    closed = False

    async def read(self) -> bytes:
        return b""

    def close(self) -> None:
        self.closed = True


@in_memory
@pytest.mark.parametrize("status", [200, 503])
async def test_a_client_that_leaves_as_the_head_comes(shop: Shop, status: int) -> None:
    """In the same turn of the loop: nobody would read the answer, and nobody close it."""
    stream = Held()

    async def fetch(ex: Exchange) -> Reply:
        return Reply(status, [], stream=stream, origin=True)

    replaying = shop.gateway._replaying
    claim = Claim(shop.store, shop.record(), b"token", b"print", shop.plan, replaying.untold)
    execution = Execution(exchange("POST"), shop.plan, claim, fetch, replaying)
    client = asyncio.create_task(execution.answer())
    await asyncio.sleep(0)
    await execution.run()
    client.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client
    assert stream.closed
    assert not execution._buffer.readers


@pytest.mark.parametrize("body", [BODY, b""], ids=["body", "none"])
async def test_a_client_that_leaves_before_the_answer(
    shop: Shop, origin: Origin, body: bytes
) -> None:
    hint = message("HTTP/1.1 103 Early Hints", "Link: </a>; rel=preload")
    origin.script = gate = Gate(hint + respond("200 OK", body=b"done"))
    await shop.leaves(post("k1", body), lambda: gate.waiting)
    await until(lambda: not shop.gateway.connections())
    left = {"route": "all", "method": "POST", "status": "499"}
    await until(lambda: _counts(shop, left))
    trouble(await shop.pay("k1", body), 409, "idempotency-conflict")
    gate.open()
    await shop.rests()
    answer = await shop.pay("k1", body)
    assert (answer.status, answer.body, is_replay(answer)) == (200, b"done", True)
    assert origin.executed == 1


async def _counts(shop: Shop, labels: dict[str, str]) -> bool:
    return await shop.metric("requests_total", **labels) == 1


@pytest.mark.parametrize(
    ("status", "kept"), [("200 OK", True), ("503 Busy", False)], ids=["kept", "not kept"]
)
@pytest.mark.parametrize("way", ["head", "body"])
async def test_a_client_that_leaves_before_a_streamed_answer_ends(
    start_shop: StartShop, origin: Origin, status: str, kept: bool, way: str
) -> None:
    shop = await start_shop()
    body = b"".join(PIECES)
    head = message(f"HTTP/1.1 {status}", f"Content-Length: {len(body)}")
    first = b"" if way == "head" else head + PIECES[0]
    rest = (head + body)[len(first) :]
    origin.script = gate = Gate(rest, first=first)
    await shop.leaves(post(), lambda: gate.waiting, first[-500:])
    await until(lambda: not shop.gateway.connections())
    gate.open()
    await shop.rests()
    origin.script = paid
    answer = await shop.pay()
    assert is_replay(answer) == kept
    if kept:
        assert (answer.status, answer.body) == (200, body)
    assert origin.executed == (1 if kept else 2)


@pytest.mark.parametrize("reads", [0, 1000, 9000], ids=["nothing", "a little", "too much"])
async def test_a_client_that_leaves_an_answer_without_an_end(
    start_shop: StartShop, origin: Origin, reads: int
) -> None:
    """Once it is known to be too large nobody needs more of it, and its connection is given up."""
    shop = await start_shop({"max_body": "4KiB"})
    ended = asyncio.Event()

    async def streams(wire: Wire, seen: Seen) -> None:
        await wire.send(message("HTTP/1.1 200 OK", CHUNKED))
        try:
            while True:
                await wire.send(chunk(bytes(1000)))
                await asyncio.sleep(0.002)
        finally:
            ended.set()

    origin.script = streams
    client = await shop.open()
    await client.send(post())
    await until(lambda: origin.executed)
    await client.exactly(reads)
    client.writer.transport.abort()
    await client.close()
    await asyncio.wait_for(ended.wait(), 8)
    await shop.rests()
    trouble(await shop.pay(), 409, "idempotency-too-large")
    buffers = [one for one in gc.get_objects() if isinstance(one, Buffer)]
    assert sum(len(piece) for buffer in buffers for piece in buffer._pieces) < 500_000
    assert await shop.metric("in_flight_requests", upstream="origin") == 0
    assert origin.executed == 1


async def test_a_client_that_takes_its_time_with_what_is_too_large(
    start_shop: StartShop, origin: Origin
) -> None:
    """The upstream is paced by it, and nothing piles up in between but what the kernel keeps: as
    much as 32 MB a connection."""
    shop = await start_shop({"max_body": "1KiB"})
    size, sent = 100_000_000, 0

    async def streams(wire: Wire, seen: Seen) -> None:
        nonlocal sent
        await wire.send(message("HTTP/1.1 200 OK", f"Content-Length: {size}"))
        while sent < size:
            await wire.send(bytes(100_000))
            sent += 100_000

    origin.script = streams
    client = await shop.open()
    async with client:
        await client.send(post())
        await client.read_head()
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < size
        trouble(await shop.pay(), 409, "idempotency-too-large")
        assert await client.exactly(size) == bytes(size)
    assert origin.executed == 1
