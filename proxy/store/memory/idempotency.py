"""Idempotency records in this process: the core's steps over a dict, bounded and never suspending.

Rules:
- It lasts as long as the process, and no other sees it: for one worker, and for development.
- A live record is never dropped: forgetting it would execute a request twice. Those that are over
  go; where that is not enough, what needs room is a StoreError.
- No call looks at more than a few records, whatever their number, unless the store is full.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Final

from proxy.core import idempotency
from proxy.core.idempotency import MEMORY_BYTES, Answer, Mine, Record, State, Terms, Verdict
from proxy.store.news import News
from proxy.store.ports import StoreError

MOST_RECORDS: Final = 100_000
_STEPS: Final = 2  # looks at due records per claim: more than it files, so no backlog grows

# What CPython takes beside the text itself, measured: a record with its key, a field line.
_RECORD: Final = 700
_LINE: Final = 150


class _Held:
    """A record, the number it is filed under, and the bytes of its answer."""

    __slots__ = ("filed", "record", "size")

    def __init__(self, record: Record, filed: int) -> None:
        self.record = record
        self.filed = filed
        self.size = _RECORD


class MemoryIdempotency:
    """An IdempotencyStore. `clock` in ms; one that goes back makes things hold longer."""

    def __init__(
        self,
        clock: Callable[[], int],
        max_records: int = MOST_RECORDS,
        max_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._clock = clock
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._records: dict[bytes, _Held] = {}
        self._bytes = 0
        self._numbers = count()
        self._ends: list[tuple[int, int, bytes]] = []
        """A heap: when a record may be over, the number it was filed under, its name. Each is
        there once; one that lasts longer by then is filed anew."""
        self._news = News()

    async def claim(self, record: bytes, token: bytes, fingerprint: bytes, terms: Terms) -> Verdict:
        """As the port says."""
        now = self._clock()
        self._tidy(now, _STEPS)
        held = self._records.get(record)
        known = None if held is None else held.record
        claimed, verdict = idempotency.claim(known, token, fingerprint, terms, now)
        if isinstance(verdict, Mine):
            assert claimed is not None
            if held is None:
                self._require(now, 1, _RECORD)
            self._put(record, claimed)
        return verdict

    async def sent(self, record: bytes, token: bytes, terms: Terms, replicas: int = 0) -> bool:
        """As the port says; nobody else has it, so `replicas` there are none."""
        return (
            idempotency.mark_sent(self._find(record), token, terms, self._clock()) and not replicas
        )

    async def renew(self, record: bytes, token: bytes, terms: Terms) -> bool:
        """As the port says."""
        return idempotency.renew(self._find(record), token, terms, self._clock())

    async def settle(
        self,
        record: bytes,
        token: bytes,
        fingerprint: bytes,
        outcome: State,
        answer: Answer | None,
        terms: Terms,
    ) -> bool:
        """As the port says."""
        now = self._clock()
        size = _RECORD + (0 if answer is None else _size_of(answer))
        held = self._records.get(record)
        if held is None or held.record.at(now) is None:
            self._drop(record)
            self._require(now, 1, size)
        elif held.record.token == token and size > held.size:
            self._require(now, 0, size - held.size)
        known, ours = idempotency.settle(
            self._find(record), token, fingerprint, outcome, answer, terms, now
        )
        if not ours or known is None:
            return False
        held = self._records.get(record) or self._put(record, known)
        self._bytes += size - held.size
        held.size = size
        self._news.tell(record)
        return True

    async def release(self, record: bytes, token: bytes) -> bool:
        """As the port says."""
        if not idempotency.release(self._find(record), token, self._clock()):
            return False
        self._drop(record)
        self._news.tell(record)
        return True

    async def free(self, record: bytes) -> bool:
        """As the port says."""
        known = self._find(record)
        if known is None or known.at(self._clock()) is None:
            return False
        self._drop(record)
        self._news.tell(record)
        return True

    async def news(self, record: bytes, seconds: float) -> None:
        """As the port says."""
        await self._news.wait(record, seconds)

    def status(self) -> dict[str, object]:
        """As the port says; not healthy while it is full, as new keys are refused then."""
        try:
            self._require(self._clock(), 1, _RECORD)
            full = False
        except StoreError:
            full = True
        return {
            "kind": "memory",
            "healthy": not full,
            "records": len(self._records),
            "bytes": self._bytes,
        }

    async def close(self) -> None:
        self._news.tell_all()

    def _find(self, record: bytes) -> Record | None:
        held = self._records.get(record)
        return None if held is None else held.record

    def _put(self, record: bytes, claimed: Record) -> _Held:
        self._drop(record)
        held = self._records[record] = _Held(claimed, next(self._numbers))
        self._bytes += held.size
        heappush(self._ends, (_over_at(claimed), held.filed, record))
        return held

    def _drop(self, record: bytes) -> None:
        held = self._records.pop(record, None)
        if held is not None:
            self._bytes -= held.size

    def _require(self, now: int, records: int, size: int) -> None:
        """Sees to it that there is room. Raises StoreError."""
        if self._has_room(records, size):
            return
        self._tidy(now, len(self._ends))
        if not self._has_room(records, size):
            raise StoreError("refused", "the store of idempotency records is full")

    def _has_room(self, records: int, size: int) -> bool:
        if len(self._records) + records > self._max_records:
            return False
        return self._bytes + size <= self._max_bytes

    def _tidy(self, now: int, steps: int) -> None:
        """Looks at so many of the records that may be over, and drops those that are."""
        ends = self._ends
        for _ in range(steps):
            if not ends or ends[0][0] > now:
                return
            _, filed, record = heappop(ends)
            held = self._records.get(record)
            if held is None or held.filed != filed:  # another one's time has come since
                continue
            over = _over_at(held.record)
            if over <= now:
                self._drop(record)
            else:
                heappush(ends, (over, filed, record))


def _over_at(record: Record) -> int:
    """When it is over, as things stand: ms of the store's clock."""
    return record.lease_ends if record.ends is None else record.ends


def _size_of(answer: Answer) -> int:
    text = sum([len(name) + len(value) + _LINE for name, value in answer.lines])
    return len(answer.body) + len(answer.reason) + text
