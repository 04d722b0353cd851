"""What a client still sends after an answer that came early: some is read, and no more."""

import pytest
from edge_kit import StartGateway, StartOrigin
from rawhttp import Wire

from proxy.edge import protocol

ENDLESS = 64 * 1024 * 1024
"""Bytes that no line holds, with the buffers at both of its ends."""
POST = "POST / HTTP/1.1\r\nHost: a\r\n"
EARLY = {
    "head": (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    "chunk": (400, f"{POST}Transfer-Encoding: chunked\r\n\r\nxyz\r\n"),
    "size": (413, f"{POST}Transfer-Encoding: chunked\r\n\r\n800\r\n" + "x" * 2048 + "\r\n"),
}


@pytest.mark.parametrize("why", EARLY)
async def test_it_ends_where_too_much_comes(
    start_gateway: StartGateway,
    start_origin: StartOrigin,
    monkeypatch: pytest.MonkeyPatch,
    why: str,
) -> None:
    """However much time is left."""
    monkeypatch.setattr(protocol, "LINGERING", 50.0)
    running = await start_gateway(await start_origin(), server="max_body_bytes: 1KiB")
    status, data = EARLY[why]
    async with await Wire.open(running.port) as client:
        assert (await client.ask(data, "GET")).status == status
        sent = 0
        with pytest.raises(ConnectionError):
            while sent < ENDLESS:
                await client.send(b"10000\r\n" + bytes(65536) + b"\r\n")
                sent += 65536
        assert sent < ENDLESS
