"""What the sockets bring in one turn of the loop is taken together and answered together, in order,
and none is lost."""

import asyncio
import logging
from pathlib import Path

import pytest
from edge_kit import ROUTE, StartGateway, StartOrigin
from lanes_kit import Gate, ask, connections, start, transports, until
from rawhttp import Wire

from proxy.edge.turn import MOST, SMALL, Turn


class Taker:
    def __init__(self, log: list[tuple[str, bytes]], name: str) -> None:
        self._log = log
        self._name = name
        self.closed = False

    def received(self, data: bytes) -> None:
        if data == b"fault":
            raise RuntimeError("a fault")
        self._log.append((self._name, data))

    def force_close(self) -> None:
        self.closed = True


@pytest.fixture
async def turn() -> Turn:
    return Turn(asyncio.get_running_loop())


@pytest.fixture
def log() -> list[tuple[str, bytes]]:
    return []


async def test_they_are_taken_in_order_and_once(turn: Turn, log: list[tuple[str, bytes]]) -> None:
    one, two = Taker(log, "one"), Taker(log, "two")
    sent = [(one, b"a"), (two, b"b"), (one, b"c")]
    for taker, data in sent:
        turn.add(taker, data)
    assert log == []
    await asyncio.sleep(0)
    told = [("one", b"a"), ("two", b"b"), ("one", b"c")]
    assert log == told
    turn.take()
    await asyncio.sleep(0)
    assert log == told
    turn.add(two, b"d")
    await asyncio.sleep(0)
    assert log[3:] == [("two", b"d")]


async def test_a_large_one_does_not_wait_nor_overtake(
    turn: Turn, log: list[tuple[str, bytes]]
) -> None:
    """So a body can stop the next read."""
    one, two = Taker(log, "one"), Taker(log, "two")
    turn.add(one, b"a")
    turn.add(two, b"b")
    large = bytes(SMALL + 1)
    turn.add(one, large)
    assert log == [("one", b"a"), ("two", b"b"), ("one", large)]


async def test_what_comes_while_they_are_taken_is_taken_next(
    turn: Turn, log: list[tuple[str, bytes]]
) -> None:
    class More(Taker):
        def received(self, data: bytes) -> None:
            super().received(data)
            if len(log) < 3:
                turn.add(self, data + b"+")

    turn.add(More(log, "one"), b"a")
    turn.take()
    assert log == [("one", b"a")]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert log == [("one", b"a"), ("one", b"a+"), ("one", b"a++")]


