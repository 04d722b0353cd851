"""Where clients connect: unix sockets, TLS, and addresses that are taken."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
import trustme
from edge_kit import GATEWAY, StartGateway, StartOrigin
from rawhttp import Wire, echo, free_port

GET = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def test_unix_socket(
    tmp_path: Path, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    path = tmp_path / "gate.sock"
    stale = socket.socket(socket.AF_UNIX)  # a socket whose process died
    stale.bind(str(path))
    stale.close()
    text = GATEWAY.replace("127.0.0.1:{port}", f"unix:{path}")
    origin = await start_origin(echo)
    running = await start_gateway(origin, text=text, server="trusted_proxies: [unix]")
    async with Wire(*await asyncio.open_unix_connection(str(path))) as client:
        answer = await client.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n")
        assert answer.status == 200
    assert origin.seen[0].get("x-forwarded-for") == "9.9.9.9"
    await running.gateway.stop()
    assert not path.exists()


async def test_a_living_unix_socket_keeps_its_path(
    tmp_path: Path, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    path = tmp_path / "gate.sock"
    text = GATEWAY.replace("127.0.0.1:{port}", f"unix:{path}")
    origin = await start_origin(echo)
    await start_gateway(origin, text=text)
    with pytest.raises(OSError, match=r"gate\.sock"):
        await start_gateway(origin, text=text)
    async with Wire(*await asyncio.open_unix_connection(str(path))) as client:
        assert (await client.ask(GET)).status == 200


async def test_tls_handshakes_that_never_end_count_as_connections(
    tmp_path: Path, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    cert = trustme.CA().issue_cert("localhost")
    cert.private_key_pem.write_to_path(tmp_path / "key.pem")
    cert.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    settings = "max_connections: 2\ntls: {cert: cert.pem, key: key.pem}"
    running = await start_gateway(await start_origin(echo), server=settings)
    silent = [await Wire.open(running.port) for _ in range(3)]
    async with await Wire.open(running.port) as late:
        assert await late.closed()
    for wire in silent:
        await wire.close()


async def test_tls(tmp_path: Path, start_gateway: StartGateway, start_origin: StartOrigin) -> None:
    authority = trustme.CA()
    cert = authority.issue_cert("localhost")
    cert.private_key_pem.write_to_path(tmp_path / "key.pem")
    cert.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    origin = await start_origin(echo)
    running = await start_gateway(origin, server="tls: {cert: cert.pem, key: key.pem}")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with await Wire.open(running.port, ssl=context, server_hostname="localhost") as client:
        answer = await client.ask(GET)
        assert answer.status == 200
        upload = b"x" * 300_000
        head = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len(upload)}\r\n\r\n"
        assert len(str((await client.ask(head.encode() + upload)).json()["body"])) == len(upload)
    assert origin.seen[0].get("x-forwarded-proto") == "https"


async def test_plain_http_on_a_tls_port_ends(
    tmp_path: Path, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    cert = trustme.CA().issue_cert("localhost")
    cert.private_key_pem.write_to_path(tmp_path / "key.pem")
    cert.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    running = await start_gateway(
        await start_origin(echo), server="tls: {cert: cert.pem, key: key.pem}"
    )
    async with await Wire.open(running.port) as client:
        await client.send(GET)
        assert not (await client.rest()).startswith(b"HTTP/1.1 2")


async def test_a_taken_port_is_an_error_that_names_it(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(echo)
    text = GATEWAY.replace("{port}", str(origin.port))
    taken = f"^.Errno 98. cannot bind 127.0.0.1:{origin.port}: Address already in use$"
    with pytest.raises(OSError, match=taken):
        await start_gateway(origin, text=text)


async def test_ipv6(start_gateway: StartGateway, start_origin: StartOrigin) -> None:
    port = free_port()
    text = GATEWAY.replace("127.0.0.1:{port}", f'"[::1]:{port}"')
    origin = await start_origin(echo)
    await start_gateway(origin, text=text)
    async with await Wire.open(port, host="::1") as client:
        assert (await client.ask(GET)).status == 200
    assert origin.seen[0].get("x-forwarded-for") == "::1"
