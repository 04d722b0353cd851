"""The client leaves: so does its upstream request, whatever it was at; nothing is left behind."""

import asyncio
import os
from collections.abc import Callable

import pytest
from edge_kit import Running, StartGateway, StartOrigin
from rawhttp import Seen, Wire, read_body

GET = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

pytestmark = pytest.mark.usefixtures("lane")


async def until(truth: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not truth():
            await asyncio.sleep(0.005)


def in_flight(running: Running) -> int:
    return running.gateway.metrics.upstream("origin").in_flight


def count(running: Running, status: int) -> int:
    return sum(
        number
        for (_, code), number in running.gateway.metrics.route("all").requests.items()
        if code == status
    )


async def test_while_the_upstream_thinks(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    async def script(wire: Wire, seen: Seen) -> None:
        await wire.some()  # b"" once the gateway has let go
        wire.writer.close()

    origin = await start_origin(script)
    running = await start_gateway(origin)
    client = await Wire.open(running.port)
    await client.send(GET)
    await until(lambda: len(origin.seen) == 1)
    await client.close()
    await until(lambda: origin.open == 0 and in_flight(running) == 0)
    await until(lambda: count(running, 499) == 1)


async def test_while_the_body_streams(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    async def script(wire: Wire, seen: Seen) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await wire.some()
        wire.writer.close()

    origin = await start_origin(script)
    running = await start_gateway(origin)
    client = await Wire.open(running.port)
    await client.send(GET)
    await client.read_head()
    await client.close()
    await until(lambda: origin.open == 0 and in_flight(running) == 0)


async def test_an_upload_cut_short_is_never_finished_upstream(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    cut: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def script(wire: Wire, seen: Seen) -> None:
        cut.set_result(await wire.rest())

    origin = await start_origin(script, read_body=False)
    running = await start_gateway(origin)
    client = await Wire.open(running.port)
    await client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    )
    await until(lambda: len(origin.seen) == 1)
    await client.close()
    async with asyncio.timeout(5):
        assert await cut == b"3\r\nabc\r\n"  # and no last chunk
    await until(lambda: in_flight(running) == 0)


async def test_an_upload_that_stalls_is_408(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    async def script(wire: Wire, seen: Seen) -> None:
        await read_body(wire, seen)

    origin = await start_origin(script, read_body=False)
    running = await start_gateway(origin, server="body_timeout: 100ms")
    async with await Wire.open(running.port) as client:
        answer = await client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc")
        assert (answer.status, answer.get("connection")) == (408, "close")
        assert await client.closed()
    await until(lambda: origin.open == 0)


@pytest.mark.timeout(120)
async def test_file_descriptors_return_after_500_aborts(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    async def script(wire: Wire, seen: Seen) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await wire.some()
        wire.writer.close()

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    origin = await start_origin(script)
    running = await start_gateway(origin)

    async def abort(number: int) -> None:
        client = await Wire.open(running.port)
        await client.send(GET)
        if number % 2:
            await client.read_head()
        client.writer.transport.abort()

    await abort(0)
    await until(lambda: origin.open == 0 and running.gateway.connections() == 0)
    before = descriptors()
    for start in range(0, 500, 50):
        await asyncio.gather(*(abort(start + number) for number in range(50)))
    await until(lambda: running.gateway.connections() == 0 and in_flight(running) == 0)
    await until(lambda: descriptors() <= before)
