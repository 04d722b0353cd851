"""A client that tells in a word or two what came of a request, whatever came of it."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Final, cast

from rawhttp import Answer, Cut, Wire

SMALL: Final = 64
"""Bytes of every body that is not LARGE, and of what an echo repeats."""
LARGE: Final = 5 * 1024 * 1024
UPLOAD: Final = b"0123456789abcdef" * (LARGE // 16)
DIGEST: Final = hashlib.sha256(UPLOAD).hexdigest().encode()
DOWNLOAD: Final = UPLOAD[::-1]
PATIENCE: Final = 3.0
"""Seconds that anything may take at most. Every timeout in the policy is far shorter."""
SHED: Final = "503 temporary-reduced-capacity"
"""A limit that cannot be counted, and says `deny`."""
QUIET: Final = 0.6
"""Seconds after which a tunnel that says nothing is left."""


async def outcome(
    port: int, target: str, kind: str, *, limited: bool = False, stays: bool = False
) -> str:
    """One request, on a connection of its own. `kind` is what the origin does, `limited` whether
    the answer has to tell what is left of a limit. `stays`: the connection might be used again;
    else its end is asked for, and such requests do not take the express lane.

    `ok` and `stale` (a stored answer stands in); the status and the problem's type; `cut`, where
    an answer began and did not end; `open`, where a tunnel gave neither an echo nor an end; and
    what should never be: `hang`, `nothing` and others.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            if kind == "tunnel":
                return await _tunnel(port, target)
            answer = await _exchange(port, target, UPLOAD if kind == "up" else b"", stays)
    except TimeoutError:
        return "hang"
    except Cut as cut:
        return str(cut)
    said = _judge(answer, kind)
    wanted = "Retry-After" if said == SHED else "RateLimit"  # what was not counted tells no count
    return f"{said} without {wanted}" if limited and answer.get(wanted) is None else said


def _judge(answer: Answer, kind: str) -> str:
    """One word: `ok`, `stale`, or the status and the problem's type."""
    if answer.status != 200:
        kind = str(answer.json().get("type", "")) if answer.body[:1] == b"{" else "?"
        return f"{answer.status} {kind.rpartition(':')[2].rpartition('#')[2]}"
    if "; detail=" in (answer.get("Cache-Status") or ""):  # it stands in for what failed
        return "stale"
    right = {"up": DIGEST, "down": DOWNLOAD}.get(kind)
    whole = answer.body == right if right is not None else len(answer.body) == SMALL
    return "ok" if whole else "wrong body"


class _Listener(asyncio.Protocol):
    """Keeps all that comes, also where a reset follows it."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.over = asyncio.Event()
        self._wanted: tuple[Callable[[bytearray], bool], asyncio.Event] | None = None

    async def until(self, enough: Callable[[bytearray], bool]) -> None:
        """Returns when so much has come, or the connection is over."""
        come = asyncio.Event()
        self._wanted = enough, come
        self._look()
        await come.wait()

    def leave(self) -> None:
        if not self.over.is_set():
            self._transport.abort()

    def _look(self) -> None:
        if self._wanted is not None:
            enough, come = self._wanted
            if self.over.is_set() or enough(self.received):
                come.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._look()

    def connection_lost(self, error: Exception | None) -> None:
        self.over.set()
        self._look()


async def _exchange(port: int, target: str, body: bytes, stays: bool) -> Answer:
    """One request on a connection of its own, to its end or its answer's. Raises Cut: `cut`, or in
    more words what should not be."""
    method = "POST" if body else "GET"
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    close = "" if stays else "Connection: close\r\n"
    head = f"{method} {target} HTTP/1.1\r\nHost: a\r\n{close}{length}\r\n"
    loop = asyncio.get_running_loop()
    transport, listener = await loop.create_connection(_Listener, "127.0.0.1", port)
    try:
        transport.write(head.encode() + body)
        await listener.until(_is_whole if stays else lambda _: False)
    finally:
        listener.leave()
    return await _parse(listener.received, method)


async def _parse(received: bytearray, method: str) -> Answer:
    if not received:
        raise Cut("nothing")
    reader = asyncio.StreamReader()
    reader.feed_data(received)
    reader.feed_eof()
    wire = Wire(reader, None)  # type: ignore[arg-type]
    try:
        answer = await wire.read_answer(method)
    except Cut:
        raise Cut("cut" if b"\r\n\r\n" in received else "cut in the head") from None
    if rest := await wire.rest():
        raise Cut(f"more than an answer: {rest[:40]!r}")
    return answer


def _is_whole(received: bytearray) -> bool:
    """Whether that is a head, with its body: to the last chunk, or of the length it tells."""
    head, end, body = received.partition(b"\r\n\r\n")
    if b"\r\ntransfer-encoding:" in head.lower():
        return body.endswith(b"\r\n0\r\n\r\n")
    length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
    return bool(end) and len(body) >= int(length or 0)


async def _tunnel(port: int, target: str) -> str:
    """Opens a tunnel and has something echoed. `open`: neither an echo nor an end came."""
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    head = f"GET {target} HTTP/1.1\r\nHost: a\r\n{upgrade}Sec-WebSocket-Key: {'a' * 22}==\r\n\r\n"
    loop = asyncio.get_running_loop()
    transport, listener = await loop.create_connection(_Listener, "127.0.0.1", port)
    try:
        transport.write(head.encode())
        await listener.until(_is_whole)
        if not listener.received.startswith(b"HTTP/1.1 101 "):
            return _judge(await _parse(listener.received, "GET"), "tunnel")
        start = listener.received.index(b"\r\n\r\n") + 4
        word = UPLOAD[:SMALL]
        transport.write(word)
        try:
            async with asyncio.timeout(QUIET):
                await listener.until(lambda received: len(received) - start >= SMALL)
        except TimeoutError:
            return "open"
        return "ok" if listener.received[start : start + SMALL] == word else "cut"
    finally:
        listener.leave()
