"""Connections between requests: reuse, staleness, limits, queueing, deadlines, leaks, TLS, DNS."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from origins import Body, Lab, Peer, drink, request, settled, tcp_sockets

from proxy.core.message import StreamCut, UpstreamError
from proxy.edge.upstream.call import HIGH_WATER, WAITING
from proxy.edge.upstream.client import HttpUpstream
from proxy.policy.snapshot import Endpoint, UpstreamTls

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def polite(peer: Peer) -> None:
    """Answers every request."""
    while await peer.head():
        await peer.say(OK)


async def silent(peer: Peer) -> None:
    """Takes a request and never answers."""
    await peer.head()
    await peer.gone()


def block_loop() -> None:
    """Gives the kernel time to deliver what was sent, without the loop hearing of it."""
    time.sleep(0.02)


async def fails(asking: Any, reason: str, *, sent: bool | None = None) -> UpstreamError:
    with pytest.raises(UpstreamError) as error:
        await asking
    assert error.value.reason == reason
    if sent is not None:
        assert error.value.sent == sent
    return error.value


# Reuse.


async def test_the_connection_used_last_is_used_next(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        while await peer.head():
            order.append(peer.number)
            if len(order) <= 2:
                both.set() if len(order) == 2 else None
                await both.wait()
            await peer.say(OK)

    order: list[int] = []
    both = asyncio.Event()
    origin, upstream = await lab.pair(script)
    await asyncio.gather(upstream.send(request()), upstream.send(request()))
    assert upstream.status()["idle"] == 2
    last = upstream.pool._idle[0][-1]
    for _ in range(3):
        await upstream.send(request())
        assert upstream.pool._idle[0][-1] is last
    assert len(origin.peers) == 2


async def test_idle_connections_leave_after_idle_timeout(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        await polite(peer)
        closed.set()

    closed = asyncio.Event()
    _, upstream = await lab.pair(script, idle_timeout=0.05)
    await upstream.send(request())
    assert upstream.status()["idle"] == 1
    await closed.wait()
    assert upstream.status()["idle"] == 0


@pytest.mark.parametrize(("said", "kept"), [(b"timeout=3", 2.0), (b"timeout=60", 10.0)])
async def test_the_upstreams_keep_alive_timeout_is_obeyed_less_a_second(
    lab: Lab, said: bytes, kept: float
) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(
            b"HTTP/1.1 200 OK\r\nKeep-Alive: " + said + b"\r\nContent-Length: 2\r\n\r\nok"
        )
        await peer.gone()

    _, upstream = await lab.pair(script, idle_timeout=10.0)
    loop = asyncio.get_running_loop()
    before = loop.time()
    await upstream.send(request())
    (connection,) = upstream.pool._idle[0]
    assert before + kept <= connection.expires <= loop.time() + kept
    assert connection.usable(connection.expires - 0.1)
    assert not connection.usable(connection.expires)


@pytest.mark.parametrize("heard", ["by the loop", "by the kernel only"])
@pytest.mark.parametrize(
    "extra", [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen", b"\r\n", None]
)
async def test_what_an_idle_connection_holds_never_reaches_the_next_user(
    lab: Lab, heard: str, extra: bytes | None
) -> None:
    """RFC 9112 §9.2. None: the upstream has closed."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(OK)
        if peer.number == 0:
            await read.wait()
            if extra is None:
                return
            await peer.say(extra)
        await peer.gone()

    read = asyncio.Event()
    origin, upstream = await lab.pair(script)
    first = await upstream.send(request("POST"))
    assert first.body == b"ok"
    peer = origin.peers[0]
    if heard == "by the loop":
        read.set()
        await settled(lambda: upstream.status()["idle"] == 0)
    else:
        sock = peer.writer.get_extra_info("socket")
        fd = sock.fileno()
        with socket.socket(fileno=socket.dup(fd)) as raw:
            if extra is None:
                raw.shutdown(socket.SHUT_WR)
            else:
                raw.send(extra)
        block_loop()
        assert upstream.status()["idle"] == 1
    assert (await upstream.send(request("POST"))).body == b"ok"
    assert len(origin.peers) == 2


