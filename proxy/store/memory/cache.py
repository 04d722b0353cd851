"""L1: stored answers in this process, ready to be sent, the least recently used first to go.

Rules:
- An entry is a primary key's variants, at most MAX_VARIANTS; its size is that of all of them.
- Expired answers stay until their room is needed: they can be validated, or stand in for errors.
- What is larger than the whole is not kept.
"""

from typing import Final

from cachetools import LRUCache

from proxy.core.cache.record import Stored
from proxy.core.cache.tags import HIDDEN_FIELDS, without_tags
from proxy.core.fields import Lines, written
from proxy.store.memory.known import Tag
from proxy.store.memory.purges import Purgeable
from proxy.store.memory.room import Room

MAX_VARIANTS: Final = 64

# What CPython takes beside the text itself, measured: a record with its key, a field line, a tag.
_RECORD: Final = 1350
_LINE: Final = 150
_TAG: Final = 300


class Held(Purgeable):
    """One stored answer, in memory. Treated as immutable, but for what purges say of it."""

    __slots__ = ("body", "born", "fresh_until", "head", "lines", "place", "size", "stored")

    def __init__(
        self,
        stored: Stored,
        body: bytes,
        tags: tuple[Tag, ...],
        target: str,
        began: int,
        lines: Lines,
    ) -> None:
        super().__init__(tags, target, began)
        self.stored = stored
        self.body = body
        self.place = b""
        """Where the shared tier has the body, if that is known (`Kept.place`)."""
        self.lines = lines
        """As clients see them (`shown_lines`), without Age and Cache-Status."""
        self.head = written(lines)
        """The same, as text; "" where they have no Date, which then is the edge's to add."""
        if not any(len(name) == 4 and name.lower() == "date" for name, _ in lines):
            self.head = ""
        self.born = stored.received - stored.initial_age
        """When its age was 0, in ms since the epoch."""
        self.fresh_until = 0
        """Until when it answers a GET without a question, in ms since the epoch; 0: never."""
        if self.head and stored.method == "GET" and stored.lifetime > 0 and not stored.no_cache:
            self.fresh_until = self.born + stored.lifetime
        text = sum([len(name) + len(value) for name, value in stored.lines]) + len(target)
        text += sum(map(len, stored.tags))
        text += sum([len(name) + len(value or "") for name, value in stored.vary])
        count = len(stored.lines) + (0 if lines is stored.lines else len(lines) // 2)
        count += len(stored.vary)
        self.size = _RECORD + len(body) + text + len(self.head) + _LINE * count + _TAG * len(tags)


def shown_lines(lines: Lines, *, expose_tags: bool) -> Lines:
    """The lines that clients see: the same list where nothing is hidden."""
    if expose_tags or not any(line[0].lower() in HIDDEN_FIELDS for line in lines):
        return lines
    return without_tags(lines)


Shelf = tuple[Held, ...]
"""The variants under one primary key."""


class MemoryCache:
    """Shelves by primary key, in what the rest of the cache leaves of a `room`."""

    __slots__ = ("_room", "_shelves")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._shelves: LRUCache[bytes, Shelf] = LRUCache(room.size, _size_of)

    def __len__(self) -> int:
        """How many primary keys there are."""
        return len(self._shelves)

    @property
    def size(self) -> int:
        """Bytes taken."""
        return int(self._shelves.currsize)

    def get(self, key: bytes) -> Shelf:
        """What is stored under a primary key: () where nothing is."""
        try:
            return self._shelves[key]
        except KeyError:
            return ()

    def put(self, key: bytes, held: Held) -> None:
        """Keeps an answer in place of its variant's, and a GET's in place of a HEAD's."""
        stored = held.stored
        others = [
            other
            for other in self._shelves.get(key, ())
            if other.stored.vary != stored.vary
            or (other.stored.method == "GET" and stored.method == "HEAD")
        ]
        if len(others) >= MAX_VARIANTS:
            others.remove(min(others, key=lambda other: other.stored.received))
        self._set(key, (held, *others))

    def drop(self, key: bytes, held: Held) -> None:
        """Takes one answer out, if it is still there."""
        shelf = self.get(key)
        if held in shelf:
            self._set(key, tuple([other for other in shelf if other is not held]))

    def fit(self) -> None:
        """Lets the least recently used go until everything fits into the room."""
        room, shelves = self._room, self._shelves
        before = shelves.currsize
        most = room.size - (room.taken - before)
        while shelves.currsize > most and shelves:
            shelves.popitem()
        self._account(before)

    def clear(self) -> None:
        before = self._shelves.currsize
        self._shelves.clear()
        self._account(before)

    def _set(self, key: bytes, shelf: Shelf) -> None:
        shelves = self._shelves
        before = shelves.currsize
        shelves.pop(key, None)
        most = self._room.size - (self._room.taken - before)
        if shelf and _size_of(shelf) > most:
            shelf = shelf[:1] if shelf[0].size <= most else ()
        if shelf:
            shelves[key] = shelf
        self._account(before)
        self.fit()

    def _account(self, before: float) -> None:
        self._room.taken += int(self._shelves.currsize - before)


def _size_of(shelf: Shelf) -> int:
    return sum([held.size for held in shelf])
