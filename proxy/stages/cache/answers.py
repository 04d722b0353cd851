"""Answers made of what is stored: whole, a part, 304 or 416, with Age and Cache-Status.

The order is RFC 9110 §13.2.2's: If-None-Match, If-Modified-Since, then If-Range and Range.
"""

from typing import NamedTuple

from proxy.core.cache import cache_status, conditionals, ranges
from proxy.core.cache.record import Stored
from proxy.core.fields import Fields, Lines
from proxy.core.message import Reply
from proxy.exchange import Exchange
from proxy.store.memory.cache import Held

_SELECTING = frozenset({"if-none-match", "if-modified-since", "range"})


class Shape(NamedTuple):
    """What of a stored answer a request gets: the bytes from `start` to before `stop` (None: to
    the end), none where `empty`."""

    status: int
    lines: Lines
    start: int = 0
    stop: int | None = None
    empty: bool = False


def plain(fields: Fields) -> bool:
    """Whether a request takes a stored answer as it is."""
    return _SELECTING.isdisjoint(fields.index)


def shape(ex: Exchange, stored: Stored, lines: Lines, now: int) -> Shape:
    """Applies the request's conditions and Range to `lines`, those of a 200 that may be used."""
    if plain(ex.fields):
        return Shape(stored.status, lines)
    if conditionals.client_has_it(ex.method, ex.fields, stored, now):
        return Shape(304, conditionals.not_modified_lines(lines), empty=True)
    selected = ranges.select(ex.method, ex.fields, stored, now)
    if isinstance(selected, ranges.Part):
        assert stored.length is not None
        cut = ranges.part_lines(lines, selected, stored.length)
        return Shape(206, cut, selected.start, selected.stop)
    if isinstance(selected, ranges.Unsatisfiable):
        assert stored.length is not None
        return Shape(416, ranges.unsatisfiable_lines(stored.length), empty=True)
    return Shape(stored.status, lines)


def held_reply(ex: Exchange, held: Held, age: int, member: str, now: int) -> Reply:
    """A stored answer with its body at hand. `age` in ms; `member` is our Cache-Status."""
    stored = held.stored
    if held.head and plain(ex.fields):
        head = f"{held.head}Age: {age // 1000}\r\n{cache_status.NAME}: {member}\r\n"
        return Reply(stored.status, head, held.body, stored.length, stored.reason, True)
    status, lines, start, stop, empty = shape(ex, stored, held.lines, now)
    return Reply(
        status,
        [*lines, ("Age", str(age // 1000)), (cache_status.NAME, member)],
        b"" if empty else held.body[start:stop],
        length=stored.length if status == stored.status else None,
        origin=True,
        reason=stored.reason if status == stored.status else "",
    )


def with_member(reply: Reply, lines: Lines, member: str) -> Reply:
    """The same answer, with these lines and our Cache-Status."""
    reply.fields = [*lines, (cache_status.NAME, member)]
    return reply


def copy_of(reply: Reply) -> Reply:
    """Another answer that says the same: one whose body is at hand."""
    copied = Reply(reply.status, list(reply.fields), reply.body, length=reply.length)
    copied.trouble = reply.trouble
    return copied
