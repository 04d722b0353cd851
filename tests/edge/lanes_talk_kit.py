"""What clients say to a gateway that has two lanes, and all that is to be heard of it: by them, by
the origin, in the access log and in the counts."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from edge_kit import Running, StartGateway, StartOrigin
from lanes_kit import Gate, Way, ask, start, until
from rawhttp import Cut, Seen

from proxy.edge import protocol
from proxy.edge.protocol import GatewayProtocol
from proxy.edge.server import Front

GET = ask("/o/a")
POST = ask("/o/p", "Content-Length: 5", method="POST") + b"hello"
CHUNKED = ask("/o/p", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n0\r\n\r\n"

Step = tuple[tuple[bytes, ...], tuple[str, ...]]
"""Pieces, each read by itself, and the methods of the answers that are read then."""


def each(*requests: bytes) -> list[Step]:
    """One after the other."""
    return [((data,), (data.split(b" ")[0].decode(),)) for data in requests]


SCENARIOS: dict[str, list[Step]] = {
    "one after the other": each(GET, GET, ask("/o/b?q=1&r", "X-A: 1", "x-a: 2")),
    "a pair in one write": [((GET + ask("/o/b"),), ("GET", "GET"))],
    "a pair of which one is local": [((ask("/none") + GET,), ("GET", "GET"))],
    "many in one write": [((GET * 40,), ("GET",) * 40)],
    "a head in two reads": [((GET[:20], GET[20:]), ("GET",)), *each(GET)],
    "a head cut in its end": [((GET[:-1], GET[-1:]), ("GET",)), *each(GET)],
    "a head and a part of the next": [((GET + GET[:20], GET[20:]), ("GET", "GET")), *each(GET)],
    "simple, chunked, simple": each(GET, CHUNKED, GET),
    "simple, upload, simple": each(GET, POST, GET, POST),
    "an upload in two reads": [*each(GET), ((POST[:-2], POST[-2:]), ("POST",)), *each(GET)],
    "an upload and a request": [((POST + GET,), ("POST", "GET")), *each(GET)],
    "an end that is asked for": each(GET, ask("/o/b", "Connection: close")),
    "an end that is asked for, and more": [((ask("/o/b", "Connection: close") + GET,), ("GET",))],
    "HTTP/1.0": each(GET.replace(b"1.1", b"1.0")),
    "HTTP/1.0 that stays": each(ask("/o/b", "Connection: keep-alive").replace(b"1.1", b"1.0"), GET),
    "empty lines before": [((b"\r\n" + GET,), ("GET",)), *each(GET)],
    "no length": each(ask("/o/a", "Content-Length: 0", method="POST"), GET),
    "other methods": each(ask("/o/a", method="DELETE"), ask("/o/a", method="BREW"), GET),
    "HEAD": each(ask("/c/a", method="HEAD"), ask("/c/a"), ask("/c/a", method="HEAD"), GET),
    "OPTIONS *": each(ask("*", method="OPTIONS"), GET),
    "TRACE": each(ask("/o/a", method="TRACE")),
    "absolute form": each(ask("http://b/o/a"), GET),
    "expects, without a body": each(ask("/o/a", "Expect: 100-continue"), GET),
    "an upgrade that is declined": each(
        ask("/o/a", "Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"), GET
    ),
    "connection options": each(ask("/o/a", "Connection: x-a", "X-A: 1"), GET),
    "hints": [((ask("/o/hints"),), ("GET", "GET")), *each(GET)],
    "chunks from upstream": each(ask("/o/chunked"), GET),
    "an upstream that closes": each(ask("/o/closing"), GET),
    "odd answers": each(ask("/o/odd"), ask("/o/empty"), ask("/o/ill"), GET),
    "an answer that is cut": each(GET, ask("/o/cut")),
    "no route": each(ask("/none"), GET, ask("/o/%zz"), ask("/o/../../x")),
    "health": each(ask("/-/ready"), GET),
    "a miss and hits": each(ask("/c/a"), ask("/c/a"), ask("/c/a", "Range: bytes=1-2")),
    "a condition": each(ask("/c/a"), ask("/c/a", 'If-None-Match: "v1"'), ask("/c/a")),
    "hits in one write": [*each(ask("/c/a")), ((ask("/c/a") * 3,), ("GET",) * 3)],
    "large hits": each(ask("/c/large"), ask("/c/large"), ask("/c/large"), GET),
    "only if cached": each(ask("/c/a", "Cache-Control: only-if-cached"), ask("/c/a")),
    "a limit": each(*[ask("/l/a")] * 4, ask("/l/b"), GET),
    "a limit that is hammered at": each(*[ask("/l/c")] * 8, *[ask("/l/c", method="HEAD")] * 5, GET),
    "a limit in one write": [((ask("/l/a") * 4,), ("GET",) * 4)],
    "a limit on an upload": each(ask("/l/a"), POST.replace(b"/o/p", b"/l/a"), ask("/l/a")),
    "no Host": each(GET, b"GET /o/a HTTP/1.1\r\n\r\n"),
    "a bad Host": each(GET, b"GET /o/a HTTP/1.1\r\nHost: a@b\r\n\r\n"),
    "two Hosts": each(GET, ask("/o/a", "Host: a")),
    "two framings": each(GET, ask("/o/a", "Content-Length: 0", "Transfer-Encoding: chunked")),
    "bare newlines": each(GET, GET.replace(b"\r\n", b"\n", 1)),
    "a NUL": each(GET, ask("/o/a", "X-A: \0")),
    "obsolete folding": each(GET, ask("/o/a", "X-A: 1\r\n 2")),
    "another version": each(GET, GET.replace(b"1.1", b"2.0")),
    "no HTTP": each(GET, b"\x16\x03\x01\r\n\r\n"),
    "a head that is too large": each(GET, ask("/o/a", f"X-A: {'x' * 4096}")),
    "the largest head": each(ask("/o/a", "X-A: " + "x" * (4096 - len(ask("/o/a", "X-A: ")) + 3))),
    "a head one byte larger": each(
        ask("/o/a", "X-A: " + "x" * (4096 - len(ask("/o/a", "X-A: ")) + 4))
    ),
    "too many lines": each(GET, ask("/o/a", *["A: b"] * 300)),
}

_OF_THE_MOMENT = re.compile(
    rb"(?im)^(date|x-request-id|retry-after): [^\r]*|(?<=;t=)\d+|(?<=ttl=)\d+|^age: \d+|\d+(?= s\.)"
)
_IN_JSON = re.compile(rb'"(request_id|instance)": ?"[^"]*"|\["(?i:x-request-id)", "[^"]*"\]')


def timeless(data: bytes) -> bytes:
    """Without what differs from one request to the next."""
    ids = re.findall(rb"(?im)^x-request-id: ([^\r]+)", data)
    for one in ids:
        data = data.replace(one, b"ID")
    return _IN_JSON.sub(b"ID", _OF_THE_MOMENT.sub(rb"\1", data))


async def talk(running: Running, way: Way, steps: list[Step]) -> list[bytes]:
    """What a client gets; at the end, whether the connection is still of use."""
    got: list[bytes] = []
    client, conn = await way.open(running)
    async with client:
        try:
            for pieces, methods in steps:
                for number, piece in enumerate(pieces):
                    if number:
                        await until(lambda: not conn._intake.at_boundary)
                    await client.send(piece)
                for method in methods:
                    answer = await client.read_answer(method)
                    got.append(timeless(answer.head + b"\n" + answer.body))
        except (Cut, ConnectionError):
            return [*got, b"cut"]
        try:
            got.append(timeless((await client.ask(ask("/-/ready"))).head))
        except (Cut, ConnectionError):
            got.append(b"closed")
    return got


def told(out: str) -> list[dict[str, Any]]:
    """The access log, without what differs from one request to the next."""
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    apart = ("time", "duration_ms", "request_id")
    return [{key: value for key, value in line.items() if key not in apart} for line in lines]


def counted(running: Running) -> dict[str, dict[Any, int]]:
    """Requests by route, method and status."""
    return {name: dict(t.requests) for name, t in running.gateway.metrics.routes.items()}


async def all_said(running: Running, way: Way) -> list[tuple[str, list[bytes]]]:
    """What clients get in each scenario, each with keys of its own in caches and limits."""
    said = []
    for number, (name, steps) in enumerate(SCENARIOS.items()):
        own = [
            (tuple(re.sub(rb"( /[cl]/\w+) ", rb"\1?n=%d " % number, p) for p in pieces), methods)
            for pieces, methods in steps
        ]
        said.append((name, await talk(running, way, own)))
    return said


def taken(patch: pytest.MonkeyPatch) -> list[bool]:
    """Of each read from now on, whether the express lane took it."""
    took: list[bool] = []
    whole = GatewayProtocol._takes_express

    def takes(self: GatewayProtocol, data: bytes) -> bool:
        took.append(whole(self, data))
        return took[-1]

    patch.setattr(GatewayProtocol, "_takes_express", takes)
    return took


@dataclass
class Heard:
    """Of one lane, all that is to be heard."""

    said: list[tuple[str, list[bytes]]]
    upstream: list[Seen]
    log: list[dict[str, Any]]
    counts: dict[str, dict[Any, int]]
    took: list[bool]


class Listening:
    """Has all scenarios played, and listens at every end."""

    def __init__(
        self, folder: Path, start_gateway: StartGateway, start_origin: StartOrigin
    ) -> None:
        self._folder = folder
        self._start_gateway = start_gateway
        self._start_origin = start_origin

    async def to(
        self, express: bool, capfd: pytest.CaptureFixture[str], store: str, way: Way
    ) -> Heard:
        """To a gateway with the express lane, or without."""
        origin = await self._start_origin(Gate())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Front, "express", express)
            # TLS has no half-close that would have a refused client go at once.
            patch.setattr(protocol, "LINGERING", 0.02)
            took = taken(patch)
            running = await start(
                self._start_gateway,
                origin,
                self._folder,
                store=store,
                prefix=f"e{express}",
                way=way,
            )
            said = await all_said(running, way)
            await running.gateway.stop()
        for seen in origin.seen:
            seen.lines = [line for line in seen.lines if line[0] != "X-Request-Id"]
        return Heard(said, origin.seen, told(capfd.readouterr().out), counted(running), took)


def same(express: Heard, queue: Heard) -> None:
    """Asserts that the lanes differ in nothing, and were two."""
    for (name, one), (_, other) in zip(express.said, queue.said, strict=True):
        for place, (this, that) in enumerate(zip(one, other, strict=True)):
            assert this == that, (name, place)
    assert express.upstream == queue.upstream
    assert express.log == queue.log
    assert express.counts == queue.counts
    assert len(express.log) > len(SCENARIOS)  # the access log was on
    assert sum(express.took) > len(SCENARIOS)
    assert not any(queue.took)
