"""What the cache takes itself to keep is what Python allocates for it, and it is bounded."""

import tracemalloc
from collections.abc import Callable

import pytest

from proxy.core.cache import vary
from proxy.core.cache.record import Stored
from proxy.core.fields import Fields
from proxy.metrics import Metrics
from proxy.stages.cache import Caching
from proxy.stages.cache.marks import Marks
from proxy.store.memory.cache import Held, MemoryCache
from proxy.store.memory.purges import Purges
from proxy.store.memory.room import SHARE, Room
from proxy.store.ports import Mark, Purge

NOW = 1_700_000_000_000
LIMIT = 2 << 20


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def text(value: str) -> str:
    """The value as it is when it comes from a socket: text of its own."""
    return value.encode().decode()


def varied(fields: int, number: int, length: int, name: int = 1) -> vary.Pairs:
    """What an answer remembers of a request whose fields nobody else sends. `length` and `name`:
    of a value and of a name."""
    names = [text(f"x-field-{i:0{name}d}") for i in range(fields)]
    sent = Fields([(name, text(f"{number:0{length}d}")) for name in names])
    return vary.values(names, sent)


def held(
    purges: Purges,
    number: int,
    *,
    lines: int = 3,
    fields: int = 0,
    length: int = 1,
    name: int = 1,
    target: int = 10,
    tags: int = 0,
) -> Held:
    shown = [(text(f"X-Name-{i}"), text(f"value {i} of {number}")) for i in range(lines)]
    shown.append((text("Date"), text("Tue, 01 Jan 2030 00:00:00 GMT")))
    stored = Stored(
        method="GET", status=200, reason="OK", lines=shown, length=2,
        vary=varied(fields, number, length, name), date=NOW + number, requested=NOW + number,
        received=NOW + number, initial_age=number, lifetime=60_000 + number,
        stale_while_revalidate=0, stale_if_error=0, no_cache=False, must_revalidate=False,
        immutable=False, etag=text(f'"{number}"'), last_modified=NOW + number,
        tags=tuple([f"t{number}-{i}" for i in range(tags)]),
    )  # fmt: skip
    hidden = f"\0path:{number:032x}", f"\0url:{number:032x}"
    known = purges.tagged((*hidden, *stored.tags))
    return Held(stored, bytes(10), known, text(f"/{number:0{target}d}"), number, shown)


def allocated(fill: Callable[[], None]) -> int:
    """Bytes that are allocated after the call and were not before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        fill()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("shape", "variants"),
    [
        ({"lines": 0}, 1),
        ({"lines": 30}, 1),
        ({"target": 4000}, 1),
        ({"tags": 20}, 1),
        ({"fields": 1, "length": 30_000}, 1),
        ({"fields": 1, "length": 30_000}, 60),
        ({"fields": 8, "length": 200}, 1),
        ({"fields": 8, "length": 200}, 60),
        ({"fields": 8, "name": 1000}, 1),
    ],
    ids=str,
)
def test_answers_take_what_they_are_counted_as(shape: dict[str, int], variants: int) -> None:
    room = Room(LIMIT)
    memory, purges = MemoryCache(room), Purges(lambda: NOW)

    def fill() -> None:
        for number in range(2000):
            memory.put(key(number // variants), held(purges, number, **shape))

    taken = allocated(fill)
    assert 0.8 * LIMIT < room.taken <= LIMIT
    assert taken <= 1.2 * LIMIT


@pytest.mark.parametrize(
    ("fields", "length", "name", "variants"),
    [
        (0, 1, 1, 1),
        (1, 30_000, 1, 1),
        (1, 30_000, 1, 16),
        (8, 200, 1, 1),
        (8, 200, 1, 16),
        (8, 1, 1000, 1),
    ],
)
def test_marks_take_what_they_are_counted_as(
    fields: int, length: int, name: int, variants: int
) -> None:
    room = Room(SHARE * LIMIT)
    marks = Marks(room)

    def fill() -> None:
        for number in range(10_000):
            mark = Mark(varied(fields, number, length, name), "", NOW + number)
            marks.put(key(number // variants), mark, NOW - 1)

    taken = allocated(fill)
    assert 0.9 * LIMIT < room.taken <= LIMIT
    assert taken <= 1.2 * LIMIT


@pytest.mark.parametrize("length", [5, 1000])
def test_purged_tags_take_what_they_are_counted_as(length: int) -> None:
    room = Room(SHARE * LIMIT)
    purges = Purges(lambda: NOW, room=room)

    def fill() -> None:
        for number in range(10_000):
            purges.apply(Purge((f"{number:0{length}d}",)))

    taken = allocated(fill)
    assert 0.9 * LIMIT < room.taken <= LIMIT
    assert taken <= 1.2 * LIMIT


def test_answers_marks_and_purged_tags_share_one_bound() -> None:
    metrics = Metrics()
    caching = Caching(metrics, LIMIT, clock=lambda: NOW)

    def fill() -> None:
        for number in range(3000):
            caching.keep(key(number), held(caching.purges, number), ())
            caching.mark(key(number), Mark(varied(1, number, 300), "", NOW + 60_000))
            caching.purges.apply(Purge((f"tag {number}",)))

    taken = allocated(fill)
    assert caching.marks.size > LIMIT // 9
    assert caching.memory.size > LIMIT // 2
    assert 0.9 * LIMIT < metrics.cache_bytes["memory"] <= LIMIT
    assert taken <= 1.2 * LIMIT


def test_a_small_room_is_not_taken_by_names_alone() -> None:
    """And an answer may be dropped however full it is."""
    room = Room(100 * 1024)
    memory, purges = MemoryCache(room), Purges(lambda: NOW, room=room)
    one = held(purges, 1, lines=1)
    memory.put(key(1), one)
    for number in range(5000):
        purges.apply(Purge((f"tag-{number}",)))
    assert room.taken - memory.size <= room.size / 2
    memory.drop(key(1), one)
    assert (len(memory), memory.size) == (0, 0)
