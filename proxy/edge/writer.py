"""A Reply, as bytes: the head, one framing, and the body with back-pressure (RFC 9112 §6, §7)."""

import asyncio
import socket
import struct
from functools import lru_cache
from http import HTTPStatus
from time import time
from typing import Final, Protocol

from proxy.core.dates import imf_fixdate
from proxy.core.fields import Lines, written
from proxy.core.message import Reply, ReplyStream
from proxy.exchange import Refusal

_REASONS: Final = {int(status): status.phrase for status in HTTPStatus}
_STATUS_LINES: Final = {
    status: f"HTTP/1.1 {status} {reason}\r\n" for status, reason in _REASONS.items()
}
_LARGE: Final = 65536
"""Bytes of a body after which its client has to take some before anything else is done."""
_LAST_CHUNK: Final = b"0\r\n\r\n"
_shared = lru_cache(256)(bytes)
"""The first one of equal texts: what is refused alike is kept once."""
_LINGER_RESET: Final = struct.pack("ii", 1, 0)


class ClientGone(Exception):
    """The client's connection ended, or took no byte for too long, before the answer was out."""


class Outlet(Protocol):
    """The client connection as the writer needs it."""

    transport: asyncio.Transport | None

    async def drain(self) -> None:
        """Waits until the client has taken enough of what was written. Raises ClientGone."""


class Clock:
    """The Date header's text, made once per second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def date(self) -> str:
        """Now, as IMF-fixdate."""
        second = int(time())
        if second != self._second:
            self._second = second
            self._text = imf_fixdate(second)
        return self._text


_CLOCK: Final = Clock()


def status_line(status: int, reason: str) -> str:
    """The status line; the upstream's own reason is kept where it gave one."""
    if reason and _REASONS.get(status) != reason:
        return f"HTTP/1.1 {status} {reason}\r\n"
    return _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n"


def interim_head(status: int, lines: Lines) -> bytes:
    """A 1xx answer's bytes (RFC 9110 §15.2)."""
    return f"{status_line(status, '')}{written(lines)}\r\n".encode("latin-1")


def _head(reply: Reply, framing: str, close: bool) -> bytes:
    head = reply.head
    if not isinstance(head, str):
        head = _dated(head)
    elif not reply.origin:
        head = f"{head}Date: {_CLOCK.date()}\r\n"
    end = "Connection: close\r\n\r\n" if close else "\r\n"
    return f"{status_line(reply.status, reply.reason)}{head}{framing}{end}".encode("latin-1")


def _dated(lines: Lines) -> str:
    for name, _ in lines:
        if len(name) == 4 and name.lower() == "date":
            return written(lines)
    return f"{written(lines)}Date: {_CLOCK.date()}\r\n"


def write_at_once(
    transport: asyncio.Transport, reply: Reply, method: str, close: bool
) -> int | None:
    """Writes the whole answer if nothing need be waited for; the number of body bytes sent. None
    where something must be: then nothing is written, and `write_reply` is to be awaited."""
    data = at_once(reply, method, close)
    if data is None:
        return None
    transport.write(data)
    return body_length(reply, method)


def body_length(reply: Reply, method: str) -> int:
    """How many bytes of an answer that is sent at once are its body's."""
    status = reply.status
    return 0 if status == 204 or status == 304 or method == "HEAD" else len(reply.body)


def at_once(reply: Reply, method: str, close: bool) -> bytes | None:
    """The whole answer, if nothing need be waited for."""
    status = reply.status
    if status == 204:
        return _head(reply, "", close)
    if method == "HEAD" or status == 304:
        length = reply.length
        if length is None and not reply.origin:
            length = len(reply.body)
        framing = "" if length is None else f"Content-Length: {length}\r\n"
        return _head(reply, framing, close)
    body = reply.body
    if reply.stream is not None or len(body) > _LARGE:
        return None
    return _head(reply, f"Content-Length: {len(body)}\r\n", close) + body


def keep_refusal(refusal: Refusal, reply: Reply, method: str, request_id: str) -> None:
    """Keeps the bytes of a refusal's answer, which has just been sent at once, for `refused_again`.

    A request id that the gateway made stands in them once, or not at all where the route edits it
    out: then nothing is kept, as there is no place for another's. What a client has sent may stand
    in them elsewhere, too, but is the same each time.
    """
    date = _CLOCK.date()  # first: what is made in the second after it has another one
    body = reply.body
    head = _head(reply, f"Content-Length: {len(body)}\r\n", False)
    before, found, after = head.partition(request_id.encode("latin-1"))
    if not found:
        return
    refusal.sent = sent = body_length(reply, method)
    refusal.before, refusal.after = _shared(before), _shared(after + body[:sent])
    refusal.date = date


def refused_again(refusal: Refusal, request_id: str) -> bytes | None:
    """Those bytes, for a request of another name; None where they are of another second."""
    if refusal.date is not _CLOCK.date():
        return None
    return b"".join((refusal.before, request_id.encode("latin-1"), refusal.after))


async def write_reply(outlet: Outlet, reply: Reply, method: str, version: int, close: bool) -> int:
    """Writes the whole answer; the number of body bytes sent.

    Raises ClientGone, and StreamCut where the upstream broke off (the caller aborts the
    connection: the client must not take what it has for complete).
    """
    transport = outlet.transport
    if transport is None:
        raise ClientGone
    sent = write_at_once(transport, reply, method, close)
    if sent is not None:
        return sent
    stream = reply.stream
    if stream is None:
        body = reply.body
        transport.write(_head(reply, f"Content-Length: {len(body)}\r\n", close) + body)
        await outlet.drain()
        return len(body)
    if reply.length is not None:
        transport.write(_head(reply, f"Content-Length: {reply.length}\r\n", close))
        return await _pump(outlet, transport, stream)
    if version == 10:  # HTTP/1.0 knows no chunks: the connection's end is the body's
        transport.write(_head(reply, "", True))
        return await _pump(outlet, transport, stream)
    transport.write(_head(reply, "Transfer-Encoding: chunked\r\n", close))
    return await _pump_chunks(outlet, transport, stream)


async def _pump(outlet: Outlet, transport: asyncio.Transport, stream: ReplyStream) -> int:
    sent = 0
    while piece := await stream.read():
        transport.write(piece)
        sent += len(piece)
        await outlet.drain()
    return sent


async def _pump_chunks(outlet: Outlet, transport: asyncio.Transport, stream: ReplyStream) -> int:
    sent = 0
    while piece := await stream.read():
        transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        sent += len(piece)
        await outlet.drain()
    transport.write(_LAST_CHUNK)
    return sent


def reset(transport: asyncio.Transport) -> None:
    """Ends a connection by RST: a cut answer must not look like an end, above all not to an
    HTTP/1.0 client, for whom the connection's end is the body's."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    transport.abort()
