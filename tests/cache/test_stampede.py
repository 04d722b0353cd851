"""Many ask for one thing at once: one fetch where its answer is for all, and no queue where not."""

import asyncio

import pytest
from cache_kit import MAX_AGE, Cached, Origin, StartCached, request, respond, status_of, until
from rawhttp import Answer, Seen, Wire

pytestmark = pytest.mark.usefixtures("lane")

CLIENTS = 250


async def wires(cached: Cached, count: int) -> list[Wire]:
    return [await cached.open() for _ in range(count)]


async def ask_all(clients: list[Wire], *texts: str) -> list[Answer]:
    texts = texts or (request(),)
    asked = [wire.ask(texts[n % len(texts)]) for n, wire in enumerate(clients)]
    return list(await asyncio.gather(*asked))


async def close_all(clients: list[Wire]) -> None:
    await asyncio.gather(*(wire.close() for wire in clients))


async def test_one_fetch_for_a_cold_key(cached: Cached, origin: Origin) -> None:
    async def slow(wire: Wire, seen: Seen) -> None:
        await asyncio.sleep(0.3)
        await wire.send(respond("hello", MAX_AGE))

    origin.answers["/a"] = slow
    clients = await wires(cached, CLIENTS)
    answers = await ask_all(clients)
    assert {answer.body for answer in answers} == {b"hello"}
    assert origin.asked() == 1
    collapsed = [a for a in answers if status_of(a) == "fwd=uri-miss; collapsed"]
    hits = [a for a in answers if status_of(a).startswith("hit; ")]
    assert len(collapsed) + len(hits) == CLIENTS - 1
    assert len(collapsed) > CLIENTS // 2
    assert cached.tally.collapsed == len(collapsed)
    await close_all(clients)


async def test_heads_beside_it_disturb_nobody(cached: Cached, origin: Origin) -> None:
    """HEAD misses are asked for one by one, as there is nothing to wait for but a head. GETs share
    their one fetch all the same, and what is stored in the end answers both."""
    origin.answers["/a"] = respond("hello", MAX_AGE)
    origin.hold()
    clients = await wires(cached, 2 * CLIENTS)
    for n, wire in enumerate(clients):
        await wire.send(request(method="GET" if n % 2 else "HEAD"))
    await until(lambda: origin.asked(method="GET") == 1)
    await until(lambda: any(f.waiting == CLIENTS for f in cached.caching.flights.values()))
    origin.release()
    for n, wire in enumerate(clients):
        answer = await wire.read_answer("GET" if n % 2 else "HEAD")
        assert (answer.status, answer.get("Content-Length")) == (200, "5")
        assert answer.body == (b"hello" if n % 2 else b"")
    assert origin.asked(method="GET") == 1
    await cached.quiet()
    for method in ("GET", "HEAD"):
        assert status_of(await cached.ask(method=method)).startswith("hit; ")
    await close_all(clients)


async def test_followers_read_while_it_streams(cached: Cached, origin: Origin) -> None:
    go_on = asyncio.Event()

    async def in_two(wire: Wire, seen: Seen) -> None:
        head = respond("a" * 1000, MAX_AGE).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        await wire.send(head + b"a" * 400)
        await go_on.wait()
        await wire.send(b"a" * 600)

    origin.answers["/a"] = in_two
    clients = await wires(cached, 5)
    for wire in clients[:3]:
        await wire.send(request())
    for wire in clients[:3]:
        await wire.read_head()
        assert await wire.exactly(400) == b"a" * 400
    # Who comes while it streams reads from the beginning.
    for wire in clients[3:]:
        await wire.send(request())
        assert b"collapsed" in await wire.read_head()
        assert await wire.exactly(400) == b"a" * 400
    go_on.set()
    for wire in clients:
        assert await wire.exactly(600) == b"a" * 600
    assert origin.asked() == 1
    await close_all(clients)


