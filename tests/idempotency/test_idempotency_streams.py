"""Bodies of requests with a key, read whole before anything is asked; and answers that come piece
by piece."""

import asyncio
from collections.abc import Callable

import pytest
from rawhttp import Answer, Cut, Seen, Wire
from redisservers import RedisServer
from replay_kit import (
    BODY,
    CHUNKED,
    PIECES,
    Gate,
    Origin,
    Shop,
    StartShop,
    chunk,
    common,
    is_replay,
    message,
    post,
    respond,
    trouble,
)

in_memory = pytest.mark.parametrize("store", ["memory"], indirect=True)
in_redis = pytest.mark.parametrize("store", ["redis"], indirect=True)
KIB = 1024


def chunked(*lines: str) -> bytes:
    """The head of a request with a key, whose body comes in chunks."""
    head = post("k1", b"", "/pay", *lines).partition(b"Content-Length")[0]
    return head + CHUNKED.encode() + b"\r\n\r\n"


# Bodies of requests.


@in_memory
@pytest.mark.parametrize("way", ["length", "chunked", "chunked, without end"])
async def test_a_body_that_is_too_large(start_shop: StartShop, origin: Origin, way: str) -> None:
    shop = await start_shop({"max_body": "1KiB"})
    data = post(body=bytes(KIB + 1))
    if way != "length":
        end = b"0\r\n\r\n" if way == "chunked" else b""
        data = chunked() + chunk(bytes(KIB)) + chunk(b"x") + end
    async with await shop.open() as client:
        answer = trouble(await client.ask(data), 413, "body-too-large")
        assert answer.get("Connection") == "close"
        client.writer.write_eof()
        assert await client.closed()
    assert origin.executed == 0
    assert not is_replay(await shop.pay())


async def test_a_body_that_is_just_as_large(start_shop: StartShop, origin: Origin) -> None:
    shop = await start_shop({"max_body": "100KiB"})
    body = bytes(range(256)) * 400
    assert (await shop.pay(body=body)).status == 201
    assert is_replay(await shop.ask(chunked() + chunk(body) + b"0\r\n\r\n"))
    assert [seen.body for seen in origin.seen] == [body]


