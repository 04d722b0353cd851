"""`server.body_buffer`: request bodies that are read whole have so much room together."""

from collections.abc import AsyncIterator

import pytest
from rawhttp import Answer, Wire
from replay_kit import CHUNKED, Gate, Origin, Shop, StartShop, chunk, message, post, trouble, until

KIB = 1024
ROOM = 2 * KIB
"""Two of the largest bodies."""


@pytest.fixture
async def shop(start_shop: StartShop, request: pytest.FixtureRequest) -> AsyncIterator[Shop]:
    server = {"body_buffer": "2KiB", "body_timeout": getattr(request, "param", "30s")}
    shop = await start_shop({"max_body": "1KiB"}, config={"server": server})
    yield shop
    await shop.rests()
    await until(lambda: not taken(shop))


def taken(shop: Shop) -> int:
    return shop.gateway._bodies.taken


def head(key: str, *lines: str) -> bytes:
    return message(
        "POST /pay HTTP/1.1", "Host: a", f"Idempotency-Key: {key}", "X-Api-Key: caller-a", *lines
    )


def refused(answer: Answer) -> None:
    trouble(answer, 503, "overloaded")
    assert answer.get("Retry-After") == "1"


async def fill(shop: Shop) -> list[Wire]:
    """Two clients who have sent no byte of what they have announced."""
    clients = [await shop.open(), await shop.open()]
    await clients[0].send(head("a", f"Content-Length: {KIB}"))
    await clients[1].send(head("b", CHUNKED))  # counts as what it may come to
    await until(lambda: taken(shop) == ROOM)
    return clients


async def test_no_more_is_read_than_there_is_room_for(shop: Shop, origin: Origin) -> None:
    clients = await fill(shop)
    async with await shop.open() as late:
        # Not asked for its body: no 100 comes before.
        await late.send(head("c", "Content-Length: 1", "Expect: 100-continue"))
        assert (await late.read_head()).startswith(b"HTTP/1.1 503 ")
    refused(await shop.pay("c", b"x"))
    refused(await shop.ask(head("c", CHUNKED) + chunk(b"x") + chunk(b"")))
    assert (await shop.pay("d", b"")).status == 201  # nothing to hold
    assert (await shop.pay(None, b"x" * KIB)).status == 201  # streamed
    for client in clients:
        client.writer.transport.abort()  # it is given back when they leave
    await until(lambda: not taken(shop))
    assert (await shop.pay("c", b"x" * KIB)).status == 201


@pytest.mark.parametrize("shop", ["200ms"], indirect=True)
async def test_what_is_too_slow_gives_its_room_back(shop: Shop) -> None:
    clients = await fill(shop)
    for client in clients:
        assert (await client.read_answer()).status == 408
        await client.close()
    await until(lambda: not taken(shop))


async def test_a_chunked_body_that_has_come_takes_its_own_size(shop: Shop, origin: Origin) -> None:
    gate = Gate()
    origin.script = gate
    async with await shop.open() as client:
        await client.send(head("a", CHUNKED) + chunk(b"x" * 100) + chunk(b""))
        await until(lambda: gate.waiting)
        assert taken(shop) == 100
        gate.open()
        assert (await client.read_answer()).status == 201


async def test_a_body_is_held_though_its_client_leaves(shop: Shop, origin: Origin) -> None:
    gate = Gate()
    origin.script = gate
    await shop.leaves(post("a", b"x" * KIB), lambda: gate.waiting)
    await until(lambda: not shop.gateway.connections())
    assert taken(shop) == KIB
    gate.open()
    await shop.rests()
    assert taken(shop) == 0


@pytest.mark.parametrize("body", [b"x" * (KIB + 1), b"x" * KIB])
async def test_replays_and_refusals_give_it_back(shop: Shop, body: bytes) -> None:
    for _ in range(2 * ROOM // KIB + 1):
        assert (await shop.pay("a", body)).status == (413 if len(body) > KIB else 201)
    assert taken(shop) == 0


async def test_a_reload_changes_the_room(shop: Shop) -> None:
    clients = await fill(shop)
    shop.config["server"]["body_buffer"] = "4KiB"
    await shop.reload()
    assert (await shop.pay("c", b"x" * KIB)).status == 201
    for client in clients:
        client.writer.transport.abort()
