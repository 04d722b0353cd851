"""Of an endpoint with several addresses, the failure is told of the one that got furthest."""

import socket
from collections.abc import Collection

import pytest
from origins import Lab, Peer, request

from proxy.core.message import UpstreamError
from proxy.policy.snapshot import Endpoint


async def in_plain_text(peer: Peer) -> None:
    """As servers answer a ClientHello that they take for a request."""
    await peer.take(5)
    await peer.say(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("first", [0, 1])
async def test_a_refusal_hides_no_failed_handshake(lab: Lab, first: int) -> None:
    """Such as that of ::1, where localhost has both and the server listens on 127.0.0.1 only."""

    async def both(host: str) -> Collection[str]:
        addresses = ("127.0.0.2", "127.0.0.1")
        return addresses[first:] + addresses[:first]

    _, plain = await lab.origin(in_plain_text)
    upstream = lab.upstream(Endpoint("https", "api.internal", plain.port, ""))
    upstream.pool._addresses[0].lookup = both
    with pytest.raises(UpstreamError) as failed:
        await upstream.send(request())
    assert failed.value.kind == "tls_protocol_error"
    (line,) = upstream.status()["endpoints"]  # type: ignore[misc, attr-defined]
    assert line["connect"] == f"tls_protocol_error: {failed.value.cause}"


async def test_refused_by_all(lab: Lab) -> None:
    async def both(host: str) -> Collection[str]:
        return ("127.0.0.2", "127.0.0.1")

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    upstream = lab.upstream(Endpoint("https", "api.internal", port, ""))
    upstream.pool._addresses[0].lookup = both
    with pytest.raises(UpstreamError) as failed:
        await upstream.send(request())
    assert failed.value.kind == "connection_refused"
