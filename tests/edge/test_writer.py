"""The bytes of a reply: text that was made when it was stored is written as its lines would be."""

import asyncio
from typing import Any

import pytest

from proxy.core.fields import Lines, written
from proxy.core.message import Reply
from proxy.edge.writer import ClientGone, write_at_once, write_reply

LINES: Lines = [("X", "\xe9"), ("dAtE", "Sun, 06 Nov 1994 08:49:37 GMT"), ("Empty", "")]


class Sink(asyncio.Transport):
    """A connection that keeps what is written."""

    def __init__(self) -> None:
        self.taken = b""

    def write(self, data: Any) -> None:
        self.taken += data


class Client:
    """An `Outlet` whose client takes everything at once."""

    def __init__(self) -> None:
        self.sink = Sink()
        self.transport: asyncio.Transport | None = self.sink
        self.drained = 0

    async def drain(self) -> None:
        self.drained += 1


def sent(reply: Reply, method: str = "GET", *, close: bool = False) -> bytes:
    client = Client()
    with pytest.raises(StopIteration):
        write_reply(client, reply, method, 11, close).send(None)
    return client.sink.taken


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("status", "reason"), [(200, "OK"), (200, "Fine"), (204, ""), (404, "Not Found"), (299, "")]
)
def test_text_and_lines_are_the_same_bytes(
    status: int, reason: str, method: str, close: bool
) -> None:
    def reply(head: Lines | str) -> Reply:
        return Reply(status, head, b"body", 4, reason, True)

    assert sent(reply(written(LINES)), method, close=close) == sent(
        reply(LINES), method, close=close
    )


def test_what_is_written() -> None:
    assert sent(Reply(200, "Date: then\r\nA: \xe9\r\n", b"body", reason="Fine", origin=True)) == (
        b"HTTP/1.1 200 Fine\r\nDate: then\r\nA: \xe9\r\nContent-Length: 4\r\n\r\nbody"
    )


@pytest.mark.parametrize("given", [[("Dates", "1")], "Dates: 1\r\n"])
def test_a_date_is_added_where_there_is_none(given: Lines | str) -> None:
    head = sent(Reply(404, given, b"")).decode().split("\r\n")
    assert head[:2] == ["HTTP/1.1 404 Not Found", "Dates: 1"]
    assert head[2].startswith("Date: ")
    assert head[2].endswith(" GMT")
    assert head[3:] == ["Content-Length: 0", "", ""]


class Stream:
    """A body that is not there yet."""

    def __init__(self) -> None:
        self.pieces = [b"bo", b"dy", b""]

    async def read(self) -> bytes:
        return self.pieces.pop(0)

    def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(("size", "drained"), [(0, 0), (65536, 0), (65537, 1)])
def test_a_large_body_waits_for_its_client(size: int, drained: int) -> None:
    client, reply = Client(), Reply(200, "Date: then\r\n", b"x" * size)
    at_once = write_at_once(client.sink, reply, "GET", close=False)
    assert (at_once, client.sink.taken == b"") == ((None, True) if drained else (size, False))
    client = Client()
    with pytest.raises(StopIteration) as ended:
        write_reply(client, reply, "GET", 11, False).send(None)
    assert ended.value.value == size
    assert client.sink.taken.endswith(b"Content-Length: %d\r\n\r\n%b" % (size, b"x" * size))
    assert client.drained == drained


@pytest.mark.parametrize(
    ("length", "version", "tail"),
    [
        (4, 11, b"Content-Length: 4\r\n\r\nbody"),
        (None, 11, b"Transfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n"),
        (None, 10, b"Connection: close\r\n\r\nbody"),
    ],
)
def test_a_stream_is_never_written_at_once(length: int | None, version: int, tail: bytes) -> None:
    client = Client()
    reply = Reply(200, "Date: then\r\n", length=length, stream=Stream(), origin=True)
    assert write_at_once(client.sink, reply, "GET", close=False) is None
    assert client.sink.taken == b""
    with pytest.raises(StopIteration) as ended:
        write_reply(client, reply, "GET", version, False).send(None)
    assert ended.value.value == 4
    assert client.sink.taken == b"HTTP/1.1 200 OK\r\nDate: then\r\n" + tail


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304), ("GET", 204)])
def test_a_stream_that_nobody_gets_is_not_waited_for(method: str, status: int) -> None:
    client = Client()
    reply = Reply(status, "Date: then\r\n", stream=Stream(), origin=True)
    assert write_at_once(client.sink, reply, method, close=False) == 0
    assert client.sink.taken.endswith(b"Date: then\r\n\r\n")


def test_a_client_that_is_gone() -> None:
    client = Client()
    client.transport = None
    with pytest.raises(ClientGone):
        write_reply(client, Reply(200, []), "GET", 11, False).send(None)
