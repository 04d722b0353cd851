"""Hit-for-miss: what nobody should wait for, as it turned out not to be storable.

A mark holds for a primary key and the values of the fields that the answer varied by, and, where
the request's credentials were the reason, for requests with such credentials only. It ends by time,
or by a storable answer to a request that it is for.

The kind "apart" says that answers are stored, but not shared between processes: nobody should wait
for another process, and those of one process wait together.
"""

from typing import Final

from cachetools import LRUCache

from proxy.core.cache import vary
from proxy.core.cache.record import CacheTerms
from proxy.core.cache.seen import Seen
from proxy.core.cache.storing import has_credentials, has_unkeyed_cookie
from proxy.core.fields import Fields
from proxy.store.ports import Mark

MAX_KEYS: Final = 65_536
MAX_PER_KEY: Final = 16
"""More variants than that, and the mark is for all of them."""


class Marks:
    """The marks of this process, by primary key."""

    __slots__ = ("_marks",)

    def __init__(self) -> None:
        self._marks: LRUCache[bytes, tuple[Mark, ...]] = LRUCache(MAX_KEYS)

    def put(self, key: bytes, mark: Mark) -> None:
        kept = tuple(
            [m for m in self._marks.get(key, ()) if (m.vary, m.kind) != (mark.vary, mark.kind)]
        )
        if len(kept) >= MAX_PER_KEY:
            kept, mark = (), Mark((), "", mark.until)
        self._marks[key] = (*kept, mark)

    def cover(self, key: bytes, fields: Fields, seen: Seen, terms: CacheTerms, now: int) -> bool:
        """Whether this request should not wait for another's answer."""
        marks = self._marks.get(key)
        if marks is None:
            return False
        live = tuple([mark for mark in marks if mark.until > now])
        if not live:
            del self._marks[key]
        return any(_is_for(mark, fields, seen, terms) for mark in live)

    def apart(self, key: bytes, now: int) -> bool:
        """Whether processes should not wait for each other."""
        return any(mark.kind == "apart" and mark.until > now for mark in self._marks.get(key, ()))

    def lift(self, key: bytes, fields: Fields, seen: Seen, terms: CacheTerms) -> None:
        """An answer to this request was storable: what says otherwise goes."""
        marks = self._marks.get(key)
        if marks is None:
            return
        kept = tuple([mark for mark in marks if not _is_for(mark, fields, seen, terms)])
        if kept:
            self._marks[key] = kept
        else:
            del self._marks[key]


def _is_for(mark: Mark, fields: Fields, seen: Seen, terms: CacheTerms) -> bool:
    if mark.kind == "apart" or not vary.matches(mark.vary, seen):
        return False
    if mark.kind == "authorization":
        return has_credentials(fields, terms)
    return mark.kind != "cookie" or has_unkeyed_cookie(fields, terms)
