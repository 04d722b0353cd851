"""Requests through the gateway and back, on the wire: methods, heads, bodies, interim answers."""

import asyncio

import pytest
from edge_kit import StartGateway, StartOrigin
from rawhttp import Cut, Seen, Wire, answering, echo

GET = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

pytestmark = pytest.mark.usefixtures("lane")


async def test_get_and_keep_alive(start_gateway: StartGateway, start_origin: StartOrigin) -> None:
    origin = await start_origin(echo)
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        for number in range(3):
            answer = await client.ask(f"GET /n/{number}?q HTTP/1.1\r\nHost: Api.Example\r\n\r\n")
            assert (answer.status, answer.reason) == (200, "OK")
            assert answer.json()["target"] == f"/n/{number}?q"
            assert answer.get("connection") is None
            assert answer.get("via") == "1.1 sluicegate"
            assert answer.get("date") is not None
    assert origin.connections == 1
    assert origin.seen[0].get("host") == "Api.Example"
    assert origin.seen[0].get("x-forwarded-for") == "127.0.0.1"
    assert origin.seen[0].get("x-forwarded-proto") == "http"
    assert origin.seen[0].get("x-forwarded-host") == "Api.Example"
    assert origin.seen[0].get("via") == "1.1 sluicegate"
    assert origin.seen[0].all("connection") == []


async def test_pipelined_requests_are_answered_in_order(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(echo)
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        count = 100
        await client.send("".join(f"GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n" for n in range(count)))
        for number in range(count):
            assert (await client.read_answer()).json()["target"] == f"/{number}"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "BREW", "M-SEARCH"])
