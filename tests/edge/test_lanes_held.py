"""What comes while a request waits for its answer, and answers that their client does not take: of
both little is kept, and nothing is lost."""

import asyncio

import pytest
from lanes_kit import BIG, StartScene, ask, connections, until
from lanes_talk_kit import GET, taken
from rawhttp import Cut, Seen, Wire

pytestmark = pytest.mark.usefixtures("lane")

READ = 256 * 1024
"""The most bytes that a loop reads at once."""
WATER = 64 * 1024
"""Bytes behind which no more is read, or written."""
UPGRADE = ask("/o/ws", "Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: k")


def numbered(count: int) -> tuple[list[str], bytes]:
    """Requests of a kilobyte each: their targets, and all of their bytes."""
    targets = [f"/o/{number}" for number in range(count)]
    return targets, b"".join(ask(target, "X-Pad: " + "p" * 960) for target in targets)


async def test_what_comes_behind_is_held_in_order(start_scene: StartScene) -> None:
    """Much of it stays with the client until there is an answer."""
    scene = await start_scene()
    await scene.wait()
    targets, data = numbered(600)
    sending = asyncio.create_task(scene.client.send(data))
    await until(lambda: not scene.transport.is_reading())
    assert WATER < len(scene.conn._express._held) + len(scene.conn._intake._held) <= WATER + READ
    assert len(scene.origin.seen) == 1
    scene.gate.open.set()
    everything = ["/o/slow", *targets]
    answered = [(await scene.client.read_answer()).json()["target"] for _ in everything]
    assert answered == everything
    assert [seen.target for seen in scene.origin.seen] == everything
    await sending
    assert scene.transport.is_reading()
    assert (await scene.client.ask(GET)).status == 200


