"""How connections end in both lanes: by their client, by timers, and with the process."""

import asyncio

import pytest
from lanes_kit import StartScene, ask, until
from lanes_talk_kit import GET, counted, told
from rawhttp import Wire

pytestmark = pytest.mark.usefixtures("lane")

CLOSE = ask("/o/b", "Connection: close")


@pytest.mark.parametrize("pieces", [(CLOSE + GET,), (CLOSE, GET), (CLOSE[:9], CLOSE[9:] + GET)])
async def test_nothing_is_served_behind_the_last_request(
    start_scene: StartScene, pieces: tuple[bytes, ...]
) -> None:
    """RFC 9112 §9.6, of what is held while another request waits."""
    scene = await start_scene()
    await scene.wait()
    for piece in pieces:
        await scene.client.send(piece)
    scene.gate.open.set()
    assert (await scene.client.read_answer()).json()["target"] == "/o/slow"
    last = await scene.client.read_answer()
    assert (last.json()["target"], last.get("connection")) == ("/o/b", "close")
    assert await scene.client.closed()
    assert [seen.target for seen in scene.origin.seen] == ["/o/slow", "/o/b"]


async def test_what_comes_behind_the_last_one_while_it_waits(start_scene: StartScene) -> None:
    scene = await start_scene()
    await scene.client.send(ask("/o/slow", "Connection: close"))
    await until(lambda: scene.gate.waiting)
    await scene.client.send(GET)
    await scene.client.send(b"no HTTP\r\n\r\n")
    scene.gate.open.set()
    answer = await scene.client.read_answer()
    assert (answer.json()["target"], answer.get("connection")) == ("/o/slow", "close")
    assert await scene.client.closed()
    assert len(scene.origin.seen) == 1


async def test_the_idle_time_runs_from_the_answer(start_scene: StartScene) -> None:
    """Not while a request waits, however long."""
    scene = await start_scene(server="idle_timeout: 200ms")
    loop = asyncio.get_running_loop()
    await scene.wait()
    asked = loop.time()
    await until(lambda: loop.time() > asked + 0.3)
    scene.gate.open.set()
    assert (await scene.client.read_answer()).status == 200
    answered = loop.time()
    assert await scene.client.closed()
    assert 0.15 < loop.time() - answered < 5


async def test_a_used_connection_has_all_of_its_idle_time(start_scene: StartScene) -> None:
    scene = await start_scene(server="idle_timeout: 300ms")
    loop = asyncio.get_running_loop()
    opened = loop.time()
    while loop.time() < opened + 0.35:
        assert (await scene.client.ask(GET)).status == 200
        await asyncio.sleep(0.05)
    answered = loop.time()
    assert await scene.client.closed()
    assert 0.2 < loop.time() - answered < 5


async def test_a_head_has_its_time_behind_an_answer(start_scene: StartScene) -> None:
    scene = await start_scene(server="header_timeout: 100ms")
    assert (await scene.client.ask(GET)).status == 200
    await scene.client.send(GET[:20])
    answer = await scene.client.read_answer()
    assert (answer.status, answer.get("connection")) == (408, "close")
    assert await scene.client.closed()


async def test_a_head_has_its_time_behind_a_long_wait(start_scene: StartScene) -> None:
    """Begun while another request waits: 408 comes behind that one's answer, and it comes."""
    scene = await start_scene(server="header_timeout: 100ms")
    await scene.wait()
    await scene.client.send(GET[:20])
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await until(lambda: loop.time() > begun + 0.2)
    scene.gate.open.set()
    assert (await scene.client.read_answer()).status == 200
    assert (await scene.client.read_answer()).status == 408
    assert await scene.client.closed()


async def test_a_request_that_waits_outlives_the_listener(start_scene: StartScene) -> None:
    """It is answered as the last one; what came behind it is not served."""
    scene = await start_scene()
    await scene.wait()
    await scene.client.send(GET)
    stopping = asyncio.create_task(scene.running.gateway.stop())
    front = scene.running.gateway._front
    assert front is not None
    await until(lambda: front.draining)
    with pytest.raises(ConnectionError):
        await until_refused(scene.running.port)
    await scene.client.send(GET)
    assert not stopping.done()
    scene.gate.open.set()
    answer = await scene.client.read_answer()
    assert (answer.json()["target"], answer.get("connection")) == ("/o/slow", "close")
    assert await scene.client.closed()
    async with asyncio.timeout(5):
        await stopping
    assert len(scene.origin.seen) == 1


async def until_refused(port: int) -> None:
    """Connects until nobody listens any more. Raises ConnectionError then."""
    async with asyncio.timeout(5):
        while True:
            await (await Wire.open(port)).close()


async def test_the_process_ends_when_clients_have_taken_their_answers(
    start_scene: StartScene,
) -> None:
    scene = await start_scene(limit=1024)
    count = await scene.pile_up(lambda: scene.transport.get_write_buffer_size())
    stopping = asyncio.create_task(scene.running.gateway.stop())
    with pytest.raises(ConnectionError):
        await until_refused(scene.running.port)
    await asyncio.wait((stopping,), timeout=0.1)
    assert not stopping.done()
    await scene.take(count)
    assert await scene.client.closed()
    async with asyncio.timeout(5):
        await stopping


async def test_the_process_ends_without_who_takes_nothing(start_scene: StartScene) -> None:
    scene = await start_scene(server="drain_timeout: 100ms", limit=1024)
    await scene.pile_up(lambda: scene.transport.get_write_buffer_size())
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(5):
        await scene.running.gateway.stop()
    assert loop.time() - began > 0.09


async def test_what_is_cut_at_the_end_is_told_and_counted(
    start_scene: StartScene, capfd: pytest.CaptureFixture[str]
) -> None:
    """As 499: no answer was sent."""
    scene = await start_scene(server="drain_timeout: 100ms")
    assert (await scene.client.ask(GET)).status == 200
    await scene.wait()
    async with asyncio.timeout(5):
        await scene.running.gateway.stop()
    assert await scene.client.closed()
    await until(lambda: scene.gate.left)
    lines = [(line["path"], line["status"], line["bytes"]) for line in told(capfd.readouterr().out)]
    assert [(path, status) for path, status, _ in lines] == [("/o/a", 200), ("/o/slow", 499)]
    assert lines[1][2] == 0
    assert counted(scene.running)["open"] == {("GET", 200): 1, ("GET", 499): 1}


async def test_answers_at_once_put_the_idle_timeout_off(start_scene: StartScene) -> None:
    """The connection outlives it as often as it is used, and by no more than one."""
    scene = await start_scene(server="idle_timeout: 900ms")
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() - began < 1.3:
        assert (await scene.client.ask(ask("/none"))).status == 404
        await asyncio.sleep(0.02)
    async with asyncio.timeout(10):
        assert await scene.client.reader.read(1) == b""
