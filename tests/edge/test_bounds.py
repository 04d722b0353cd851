"""Slow, idle and too many clients: each costs little and is let go in time."""

import asyncio
import os
import time

import pytest
from edge_kit import ROUTE, StartGateway, StartOrigin
from rawhttp import Wire, echo

GET = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

pytestmark = pytest.mark.usefixtures("lane")


async def test_slowloris_is_408(start_gateway: StartGateway, start_origin: StartOrigin) -> None:
    running = await start_gateway(await start_origin(echo), server="header_timeout: 200ms")
    async with await Wire.open(running.port) as client:
        await client.send("GET / HTTP/1.1\r\n")

        async def drip() -> None:
            try:
                while True:
                    await client.send("A: b\r\n")
                    await asyncio.sleep(0.02)
            except ConnectionError:
                pass

        dripping = asyncio.create_task(drip())
        answer = await client.read_answer()
        dripping.cancel()
        assert (answer.status, answer.get("connection")) == (408, "close")


async def test_header_timeout_also_holds_behind_an_answered_request(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    running = await start_gateway(await start_origin(echo), server="header_timeout: 200ms")
    async with await Wire.open(running.port) as client:
        await client.send(GET + "GET / HT")
        assert (await client.read_answer()).status == 200
        assert (await client.read_answer()).status == 408
        assert await client.closed()


async def test_idle_connections_are_closed(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    running = await start_gateway(await start_origin(echo), server="idle_timeout: 200ms")
    async with await Wire.open(running.port) as fresh, await Wire.open(running.port) as used:
        await used.ask(GET)
        assert await fresh.closed()
        assert await used.closed()


async def test_a_connection_over_the_cap_is_told_so(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    running = await start_gateway(await start_origin(echo), server="max_connections: 2")
    async with await Wire.open(running.port) as first, await Wire.open(running.port) as second:
        await first.ask(GET)
        await second.ask(GET)
        async with await Wire.open(running.port) as third:
            answer = await third.read_answer()
            assert (answer.status, answer.get("connection")) == (503, "close")
            assert answer.get("retry-after") == "1"
            assert await third.closed()
        assert (await first.ask(GET)).status == 200
    async with asyncio.timeout(5):
        while running.gateway.connections():
            await asyncio.sleep(0.005)
    async with await Wire.open(running.port) as again:
        assert (await again.ask(GET)).status == 200


async def test_a_client_that_reads_nothing_is_let_go(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    size = 64 * 1024 * 1024

    async def script(wire: Wire, seen: object) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        piece = b"x" * 65536
        for _ in range(size // len(piece)):
            await wire.send(piece)

    origin = await start_origin(script)
    running = await start_gateway(origin, server="idle_timeout: 300ms", routes=ROUTE)
    client = await Wire.open(running.port, limit=1024)
    await client.send(GET)
    async with asyncio.timeout(10):
        while not origin.seen:
            await asyncio.sleep(0.005)
        while running.gateway.connections():
            await asyncio.sleep(0.01)
        while origin.open:
            await asyncio.sleep(0.01)
    await client.close()


async def test_an_early_answer_to_a_large_upload_reaches_the_client(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    running = await start_gateway(
        await start_origin(echo),
        routes='  - {name: r, match: {path: "/known"}, upstream: origin}\n',
    )
    size = 4 * 1024 * 1024
    async with await Wire.open(running.port) as client:
        sending = asyncio.create_task(
            client.send(b"POST /unknown HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
                        + b"x" * size)
        )  # fmt: skip
        answer = await client.read_answer("POST")
        assert (answer.status, answer.get("connection")) == (404, "close")
        await asyncio.gather(sending, return_exceptions=True)


async def test_a_piece_that_came_in_time_counts_though_the_loop_was_late(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(echo)
    running = await start_gateway(origin, server="body_timeout: 200ms")
    async with await Wire.open(running.port) as client:
        await client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n1")
        async with asyncio.timeout(5):
            while not origin.connections:
                await asyncio.sleep(0.005)
        for piece in (b"2", b"3", b"4"):
            # The kernel has it before the time is over, and nobody looks until afterwards.
            os.write(client.writer.get_extra_info("socket").fileno(), piece)
            time.sleep(0.3)  # noqa: ASYNC251
            await asyncio.sleep(0.05)
        answer = await client.read_answer()
        assert (answer.status, answer.json()["body"]) == (200, "1234")
