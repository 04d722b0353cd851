"""One request and its answer on the wire: framing out, strictness in, 1xx, upgrades, cuts."""

import asyncio
import time
from pathlib import Path

import pytest
from origins import Body, Lab, Peer, drink, request, settled

from proxy.core.message import BodyError, StreamCut, UpstreamError
from proxy.edge.upstream.tunnel import HIGH_WATER
from proxy.policy.snapshot import Endpoint

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def says(*answers: bytes) -> object:
    """A script that answers one request after the other with these bytes, then closes."""

    async def script(peer: Peer) -> None:
        for answer in answers:
            if not await peer.head():
                return
            await peer.say(answer)

    return script


async def heads_of(lab: Lab, *requests: object, endpoint_path: str = "") -> list[str]:
    """What the origin receives, head by head, for these bodiless requests."""
    heads: list[str] = []

    async def script(peer: Peer) -> None:
        while head := await peer.head():
            heads.append(head)
            await peer.say(b"HTTP/1.1 204 N\r\n\r\n")

    _, endpoint = await lab.origin(script)
    upstream = lab.upstream(Endpoint("http", "127.0.0.1", endpoint.port, endpoint_path))
    for asked in requests:
        await upstream.send(asked)  # type: ignore[arg-type]
    return heads


async def test_the_head_is_ours_around_the_given_lines(lab: Lab) -> None:
    lines = [("X-A", "1"), ("x-a", "\xff"), ("Empty", "")]
    (head,) = await heads_of(lab, request("GET", "/a%20b?c=%", lines), endpoint_path="/base")
    assert head == (
        "GET /base/a%20b?c=% HTTP/1.1\r\nHost: example.com\r\n"
        "X-A: 1\r\nx-a: \xff\r\nEmpty: \r\n\r\n"
    )


async def test_without_a_host_the_endpoints_own_is_sent(lab: Lab) -> None:
    (head,) = await heads_of(lab, request(host=None))
    assert head.startswith("GET / HTTP/1.1\r\nHost: 127.0.0.1:")


async def test_only_methods_that_expect_a_body_announce_an_empty_one(lab: Lab) -> None:
    methods = ["GET", "HEAD", "DELETE", "OPTIONS", "X", "POST", "PUT", "PATCH"]
    heads = await heads_of(lab, *(request(method) for method in methods))
    announced = [head.split(" ")[0] for head in heads if "Content-Length: 0\r\n" in head]
    assert announced == ["POST", "PUT", "PATCH"]


async def test_environment_proxies_are_not_looked_at(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    _, upstream = await lab.pair(says(OK))
    assert (await upstream.send(request())).body == b"ok"


async def test_a_small_answer_comes_whole_and_frees_its_connection_at_once(lab: Lab) -> None:
    _, upstream = await lab.pair(says(b"HTTP/1.1 299 Fine\r\nX: y\r\nContent-Length: 2\r\n\r\nok"))
    reply = await upstream.send(request())
    assert (reply.status, reply.reason, reply.body, reply.length) == (299, "Fine", b"ok", 2)
    assert reply.stream is None
    assert reply.origin
    assert ("X", "y") in reply.fields
    assert upstream.status()["busy"] == upstream.status()["in_flight"] == 0


@pytest.mark.parametrize(
    ("method", "answer", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 9),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 9),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
    ],
)
async def test_answers_without_a_body_leave_the_connection_usable(
    lab: Lab, method: str, answer: bytes, length: int | None
) -> None:
    origin, upstream = await lab.pair(says(answer, OK))
    reply = await upstream.send(request(method))
    assert (reply.body, reply.stream, reply.length) == (b"", None, length)
    assert (await upstream.send(request())).body == b"ok"
    assert len(origin.peers) == 1


async def test_a_body_streams_as_it_comes(lab: Lab) -> None:
    step = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await step.wait()
        await peer.say(b"1;x\r\nb\r\n0\r\nTrailer: dropped\r\n\r\n")
        await peer.gone()

    _, upstream = await lab.pair(script)
    reply = await upstream.send(request())
    assert reply.length is None
    assert reply.stream is not None
    assert await reply.stream.read() == b"a"
    assert upstream.status()["busy"] == 1
    step.set()
    assert await reply.stream.read() == b"b"
    assert await reply.stream.read() == b""
    assert await reply.stream.read() == b""
    assert (upstream.status()["busy"], upstream.status()["idle"]) == (0, 1)