async def test_bytes_behind_an_answer_end_its_connection(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen")
        await peer.gone()

    origin, upstream = await lab.pair(script)
    assert (await upstream.send(request())).body == b"ok"
    assert upstream.status()["idle"] == 0
    assert (await upstream.send(request())).body == b"ok"
    assert len(origin.peers) == 2


async def closes_on_reuse(peer: Peer) -> None:
    """The first connection answers once and drops the second request; others are polite."""
    if peer.number:
        return await polite(peer)
    await peer.head()
    await peer.say(OK)
    await peer.head()
    peer.reset()
    return None


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_a_reused_connection_that_drops_an_idempotent_request_is_replaced_once(
    lab: Lab, method: str
) -> None:
    origin, upstream = await lab.pair(closes_on_reuse)
    await upstream.send(request())
    assert (await upstream.send(request(method))).status == 200
    assert len(origin.peers) == 2
    assert upstream.status()["in_flight"] == upstream.status()["busy"] == 0


@pytest.mark.parametrize(
    "asked",
    [
        lambda: request("POST"),
        lambda: request("PATCH"),
        lambda: request("PUT", body=Body(b"x", length=1)),
    ],
    ids=["POST", "PATCH", "PUT with a body"],
)
async def test_what_may_have_been_seen_is_not_sent_again(
    lab: Lab, asked: Callable[[], Any]
) -> None:
    origin, upstream = await lab.pair(closes_on_reuse)
    await upstream.send(request())
    await fails(upstream.send(asked()), "reset", sent=True)
    assert len(origin.peers) == 1


async def test_a_new_connection_that_drops_its_request_is_not_replaced(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()

    origin, upstream = await lab.pair(script)
    await fails(upstream.send(request()), "reset", sent=True)
    assert len(origin.peers) == 1


async def test_a_request_whose_answer_has_begun_is_not_sent_again(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(OK)
        await peer.head()
        await peer.say(b"HTTP/1.1 2")

    origin, upstream = await lab.pair(script)
    await upstream.send(request())
    await fails(upstream.send(request()), "reset", sent=True)
    assert len(origin.peers) == 1


# Slots and the queue.


async def test_a_slot_is_held_to_the_end_of_the_body_and_the_line_is_first_come_first_served(
    lab: Lab,
) -> None:
    async def script(peer: Peer) -> None:
        while head := await peer.head():
            order.append(head.split(" ")[1])
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
            await finish.wait()
            await peer.say(b"k")

    order: list[str] = []
    finish = asyncio.Event()
    origin, upstream = await lab.pair(script, max_connections=1)
    first = await upstream.send(request(target="/0"))
    others = [asyncio.create_task(upstream.send(request(target=f"/{n}"))) for n in (1, 2, 3)]
    await settled(lambda: upstream.status()["waiting"] == 3)
    assert order == ["/0"]
    assert first.stream is not None
    assert await first.stream.read() == b"o"
    assert (upstream.status()["busy"], upstream.status()["waiting"]) == (1, 3)
    assert upstream.status()["in_flight"] == 4
    finish.set()
    assert await drink(first.stream) == b"k"
    for other in others:
        reply = await other
        assert reply.body or await drink(reply.stream) == b"ok"
    assert order == ["/0", "/1", "/2", "/3"]
    assert len(origin.peers) == 1
    assert upstream.status()["busy"] == upstream.status()["waiting"] == 0


async def test_the_line_has_queue_places(lab: Lab) -> None:
    _, upstream = await lab.pair(silent, max_connections=1, queue=1)
    asking = [asyncio.create_task(upstream.send(request())) for _ in range(2)]
    await settled(lambda: upstream.status()["waiting"] == 1)
    await fails(upstream.send(request()), "queue_full", sent=False)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    assert upstream.status()["in_flight"] == upstream.status()["busy"] == 0


async def test_waiting_ends_at_queue_timeout(lab: Lab) -> None:
    _, upstream = await lab.pair(silent, max_connections=1, queue_timeout=0.05)
    holder = asyncio.create_task(upstream.send(request()))
    await settled(lambda: upstream.status()["busy"] == 1)
    began = time.monotonic()
    await fails(upstream.send(request()), "queue_timeout", sent=False)
    assert 0.04 < time.monotonic() - began < 10
    assert upstream.status()["waiting"] == 0
    holder.cancel()


async def test_who_leaves_the_line_leaves_no_gap(lab: Lab) -> None:
    """Also where the slot and the cancellation come in the same turn of the loop."""
    _, upstream = await lab.pair(polite, max_connections=1)
    for turns in range(6):
        holder = await upstream.send(request())
        assert holder.body == b"ok"
        upstream.pool._busy = 1  # the slot as if held
        waiting = [asyncio.create_task(upstream.send(request())) for _ in range(3)]
        await settled(lambda: upstream.status()["waiting"] == 3)
        upstream.pool.release()
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting[0].cancel()
        waiting[2].cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert getattr(results[1], "body", None) == b"ok"
        assert upstream.status()["busy"] == upstream.status()["waiting"] == 0


async def test_open_connections_never_exceed_the_limit(lab: Lab) -> None:
    """An idle connection to one endpoint makes room for one to another."""
    one, first = await lab.origin(polite)
    two, second = await lab.origin(polite)
    upstream = lab.upstream(first, second, max_connections=1)
    for _ in range(4):
        await upstream.send(request())
        assert len(upstream.pool._open - set(upstream.pool._idle[0] + upstream.pool._idle[1])) <= 1
        assert upstream.status()["idle"] == 1
    assert (len(one.peers), len(two.peers)) == (2, 2)


# Deadlines.


async def test_no_head_within_response_timeout(lab: Lab) -> None:
    _, upstream = await lab.pair(silent, response_timeout=0.05)
    began = time.monotonic()
    await fails(upstream.send(request()), "timeout", sent=True)
    assert 0.04 < time.monotonic() - began < 10
    assert upstream.status()["busy"] == upstream.status()["idle"] == 0


async def test_a_trickling_head_does_not_extend_response_timeout(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10000:
            await peer.say(bytes([byte]))
            await asyncio.sleep(0.005)

    _, upstream = await lab.pair(script, response_timeout=0.1)
    await fails(upstream.send(request()), "timeout", sent=True)


async def test_response_timeout_and_deadline_do_not_count_the_clients_upload(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await asyncio.sleep(1.5)
        gate.set()
        await peer.take(2)
        await asyncio.sleep(0.1)
        await peer.say(OK)
        await peer.gone()

    gate = asyncio.Event()
    _, upstream = await lab.pair(script, response_timeout=1.0, deadline=1.2)
    reply = await upstream.send(request("POST", body=Body(gate, b"ab", length=2)))
    assert reply.body == b"ok"


async def test_the_clock_looks_earlier_where_something_is_due_earlier(lab: Lab) -> None:
    """After an upload little of the deadline may be left: less than the clock's next look."""
    _, upstream = await lab.pair(silent)
    asking = asyncio.create_task(upstream.send(request()))
    # Not only until the origin has accepted: what is sent after that sets `due` anew.
    await settled(lambda: any(call.phase == WAITING for call in upstream.pool._calls))
    (call,) = upstream.pool._calls
    call.due = asyncio.get_running_loop().time() + 0.01
    upstream.pool.hasten(call.due)
    began = time.monotonic()
    await fails(asking, "timeout", sent=True)
    assert time.monotonic() - began < 10  # and not when it was due at first


async def test_an_upstream_that_stops_taking_the_request_times_out(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await over.wait()

    over = asyncio.Event()
    _, upstream = await lab.pair(script, response_timeout=0.1)
    body = Body(*[bytes(65536)] * 400, length=400 * 65536)
    await fails(upstream.send(request("POST", body=body)), "timeout", sent=True)
    over.set()


async def test_the_deadline_covers_queueing(lab: Lab) -> None:
    _, upstream = await lab.pair(silent, max_connections=1, deadline=0.05)
    asking = [upstream.send(request()) for _ in range(2)]
    errors = await asyncio.gather(*asking, return_exceptions=True)
    first, second = (getattr(error, "reason", error) for error in errors)
    assert first == "deadline"
    # It waited for the gateway, unless it got the other's place just before its own end.
    assert second in ("queue_timeout", "deadline")
    assert upstream.status()["in_flight"] == upstream.status()["busy"] == 0


async def test_the_deadline_covers_the_wait_for_the_head(lab: Lab) -> None:
    _, upstream = await lab.pair(silent, deadline=0.3)
    await fails(upstream.send(request()), "deadline", sent=True)


async def test_a_stalled_body_is_cut_after_read_timeout(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na")
        await peer.gone()

    _, upstream = await lab.pair(script, read_timeout=0.6, deadline=0.5)
    reply = await upstream.send(request())
    assert reply.stream is not None
    assert await reply.stream.read() == b"a"
    began = time.monotonic()
    with pytest.raises(StreamCut):
        await reply.stream.read()
    assert 0.5 < time.monotonic() - began < 10
    assert upstream.status()["busy"] == 0


async def test_read_timeout_is_between_reads_and_a_slow_reader_is_not_a_stall(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        for _ in range(5):
            await asyncio.sleep(0.25)
            await peer.say(b"x")
        await peer.gone()

    _, upstream = await lab.pair(script, read_timeout=1.0)
    reply = await upstream.send(request())
    assert reply.stream is not None
    assert await reply.stream.read() == b"x"
    await asyncio.sleep(1.2)
    assert await drink(reply.stream) == b"xxxx"


# Connecting.


def refusing_endpoint() -> Endpoint:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Endpoint("http", "127.0.0.1", probe.getsockname()[1], "")


async def test_a_refused_connection(lab: Lab) -> None:
    upstream = lab.upstream(refusing_endpoint())
    await fails(upstream.send(request()), "connect_error", sent=False)
    assert upstream.status()["in_flight"] == upstream.status()["busy"] == 0


async def test_a_missing_unix_socket(lab: Lab, tmp_path: Path) -> None:
    upstream = lab.upstream(Endpoint("http", "localhost", 80, "", socket=str(tmp_path / "none")))
    await fails(upstream.send(request()), "connect_error", sent=False)


@contextlib.contextmanager
def full_backlog() -> Any:
    """An endpoint whose connections are never accepted nor refused."""
    with socket.socket() as listener, contextlib.ExitStack() as fillers:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        yield Endpoint("http", *address, "")


async def test_connecting_ends_at_connect_timeout(lab: Lab) -> None:
    with full_backlog() as endpoint:
        upstream = lab.upstream(endpoint, connect_timeout=0.05)
        await fails(upstream.send(request()), "connect_error", sent=False)


async def test_the_deadline_covers_connecting(lab: Lab) -> None:
    with full_backlog() as endpoint:
        upstream = lab.upstream(endpoint, deadline=0.05)
        await fails(upstream.send(request()), "deadline", sent=False)
        assert upstream.status()["in_flight"] == upstream.status()["busy"] == 0


@pytest.mark.parametrize(("deadline", "patience"), [(0.05, None), (20.0, 0.05)])
async def test_a_connect_that_had_little_time_ejects_nobody(
    lab: Lab, deadline: float, patience: float | None
) -> None:
    """The deadline of one that had its time is as good as a connect_timeout: it ejects."""
    with full_backlog() as endpoint:
        upstream = lab.upstream(endpoint, deadline=deadline)
        asked = request()
        asked.patience = patience
        await fails(upstream.send(asked), "deadline", sent=False)
        (shown,) = upstream.status()["endpoints"]  # type: ignore[misc]
        assert (shown["avoided_s"] > 0) == (patience is None)


class Names:
    """A resolver that gives these answers one after the other, the last one for good."""

    def __init__(self, upstream: HttpUpstream, *answers: list[str] | OSError) -> None:
        self.answers = list(answers)
        self.asked = 0
        for addresses in upstream.pool._addresses:
            addresses.lookup = self

    async def __call__(self, host: str) -> list[str]:
        assert host == "api.test"
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await asyncio.sleep(0)
        if isinstance(answer, OSError):
            raise answer
        return answer


async def test_every_address_is_used_and_the_next_one_is_the_fallback(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        local.append(peer.writer.get_extra_info("sockname")[0])
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    local: list[str] = []
    _, one = await lab.origin(script)
    await lab.origin(script, host="127.0.0.3", port=one.port)
    upstream = lab.upstream(Endpoint("http", "api.test", one.port, ""))
    Names(upstream, ["127.0.0.1", "127.0.0.2", "127.0.0.3"])
    for _ in range(6):  # 127.0.0.2 refuses: its turns go to 127.0.0.3
        await upstream.send(request())
    assert local == ["127.0.0.1", "127.0.0.3", "127.0.0.3"] * 2


async def test_names_are_looked_up_again_and_old_addresses_leave(lab: Lab) -> None:
    _, endpoint = await lab.origin(polite)
    upstream = lab.upstream(Endpoint("http", "api.test", endpoint.port, ""), dns_refresh=0.02)
    names = Names(upstream, ["127.0.0.1"], OSError("down"), ["127.0.0.9"])
    await upstream.send(request())
    assert upstream.status()["idle"] == 1
    await settled(lambda: names.asked >= 2)
    assert (await upstream.send(request())).body == b"ok"  # the last good answer stands
    await settled(lambda: upstream.status()["idle"] == 0)
    await fails(upstream.send(request()), "connect_error", sent=False)


async def test_a_name_that_never_resolved_is_a_connect_error_and_is_asked_again(lab: Lab) -> None:
    _, endpoint = await lab.origin(polite)
    upstream = lab.upstream(Endpoint("http", "api.test", endpoint.port, ""))
    Names(upstream, OSError("no such name"), ["127.0.0.1"])
    await fails(upstream.send(request()), "connect_error", sent=False)
    assert (await upstream.send(request())).body == b"ok"


async def test_localhost_resolves(lab: Lab) -> None:
    _, endpoint = await lab.origin(polite)
    upstream = lab.upstream(Endpoint("http", "localhost", endpoint.port, ""))
    assert (await upstream.send(request())).body == b"ok"


# TLS.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    return context


def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


async def test_tls_with_an_own_ca_and_reuse(
    lab: Lab, authority: trustme.CA, tmp_path: Path
) -> None:
    origin, endpoint = await lab.origin(polite, tls=server_context(authority, "127.0.0.1"))
    upstream = lab.upstream(endpoint, tls=UpstreamTls(ca=ca_file(authority, tmp_path)))
    for _ in range(3):
        assert (await upstream.send(request())).body == b"ok"
    assert len(origin.peers) == 1


async def test_tls_sends_and_checks_server_name(
    lab: Lab, authority: trustme.CA, tmp_path: Path
) -> None:
    asked: list[str | None] = []
    context = server_context(authority, "api.example.com")
    context.sni_callback = lambda conn, name, ctx: asked.append(name)
    _, endpoint = await lab.origin(polite, tls=context)
    ca = ca_file(authority, tmp_path)
    upstream = lab.upstream(endpoint, tls=UpstreamTls(ca=ca, server_name="api.example.com"))
    assert (await upstream.send(request())).body == b"ok"
    assert asked == ["api.example.com"]
    stranger = lab.upstream(endpoint, tls=UpstreamTls(ca=ca))
    await fails(stranger.send(request()), "connect_error", sent=False)


async def test_tls_refuses_an_unknown_ca_unless_told_not_to_verify(
    lab: Lab, authority: trustme.CA
) -> None:
    _, endpoint = await lab.origin(polite, tls=server_context(authority, "elsewhere.test"))
    await fails(lab.upstream(endpoint).send(request()), "connect_error", sent=False)
    careless = lab.upstream(endpoint, tls=UpstreamTls(verify=False))
    assert (await careless.send(request())).body == b"ok"


async def test_tls_client_certificate(lab: Lab, authority: trustme.CA, tmp_path: Path) -> None:
    context = server_context(authority, "127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    _, endpoint = await lab.origin(polite, tls=context)
    mine = authority.issue_cert("gateway@example.com")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    mine.cert_chain_pems[0].write_to_path(str(cert))
    mine.private_key_pem.write_to_path(str(key))
    ca = ca_file(authority, tmp_path)
    upstream = lab.upstream(endpoint, tls=UpstreamTls(ca=ca, cert=cert, key=key))
    assert (await upstream.send(request())).body == b"ok"
    with pytest.raises(UpstreamError):  # TLS 1.3 tells only after the handshake
        await lab.upstream(endpoint, tls=UpstreamTls(ca=ca)).send(request())


# Balance.


async def test_requests_go_by_weight(lab: Lab) -> None:
    counts = [0, 0]

    def counting(index: int) -> Any:
        async def script(peer: Peer) -> None:
            while await peer.head():
                counts[index] += 1
                await peer.say(OK)

        return script

    _, one = await lab.origin(counting(0))
    _, two = await lab.origin(counting(1))
    heavy = Endpoint("http", "127.0.0.1", two.port, "", weight=3)
    upstream = lab.upstream(one, heavy)
    for _ in range(12):
        await upstream.send(request())
    assert counts == [3, 9]


async def test_least_requests_avoids_the_busy_endpoint(lab: Lab) -> None:
    slow, one = await lab.origin(silent)
    fast, two = await lab.origin(polite)
    upstream = lab.upstream(one, two, balance="least_requests")
    stuck = asyncio.create_task(upstream.send(request()))
    await settled(lambda: len(slow.peers) == 1)
    for _ in range(5):
        assert (await upstream.send(request())).body == b"ok"
    assert (len(slow.peers), len(fast.peers)) == (1, 1)
    stuck.cancel()
    await asyncio.gather(stuck, return_exceptions=True)
    endpoints = upstream.status()["endpoints"]
    assert [endpoint["in_flight"] for endpoint in endpoints] == [0, 0]  # type: ignore[attr-defined]


# Bounds.


async def test_a_large_download_with_a_slow_reader_stays_within_the_bound(lab: Lab) -> None:
    size = 50 * 1000 * 1000

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        piece = bytes(100_000)
        for _ in range(size // len(piece)):
            await peer.say(piece)
        await peer.gone()

    _, upstream = await lab.pair(script)
    reply = await upstream.send(request())
    stream = reply.stream
    assert stream is not None
    assert reply.length == size
    got = most = reads = 0
    while piece := await stream.read():
        got += len(piece)
        reads += 1
        most = max(most, len(piece))
        if reads % 20 == 0:
            for _ in range(30):  # everybody else goes on; what we hold must not grow
                await asyncio.sleep(0)
            most = max(most, stream.parser.size)  # type: ignore[attr-defined]
    assert got == size
    assert most <= 2 * HIGH_WATER
    assert upstream.status()["idle"] == 1


async def test_500_aborts_leave_no_file_descriptor_behind(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        if "/answered" in await peer.head():
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc")
        await peer.gone()

    _, upstream = await lab.pair(script, max_connections=40)
    before = len(tcp_sockets())

    async def abort(number: int) -> None:
        answered = number % 3 == 0
        asking = asyncio.create_task(
            upstream.send(request(target="/answered" if answered else "/"))
        )
        for _ in range(number % 13):
            await asyncio.sleep(0)
        if number % 2 or not answered:
            asking.cancel()
        try:
            reply = await asking
        except asyncio.CancelledError:
            return
        assert reply.stream is not None
        if number % 4:
            await reply.stream.read()
        reply.stream.close()

    for start in range(0, 500, 50):
        await asyncio.gather(*(abort(number) for number in range(start, start + 50)))
    status = upstream.status()
    assert (status["in_flight"], status["busy"], status["waiting"], status["idle"]) == (0, 0, 0, 0)
    await settled(lambda: len(tcp_sockets()) <= before)


async def test_closing_ends_requests_in_flight(lab: Lab) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        if peer.number:
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na")
        await peer.gone()

    origin, upstream = await lab.pair(script)
    asking = asyncio.create_task(upstream.send(request()))
    await settled(lambda: len(origin.peers) == 1)
    reply = await upstream.send(request())
    await upstream.close()
    await fails(asking, "reset", sent=True)
    assert reply.stream is not None
    assert await reply.stream.read() == b"a"
    with pytest.raises(StreamCut):
        await reply.stream.read()
    await fails(upstream.send(request()), "connect_error", sent=False)
    assert upstream.status()["in_flight"] == upstream.status()["busy"] == 0


async def test_a_small_exchange_needs_no_task(lab: Lab) -> None:
    """`send` may be driven by hand until it first waits."""
    _, upstream = await lab.pair(polite)
    await upstream.send(request())
    created: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_task_factory(
        lambda loop, coro, **kw: created.append(coro) or asyncio.Task(coro, loop=loop, **kw)
    )
    reply = await upstream.send(request("POST", body=Body(b"hello", length=5)))
    loop.set_task_factory(None)
    assert reply.status == 200
    assert created == []
