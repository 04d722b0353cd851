"""An endpoint to which no connection comes about: client, log, status and explain say why."""

import asyncio
import datetime
import logging
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from rawhttp import free_port
from resilience_kit import StartGateway

NOW: Final = datetime.datetime.now(datetime.UTC)
DAY: Final = datetime.timedelta(days=1)
CAUSES: Final = {
    "refused": "it refused the connection",
    "mute": "it did not accept the connection in time",
    "no-such-file": "its socket file does not exist",
    "plain": "it does not speak TLS on this port",
    "self-signed": "its certificate is self-signed",
    "expired": "its certificate has expired",
    "stranger": "its certificate comes from an authority that is not trusted",
    "other-name": "its certificate is for another host name",
    "mute-tls": "it did not finish the TLS handshake in time",
    "hangs-up": "it closed the connection during the TLS handshake",
}


def issued(ca: trustme.CA, name: str = "localhost", **more: datetime.datetime) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name, **more).configure_cert(context)
    return context


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    cert = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "self-signed.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(secret + cert.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def server_side(why: str, ca: trustme.CA, folder: Path) -> ssl.SSLContext | None:
    """How the origin speaks TLS."""
    match why:
        case "self-signed":
            return self_signed(folder)
        case "expired":
            return issued(ca, not_before=NOW - 2 * DAY, not_after=NOW - DAY)
        case "stranger":
            return issued(trustme.CA())
        case "other-name":
            return issued(ca, "elsewhere.test")
    return None


async def speak(why: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What an origin does that gets a connection: as one that does not speak TLS, hang up, answer
    the handshake in clear text, or wait for a request that does not come."""
    if why != "hangs-up":
        await reader.read(1)
    if why == "plain":
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    if why == "mute-tls":
        await reader.read()
    writer.close()


@pytest.fixture
def mute() -> Iterator[int]:
    """The port of a listener whose queue is full: it accepts nothing."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = int(listener.getsockname()[1])
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        yield port


@pytest.mark.parametrize("why", CAUSES)
async def test_it_is_said_what_is_wrong(
    start_gateway: StartGateway,
    tmp_path: Path,
    mute: int,
    caplog: pytest.LogCaptureFixture,
    why: str,
) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = server_side(why, ca, tmp_path)
    origin = await asyncio.start_server(partial(speak, why), "127.0.0.1", 0, ssl=context)
    port = origin.sockets[0].getsockname()[1]
    url = {
        "refused": f"http://127.0.0.1:{free_port()}",
        "mute": f"http://127.0.0.1:{mute}",
        "no-such-file": f"http+unix://{tmp_path}/none.sock",
    }.get(why, f"https://localhost:{port}")
    settings: dict[str, object] = {"endpoints": [url], "connect_timeout": "300ms"}
    if url.startswith("https"):
        settings["tls"] = {"ca": str(tmp_path / "ca.pem")}
    gateway = await start_gateway(port, None, settings=settings)
    caplog.set_level(logging.WARNING, "proxy")

    answer = await gateway.ask()

    assert answer.status == 502
    assert answer.json()["type"] == "urn:sluicegate:problem:upstream-unreachable"
    told = re.fullmatch(
        rf"The upstream could not be reached \(([a-z_]+)\): {CAUSES[why]}\.",
        str(answer.json()["detail"]),
    )
    assert told is not None
    kind = told[1]
    assert f"connect_error: {kind}: " in caplog.text
    assert CAUSES[why] in caplog.text
    explained = await gateway.admin("/explain", "POST", {"method": "GET", "target": "/"})
    assert f"{kind}: {CAUSES[why]}" in str(explained.json()["endpoints"])
    status = await gateway.admin("/status")
    assert CAUSES[why] in str(status.json()["upstreams"])
    origin.close()


async def test_a_name_that_cannot_be_resolved(
    start_gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """`.invalid` never exists (RFC 6761 §6.4); without a name server nothing does."""
    settings = {"endpoints": ["http://nowhere.invalid:80"], "connect_timeout": "10s"}
    gateway = await start_gateway(free_port(), None, settings=settings)
    caplog.set_level(logging.WARNING, "proxy")
    answer = await gateway.ask()
    assert answer.status == 502
    assert ": its name " in str(answer.json()["detail"])
    assert "nowhere.invalid: its name " in caplog.text
