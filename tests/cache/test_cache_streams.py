"""Bodies on their way: cut ones are never stored, large ones pass, clients leave at any moment."""

import asyncio

import pytest
from cache_kit import MAX_AGE, Cached, Origin, StartCached, request, respond, status_of, until
from rawhttp import Cut, Seen, Wire

BODY = b"0123456789" * 400

in_both_lanes = pytest.mark.usefixtures("lane")
"""Not all: the slow ones look at what lies behind the lanes."""


def head_of(*lines: tuple[str, str], length: int | None = len(BODY)) -> bytes:
    said = ("Transfer-Encoding", "chunked") if length is None else ("Content-Length", str(length))
    text = "".join(f"{name}: {value}\r\n" for name, value in (*lines, said))
    return f"HTTP/1.1 200 OK\r\n{text}\r\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize("length", [len(BODY), None], ids=["length", "chunked"])
@in_both_lanes
async def test_a_cut_answer_is_cut_for_all_and_stored_for_none(
    cached: Cached, origin: Origin, length: int | None
) -> None:
    cut = asyncio.Event()

    async def breaking(wire: Wire, seen: Seen) -> None:
        part = BODY[:1000]
        await wire.send(head_of(MAX_AGE, length=length) + (part if length else chunk(part)))
        await cut.wait()
        await wire.close()

    origin.answers["/a"] = breaking
    clients = [await cached.open() for _ in range(3)]
    for wire in clients:
        await wire.send(request())
        await wire.read_head()
    cut.set()
    for wire in clients:
        with pytest.raises((Cut, ConnectionError)):
            await (wire.exactly(len(BODY)) if length else wire.read_chunks())
        await wire.close()
    await cached.quiet()
    assert cached.stored() == 0
    origin.answers["/a"] = respond(BODY, MAX_AGE)
    assert (await cached.ask()).body == BODY
    assert origin.asked() == 2


