"""Who in this process waits to hear that something happened about a record.

Rules:
- Whoever is refused is watching from before the store is asked: what is told between its answer
  and the wait is not missed.
- Those that watch and never wait are forgotten, once there are many.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

_MOST: Final = 1024  # topics; with more, those that nobody came to wait for are looked through
_COMING: Final = 1.0  # seconds within which whoever watches has come to wait


class Topic:
    """A record that somebody watches or waits for."""

    __slots__ = ("asking", "told", "until", "waiting")

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.asking = 0
        self.waiting = 0
        self.until = 0.0


class News:
    """Topics by record. `clock` in seconds, never going back."""

    __slots__ = ("_clock", "_topics")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._topics: dict[bytes, Topic] = {}

    def __len__(self) -> int:
        return len(self._topics)

    def watch(self, record: bytes) -> Topic:
        """What is told from here on is not missed. To be ended by `leave`."""
        topic = self._topics.get(record)
        if topic is None or topic.told.is_set():
            self._make_room()
            topic = self._topics[record] = Topic()
        topic.asking += 1
        return topic

    def leave(self, record: bytes, topic: Topic, *, coming: bool) -> None:
        """The store has been asked. `coming`: its answer will be waited with, in a moment."""
        topic.asking -= 1
        if coming:
            topic.until = self._clock() + _COMING
        else:
            self._forget(record, topic)

    async def wait(self, record: bytes, seconds: float) -> None:
        """Returns when something is told of the record, or was since it is watched; at most after
        so many seconds."""
        topic = self._topics.get(record)
        if topic is None:
            topic = self._topics[record] = Topic()
        topic.waiting += 1
        # No asyncio.timeout: the request may be driven without a task up to here.
        told = asyncio.get_running_loop().create_task(topic.told.wait())
        try:
            await asyncio.wait((told,), timeout=max(0.0, seconds))
        finally:
            told.cancel()
            topic.waiting -= 1
            topic.until = 0.0
            self._forget(record, topic)

    def tell(self, record: bytes) -> None:
        """Wakes who waits for it."""
        topic = self._topics.get(record)
        if topic is not None:
            topic.told.set()

    def tell_all(self) -> None:
        for topic in self._topics.values():
            topic.told.set()

    def _forget(self, record: bytes, topic: Topic) -> None:
        if topic.asking or topic.waiting or topic.until > self._clock():
            return
        if self._topics.get(record) is topic:
            del self._topics[record]

    def _make_room(self) -> None:
        if len(self._topics) >= _MOST:
            for record, topic in list(self._topics.items()):
                self._forget(record, topic)
