"""What the sockets bring in one turn of the loop is taken together, in order, and none is lost."""

import asyncio
import logging

import pytest
from edge_kit import ROUTE, StartGateway, StartOrigin
from lanes_kit import ask, connections, transports, until
from rawhttp import Wire

from proxy.edge.arrivals import SMALL, Arrivals


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
async def arrivals() -> Arrivals:
    return Arrivals(asyncio.get_running_loop())


@pytest.fixture
def log() -> list[tuple[str, bytes]]:
    return []


async def test_they_are_taken_in_order_and_once(
    arrivals: Arrivals, log: list[tuple[str, bytes]]
) -> None:
    one, two = Taker(log, "one"), Taker(log, "two")
    sent = [(one, b"a"), (two, b"b"), (one, b"c")]
    for taker, data in sent:
        arrivals.add(taker, data)
    assert log == []
    await asyncio.sleep(0)
    told = [("one", b"a"), ("two", b"b"), ("one", b"c")]
    assert log == told
    arrivals.take()
    await asyncio.sleep(0)
    assert log == told
    arrivals.add(two, b"d")
    await asyncio.sleep(0)
    assert log[3:] == [("two", b"d")]


async def test_a_large_one_does_not_wait_nor_overtake(
    arrivals: Arrivals, log: list[tuple[str, bytes]]
) -> None:
    """So a body can stop the next read."""
    one, two = Taker(log, "one"), Taker(log, "two")
    arrivals.add(one, b"a")
    arrivals.add(two, b"b")
    large = bytes(SMALL + 1)
    arrivals.add(one, large)
    assert log == [("one", b"a"), ("two", b"b"), ("one", large)]


async def test_what_comes_while_they_are_taken_is_taken_next(
    arrivals: Arrivals, log: list[tuple[str, bytes]]
) -> None:
    class More(Taker):
        def received(self, data: bytes) -> None:
            super().received(data)
            if len(log) < 3:
                arrivals.add(self, data + b"+")

    arrivals.add(More(log, "one"), b"a")
    arrivals.take()
    assert log == [("one", b"a")]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert log == [("one", b"a"), ("one", b"a+"), ("one", b"a++")]


async def test_a_fault_is_its_connections_own(
    arrivals: Arrivals, log: list[tuple[str, bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    one, two = Taker(log, "one"), Taker(log, "two")
    arrivals.add(one, b"fault")
    arrivals.add(two, b"b")
    with caplog.at_level(logging.ERROR):
        await asyncio.sleep(0)
    assert log == [("two", b"b")]
    assert (one.closed, two.closed) == (True, False)
    assert "a connection failed" in caplog.text


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
