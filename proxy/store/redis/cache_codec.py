"""Stored answers and marks as bytes, and back.

A record is '<HI', then what those two are about: its form, the CRC-32 of what follows; then for a
variant '<I' and so many bytes of JSON, and the body where it is not apart; for a mark just JSON.

Rules:
- The form is a hash of this format and of the names and types of what is stored: a release that
  stores something else takes the other's records for missing, and neither fails.
- What cannot be read is no record (None), never an error.
- JSON is encoded as latin-1, as all text is.
"""

import json
import struct
from binascii import crc32
from collections.abc import Sequence
from dataclasses import fields
from hashlib import blake2b
from operator import attrgetter
from struct import Struct
from typing import Any, Final, NamedTuple

from proxy.core.cache.record import Stored
from proxy.store.ports import Kept, Mark
from proxy.store.redis.cache_names import NO_BODY

_ENTRY: Final = Struct("<I1s16sd8sH")  # as lua/include/cache_entries.lua says
_HEAD: Final = Struct("<HI")
_LENGTH: Final = Struct("<I")
_TAG: Final = 8

_NAMES: Final = tuple(field.name for field in fields(Stored))
_LINES, _VARY, _TAGS = (_NAMES.index(name) for name in ("lines", "vary", "tags"))
# Lines and vary are (name, value) pairs: each stands as one flat list.
_values: Final = attrgetter(*_NAMES)
_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

FORM: Final = int.from_bytes(
    blake2b(
        repr(["1", Mark._fields, [(f.name, str(f.type)) for f in fields(Stored)]]).encode(),
        digest_size=2,
    ).digest(),
    "little",
)


class Entry(NamedTuple):
    """One entry of a primary key, unread."""

    variant: bool
    """Else it is a mark."""
    expires: int
    """ms since the epoch, by the server's clock."""
    body: bytes
    """The name of its body, NO_BODY where it is not apart."""
    tags: bytes
    record: bytes


def entries(text: bytes) -> list[Entry]:
    """The entries of a primary key, oldest first."""
    found = []
    at = 0
    while at + _ENTRY.size <= len(text):
        length, kind, _, expires, body, tags = _ENTRY.unpack_from(text, at)
        start = at + _ENTRY.size
        record = start + tags * _TAG
        at += 4 + length
        if not record <= at <= len(text):
            break
        found.append(Entry(kind == b"v", int(expires), body, text[start:record], text[record:at]))
    return found


def write_variant(kept: Kept, body: bytes) -> bytes:
    """The record of an answer; `body` is b"" where it is apart."""
    values = list(_values(kept.stored))
    for place in (_LINES, _VARY):
        values[place] = [part for pair in values[place] for part in pair]
    text = _encode([kept.target, kept.began, kept.hidden, *values]).encode("latin-1")
    return _sealed(_LENGTH.pack(len(text)) + text + body)


def read_variant(entry: Entry) -> Kept | None:
    """The answer, with its body unless that is apart."""
    opened = _opened(entry.record)
    if opened is None:
        return None
    try:
        (length,) = _LENGTH.unpack_from(opened)
        body = opened[_LENGTH.size + length :]
        target, began, hidden, *values = json.loads(
            opened[_LENGTH.size : _LENGTH.size + length].decode("latin-1")
        )
        if len(values) != len(_NAMES):
            return None
        values[_LINES] = _pairs(values[_LINES])
        values[_VARY] = tuple(_pairs(values[_VARY]))
        values[_TAGS] = tuple(values[_TAGS])
        stored = Stored(*values)
        hidden = tuple(hidden)
    except (ValueError, TypeError, LookupError, RecursionError, struct.error):
        return None
    if entry.body != NO_BODY:
        return Kept(stored, target, began, None, entry.body, hidden)
    if stored.method == "GET" and len(body) != stored.length:
        return None
    return Kept(stored, target, began, body, hidden=hidden)


def write_mark(mark: Mark) -> bytes:
    flat = [part for pair in mark.vary for part in pair]
    return _sealed(_encode([flat, mark.kind, mark.until]).encode("latin-1"))


def read_mark(entry: Entry) -> Mark | None:
    opened = _opened(entry.record)
    if opened is None:
        return None
    try:
        flat, kind, until = json.loads(opened.decode("latin-1"))
        return Mark(tuple(_pairs(flat)), kind, until)
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def _sealed(text: bytes) -> bytes:
    return _HEAD.pack(FORM, crc32(text)) + text


def _opened(record: bytes) -> bytes | None:
    if len(record) < _HEAD.size:
        return None
    form, check = _HEAD.unpack_from(record)
    text = record[_HEAD.size :]
    return text if form == FORM and crc32(text) == check else None


def _pairs(flat: Sequence[Any]) -> list[tuple[Any, Any]]:
    parts = iter(flat)
    return list(zip(parts, parts, strict=True))