async def test_uncacheable_answers_are_never_queued_for(cached: Cached, origin: Origin) -> None:
    """All of them are at the origin at once, though none has been answered with a body."""
    answer_all = asyncio.Event()

    async def private(wire: Wire, seen: Seen) -> None:
        head = respond("hello", ("Cache-Control", "private")).partition(b"\r\n\r\n")[0]
        await wire.send(head + b"\r\n\r\n")
        await answer_all.wait()
        await wire.send(b"hello")

    origin.answers["/a"] = private
    clients = await wires(cached, 60)
    answers = asyncio.create_task(ask_all(clients))
    await until(lambda: origin.asked() == 60)
    answer_all.set()
    assert {answer.body for answer in await answers} == {b"hello"}
    await close_all(clients)
    # From now on nobody even waits for a head.
    origin.hold()
    more = await wires(cached, 20)
    answers = asyncio.create_task(ask_all(more))
    await until(lambda: origin.asked() == 80)
    origin.release()
    assert {status_of(answer) for answer in await answers} == {"fwd=uri-miss"}
    await close_all(more)


async def test_a_storable_answer_ends_the_mark(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", ("Cache-Control", "no-store"))
    await cached.ask()
    assert cached.caching.marks._marks
    origin.answers["/a"] = respond("hello", MAX_AGE)
    assert status_of(await cached.ask()) == "fwd=uri-miss; stored"
    assert not cached.caching.marks._marks
    assert status_of(await cached.ask()).startswith("hit; ")


async def test_errors_set_no_mark(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("oh", status="503 Service Unavailable")
    assert (await cached.ask()).status == 503
    assert not cached.caching.marks._marks


async def test_credentials_mark_only_their_like(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", ("Cache-Control", "max-age=60"))
    clients = await wires(cached, 9)
    await ask_all(clients[:1], request("/a", "Authorization: Basic eA=="))
    origin.hold()
    marked = asyncio.create_task(ask_all(clients[1:5], request("/a", "Authorization: Basic eA==")))
    await until(lambda: origin.asked() == 5)
    together = asyncio.create_task(ask_all(clients[5:]))
    await until(lambda: origin.asked() == 6)
    await until(lambda: any(flight.waiting == 4 for flight in cached.caching.flights.values()))
    origin.release()
    await marked
    await together
    assert origin.asked() == 6
    await close_all(clients)


async def test_variants_are_fetched_side_by_side(cached: Cached, origin: Origin) -> None:
    """One of each waits for what turns out to be another's, then leads its own."""

    async def by_language(wire: Wire, seen: Seen) -> None:
        await wire.send(respond(seen.get("X-L") or "", MAX_AGE, ("Vary", "X-L")))

    origin.answers["/a"] = by_language
    origin.hold()
    texts = [request("/a", f"X-L: {name}") for name in ("a", "b", "c")]
    clients = await wires(cached, 30)
    answers = asyncio.create_task(ask_all(clients, *texts))
    await until(lambda: any(flight.waiting == 30 for flight in cached.caching.flights.values()))
    origin.release()
    for place, answer in enumerate(await answers):
        assert answer.body == b"abc"[place % 3 : place % 3 + 1]
    assert origin.asked() == 3
    await close_all(clients)


async def test_beyond_max_waiters_they_fetch_alone(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start_cached(max_waiters=3)
    origin.answers["/a"] = respond("hello", MAX_AGE)
    origin.hold()
    clients = await wires(cached, 10)
    answers = asyncio.create_task(ask_all(clients))
    await until(lambda: origin.asked() == 7)
    origin.release()
    said = [status_of(answer) for answer in await answers]
    assert said.count("fwd=uri-miss; collapsed") == 3
    assert said.count("fwd=uri-miss; stored; collapsed=?0") == 6
    await close_all(clients)


async def test_waiters_take_the_lead_one_after_another(
    start_cached: StartCached, origin: Origin
) -> None:
    """The first two fetches hang; whoever waits for them does not."""
    cached = await start_cached(lock_timeout="50ms")
    hang = asyncio.Event()

    async def hanging_twice(wire: Wire, seen: Seen) -> None:
        if origin.asked() <= 2:
            await hang.wait()
        await wire.send(respond("hello", MAX_AGE))

    origin.answers["/a"] = hanging_twice
    clients = await wires(cached, 8)
    tasks = [asyncio.create_task(wire.ask(request())) for wire in clients]
    await until(lambda: sum(task.done() for task in tasks) == 6)
    assert origin.asked() == 3
    hang.set()
    assert {answer.body for answer in await asyncio.gather(*tasks)} == {b"hello"}
    assert origin.asked() == 3
    await close_all(clients)


async def test_what_comes_late_is_shared_all_the_same(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start_cached(lock_timeout="50ms")
    first = asyncio.Event()
    never = asyncio.Event()

    async def first_wins(wire: Wire, seen: Seen) -> None:
        await (first if origin.asked() == 1 else never).wait()
        await wire.send(respond("hello", MAX_AGE))

    origin.answers["/a"] = first_wins
    clients = await wires(cached, 4)
    tasks = [asyncio.create_task(wire.ask(request())) for wire in clients]
    await until(lambda: origin.asked() == 2)
    first.set()
    # All but the one that leads the second fetch, which is its own.
    await until(lambda: sum(task.done() for task in tasks) == 3)
    never.set()
    await asyncio.gather(*tasks)
    assert origin.asked() <= 3
    await close_all(clients)


async def test_nobody_follows_what_each_must_validate(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", ("Cache-Control", "no-cache"), ("ETag", '"v1"'))
    origin.hold()
    clients = await wires(cached, 6)
    answers = asyncio.create_task(ask_all(clients))
    await until(lambda: any(flight.waiting == 6 for flight in cached.caching.flights.values()))
    origin.release()
    await answers
    assert origin.asked() == 6
    # Once it is stored each validates it, and none waits for another.
    origin.answers["/a"] = b'HTTP/1.1 304 Not Modified\r\nETag: "v1"\r\n\r\n'
    origin.hold()
    answers = asyncio.create_task(ask_all(clients))
    await until(lambda: origin.asked() == 12)
    origin.release()
    assert {(a.status, a.body) for a in await answers} == {(200, b"hello")}
    assert cached.tally.revalidated == 6
    await close_all(clients)


async def test_all_share_a_failure(cached: Cached, origin: Origin) -> None:
    async def closing(wire: Wire, seen: Seen) -> None:
        await wire.close()

    origin.answers["/a"] = closing
    origin.hold()
    clients = await wires(cached, 5)
    answers = asyncio.create_task(ask_all(clients))
    await until(lambda: any(flight.waiting == 5 for flight in cached.caching.flights.values()))
    await until(lambda: origin.asked() == 1)
    origin.release()
    assert {answer.status for answer in await answers} == {502}
    assert origin.asked() == 1
    assert len({answer.get("X-Request-Id") for answer in await answers}) == 5
    await close_all(clients)


async def test_interim_answers_are_the_leaders(cached: Cached, origin: Origin) -> None:
    async def hinting(wire: Wire, seen: Seen) -> None:
        await wire.send(b"HTTP/1.1 103 Early Hints\r\nLink: </s>; rel=preload\r\n\r\n")
        await origin.gate.wait()
        await wire.send(respond("hello", MAX_AGE))

    origin.answers["/a"] = hinting
    async with await cached.open() as leader, await cached.open() as follower:

        async def once_more(wire: Wire, seen: Seen) -> None:
            origin.hold()
            await hinting(wire, seen)

        origin.answers["/a"] = once_more
        await leader.send(request())
        assert b" 103 " in await leader.read_head()
        await follower.send(request())
        await until(lambda: any(f.waiting == 2 for f in cached.caching.flights.values()))
        origin.release()
        assert (await leader.read_answer()).body == b"hello"
        answer = await follower.read_answer()
        assert (answer.status, status_of(answer)) == (200, "fwd=uri-miss; collapsed")
        assert answer.get("Link") is None
