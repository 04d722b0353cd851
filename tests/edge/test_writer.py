"""The bytes of a reply: text that was made when it was stored is written as its lines would be."""

import asyncio
from typing import Any

import pytest

from proxy.core.fields import Lines, written
from proxy.core.message import Reply
from proxy.edge.writer import write_reply

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

    async def drain(self) -> None:
        """There is always room."""


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
    assert sent(Reply(200, "Date: then\r\nA: \xe9\r\n", b"body", reason="Fine")) == (
        b"HTTP/1.1 200 Fine\r\nDate: then\r\nA: \xe9\r\nContent-Length: 4\r\n\r\nbody"
    )


def test_a_date_is_added_where_there_is_none() -> None:
    head = sent(Reply(404, [("Dates", "1")], b"")).decode().split("\r\n")
    assert head[:2] == ["HTTP/1.1 404 Not Found", "Dates: 1"]
    assert head[2].startswith("Date: ")
    assert head[2].endswith(" GMT")
    assert head[3:] == ["Content-Length: 0", "", ""]
