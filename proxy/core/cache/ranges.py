"""Parts of a stored 200 (RFC 9110 §13.1.5, §14).

Rules:
- Range counts for GET alone, in the unit `bytes`; what is invalid or unknown is ignored (200).
- A suffix longer than the body is the whole body; what begins behind the end is unsatisfiable, and
  so is a suffix of nothing; where no range is satisfiable: 416. An empty body is always whole.
- Several ranges are answered where they come down to one: a 206 never goes out as multipart. Where
  they do not, the whole body answers (§14.2 lets a server ignore Range), so neither overlapping nor
  many small ranges cost more than the body once. More than MAX_RANGES are not even read.
- If-Range holds where it is the stored strong ETag, or exactly a Last-Modified that is strong: at
  least a second older than Date (§8.8.2.2). Where it does not, the whole body answers.
- Conditions come first (§13.2.2): the stage asks `conditionals` before it asks for a part.
- In a 206 Content-Digest is left out: it covers the bytes of this message. Repr-Digest stays: it
  covers all of the representation (RFC 9530 §2, §3).
"""

import re
from dataclasses import dataclass
from typing import Final

from proxy.core.cache.record import SECOND, Stored
from proxy.core.dates import parse_http_date
from proxy.core.fields import Fields, Lines

MAX_RANGES: Final = 16

_UNIT = re.compile(r"bytes=", re.IGNORECASE)
_SPEC = re.compile(r"([0-9]*)-([0-9]*)")
_FAR = 10**18
"""Stands for every position with more digits: beyond any body."""


@dataclass(frozen=True)
class Whole:
    """200 with all of the body."""


@dataclass(frozen=True)
class Part:
    """206 with the bytes from `start` to before `stop`."""

    start: int
    stop: int


@dataclass(frozen=True)
class Unsatisfiable:
    """416."""


Selection = Whole | Part | Unsatisfiable

_WHOLE = Whole()
_UNSATISFIABLE = Unsatisfiable()


def select(method: str, request: Fields, stored: Stored, now: int) -> Selection:
    """What a request gets of a stored answer. `now` in ms reads two-digit years."""
    asked = request.index.get("range")
    if asked is None or method != "GET" or stored.status != 200 or stored.length is None:
        return _WHOLE
    condition = request.index.get("if-range")
    if condition is not None and not _holds(condition, stored, now):
        return _WHOLE
    return parse(asked, stored.length)


def _holds(condition: str, stored: Stored, now: int) -> bool:
    if condition.startswith('"'):
        return condition == stored.etag
    modified = stored.last_modified
    if modified is None or stored.date - modified < SECOND:
        return False
    return parse_http_date(condition, now) == modified


def parse(value: str, length: int) -> Selection:
    """A Range field's value, applied to a body of `length` bytes. Never raises."""
    unit = _UNIT.match(value)
    if unit is None or not length:  # no Content-Range can speak of an empty body
        return _WHOLE
    specs = value[unit.end() :].split(",", MAX_RANGES)
    if len(specs) > MAX_RANGES:
        return _WHOLE
    found: list[tuple[int, int]] = []
    any_spec = False
    for text in specs:
        spec = text.strip(" \t")
        if not spec:
            continue  # an empty list member says nothing (RFC 9110 §5.6.1)
        span = _span(spec, length)
        if span is None:
            return _WHOLE
        any_spec = True
        if span[0] < span[1]:
            found.append(span)
    if not found:
        return _UNSATISFIABLE if any_spec else _WHOLE
    return _as_one(found)


def _span(spec: str, length: int) -> tuple[int, int] | None:
    """(start, stop) of one range, empty where it is unsatisfiable; None where it is invalid."""
    form = _SPEC.fullmatch(spec)
    if form is None or spec == "-":
        return None
    first, last = form.groups()
    if not first:
        return max(0, length - _number(last)), length
    start = _number(first)
    if not last:
        return start, length
    stop = _number(last)
    if stop < start:
        return None
    return start, min(stop + 1, length)


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return _FAR if len(digits) > 18 else int(digits or "0")


def _as_one(found: list[tuple[int, int]]) -> Selection:
    """The one span that they cover without a gap, or Whole."""
    found.sort()
    start, stop = found[0]
    for begin, end in found[1:]:
        if begin > stop:
            return _WHOLE
        stop = max(stop, end)
    return Part(start, stop)


def part_lines(lines: Lines, part: Part, length: int) -> Lines:
    """The stored lines as the 206 has them; Content-Length is the edge's."""
    kept = [line for line in lines if line[0].lower() not in ("content-digest", "content-range")]
    kept.append(("Content-Range", f"bytes {part.start}-{part.stop - 1}/{length}"))
    return kept


def unsatisfiable_lines(length: int) -> Lines:
    """The lines of the 416 for a body of `length` bytes."""
    return [("Content-Range", f"bytes */{length}")]
