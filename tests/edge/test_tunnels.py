"""Upgraded connections: how they end. What goes through them is in test_proxying."""

import asyncio

from edge_kit import StartGateway, StartOrigin
from rawhttp import Seen, Wire

UPGRADE = (
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Key: k\r\n\r\n"
)
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
PINGS = 6


async def test_a_tunnel_in_which_nothing_passes_ends(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    """Not while bytes pass in one of its directions."""
    ended = asyncio.Event()

    async def pings(wire: Wire, seen: Seen) -> None:
        await wire.send(SWITCHING)
        for _ in range(PINGS):  # for twice as long as it may be idle
            await asyncio.sleep(0.1)
            await wire.send(b"ping")
        await wire.rest()
        ended.set()

    origin = await start_origin(pings)
    running = await start_gateway(origin, upstream="tunnel_idle_timeout: 300ms")
    async with await Wire.open(running.port) as client:
        assert (await client.ask(UPGRADE)).status == 101
        assert await client.rest() == b"ping" * PINGS
        async with asyncio.timeout(5):
            await ended.wait()


async def test_a_tunnel_that_only_the_client_uses_stays(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    received: list[bytes] = []

    async def listens(wire: Wire, seen: Seen) -> None:
        await wire.send(SWITCHING)
        received.append(await wire.rest())

    origin = await start_origin(listens)
    running = await start_gateway(origin, upstream="tunnel_idle_timeout: 300ms")
    async with await Wire.open(running.port) as client:
        assert (await client.ask(UPGRADE)).status == 101
        for _ in range(PINGS):
            await asyncio.sleep(0.1)
            await client.send(b"ping")
        assert await client.rest() == b""
        async with asyncio.timeout(5):
            while not received:
                await asyncio.sleep(0.01)
    assert received == [b"ping" * PINGS]
