"""The upstream fails: a problem+json where no answer had begun, an abort where one had."""

import asyncio
import socket

import pytest
from edge_kit import StartGateway, StartOrigin
from rawhttp import Cut, Seen, Wire, answering, free_port

GET = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

INVALID = [
    ("not-http", b"hello\r\n\r\n"),
    ("http-2", b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("cl-conflict", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    ("cl-and-te", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("te-unknown", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
    ("cl-not-digits", b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na"),
    ("bad-name", b"HTTP/1.1 200 OK\r\nA(: b\r\nContent-Length: 0\r\n\r\n"),
    ("nul", b"HTTP/1.1 200 OK\r\nA: \0\r\nContent-Length: 0\r\n\r\n"),
    ("obs-fold", b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n"),
    ("status-99", b"HTTP/1.1 99 No\r\nContent-Length: 0\r\n\r\n"),
    ("status-600", b"HTTP/1.1 600 No\r\nContent-Length: 0\r\n\r\n"),
    ("unrequested-101", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
]


@pytest.mark.parametrize(("rule", "wire"), INVALID, ids=[row[0] for row in INVALID])
async def test_invalid_answers_are_502(
    rule: str, wire: bytes, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(answering(wire))
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        answer = await client.ask(GET)
        assert answer.status == 502
        assert answer.json()["type"] == "urn:sluicegate:problem:upstream-invalid"
        assert (await client.ask(GET)).status == 502  # the client's connection goes on


HEAD_INVALID = [
    ("cl-and-te", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("te-gzip", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    ("te-identity", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n"),
    ("te-on-1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
]


@pytest.mark.parametrize(("rule", "wire"), HEAD_INVALID, ids=[row[0] for row in HEAD_INVALID])
async def test_invalid_framing_is_502_also_where_there_is_no_body(
    rule: str, wire: bytes, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    running = await start_gateway(await start_origin(answering(wire)))
    async with await Wire.open(running.port) as client:
        assert (await client.ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")).status == 502


async def test_interim_answers_without_an_end_are_502(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 1000
    origin = await start_origin(answering(hints + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        await client.send(GET)
        hinted = 0
        while (answer := await client.read_answer()).status == 103:
            hinted += 1
        assert (answer.status, hinted <= 100) == (502, True)


async def test_hints_for_a_client_that_reads_nothing_are_dropped(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    size = 60_000
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: " + b"a" * size + b"\r\n\r\n"
    sent = asyncio.Event()

    async def script(wire: Wire, seen: Seen) -> None:
        for _ in range(100):
            await wire.send(hint)
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        sent.set()

    running = await start_gateway(await start_origin(script))
    # Neither kernel nor reader holds more than a little of what is written to this client.
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.setblocking(False)
    await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", running.port))
    client = Wire(*await asyncio.open_connection(sock=small, limit=4096))
    await client.send(GET)
    async with asyncio.timeout(10):
        await sent.wait()
        while running.gateway.metrics.upstream("origin").in_flight:
            await asyncio.sleep(0.005)
    everything = b""
    while not everything.endswith(b"\r\n\r\nok"):
        everything += await client.some()
    await client.close()
    assert len(everything) < 60 * size


async def test_refused_is_502(start_gateway: StartGateway) -> None:
    running = await start_gateway(free_port())
    async with await Wire.open(running.port) as client:
        answer = await client.ask(GET)
        assert (answer.status, answer.get("content-type")) == (502, "application/problem+json")
        assert answer.get("via") is None
        assert answer.get("x-request-id")


async def test_closed_without_an_answer_is_502(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    async def script(wire: Wire, seen: Seen) -> None:
        raise Cut

    running = await start_gateway(await start_origin(script))
    async with await Wire.open(running.port) as client:
        assert (await client.ask("POST / HTTP/1.1\r\nHost: a\r\n\r\n")).status == 502


async def test_silence_is_504(start_gateway: StartGateway, start_origin: StartOrigin) -> None:
    async def script(wire: Wire, seen: Seen) -> None:
        await wire.some()
        raise Cut

    running = await start_gateway(await start_origin(script), upstream="response_timeout: 100ms")
    async with await Wire.open(running.port) as client:
        answer = await client.ask(GET)
        assert answer.status == 504
        assert answer.json()["type"] == "urn:sluicegate:problem:upstream-timeout"


TRUNCATED = [
    ("length", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"),
    ("chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\nhello"),
    ("no-last-chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
]


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize(("rule", "wire"), TRUNCATED, ids=[row[0] for row in TRUNCATED])
async def test_a_truncated_answer_is_never_complete_for_the_client(
    rule: str, wire: bytes, version: str, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    async def script(it: Wire, seen: Seen) -> None:
        await it.send(wire)
        raise Cut

    running = await start_gateway(await start_origin(script))
    async with await Wire.open(running.port) as client:
        await client.send(f"GET / HTTP/{version}\r\nHost: a\r\n\r\n")
        with pytest.raises((Cut, ConnectionResetError)):
            await client.read_answer()


async def test_bytes_behind_an_answer_never_reach_the_next_client(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(
        answering(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"
        )
    )
    running = await start_gateway(origin)
    for _ in range(3):
        async with await Wire.open(running.port) as client:
            assert (await client.ask(GET)).body == b"ok"
    assert origin.connections == 3


async def test_a_full_upstream_sheds_with_503(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    release = asyncio.Event()

    async def script(wire: Wire, seen: Seen) -> None:
        await release.wait()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    origin = await start_origin(script)
    running = await start_gateway(
        origin, upstream="max_connections: 1\nqueue: 1\nqueue_timeout: 10s"
    )
    async with (
        await Wire.open(running.port) as first,
        await Wire.open(running.port) as second,
        await Wire.open(running.port) as third,
    ):
        await first.send(GET)
        async with asyncio.timeout(5):
            while not origin.seen:
                await asyncio.sleep(0.005)
        await second.send(GET)
        async with asyncio.timeout(5):
            while not running.gateway.upstream_status()[0]["waiting"]:
                await asyncio.sleep(0.005)
        answer = await third.ask(GET)
        assert (answer.status, answer.get("retry-after")) == (503, "1")
        release.set()
        assert (await first.read_answer()).status == 200
        assert (await second.read_answer()).status == 200
