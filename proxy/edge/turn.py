"""One turn of the event loop, as its client connections have it: all the reading, then all the
answering, then all the writing.

Reading from the kernel, answering and writing to the kernel each run so much code that, request by
request, they push each other out of the processor's caches. Each done for all connections in turn,
the same work takes a fifth to a third less where many requests come at once (bench/README.md). So
what a socket brings waits until the others were read, and answers that need no waiting are written
once the requests of the turn were all taken; at most `MOST` of them, so that none waits long.
"""

import asyncio
import logging
from typing import Final, Protocol

log = logging.getLogger(__name__)

MOST: Final = 64
"""Reads that are taken together."""
SMALL: Final = 8192
"""Bytes of a read up to which it waits for the others: more is a body, or no usual client, and must
be able to stop the next read."""
_MOST_BYTES: Final = 256 * 1024
"""Bytes of answers that are held: more would not stay in the caches, and be too much memory."""


class Taker(Protocol):
    """A client connection."""

    def received(self, data: bytes) -> None:
        """Takes what its socket brought."""

    def force_close(self) -> None: ...


class Teller(Protocol):
    """A connection's answering side."""

    def tell(self, data: bytes) -> None:
        """Writes an answer; the connection may have ended meanwhile."""


class Turn:
    """What was read and not taken yet, and what was answered and not written yet; in order."""

    __slots__ = ("_answers", "_bytes", "_is_taking", "_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[Taker, bytes]] = []
        self._answers: list[tuple[Teller, bytes]] = []
        self._bytes = 0
        """Of `_answers`."""
        self._is_taking = False

    def add(self, taker: Taker, data: bytes) -> None:
        """A socket has brought something."""
        waiting = self._waiting
        if len(data) > SMALL:
            self.take()
            taker.received(data)
            return
        if not waiting:
            self._loop.call_soon(self.take)
        waiting.append((taker, data))
        if len(waiting) >= MOST:
            self.take()

    def take(self) -> None:
        """Has all of it taken, and the answers written. To be called before what would overtake it:
        the end of a client's stream, and timers. The loss of a connection is called by the loop
        later, as this is."""
        waiting = self._waiting
        if not waiting:
            return
        self._waiting = []
        self._is_taking = True
        try:
            for taker, data in waiting:
                try:
                    taker.received(data)
                except Exception:  # the others' data is not lost for it
                    log.exception("a connection failed inside the gateway")
                    taker.force_close()
        finally:
            self._is_taking = False
            self.flush()

    def tell(self, teller: Teller, data: bytes) -> None:
        """Writes an answer, with the others of this turn."""
        if not self._is_taking:
            teller.tell(data)
            return
        self._answers.append((teller, data))
        self._bytes += len(data)
        if self._bytes > _MOST_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes the answers that there are. To be called before their connections end, or are
        written to in another way."""
        answers = self._answers
        if not answers:
            return
        self._answers = []
        self._bytes = 0
        for teller, data in answers:
            try:
                teller.tell(data)
            except Exception:  # nor are the others' answers
                log.exception("an answer failed inside the gateway")