async def test_without_framing_the_close_ends_the_body(lab: Lab) -> None:
    _, upstream = await lab.pair(says(b"HTTP/1.1 200 OK\r\n\r\nall of it"))
    reply = await upstream.send(request())
    assert await drink(reply.stream) == b"all of it"
    assert upstream.status()["idle"] == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=["HTTP/1.0", "Connection: close", "Keep-Alive: timeout=1"],
)
async def test_an_answer_that_ends_its_connection(lab: Lab, answer: bytes) -> None:
    origin, upstream = await lab.pair(says(answer, OK))
    assert (await upstream.send(request())).body == b"ok"
    assert (await upstream.send(request())).body == b"ok"
    assert len(origin.peers) == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad name: x\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nA: \x00\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 600 X\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
async def test_broken_http_is_invalid(lab: Lab, answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(answer)
        await peer.gone()

    _, upstream = await lab.pair(script)
    with pytest.raises(UpstreamError) as error:
        await upstream.send(request())
    assert (error.value.reason, error.value.sent) == ("invalid", True)
    assert (upstream.status()["busy"], upstream.status()["idle"]) == (0, 0)


CUTS = {
    "short of its length": b"Content-Length: 5\r\n\r\nabc",
    "no last chunk": b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "inside a chunk": b"Transfer-Encoding: chunked\r\n\r\n9\r\nabc",
    "inside the trailers": b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n",
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_cut_answer_is_never_complete(lab: Lab, cut: str, how: str) -> None:
    seen = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\n" + CUTS[cut])
        await seen.wait()
        if how == "reset":
            peer.reset()

    _, upstream = await lab.pair(script)
    reply = await upstream.send(request())
    assert reply.stream is not None
    assert await reply.stream.read() == b"abc"
    seen.set()
    with pytest.raises(StreamCut):
        await reply.stream.read()
    with pytest.raises(StreamCut):
        await reply.stream.read()
    assert (upstream.status()["busy"], upstream.status()["idle"]) == (0, 0)


async def test_a_chunk_that_breaks_off_late_is_a_cut(lab: Lab) -> None:
    seen = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await seen.wait()
        await peer.say(b"0x1\r\nb\r\n0\r\n\r\n")
        await peer.gone()

    _, upstream = await lab.pair(script)
    reply = await upstream.send(request())
    assert reply.stream is not None
    assert await reply.stream.read() == b"a"
    seen.set()
    with pytest.raises(StreamCut):
        await reply.stream.read()


async def test_letting_go_of_a_stream_closes_its_connection(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na")
        await peer.gone()

    _, upstream = await lab.pair(script)
    reply = await upstream.send(request())
    assert reply.stream is not None
    reply.stream.close()
    reply.stream.close()
    assert upstream.status()["in_flight"] == upstream.status()["busy"] == 0
    with pytest.raises(StreamCut):
        await reply.stream.read()


async def test_a_late_close_does_not_meet_the_connections_next_user(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        while await peer.head():
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
            await peer.say(b"ok")

    origin, upstream = await lab.pair(script)
    first = await upstream.send(request())
    if first.stream is not None:
        await drink(first.stream)
    second = await upstream.send(request())
    if first.stream is not None:
        first.stream.close()
    assert second.body or await drink(second.stream) == b"ok"
    assert len(origin.peers) == 1


async def test_cancelling_a_request_closes_its_connection(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        asked.set()
        await peer.gone()
        left.set()

    asked, left = asyncio.Event(), asyncio.Event()
    _, upstream = await lab.pair(script)
    asking = asyncio.create_task(upstream.send(request()))
    await asked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await left.wait()
    assert upstream.status()["in_flight"] == upstream.status()["busy"] == 0


async def test_interim_answers_are_passed_on_without_hop_by_hop_lines(lab: Lab) -> None:
    heard: list[tuple[int, list[tuple[str, str]]]] = []
    _, upstream = await lab.pair(
        says(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
            b"HTTP/1.1 103 Early Hints\r\nConnection: x-hop\r\nX-Hop: 1\r\nLink: </s>\r\n\r\n" + OK
        )
    )
    reply = await upstream.send(request(inform=lambda status, lines: heard.append((status, lines))))
    assert heard == [(102, []), (103, [("Link", "</s>")])]
    assert (reply.status, reply.body) == (200, b"ok")


async def test_interim_answers_nobody_asks_for_are_dropped(lab: Lab) -> None:
    _, upstream = await lab.pair(says(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK))
    assert (await upstream.send(request())).body == b"ok"


UPGRADED = b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"


async def test_an_upgrade_becomes_a_tunnel(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        head = await peer.head()
        assert "Connection: Upgrade\r\nUpgrade: websocket\r\n" in head
        await peer.say(UPGRADED + b"first")
        assert await peer.take(4) == b"ping"
        await peer.say(b"pong")
        assert await peer.gone() == b""

    _, upstream = await lab.pair(script, read_timeout=0.05)
    reply = await upstream.send(request(upgrade="websocket"))
    assert (reply.status, reply.stream) == (101, None)
    tunnel = reply.tunnel
    assert tunnel is not None
    assert await tunnel.read() == b"first"
    reading = asyncio.create_task(tunnel.read())
    await asyncio.sleep(0.1)  # longer than read_timeout, which is not for tunnels
    await tunnel.write(b"ping")
    assert await reading == b"pong"
    assert upstream.status()["busy"] == upstream.status()["in_flight"] == 1
    tunnel.write_eof()
    assert await tunnel.read() == b""
    tunnel.close()
    tunnel.close()
    assert upstream.status()["busy"] == upstream.status()["in_flight"] == 0
    with pytest.raises(ConnectionError):
        await tunnel.write(b"late")


async def test_a_tunnel_reader_hears_the_upstream_end(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(UPGRADED + b"bye")

    _, upstream = await lab.pair(script)
    reply = await upstream.send(request(upgrade="websocket"))
    assert reply.tunnel is not None
    assert await reply.tunnel.read() == b"bye"
    assert await reply.tunnel.read() == b""
    reply.tunnel.close()


async def test_a_tunnel_holds_no_more_than_its_bound(lab: Lab) -> None:
    size = 8_000_000

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(UPGRADED + bytes(size))

    _, upstream = await lab.pair(script)
    reply = await upstream.send(request(upgrade="websocket"))
    assert reply.tunnel is not None
    got = 0
    while piece := await reply.tunnel.read():
        got += len(piece)
        assert len(piece) <= 2 * HIGH_WATER
        for _ in range(10):  # the upstream sends on; what we hold must not grow
            await asyncio.sleep(0)
    assert got == size
    reply.tunnel.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\n\r\n",
    ],
)
async def test_an_upgrade_to_something_else_is_invalid(lab: Lab, answer: bytes) -> None:
    _, upstream = await lab.pair(says(answer))
    with pytest.raises(UpstreamError) as error:
        await upstream.send(request(upgrade="websocket"))
    assert error.value.reason == "invalid"


async def test_a_refused_upgrade_is_an_ordinary_answer(lab: Lab) -> None:
    origin, upstream = await lab.pair(says(OK, OK))
    assert (await upstream.send(request(upgrade="websocket"))).body == b"ok"
    assert (await upstream.send(request())).body == b"ok"
    assert len(origin.peers) == 1


async def upload(
    lab: Lab, body: Body, size: int, answer: bytes = OK, method: str = "POST"
) -> tuple[str, bytes, object]:
    got: list[tuple[str, bytes]] = []

    async def script(peer: Peer) -> None:
        got.append((await peer.head(), await peer.take(size)))
        await peer.say(answer)
        await peer.gone()

    _, upstream = await lab.pair(script)
    reply = await upstream.send(request(method, body=body))
    return (*got[0], reply)


async def test_a_body_of_known_length_goes_out_with_it(lab: Lab) -> None:
    head, wire, reply = await upload(lab, Body(b"hello", b" world", length=11), 11)
    assert "Content-Length: 11\r\n" in head
    assert "Transfer-Encoding" not in head
    assert wire == b"hello world"
    assert reply.body == b"ok"  # type: ignore[attr-defined]


async def test_a_body_of_unknown_length_is_chunked(lab: Lab) -> None:
    body = Body(b"hello", b"x" * 26, length=None)
    head, wire, _ = await upload(lab, body, 10 + 4 + 26 + 2 + 5, method="GET")
    assert "Transfer-Encoding: chunked\r\n" in head
    assert "Content-Length" not in head
    assert wire == b"5\r\nhello\r\n1a\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n"


async def test_pieces_are_sent_as_they_come(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        assert await peer.take(2) == b"ab"
        more.set()
        assert await peer.take(2) == b"cd"
        await peer.say(OK)
        await peer.gone()

    more = asyncio.Event()
    _, upstream = await lab.pair(script)
    reply = await upstream.send(request("PUT", body=Body(b"ab", more, b"cd", length=4)))
    assert reply.body == b"ok"
    assert upstream.status()["idle"] == 1


async def test_a_large_upload_does_not_outrun_the_upstream(lab: Lab) -> None:
    total = 400
    start = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await start.wait()
        await peer.take(total * 65536)
        await peer.say(OK)
        await peer.gone()

    piece = bytes(65536)
    body = Body(*[piece] * total, length=total * 65536)
    _, upstream = await lab.pair(script)
    asking = asyncio.create_task(upstream.send(request("PUT", body=body)))
    taken = -1
    while taken != body.taken:  # until the kernel's buffers and ours are full
        taken = body.taken
        for _ in range(20):
            await asyncio.sleep(0.001)
    assert 0 < body.taken < total
    start.set()
    assert (await asking).body == b"ok"


@pytest.mark.parametrize("status", [b"413 Content Too Large", b"302 Found", b"500 Oops"])
async def test_an_early_refusal_is_returned_at_once_and_ends_the_upload(
    lab: Lab, status: bytes
) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.take(2)
        await peer.say(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nno")
        assert await peer.gone() == b""

    never = asyncio.Event()
    body = Body(b"ab", never, b"cd", length=4)
    _, upstream = await lab.pair(script)
    reply = await upstream.send(request("POST", body=body))
    assert reply.status == int(status[:3])
    assert reply.body == b"no"
    assert body.taken == 1
    assert (upstream.status()["busy"], upstream.status()["idle"]) == (0, 0)


async def test_a_refusal_followed_by_a_reset_is_still_heard(lab: Lab) -> None:
    """An origin that closes with unread bytes resets the connection (RFC 9112 §9.6)."""

    class Endless(Body):
        async def read(self) -> bytes:
            await asyncio.sleep(0)
            return bytes(16384)

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.take(100_000)
        await peer.say(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")

    _, upstream = await lab.pair(script)
    for _ in range(20):
        reply = await upstream.send(request("POST", body=Endless(length=10**9)))
        assert (reply.status, reply.body) == (413, b"no")


async def test_an_early_success_goes_on_beside_the_upload(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(2):
            await peer.say(b"1\r\n" + await peer.take(1) + b"\r\n")
        await peer.say(b"0\r\n\r\n")
        await peer.gone()

    more = asyncio.Event()
    _, upstream = await lab.pair(script)
    reply = await upstream.send(request("POST", body=Body(b"a", more, b"b", length=2)))
    assert reply.stream is not None
    assert await reply.stream.read() == b"a"
    more.set()
    assert await drink(reply.stream) == b"b"
    assert upstream.status()["idle"] == 1


@pytest.mark.parametrize("length", [4, None])
async def test_a_body_that_fails_aborts_the_request(lab: Lab, length: int | None) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        received.append(await peer.gone())

    received: list[bytes] = []
    gate = asyncio.Event()
    _, upstream = await lab.pair(script)
    body = Body(b"ab", gate, BodyError(408, "slow"), length=length)
    asking = asyncio.create_task(upstream.send(request("POST", body=body)))
    await settled(lambda: body.taken == 1)
    gate.set()
    with pytest.raises(BodyError) as error:
        await asking
    assert error.value.status == 408
    await settled(lambda: bool(received))
    assert received[0] in (b"", b"ab", b"2\r\nab\r\n")
    assert upstream.status()["in_flight"] == upstream.status()["busy"] == 0


async def test_a_body_that_fails_before_the_first_byte_sends_nothing(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        assert await peer.gone() == b""

    _, upstream = await lab.pair(script)
    with pytest.raises(BodyError):
        await upstream.send(request("POST", body=Body(BodyError(499, "gone"), length=4)))


async def test_a_body_shorter_than_announced_is_never_finished(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.gone()

    gate = asyncio.Event()
    _, upstream = await lab.pair(script)
    asking = asyncio.create_task(upstream.send(request("POST", body=Body(b"ab", gate, length=4))))
    gate.set()
    with pytest.raises(BodyError):
        await asking


async def test_a_body_that_fails_beside_an_answer_cuts_it(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na")
        await peer.gone()

    gate = asyncio.Event()
    _, upstream = await lab.pair(script)
    body = Body(b"ab", gate, BodyError(499, "gone"), length=4)
    reply = await upstream.send(request("POST", body=body))
    assert reply.stream is not None
    gate.set()
    with pytest.raises(StreamCut):
        await drink(reply.stream)


async def test_expect_waits_for_the_upstreams_100(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        assert "Expect: 100-continue\r\n" in await peer.head()
        assert body.taken == body.proceeded == 0
        await peer.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await peer.take(4) == b"abcd"
        await peer.say(OK)
        await peer.gone()

    loop = asyncio.get_running_loop()
    for _ in range(3):  # a pause of this machine may take up the second that it would wait
        body = Body(b"ab", b"cd", length=4)
        _, upstream = await lab.pair(script)
        began = loop.time()
        reply = await upstream.send(request("POST", body=body, expect_continue=True))
        took = loop.time() - began
        assert reply.body == b"ok"
        assert body.proceeded == 1
        assert upstream.status()["idle"] == 1
        if took < 0.9:
            return
    pytest.fail("it went on by running out of patience")


@pytest.mark.parametrize("status", [b"417 Expectation Failed", b"200 OK"])
async def test_expect_answered_at_once_never_reads_the_body(lab: Lab, status: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nok")
        assert await peer.gone() == b""

    body = Body(b"ab", length=2)
    _, upstream = await lab.pair(script)
    reply = await upstream.send(request("POST", body=body, expect_continue=True))
    assert reply.status == int(status[:3])
    assert body.taken == body.proceeded == 0
    assert upstream.status()["idle"] == 0


async def test_expect_goes_on_after_a_second_of_silence(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        began = asyncio.get_running_loop().time()
        assert await peer.take(2) == b"ab"
        assert asyncio.get_running_loop().time() - began > 0.9
        await peer.say(OK)
        await peer.gone()

    body = Body(b"ab", length=2)
    _, upstream = await lab.pair(script)
    reply = await upstream.send(request("POST", body=body, expect_continue=True))
    assert (reply.body, body.proceeded) == (b"ok", 1)


async def test_a_unix_socket(lab: Lab, tmp_path: Path) -> None:
    heads = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.head())
        await peer.say(OK)

    _, endpoint = await lab.origin(script, path=tmp_path / "origin.sock")
    upstream = lab.upstream(endpoint)
    assert (await upstream.send(request(host=None))).body == b"ok"
    assert "Host: localhost\r\n" in heads[0]


async def test_the_time_of_an_answer_is_measured_finer_than_a_millisecond(lab: Lab) -> None:
    """uvloop's clock stands still within a turn of the loop, and counts whole milliseconds."""
    _, endpoint = await lab.origin(says(*[OK] * 20))  # type: ignore[arg-type]
    upstream = lab.upstream(endpoint)
    began = time.perf_counter()
    took = [(await upstream.send(request())).took for _ in range(20)]
    elapsed = time.perf_counter() - began
    assert all(one > 0 for one in took)
    assert sum(took) <= elapsed
    assert any(abs(one * 1000 - round(one * 1000)) > 0.001 for one in took)


async def test_the_time_of_an_answer_begins_with_the_end_of_the_upload(lab: Lab) -> None:
    arrived, more = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.take(1)
        arrived.set()
        await peer.take(1)
        await peer.say(OK)

    _, endpoint = await lab.origin(script)
    posted = request("POST", body=Body(b"a", more, b"b", length=2))
    asking = asyncio.create_task(lab.upstream(endpoint).send(posted))
    await arrived.wait()
    uploading = time.perf_counter()
    more.set()
    assert 0 < (await asking).took <= time.perf_counter() - uploading
