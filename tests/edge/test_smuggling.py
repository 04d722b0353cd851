"""What must never be forwarded: every ambiguous message, on the wire (RFC 9112, hard edges)."""

import pytest
from edge_kit import StartGateway, StartOrigin
from rawhttp import Wire, echo

HOST = "Host: a\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"

REFUSED = [
    ("cl-and-te", f"POST / HTTP/1.1\r\n{HOST}Content-Length: 5\r\n{CHUNKED}\r\n0\r\n\r\n", 400),
    ("te-gzip", f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip\r\n\r\n", 400),
    ("te-on-1.0", f"POST / HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("http-2.0", f"GET / HTTP/2.0\r\n{HOST}\r\n", 400),
    ("no-host", "GET / HTTP/1.1\r\n\r\n", 400),
    ("two-hosts", f"GET / HTTP/1.1\r\n{HOST}{HOST}\r\n", 400),
    ("host-userinfo", "GET / HTTP/1.1\r\nHost: a@evil\r\n\r\n", 400),
    ("host-slash", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("host-space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("host-query", "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", 400),
    ("fragment", f"GET /a#b HTTP/1.1\r\n{HOST}\r\n", 400),
    ("nul", f"GET / HTTP/1.1\r\n{HOST}A: b\0\r\n\r\n", 400),
    ("obs-fold", f"GET / HTTP/1.1\r\n{HOST}A: b\r\n c\r\n\r\n", 400),
    ("bare-lf", "GET / HTTP/1.1\nHost: a\n\n", 400),
    ("tls-on-plain-port", "\x16\x03\x01\x02\0\x01", 400),
    ("dot-segment", f"GET /a/../b HTTP/1.1\r\n{HOST}\r\n", 400),
    ("encoded-dot-segment", f"GET /a/%2e%2E/b HTTP/1.1\r\n{HOST}\r\n", 400),
    ("dot-segment-params", f"GET /a/..;x/b HTTP/1.1\r\n{HOST}\r\n", 400),
    ("backslash", f"GET /a\\b HTTP/1.1\r\n{HOST}\r\n", 400),
    ("encoded-backslash", f"GET /a%5Cb HTTP/1.1\r\n{HOST}\r\n", 400),
    ("encoded-nul", f"GET /a%00 HTTP/1.1\r\n{HOST}\r\n", 400),
    ("connect", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
    ("trace", f"TRACE / HTTP/1.1\r\n{HOST}\r\n", 405),
    ("long-target", f"GET /{'a' * 8300} HTTP/1.1\r\n{HOST}\r\n", 414),
    ("long-head", f"GET / HTTP/1.1\r\n{HOST}A: {'b' * 40000}\r\n\r\n", 431),
    ("many-fields", f"GET / HTTP/1.1\r\n{HOST}{'A: b' + chr(13) + chr(10)}" * 101 + "\r\n", 400),
    ("over-100-fields", f"GET / HTTP/1.1\r\n{HOST}" + "A: b\r\n" * 100 + "\r\n", 431),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "wire", "status"), REFUSED, ids=[row[0] for row in REFUSED])
async def test_refused_on_the_wire(
    rule: str, wire: str, status: int, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(echo)
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        answer = await client.ask(wire, method="GET")
        assert answer.status == status
        assert answer.get("content-type") == "application/problem+json"
        assert answer.get("cache-control") == "no-store"
        assert answer.json()["status"] == status
        if status != 405 and "dot" not in rule and "slash" not in rule and rule != "encoded-nul":
            assert answer.get("connection") == "close"
            assert await client.closed()
    assert not origin.seen


async def test_what_follows_a_refused_head_is_never_a_request(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(echo)
    running = await start_gateway(origin)
    smuggled = (
        f"POST / HTTP/1.1\r\n{HOST}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n"
        f"0\r\n\r\nGET /admin HTTP/1.1\r\n{HOST}\r\n"
    )
    async with await Wire.open(running.port) as client:
        assert (await client.ask(smuggled)).status == 400
        assert await client.closed()
    assert not origin.seen


@pytest.mark.parametrize("target", ["a:80", "/a"])
async def test_what_follows_a_refused_connect_is_never_a_request(
    target: str, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(echo)
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        await client.send(
            f"CONNECT {target} HTTP/1.1\r\n{HOST}\r\nGET /evil HTTP/1.1\r\n{HOST}\r\n"
        )
        answer = await client.read_answer()
        assert (answer.status, answer.get("connection")) == (405, "close")
        assert await client.closed()
    assert not origin.seen


BODIES = [
    ("0x", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("sign", "+5\r\nhello\r\n0\r\n\r\n"),
    ("underscore", "1_0\r\nhello\r\n0\r\n\r\n"),
    ("no-crlf-after-data", "5\r\nhelloX\r\n0\r\n\r\n"),
    ("bare-lf-size", "5\nhello\r\n0\r\n\r\n"),
    ("bare-cr-in-extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("huge-size", "FFFFFFFFFFFFFFFFF\r\n"),
    ("endless-extension", "1;" + "a" * 20000 + "\r\nx\r\n0\r\n\r\n"),
    ("endless-trailers", "0\r\n" + "A: b\r\n" * 5000 + "\r\n"),
]


@pytest.mark.parametrize(("rule", "body"), BODIES, ids=[row[0] for row in BODIES])
async def test_a_malformed_chunked_body_is_400_and_never_finished_upstream(
    rule: str, body: str, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(echo)
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        await client.send(f"POST /up HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{body}")
        answer = await client.read_answer("POST")
        assert answer.status == 400
        assert answer.get("connection") == "close"
    assert all(seen.body == b"" for seen in origin.seen)


async def test_upstream_requests_have_one_framing_of_ours(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(echo)
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        await client.ask(
            f"POST /c HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nTE: trailers\r\n\r\n"
            "3;ext=1\r\nabc\r\n0\r\nX-Trailer: t\r\n\r\n"
        )
        await client.ask(f"POST /l HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\nabc")
        await client.ask(f"GET /b HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\nabc")
    chunked, length, get = origin.seen
    assert (chunked.all("transfer-encoding"), chunked.all("content-length")) == (["chunked"], [])
    assert (length.all("transfer-encoding"), length.all("content-length")) == ([], ["3"])
    assert (get.all("transfer-encoding"), get.all("content-length")) == ([], ["3"])
    assert [seen.body for seen in origin.seen] == [b"abc"] * 3
    assert not any(seen.all("x-trailer") or seen.all("te") for seen in origin.seen)


async def test_raw_bytes_are_forwarded_and_routed_as_they_came(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin = await start_origin(echo)
    running = await start_gateway(origin)
    async with await Wire.open(running.port) as client:
        for target in ("/a%", "/a%2Fb//c/", "/a?b=%zz&?", "/\xc3\xa9?\xff", "/a?", "/a{b}|c"):
            await client.ask(f"GET {target} HTTP/1.1\r\n{HOST}X: \xe9\xff\r\n\r\n")
            assert origin.seen[-1].target == target
            assert origin.seen[-1].get("x") == "\xe9\xff"
