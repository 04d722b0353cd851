"""Hit-for-miss: what nobody should wait for, as it turned out not to be storable.

A mark holds for a primary key and the values of the fields that the answer varied by, and, where
the request's credentials were the reason, for requests with such credentials only. It ends by time,
or by a storable answer to a request that it is for.

The kind "apart" says that answers are stored, but not shared between processes: nobody should wait
for another process, and those of one process wait together.

Marks take a share of the cache's room (`store.memory.room`). They go when their time is over; where
they need more than their share, those go first whose time is over first.
"""

from heapq import heapify, heappop, heappush
from typing import Final

from proxy.core.cache import vary
from proxy.core.cache.record import CacheTerms
from proxy.core.cache.seen import Seen
from proxy.core.cache.storing import has_credentials, has_unkeyed_cookie
from proxy.core.fields import Fields
from proxy.store.memory.room import SHARE, Room
from proxy.store.ports import Mark

MAX_PER_KEY: Final = 16
"""More variants than that, and the mark is for all of them."""


# What CPython takes beside the text itself, measured: a key's first mark, another one, a field.
_KEY: Final = 250
_MARK: Final = 280
_FIELD: Final = 150


class Marks:
    """The marks of this process, by primary key."""

    __slots__ = ("_count", "_due", "_marks", "_room", "size")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._marks: dict[bytes, tuple[Mark, ...]] = {}
        self._count = 0
        """How many there are."""
        self._due: list[tuple[int, bytes]] = []
        """A heap: when each mark's time is over, perhaps with some that have gone before."""
        self.size = 0
        """Bytes taken."""

    def put(self, key: bytes, mark: Mark, now: int) -> None:
        self.expire(now)
        kept = tuple(
            [m for m in self._marks.get(key, ()) if (m.vary, m.kind) != (mark.vary, mark.kind)]
        )
        if len(kept) >= MAX_PER_KEY:
            kept, mark = (), Mark((), "", mark.until)
        self._set(key, (*kept, mark))
        heappush(self._due, (mark.until, key))
        while self.size > self._room.size // SHARE:
            self._drop_first()
        if len(self._due) > 2 * self._count + 64:
            self._due = [(m.until, key) for key, marks in self._marks.items() for m in marks]
            heapify(self._due)

    def expire(self, now: int) -> None:
        """Drops what has had its time."""
        while self._due and self._due[0][0] <= now:
            self._drop_first()

    def cover(self, key: bytes, fields: Fields, seen: Seen, terms: CacheTerms, now: int) -> bool:
        """Whether this request should not wait for another's answer."""
        self.expire(now)
        return any(_is_for(mark, fields, seen, terms) for mark in self._marks.get(key, ()))

    def apart(self, key: bytes, now: int) -> bool:
        """Whether processes should not wait for each other."""
        self.expire(now)
        return any(mark.kind == "apart" for mark in self._marks.get(key, ()))

    def lift(self, key: bytes, fields: Fields, seen: Seen, terms: CacheTerms) -> None:
        """An answer to this request was storable: what says otherwise goes."""
        marks = self._marks.get(key)
        if marks is not None:
            self._set(key, tuple([m for m in marks if not _is_for(m, fields, seen, terms)]))

    def _drop_first(self) -> None:
        """Takes the first from the heap, and with it what of its key's marks has had its time by
        then."""
        until, key = heappop(self._due)
        marks = self._marks.get(key)
        if marks is not None:
            self._set(key, tuple([mark for mark in marks if mark.until > until]))

    def _set(self, key: bytes, marks: tuple[Mark, ...]) -> None:
        before = self._marks.pop(key, ())
        if marks:
            self._marks[key] = marks
        self._count += len(marks) - len(before)
        grown = _size_of(marks) - _size_of(before)
        self.size += grown
        self._room.taken += grown


def _size_of(marks: tuple[Mark, ...]) -> int:
    if not marks:
        return 0
    fields = [len(name) + len(value or "") for mark in marks for name, value in mark.vary]
    return _KEY + _MARK * len(marks) + _FIELD * len(fields) + sum(fields)


def _is_for(mark: Mark, fields: Fields, seen: Seen, terms: CacheTerms) -> bool:
    if mark.kind == "apart" or not vary.matches(mark.vary, seen):
        return False
    if mark.kind == "authorization":
        return has_credentials(fields, terms)
    return mark.kind != "cookie" or has_unkeyed_cookie(fields, terms)
