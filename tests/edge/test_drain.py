"""Stopping: readiness first, requests in flight finish, new ones go elsewhere."""

import asyncio
import os

import pytest
from edge_kit import StartGateway, StartOrigin
from rawhttp import Seen, Wire, echo

GET = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

pytestmark = pytest.mark.usefixtures("lane")


async def test_in_flight_finishes_and_idle_closes(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    release = asyncio.Event()

    async def script(wire: Wire, seen: Seen) -> None:
        await release.wait()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    origin = await start_origin(script)
    running = await start_gateway(origin)
    idle = await Wire.open(running.port)
    client = await Wire.open(running.port)
    await client.send(GET)
    async with asyncio.timeout(5):
        while not origin.seen:
            await asyncio.sleep(0.005)
    stopping = asyncio.create_task(running.gateway.stop())
    assert await idle.closed()
    assert running.gateway.readiness()[0] is False
    with pytest.raises(ConnectionError):
        await Wire.open(running.port)
    release.set()
    answer = await client.read_answer()
    assert (answer.body, answer.get("connection")) == (b"ok", "close")
    assert await client.closed()
    async with asyncio.timeout(5):
        await stopping
    await idle.close()
    await client.close()


async def test_drain_delay_keeps_accepting_but_not_ready(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    running = await start_gateway(
        await start_origin(echo), server="drain_delay: 300ms\nhealth_path: /-/ready"
    )
    async with await Wire.open(running.port) as client:
        await client.ask(GET)
        stopping = asyncio.create_task(running.gateway.stop())
        async with asyncio.timeout(5):
            while running.gateway.readiness()[0]:
                await asyncio.sleep(0.005)
        async with await Wire.open(running.port) as late:
            answer = await late.ask("GET /-/ready HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (answer.status, answer.get("connection")) == (503, "close")
        answer = await client.ask(GET)
        assert (answer.status, answer.get("connection")) == (200, "close")
        async with asyncio.timeout(5):
            await stopping


async def test_what_does_not_finish_is_cut_at_drain_timeout(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    async def script(wire: Wire, seen: Seen) -> None:
        await wire.some()
        wire.writer.close()

    origin = await start_origin(script)
    running = await start_gateway(origin, server="drain_timeout: 100ms")
    async with await Wire.open(running.port) as client:
        await client.send(GET)
        async with asyncio.timeout(5):
            while not origin.seen:
                await asyncio.sleep(0.005)
            await running.gateway.stop()
        assert await client.closed()


async def test_a_connection_without_a_request_is_answered_once_it_comes(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    running = await start_gateway(await start_origin(echo))
    async with await Wire.open(running.port) as client, await Wire.open(running.port) as silent:
        stopping = asyncio.create_task(running.gateway.stop())
        async with asyncio.timeout(5):
            while not running.gateway.front.draining:
                await asyncio.sleep(0.005)
        answer = await client.ask(GET)
        assert (answer.status, answer.get("connection")) == (200, "close")
        async with asyncio.timeout(5):
            await stopping
        assert await silent.closed()


async def test_a_request_that_has_come_is_answered_before_its_connection_closes(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    """An idle connection is closed, unless its next request is in the kernel already."""
    running = await start_gateway(await start_origin(echo))
    async with await Wire.open(running.port) as client:
        assert (await client.ask(GET)).status == 200
        # Without a turn of the loop in between: the gateway cannot have read it.
        os.write(client.writer.get_extra_info("socket").fileno(), GET.encode())
        await running.gateway.front.drain(5)
        answer = await client.read_answer()
        assert (answer.status, answer.get("connection")) == (200, "close")