async def test_any_method_passes(
    method: str, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(echo)
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        answer = await client.ask(f"{method} /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
        assert (answer.json()["method"], answer.json()["body"]) == (method, "hi")


async def test_head_has_the_length_and_no_body(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n"))
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        for _ in range(2):
            answer = await client.ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (answer.status, answer.get("content-length")) == (200, "42")
    assert origin.connections == 1


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", None),
        (b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 9\r\n\r\n', "9"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "0"),
    ],
    ids=["204", "304", "empty-200"],
)
async def test_answers_without_a_body(
    head: bytes, length: str | None, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(answering(head))
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        for _ in range(2):
            answer = await client.ask(GET)
            assert answer.get("content-length") == length
            assert answer.get("transfer-encoding") is None
            assert answer.body == b""


async def test_lines_repeated_latin1_and_unknown_reason_survive(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(
        answering(
            b"HTTP/1.1 299 Fine \xe9nough\r\nSet-Cookie: a=1\r\nX-Latin: \xe9\xff\r\n"
            b"Set-Cookie: b=2\r\nDate: Tue, 24 Nov 2026 00:00:00 GMT\r\nServer: it\r\n"
            b"Connection: x-hop\r\nX-Hop: gone\r\nKeep-Alive: timeout=9\r\n"
            b"Content-Length: 2\r\n\r\nok"
        )
    )
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        answer = await client.ask(GET)
    assert (answer.status, answer.reason) == (299, "Fine \xe9nough")
    assert answer.all("set-cookie") == ["a=1", "b=2"]
    assert answer.get("x-latin") == "\xe9\xff"
    assert answer.get("date") == "Tue, 24 Nov 2026 00:00:00 GMT"
    assert answer.get("server") == "it"
    assert not answer.all("x-hop")
    assert not answer.all("keep-alive")


async def test_a_body_until_close_is_rechunked(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    async def script(wire: Wire, seen: Seen) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        raise Cut

    origin = await start_origin(script)
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        for _ in range(2):
            answer = await client.ask(GET)
            assert answer.get("transfer-encoding") == "chunked"
            assert answer.body == b"all of it"


async def test_a_stream_arrives_piece_by_piece(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    step = asyncio.Event()

    async def script(wire: Wire, seen: Seen) -> None:
        await wire.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(3):
            await wire.send(b"9\r\ndata: %d\n\n\r\n" % number)
            await step.wait()
            step.clear()
        await wire.send(b"0\r\n\r\n")

    origin = await start_origin(script)
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        await client.send(GET)
        await client.read_head()
        for number in range(3):
            # The next event is not sent before this one has come through.
            assert await client.exactly(14) == b"9\r\ndata: %d\n\n\r\n" % number
            step.set()
        assert await client.exactly(5) == b"0\r\n\r\n"


async def test_an_upload_streams_while_it_comes(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(wire: Wire, seen: Seen) -> None:
        while size := int((await wire.reader.readuntil(b"\r\n"))[:-2], 16):
            got.put_nowait(await wire.exactly(size))
            await wire.exactly(2)
        await wire.exactly(2)
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    origin = await start_origin(script, read_body=False)
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        await client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (b"one", b"two", b"three"):
            await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            async with asyncio.timeout(5):
                assert await got.get() == piece
        await client.send(b"0\r\n\r\n")
        assert (await client.read_answer("POST")).body == b"ok"


async def test_expect_100_waits_for_the_upstream(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    asked = asyncio.Event()
    proceed = asyncio.Event()

    async def script(wire: Wire, seen: Seen) -> None:
        assert seen.get("expect") == "100-continue"
        asked.set()
        await proceed.wait()
        await wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await wire.exactly(4) == b"body"
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    origin = await start_origin(script, read_body=False)
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        await client.send(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        )
        async with asyncio.timeout(5):
            await asked.wait()
        proceed.set()
        assert (await client.read_answer()).status == 100
        await client.send("body")
        assert (await client.read_answer("PUT")).body == b"ok"


async def test_expect_100_refused_by_the_upstream_never_asks_for_the_body(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(
        answering(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"), read_body=False
    )
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        answer = await client.ask(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (answer.status, answer.get("connection")) == (401, "close")
        assert await client.closed()


async def test_a_100_and_the_final_head_in_one_read(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    async def script(wire: Wire, seen: Seen) -> None:
        await wire.send(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        await wire.send(b"4\r\n" + await wire.exactly(4) + b"\r\n0\r\n\r\n")

    origin = await start_origin(script, read_body=False)
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        early = await client.ask(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        )
        assert early.status == 100
        await client.send("body")
        assert (await client.read_answer("PUT")).body == b"body"


async def test_expect_100_is_answered_at_once_by_a_limit(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(echo)
    running = await start_gateway(
        origin,
        routes='  - {name: r, match: {path: "/{rest:path}"}, upstream: origin, limits: [one]}\n',
        limits="one: {algorithm: fixed_window, rate: 1/d, key: [global]}",
    )
    request = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    async with await Wire.open(running.port) as client:
        await client.ask(GET)
        answer = await client.ask(request)
        assert (answer.status, answer.get("connection")) == (429, "close")


async def test_early_hints_pass_and_are_not_sent_to_http_1_0(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(
        answering(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
            b"HTTP/1.1 102 Processing\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        )
    )
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        early = await client.ask(GET)
        assert (early.status, early.get("link")) == (103, "</a>; rel=preload")
        assert (await client.read_answer()).status == 102
        final = await client.read_answer()
        assert (final.status, final.all("link"), final.body) == (200, [], b"ok")
    async with await Wire.open(running.port) as client:
        assert (await client.ask("GET / HTTP/1.0\r\nHost: a\r\n\r\n")).status == 200


async def test_http_1_0_gets_no_chunks_and_a_close(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(
        answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    )
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        answer = await client.ask("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert answer.head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.get("transfer-encoding") is None
        assert answer.get("connection") == "close"
        assert answer.body == b"ok"
    assert origin.seen[0].get("host") == f"127.0.0.1:{origin.port}"
    assert origin.seen[0].get("via") == "1.0 sluicegate"


async def test_absolute_form_replaces_host(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(echo)
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        await client.ask("GET http://real.example/x?y HTTP/1.1\r\nHost: other\r\n\r\n")
    assert (origin.seen[0].target, origin.seen[0].get("host")) == ("/x?y", "real.example")


async def test_options_asterisk_is_answered_here(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(echo)
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        assert (await client.ask("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")).status == 204
    assert not origin.seen


async def test_websocket_bytes_both_ways(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    async def script(wire: Wire, seen: Seen) -> None:
        assert seen.get("connection") == "Upgrade" or seen.get("connection") == "upgrade"
        assert seen.get("upgrade") == "websocket"
        assert seen.get("sec-websocket-key") == "k"
        await wire.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: s\r\n\r\nfirst"
        )
        while data := await wire.some():
            await wire.send(data[::-1])
        raise Cut

    origin = await start_origin(script)
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        answer = await client.ask(
            "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Key: k\r\n\r\nearly"
        )
        assert (answer.status, answer.get("sec-websocket-accept")) == (101, "s")
        assert (answer.get("upgrade"), answer.get("connection")) == ("websocket", "upgrade")
        assert await client.exactly(5) == b"first"
        assert await client.exactly(5) == b"ylrae"
        await client.send(b"\x00abc")
        assert await client.exactly(4) == b"cba\x00"
    async with asyncio.timeout(5):
        while origin.open:
            await asyncio.sleep(0.01)


async def test_a_declined_upgrade_keeps_the_connection(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(echo)
    running = await start_gateway(origin)
    upgrade = "GET /1 HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    async with await Wire.open(running.port) as client:
        await client.send(upgrade + "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.read_answer()).json()["target"] == "/1"
        assert (await client.read_answer()).json()["target"] == "/2"


async def test_a_large_body_through_slow_hands_is_whole(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    size = 8 * 1024 * 1024

    async def script(wire: Wire, seen: Seen) -> None:
        assert len(seen.body) == size
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + seen.body)

    origin = await start_origin(script)
    running = await start_gateway(origin)
    payload = bytes(range(256)) * (size // 256)
    async with await Wire.open(running.port) as client:
        head = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"
        sending = asyncio.create_task(client.send(head.encode() + payload))
        answer = await client.read_answer("POST")
        await sending
    assert answer.body == payload


async def test_a_body_over_the_cap_is_413(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(echo)
    running = await start_gateway(origin, server="max_body_bytes: 10B")
    async with await Wire.open(running.port) as client:
        answer = await client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n")
        assert (answer.status, answer.get("connection")) == (413, "close")
    async with await Wire.open(running.port) as client:
        answer = await client.ask(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            "B\r\n01234567890\r\n0\r\n\r\n"
        )
        assert answer.status == 413
    assert all(seen.body == b"" for seen in origin.seen)


async def test_the_health_path_is_answered_before_routing(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(echo)
    running = await start_gateway(origin, server="health_path: /-/ready")
    async with await Wire.open(running.port) as client:
        assert (await client.ask("GET /-/ready HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200
    assert not origin.seen