async def test_a_small_request_behind_is_answered_next(
    start_scene: StartScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole or in pieces, with a body or without."""
    scene = await start_scene()
    await scene.wait()
    reads = taken(monkeypatch)
    pieces = [b"GET /o/1 HTTP/1.1\r\nHo", b"st: a\r\n\r\n", ask("/o/2", "Content-Length: 3")]
    for number, piece in enumerate((*pieces, b"ab", b"c", ask("/o/3")), 1):
        await scene.client.send(piece)
        await until(lambda number=number: len(reads) == number)  # type: ignore[misc]
    scene.gate.open.set()
    answers = [(await scene.client.read_answer()).json() for _ in range(4)]
    assert [answer["target"] for answer in answers] == ["/o/slow", "/o/1", "/o/2", "/o/3"]
    assert answers[2]["body"] == "abc"


async def test_an_upload_behind_waits_for_its_own_reader(start_scene: StartScene) -> None:
    """Reading goes on behind the answer for as much as it takes, while nobody reads the body."""
    stay = asyncio.Event()

    async def script(wire: Wire, seen: Seen) -> None:
        if seen.target == "/o/stay":
            await stay.wait()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n%7d" % len(seen.body))

    scene = await start_scene(script, upstream="max_connections: 1\nqueue_timeout: 10s")
    await scene.wait()
    chunks = (b"1000\r\n" + b"u" * 4096 + b"\r\n") * 1000
    upload = ask("/o/up", "Transfer-Encoding: chunked", method="POST") + chunks + b"0\r\n\r\n"
    sending = asyncio.create_task(scene.client.send(upload))
    await until(lambda: not scene.transport.is_reading())
    async with await Wire.open(scene.running.port) as other:
        await until(lambda: len(connections(scene.running)) == 2)
        await other.send(ask("/o/stay"))  # has the upstream's only connection next
        await until(lambda: not connections(scene.running)[-1].idle)
        scene.gate.open.set()
        assert (await scene.client.read_answer()).status == 200
        await until(lambda: len(scene.origin.seen) == 2)
        await until(lambda: scene.conn._intake._body is not None)
        body = scene.conn._intake._body
        assert body is not None
        async with await Wire.open(scene.running.port) as third:
            for _ in range(20):  # time enough to read too much
                assert (await third.ask(ask("/-/ready"))).status == 200
                assert body._size <= WATER + READ
        assert not scene.transport.is_reading()
        stay.set()
        assert (await other.read_answer()).status == 200
    assert int((await scene.client.read_answer("POST")).body) == 4096 * 1000
    await sending


@pytest.mark.parametrize("size", [100, 300_000])
async def test_what_comes_behind_an_upgrade_is_the_tunnels(
    start_scene: StartScene, size: int
) -> None:
    async def script(wire: Wire, seen: Seen) -> None:
        await wire.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: s\r\n\r\n"
        )
        while data := await wire.some():
            await wire.send(data)
        raise Cut

    scene = await start_scene(script)
    early = bytes(range(256)) * (size // 256 + 1)
    await scene.wait()
    sending = asyncio.create_task(scene.client.send(UPGRADE + early))
    scene.gate.open.set()
    assert (await scene.client.read_answer()).status == 200
    assert (await scene.client.read_answer()).status == 101
    assert await scene.client.exactly(len(early)) == early
    await sending
    await scene.client.send(b"late")
    assert await scene.client.exactly(4) == b"late"


@pytest.mark.parametrize("count", [3, 300])
async def test_what_comes_behind_a_declined_upgrade_are_requests(
    start_scene: StartScene, count: int
) -> None:
    scene = await start_scene()
    await scene.wait()
    targets, data = numbered(count)
    sending = asyncio.create_task(scene.client.send(UPGRADE + data))
    scene.gate.open.set()
    everything = ["/o/slow", "/o/ws", *targets]
    answered = [(await scene.client.read_answer()).json()["target"] for _ in everything]
    assert answered == everything
    await sending
    assert scene.transport.is_reading()


async def test_answers_that_nobody_takes_do_not_pile_up(
    start_scene: StartScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones, which are written without a look at the client; all are there in the end."""
    scene = await start_scene(limit=1024)
    count = await scene.pile_up(lambda: scene.conn._paused)
    took = taken(monkeypatch)
    for number in range(1, 21):
        await scene.client.send(ask("/c/big"))
        await until(lambda number=number: len(took) == number)  # type: ignore[misc]
    assert not any(took)
    assert scene.transport.get_write_buffer_size() <= WATER + 2 * (BIG + 1024)
    await scene.take(count + 20)
    assert (await scene.client.ask(ask("/o/last"))).json()["target"] == "/o/last"


async def test_a_stream_goes_as_its_client_reads(start_scene: StartScene) -> None:
    piece, pieces = b"s" * 65536, 400
    told: list[int] = []

    async def script(wire: Wire, seen: Seen) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(piece) * pieces))
        for number in range(pieces):
            await wire.send(piece)
            told.append(number)

    scene = await start_scene(script, limit=1024)
    await scene.client.send(ask("/o/stream"))
    await until(lambda: scene.conn._paused)
    assert scene.transport.get_write_buffer_size() <= WATER + 2 * READ
    assert len(told) < pieces
    assert (await scene.client.read_answer()).body == piece * pieces
    assert len(told) == pieces


async def test_who_takes_nothing_is_let_go(start_scene: StartScene) -> None:
    """Though the connection is at rest, and its last answer out but for some bytes."""
    scene = await start_scene(server="idle_timeout: 200ms", limit=1024)
    await scene.pile_up(lambda: scene.transport.get_write_buffer_size())
    assert not scene.conn._paused
    await until(lambda: not connections(scene.running))
    assert scene.conn._take_timer is not None


async def test_who_takes_nothing_is_served_all_the_same(start_scene: StartScene) -> None:
    """While a request of theirs waits, nobody is let go for what they have not taken."""
    scene = await start_scene(server="idle_timeout: 300ms", limit=1024)
    count = await scene.pile_up(lambda: scene.transport.get_write_buffer_size())
    await scene.wait()
    timer = scene.conn._take_timer
    assert timer is not None
    loop = asyncio.get_running_loop()
    await until(lambda: loop.time() > timer.when() + 0.05)
    assert connections(scene.running) == [scene.conn]
    assert scene.gate.left == 0
    scene.gate.open.set()
    await scene.take(count)
    assert (await scene.client.read_answer()).json()["target"] == "/o/slow"