async def test_a_fault_is_its_connections_own(
    turn: Turn, log: list[tuple[str, bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    one, two = Taker(log, "one"), Taker(log, "two")
    turn.add(one, b"fault")
    turn.add(two, b"b")
    with caplog.at_level(logging.ERROR):
        await asyncio.sleep(0)
    assert log == [("two", b"b")]
    assert (one.closed, two.closed) == (True, False)
    assert "a connection failed" in caplog.text


async def test_many_are_taken_in_parts(turn: Turn, log: list[tuple[str, bytes]]) -> None:
    for number in range(MOST + 2):
        turn.add(Taker(log, "one"), b"%d" % number)
    assert len(log) == MOST
    await asyncio.sleep(0)
    assert [data for _, data in log] == [b"%d" % number for number in range(MOST + 2)]


class Echo(Taker):
    """Tells what it has received."""

    def __init__(self, turn: Turn, log: list[tuple[str, bytes]], name: str) -> None:
        super().__init__(log, name)
        self._turn = turn

    def received(self, data: bytes) -> None:
        super().received(data)
        self._turn.tell(self, data)

    def tell(self, data: bytes) -> None:
        if data == b"deaf":
            raise RuntimeError("a fault")
        self._log.append((f"to {self._name}", data))


async def test_answers_are_written_once_all_is_taken(
    turn: Turn, log: list[tuple[str, bytes]]
) -> None:
    one, two = Echo(turn, log, "one"), Echo(turn, log, "two")
    turn.add(one, b"a")
    turn.add(two, b"b")
    turn.take()
    assert log == [("one", b"a"), ("two", b"b"), ("to one", b"a"), ("to two", b"b")]
    turn.tell(one, b"c")  # outside of a turn there is nothing to wait for
    assert log[4:] == [("to one", b"c")]


async def test_a_fault_of_one_answer_is_its_own(
    turn: Turn, log: list[tuple[str, bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    one, two = Echo(turn, log, "one"), Echo(turn, log, "two")
    for taker, data in ((one, b"deaf"), (two, b"fault"), (two, b"b")):
        turn.add(taker, data)
    with caplog.at_level(logging.ERROR):
        turn.take()
    assert log[-1] == ("to two", b"b")
    assert "an answer failed" in caplog.text
    turn.tell(one, b"c")
    assert log[-1] == ("to one", b"c")


async def test_answers_that_are_many_bytes_go_early(
    turn: Turn, log: list[tuple[str, bytes]]
) -> None:
    class Large(Echo):
        def received(self, data: bytes) -> None:
            self._log.append((self._name, data))
            self._turn.tell(self, bytes(100_000))

    for number in range(4):
        turn.add(Large(turn, log, "one"), b"%d" % number)
    turn.take()
    assert [name for name, _ in log] == ["one"] * 3 + ["to one"] * 3 + ["one", "to one"]
    log.clear()
    for data in (b"a", b"b"):
        turn.add(Echo(turn, log, "two"), data)
    turn.take()
    assert [name for name, _ in log] == ["two"] * 2 + ["to two"] * 2


async def test_answers_keep_their_order(
    start_gateway: StartGateway, start_origin: StartOrigin, tmp_path: Path
) -> None:
    """What is answered at once, what is too large for that, and what has to wait, in one turn."""
    running = await start(start_gateway, await start_origin(Gate()), tmp_path)
    async with await Wire.open(running.port) as client:
        for _ in range(2):
            await client.ask(ask("/c/large"))
        (conn,) = connections(running)
        for target in ("/none", "/c/large", "/none", "/o/a", "/-/ready"):
            conn.data_received(ask(target))
        statuses = [(await client.read_answer()).status for _ in range(5)]
        assert statuses == [404, 200, 404, 200, 200]


async def test_an_answer_before_the_end_is_written(
    start_gateway: StartGateway, start_origin: StartOrigin, tmp_path: Path
) -> None:
    """While the gateway drains, an answer ends its connection: the writing comes first."""
    running = await start(start_gateway, await start_origin(Gate()), tmp_path)
    async with await Wire.open(running.port) as client:
        await client.ask(ask("/none"))
        (conn,) = connections(running)
        front = running.gateway._front
        assert front is not None
        front.draining = True
        conn.data_received(ask("/none"))
        answer = await client.read_answer()
        assert (answer.status, answer.get("Connection")) == (404, "close")
        front.draining = False


async def test_a_request_with_the_clients_end_behind_it_is_answered(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    """Both come in one turn; the end closes the connection, but after the answer."""
    limits = "none: {algorithm: fixed_window, rate: 1/d, key: [global]}"
    routes = ROUTE.replace("upstream: origin}", "upstream: origin, limits: [none]}")
    running = await start_gateway(await start_origin(), routes=routes, limits=limits)
    async with await Wire.open(running.port) as client:
        for _ in range(4):
            await client.ask(ask("/a"))
    async with await Wire.open(running.port) as client:
        await until(lambda: len(connections(running)) == 1)
        (conn,) = connections(running)
        # As the loop calls them where a turn has both.
        conn.data_received(ask("/a"))
        if not conn.eof_received():
            transports(running)[conn].close()
        assert (await client.read_answer()).status == 429


async def test_what_came_before_the_idle_timeout_is_answered(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    running = await start_gateway(await start_origin(), server="idle_timeout: 60s")
    async with await Wire.open(running.port) as client:
        assert (await client.ask(ask("/a"))).status == 200
        (conn,) = connections(running)
        conn.data_received(ask("/b"))
        conn._next_keepalive_close_time = 0  # the time is over
        conn._express.rested = -100
        conn._process_keepalive()
        assert (await client.read_answer()).status == 200


async def test_a_head_that_came_in_time_is_answered(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    running = await start_gateway(await start_origin(), server="header_timeout: 60s")
    data = ask("/a")
    async with await Wire.open(running.port) as client:
        await client.send(data[:10])
        await until(lambda: connections(running) and connections(running)[0]._head_timer)
        (conn,) = connections(running)
        conn.data_received(data[10:])
        conn._head_timed_out()
        assert (await client.read_answer()).status == 200


async def test_draining_takes_what_is_there(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    running = await start_gateway(await start_origin())
    async with await Wire.open(running.port) as client:
        assert (await client.ask(ask("/a"))).status == 200
        (conn,) = connections(running)
        conn.data_received(ask("/b"))
        front = running.gateway._front
        assert front is not None
        await front.drain(5)
        answer = await client.read_answer()
        assert (answer.status, answer.get("Connection")) == (200, "close")