@in_both_lanes
async def test_too_large_by_its_length_passes_unstored(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start_cached(max_object="1000B")
    origin.answers["/a"] = respond(BODY, MAX_AGE)
    for _ in range(2):
        answer = await cached.ask()
        assert (answer.body, status_of(answer)) == (BODY, "fwd=uri-miss")
    assert (origin.asked(), cached.stored(), cached.tally.bypass) == (2, 0, 1)


async def test_a_range_of_what_is_too_large_is_asked_for_as_it_is(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start_cached(max_object="1000B")

    async def ranging(wire: Wire, seen: Seen) -> None:
        part = seen.get("Range")
        if part is None:
            await wire.send(respond(BODY, MAX_AGE))
        else:
            assert part == "bytes=0-4"
            lines = MAX_AGE, ("Content-Range", f"bytes 0-4/{len(BODY)}")
            await wire.send(respond(BODY[:5], *lines, status="206 Partial Content"))

    origin.answers["/a"] = ranging
    for _ in range(2):
        part = await cached.ask("/a", "Range: bytes=0-4")
        assert (part.status, part.body) == (206, BODY[:5])
    assert [seen.get("Range") for seen in origin.seen] == [None, "bytes=0-4", "bytes=0-4"]
    assert cached.stored() == 0


@in_both_lanes
async def test_who_has_begun_is_paced_when_it_outgrows(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start_cached(max_object="2000B")
    go_on = asyncio.Event()

    async def growing(wire: Wire, seen: Seen) -> None:
        await wire.send(head_of(MAX_AGE, length=None) + chunk(BODY[:1500]))
        await go_on.wait()
        await wire.send(chunk(BODY[1500:]) + chunk(b"end") + b"0\r\n\r\n")

    origin.answers["/a"] = growing
    begun = [await cached.open() for _ in range(3)]
    for wire in begun:
        await wire.send(request())
        await wire.read_head()
    go_on.set()
    for wire in begun:
        assert await wire.read_chunks() == BODY + b"end"
    assert origin.asked() == 1
    # Nobody can join it any more, nor will the next one wait.
    assert cached.caching.marks._marks
    assert (await cached.ask()).body == BODY + b"end"
    assert (origin.asked(), cached.stored()) == (2, 0)
    for wire in begun:
        await wire.close()


async def test_a_slow_reader_paces_the_others_within_bounds(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start_cached(max_object="100KB")
    piece = chunk(b"x" * 100_000)
    most = 2_000  # 200 MB: more than the kernel keeps between any two of them
    sent = 0
    both, over = asyncio.Event(), asyncio.Event()

    async def endless(wire: Wire, seen: Seen) -> None:
        nonlocal sent
        await wire.send(head_of(MAX_AGE, length=None))
        await both.wait()  # who comes once it has outgrown the cache fetches for itself
        while sent < most and not over.is_set():
            await wire.send(piece)
            sent += 1
        await wire.send(b"0\r\n\r\n")

    origin.answers["/a"] = endless
    fast, slow = await cached.open(), await cached.open()
    for wire in (fast, slow):
        await wire.send(request())
        await wire.read_head()
    both.set()
    reading = asyncio.create_task(fast.read_chunks())
    # The slow one takes nothing: what is between it and the origin fills up, and no more than that.
    last = -1
    while last != sent:
        last = sent
        await asyncio.sleep(0.1)
    assert sent < most
    assert not reading.done()
    over.set()
    await slow.close()
    assert len(await reading) == sent * 100_000
    assert origin.asked() == 1
    await fast.close()


@in_both_lanes
async def test_a_leader_that_leaves_alone_ends_the_fetch(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE)
    origin.hold()
    wire = await cached.open()
    await wire.send(request())
    await until(lambda: origin.asked() == 1)
    await wire.close()
    await cached.quiet()
    await until(lambda: cached.gateway.metrics.upstream("origin").in_flight == 0)
    origin.release()
    assert cached.stored() == 0


@in_both_lanes
async def test_a_leader_that_leaves_others_behind_is_not_missed(
    cached: Cached, origin: Origin
) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE)
    origin.hold()
    leader, follower = await cached.open(), await cached.open()
    await leader.send(request())
    await until(lambda: origin.asked() == 1)
    asked = asyncio.create_task(follower.ask(request()))
    await until(lambda: any(f.waiting == 2 for f in cached.caching.flights.values()))
    await leader.close()
    await until(lambda: any(f.waiting == 1 for f in cached.caching.flights.values()))
    origin.release()
    assert (await asked).body == b"hello"
    assert origin.asked() == 1
    await follower.close()


@in_both_lanes
async def test_what_is_being_stored_goes_on_alone(cached: Cached, origin: Origin) -> None:
    go_on = asyncio.Event()

    async def in_two(wire: Wire, seen: Seen) -> None:
        await wire.send(head_of(MAX_AGE) + BODY[:100])
        await go_on.wait()
        await wire.send(BODY[100:])

    origin.answers["/a"] = in_two
    wire = await cached.open()
    await wire.send(request())
    await wire.read_head()
    await wire.close()
    await until(lambda: not any(f._buffer.readers for f in cached.caching.flights.values()))
    go_on.set()
    await cached.quiet()
    hit = await cached.ask()
    assert (hit.body, origin.asked()) == (BODY, 1)
    assert status_of(hit).startswith("hit; ")


async def test_what_nobody_reads_and_nobody_stores_is_given_up(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start_cached(max_object="1000B")

    async def endless(wire: Wire, seen: Seen) -> None:
        await wire.send(head_of(MAX_AGE, length=None))
        while True:
            await wire.send(chunk(BODY))
            await asyncio.sleep(0)

    origin.answers["/a"] = endless
    wire = await cached.open()
    await wire.send(request())
    await wire.read_head()
    await wire.exactly(5000)
    await wire.close()
    await until(lambda: cached.gateway.metrics.upstream("origin").in_flight == 0)
    await cached.quiet()


@in_both_lanes
async def test_nothing_is_left_of_clients_that_leave(cached: Cached, origin: Origin) -> None:
    """200 of them, at every moment: waiting, following, reading, alone."""

    async def slow(wire: Wire, seen: Seen) -> None:
        lines = (MAX_AGE,) if seen.target != "/2" else (("Cache-Control", "no-store"),)
        await wire.send(head_of(*lines) + BODY[:100])
        await asyncio.sleep(0.05)
        await wire.send(BODY[100:])

    for number in range(4):
        origin.answers[f"/{number}"] = slow

    async def leave(number: int) -> None:
        wire = await cached.open()
        await wire.send(request(f"/{number % 4}"))
        await asyncio.sleep(number % 7 / 100)
        if number % 3:
            wire.writer.transport.abort()
        await wire.close()

    await asyncio.gather(*(leave(number) for number in range(200)))
    await cached.quiet()
    metrics = cached.gateway.metrics
    await until(lambda: metrics.upstream("origin").in_flight == 0)
    await until(lambda: cached.gateway.connections() == 0)
    assert not cached.caching._tasks


async def test_a_recorded_answer_that_is_not_read_to_its_end_is_not_stored(
    cached: Cached, origin: Origin
) -> None:
    origin.answers["/a"] = respond("x", ("Cache-Control", "no-store"))
    await cached.ask()  # from here on requests go alone

    async def stopping(wire: Wire, seen: Seen) -> None:
        await wire.send(head_of(MAX_AGE) + BODY[:100])
        await wire.some()

    origin.answers["/a"] = stopping
    wire = await cached.open()
    await wire.send(request())
    assert b"stored" in await wire.read_head()
    await wire.close()
    await until(lambda: cached.gateway.metrics.upstream("origin").in_flight == 0)
    assert cached.stored() == 0
