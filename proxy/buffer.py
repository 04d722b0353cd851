"""A body on its way from one upstream to many readers, or to whoever keeps it; and the room that
request bodies have which are read whole."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from proxy.core.message import ReplyStream, StreamCut

WINDOW: Final = 256 * 1024
"""Bytes of an outgrown body that the fastest reader may be ahead of the slowest."""


class Buffer:
    """Whole up to `limit` bytes; beyond that only what its readers still need.

    `left` is called whenever a reader has closed.
    """

    __slots__ = (
        "_complete", "_cut", "_dropped", "_gone", "_left", "_limit", "_news", "_pieces", "_room",
        "_size", "readers",
    )  # fmt: skip

    def __init__(self, limit: int, left: Callable[[], None]) -> None:
        self._limit = limit
        self._left = left
        self._pieces: deque[bytes] = deque()
        self._gone = 0  # pieces that nobody needs any more
        self._dropped = 0  # their bytes
        self._size = 0
        self._complete = self._cut = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self.readers: set[BufferReader] = set()

    @property
    def outgrown(self) -> bool:
        return self._size > self._limit

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        _ring(self._news)

    def whole(self) -> bytes:
        return b"".join(self._pieces)

    def end(self, *, cut: bool = False) -> None:
        """Nothing more will come: it is complete, or cut. The first word counts."""
        if not (self._complete or self._cut):
            self._complete, self._cut = not cut, cut
            _ring(self._news)

    def reader(self) -> "BufferReader | None":
        """Reads from the first byte on; None where that may be gone."""
        if self.outgrown:
            return None
        reader = BufferReader(self)
        self.readers.add(reader)
        return reader

    async def paced(self) -> bool:
        """Waits until the slowest reader of an outgrown body has caught up; False where there is
        none."""
        self._drop()
        while self.readers and self._size - self._dropped > WINDOW:
            await self._room.wait()
            self._drop()
        return bool(self.readers)

    def _drop(self) -> None:
        needed = min([reader.place for reader in self.readers], default=0)
        while self._gone < needed:
            self._dropped += len(self._pieces.popleft())
            self._gone += 1

    async def piece(self, place: int) -> bytes:
        """The piece at `place`, b"" behind the last. Raises StreamCut."""
        while place - self._gone >= len(self._pieces):
            if self._complete:
                return b""
            if self._cut:
                raise StreamCut("the answer broke off while it was shared")
            await self._news.wait()
        found = self._pieces[place - self._gone]
        _ring(self._room)
        return found

    def forget(self, reader: "BufferReader") -> None:
        if reader in self.readers:
            self.readers.discard(reader)
            _ring(self._room)
            self._left()


class BufferReader:
    """One reader; a ReplyStream. Reads all of it, or what `cut` has left of it."""

    __slots__ = ("_buffer", "_left", "_skip", "place")

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._skip = 0
        self._left: int | None = None
        self.place = 0
        """The next piece."""

    def cut(self, start: int, stop: int | None) -> "BufferReader":
        """Has it read the bytes from `start` to before `stop` only; before anything is read."""
        self._skip = start
        self._left = None if stop is None else stop - start
        return self

    async def read(self) -> bytes:
        while self._left is None or self._left > 0:
            piece = await self._buffer.piece(self.place)
            if not piece:
                return b""
            self.place += 1
            if self._skip >= len(piece):
                self._skip -= len(piece)
                continue
            if self._skip:
                piece, self._skip = piece[self._skip :], 0
            if self._left is not None:
                piece = piece[: self._left]
                self._left -= len(piece)
            return piece
        return b""

    def close(self) -> None:
        self._buffer.forget(self)


class BodyRoom:
    """What request bodies that are read whole may hold together, in this process."""

    __slots__ = ("most", "taken")

    def __init__(self, most: int = 0) -> None:
        self.most = most
        self.taken = 0

    def take(self, size: int) -> "TakenRoom | None":
        """Room for a body, until it is given back; None where there is not enough."""
        if self.taken + size > self.most:
            return None
        return TakenRoom(self, size)


class TakenRoom:
    """One body's. It is given back when everybody has who held it: its taker, at first."""

    __slots__ = ("_holders", "_room", "_size")

    def __init__(self, room: BodyRoom, size: int) -> None:
        self._room = room
        self._size = size
        self._holders = 1
        room.taken += size

    def shrink(self, size: int) -> None:
        """The body has come, and is no larger than this."""
        self._room.taken -= self._size - size
        self._size = size

    def hold(self) -> None:
        """One more needs the body."""
        self._holders += 1

    def give_back(self) -> None:
        """One needs it no more."""
        self._holders -= 1
        if not self._holders:
            self._room.taken -= self._size


class Recorder:
    """A ReplyStream that passes another one on, and has its bytes in the end if they are no more
    than `limit`. What its reader does not read to the end is not kept."""

    __slots__ = ("_done", "_limit", "_pieces", "_size", "_stream")

    def __init__(self, stream: ReplyStream, limit: int, done: Callable[[bytes], object]) -> None:
        self._stream = stream
        self._limit = limit
        self._done = done
        self._pieces: list[bytes] | None = []
        self._size = 0

    async def read(self) -> bytes:
        piece = await self._stream.read()
        pieces = self._pieces
        if pieces is None:
            return piece
        if not piece:
            self._pieces = None
            self._done(b"".join(pieces))
            return piece
        self._size += len(piece)
        if self._size > self._limit:
            self._pieces = None
        else:
            pieces.append(piece)
        return piece

    def close(self) -> None:
        self._pieces = None
        self._stream.close()


def _ring(bell: asyncio.Event) -> None:
    """Wakes all who wait now."""
    bell.set()
    bell.clear()
