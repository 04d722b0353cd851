"""Hit-for-miss marks: whom they are for, how long they stay, and how much they take."""

import pytest
from stage_plans import exchange, route_plan

from proxy.core.cache.record import CacheTerms
from proxy.core.cache.seen import Seen
from proxy.exchange import Exchange
from proxy.stages.cache.marks import MAX_PER_KEY, Marks
from proxy.store.memory.room import SHARE, Room
from proxy.store.ports import Mark

MB = 1024 * 1024
TERMS = CacheTerms()


@pytest.fixture
def room() -> Room:
    return Room(MB)


@pytest.fixture
def marks(room: Room) -> Marks:
    return Marks(room)


def key(n: int) -> bytes:
    return n.to_bytes(16, "big")


def asked(*lines: tuple[str, str]) -> Exchange:
    ex = exchange(lines=list(lines))
    ex.route = route_plan("r")
    return ex


def covered(marks: Marks, at: int, now: int, *lines: tuple[str, str]) -> bool:
    ex = asked(*lines)
    return marks.cover(key(at), ex.fields, Seen(ex), TERMS, now)


def test_they_go_when_their_time_is_over(marks: Marks, room: Room) -> None:
    for n in range(100):
        marks.put(key(n), Mark((("a", str(n)),), "", 1000 + n), 0)
    assert room.taken == marks.size > 0
    assert covered(marks, 99, 1050, ("a", "99"))
    assert not covered(marks, 50, 1050, ("a", "50"))
    half = room.taken
    assert not covered(marks, 1000, 1099)
    assert (half > 0, room.taken, marks.size) == (True, 0, 0)


def test_one_that_comes_again_stays_longer(marks: Marks, room: Room) -> None:
    for until in range(1000, 2000):
        marks.put(key(1), Mark((), "", until), until - 1000)
    taken = room.taken
    assert covered(marks, 1, 1998)
    assert room.taken == taken
    assert not covered(marks, 1, 1999)
    assert room.taken == 0


def test_they_take_their_share_and_no_more(marks: Marks, room: Room) -> None:
    for n in range(5000):
        marks.put(key(n), Mark((("a", "x" * 200),), "", 10_000 + n), 0)
    assert 0.9 * MB / SHARE < room.taken <= MB / SHARE
    assert covered(marks, 4999, 0, ("a", "x" * 200))  # what ends first has gone first
    assert not covered(marks, 0, 0, ("a", "x" * 200))


def test_too_many_under_one_key_become_one_for_all(marks: Marks, room: Room) -> None:
    for n in range(MAX_PER_KEY + 1):
        marks.put(key(1), Mark((("a", str(n)),), "", 1000), 0)
    assert covered(marks, 1, 0, ("a", "other"))
    marks.lift(key(1), asked().fields, Seen(asked()), TERMS)
    assert room.taken == 0