@in_memory
async def test_who_asks_before_it_sends(start_shop: StartShop, origin: Origin) -> None:
    shop = await start_shop({"max_body": "1KiB"})
    head, _, body = post("k1", BODY, "/pay", "Expect: 100-continue").partition(b"\r\n\r\n")
    for number in range(2):
        async with await shop.open() as client:
            assert (await client.ask(head + b"\r\n\r\n")).status == 100
            await client.send(body)
            answer = await client.read_answer()
            assert (answer.status, is_replay(answer)) == (201, number == 1)
    assert origin.seen[0].get("Expect") is None
    large = post("k1", bytes(KIB + 1), "/pay", "Expect: 100-continue")
    async with await shop.open() as client:
        refused = await client.ask(large.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        trouble(refused, 413, "body-too-large")
    async with await shop.open() as client:
        data = chunked("Expect: 100-continue")
        assert (await client.ask(data)).status == 100
    assert origin.executed == 1


@in_memory
async def test_a_body_that_does_not_come(start_shop: StartShop, origin: Origin) -> None:
    shop = await start_shop(config={"server": {"body_timeout": "100ms"}})
    async with await shop.open() as client:
        trouble(await client.ask(chunked() + b"no chunk\r\n"), 400, "bad-request")
    async with await shop.open() as client:
        trouble(await client.ask(post(body=BODY)[:-1]), 408, "request-timeout")
    async with await shop.open() as client:
        await client.send(post(body=BODY)[:-1])
        client.writer.write_eof()
        assert await client.rest() == b""
    assert origin.executed == 0
    assert not is_replay(await shop.pay())
    assert await shop.counted("new") == 1


# Answers.


def framed(way: str, body: bytes) -> bytes:
    """An answer with this body, framed in one of the three ways."""
    lines = ("HTTP/1.1 200 OK", "X-A: 1", "x-a: 2")
    if way == "length":
        return message(*lines, f"Content-Length: {len(body)}") + body
    if way == "chunked":
        pieces = [chunk(body[at : at + 5000]) for at in range(0, len(body), 5000)]
        return message(*lines, CHUNKED) + b"".join(pieces) + b"0\r\n\r\n"
    return message(*lines, "Connection: close") + body


@pytest.mark.parametrize("way", ["length", "chunked", "close"])
async def test_a_streamed_answer_is_kept(start_shop: StartShop, origin: Origin, way: str) -> None:
    shop = await start_shop()
    body = bytes(range(256)) * 1200  # more than one read, and more than Redis gives with a claim

    async def streams(wire: Wire, seen: Seen) -> None:
        await wire.send(framed(way, body))
        if way == "close":
            raise Cut

    origin.script = streams
    first = await shop.pay()
    assert first.body == body
    again = await shop.pay()
    assert is_replay(again)
    assert common(again) == common(first)
    assert again.get("Content-Length") == str(len(body))
    assert origin.executed == 1


@pytest.mark.parametrize("way", ["length", "chunked", "close"])
async def test_an_answer_that_is_too_large(start_shop: StartShop, origin: Origin, way: str) -> None:
    shop = await start_shop({"max_body": "10KiB"})
    body = bytes(range(256)) * 4000

    async def streams(wire: Wire, seen: Seen) -> None:
        await wire.send(framed(way, body))
        if way == "close":
            raise Cut

    origin.script = streams
    assert (await shop.pay()).body == body
    for _ in range(2):
        too_large = trouble(await shop.pay(), 409, "idempotency-too-large")
        assert too_large.get("Retry-After") is None
    assert origin.executed == 1
    assert await shop.counted("too_large") == 2


async def test_an_answer_that_is_just_as_large(start_shop: StartShop, origin: Origin) -> None:
    shop = await start_shop({"max_body": "10KiB"})
    for size, replayed in ((10 * KIB, True), (10 * KIB + 1, False)):
        origin.script = answers = Gate(respond(body=bytes(size)))
        answers.open()
        key = f"k{size}"
        assert len((await shop.pay(key)).body) == size
        again = await shop.pay(key)
        assert is_replay(again) == replayed
        assert again.status == (201 if replayed else 409)
    assert origin.executed == 2


@in_memory
async def test_it_is_passed_on_as_it_comes(shop: Shop, origin: Origin) -> None:
    steps: asyncio.Queue[bytes] = asyncio.Queue()

    async def streams(wire: Wire, seen: Seen) -> None:
        await wire.send(message("HTTP/1.1 200 OK", CHUNKED))
        while piece := await steps.get():
            await wire.send(chunk(piece))
        await wire.send(b"0\r\n\r\n")

    origin.script = streams
    async with await shop.open() as client:
        await client.send(post())
        await client.read_head()
        for piece in PIECES:
            steps.put_nowait(piece)
            assert await client.exactly(len(chunk(piece))) == chunk(piece)
        trouble(await shop.pay(), 409, "idempotency-conflict")
        steps.put_nowait(b"")
        assert await client.exactly(5) == b"0\r\n\r\n"
        again = await client.ask(post())
    assert is_replay(again)
    assert again.body == b"".join(PIECES)


@in_redis
@pytest.mark.parametrize("size", [1000, 2000], ids=["kept", "too large"])
@pytest.mark.parametrize("way", ["length", "chunked", "close"])
async def test_who_has_read_it_finds_it_again(
    start_shop: StartShop, origin: Origin, redis: RedisServer, way: str, size: int
) -> None:
    """Nobody is given the end before the store knows."""
    shop = await start_shop({"max_body": "1KiB"})
    head, mark, body = framed(way, bytes(size)).partition(b"\r\n\r\n")
    gate = Gate(body, first=head + mark)
    origin.script = _closing(gate) if way == "close" else gate
    async with await shop.open() as client:
        await client.send(post())
        await client.read_head()
        reading = asyncio.create_task(
            client.exactly(size) if way == "length" else client.read_chunks()
        )
        with redis.paused():
            gate.open()
            assert not await _ends(reading)
        assert await reading == bytes(size)
        again = await client.ask(post())
    if size == 1000:
        assert is_replay(again)
    else:
        trouble(again, 409, "idempotency-too-large")
    assert origin.executed == 1


async def _ends(reading: asyncio.Task[bytes]) -> bool:
    """Whether it does within a moment."""
    done, _ = await asyncio.wait((reading,), timeout=0.15)
    return bool(done)


def _closing(gate: Gate) -> Callable[[Wire, Seen], "asyncio.Future[None]"]:
    async def script(wire: Wire, seen: Seen) -> None:
        await gate(wire, seen)
        raise Cut

    return script  # type: ignore[return-value]


@pytest.mark.parametrize("way", ["length", "chunked"])
async def test_an_answer_that_breaks_off(
    start_shop: StartShop, origin: Origin, server: RedisServer | None, way: str
) -> None:
    shop = await start_shop()
    cut = framed(way, bytes(20_000))[:12_000]
    head, mark, body = cut.partition(b"\r\n\r\n")
    gate = Gate(body, first=head + mark)
    origin.script = _closing(gate)
    async with await shop.open() as client:
        await client.send(post())
        await client.read_head()
        reading = asyncio.create_task(
            client.exactly(20_000) if way == "length" else client.read_chunks()
        )
        if server is not None:
            with server.paused():
                gate.open()
                assert not await _ends(reading)
        gate.open()
        with pytest.raises((Cut, ConnectionError)):
            await reading
    unknown = trouble(await shop.pay(), 409, "idempotency-unknown")
    assert unknown.get("Retry-After") is None
    assert origin.executed == 1


async def test_an_answer_that_breaks_off_when_it_is_too_large(
    start_shop: StartShop, origin: Origin
) -> None:
    shop = await start_shop({"max_body": "1KiB"})
    origin.script = _closing(gate := Gate(b"", first=framed("length", bytes(20_000))[:12_000]))
    gate.open()
    async with await shop.open() as client:
        await client.send(post())
        await client.read_head()
        with pytest.raises((Cut, ConnectionError)):
            await client.exactly(20_000)
    trouble(await shop.pay(), 409, "idempotency-too-large")
    assert origin.executed == 1


@in_memory
async def test_hints_on_the_way(shop: Shop, origin: Origin) -> None:
    hint = message("HTTP/1.1 103 Early Hints", "Link: </a>; rel=preload")
    origin.script = gate = Gate(first=hint)
    async with await shop.open() as client:
        assert (await client.ask(post())).status == 103
        gate.open()
        assert (await client.read_answer()).status == 201
        assert is_replay(await client.ask(post()))
    assert origin.executed == 1


@in_memory
async def test_an_old_client(shop: Shop, origin: Origin) -> None:
    data = post().replace(b"HTTP/1.1", b"HTTP/1.0")
    origin.script = gate = Gate(framed("chunked", BODY))
    gate.open()
    answers: list[Answer] = [await shop.ask(data) for _ in range(2)]
    assert [answer.body for answer in answers] == [BODY, BODY]
    assert [is_replay(answer) for answer in answers] == [False, True]
