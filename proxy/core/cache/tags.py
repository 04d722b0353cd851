"""Tags: the names under which stored answers are purged together.

From the policy (`tags: ["user:{path.id}", users]`) and from the origin: Surrogate-Key (separated by
spaces), Cache-Tag (by commas) and Cache-Groups (RFC 9875, a List of Strings). A name means the same
wherever it comes from: purging `users` finds all of them. Names have case.

Rules:
- Lines count one by one; empty names do not exist, so an answer without tags has none, and no
  purge finds it by the name of nothing.
- A Cache-Groups field that is not a List of Strings is ignored as a whole (RFC 9651 §4.2).
- An answer that cannot carry all its tags must not be stored: a purge would miss it. `of` gives
  None then. The caps are above what CDNs take and what RFC 9875 asks for.
- Captures are percent-decoded, as in limit keys: `/users/%37` is user 7, whoever spells it how.
- Text is wire text (latin-1, one character per byte); names from YAML or JSON are their UTF-8.
- No name is empty or holds NUL; those that begin with NUL are the cache's own (core.cache.urls).
- `expose_tags: false` takes Surrogate-Key, Cache-Tag and Surrogate-Control off what clients see:
  they speak to the surrogate, which is us. Cache-Groups and Cache-Group-Invalidation stay: they are
  end-to-end and meant for every cache on the way, the client's too.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import http_sf

from proxy.core.cache.urls import group_tag
from proxy.core.fields import Fields, Lines

MAX_TAGS: Final = 256
"""Tags of one stored answer."""
MAX_TAG: Final = 1024
"""Characters of one tag."""
MAX_TOTAL: Final = 16 * 1024
"""Characters of all tags of one stored answer."""

HIDDEN_FIELDS: Final = frozenset({"surrogate-key", "cache-tag", "surrogate-control"})

_CAPTURE = re.compile(r"\{path\.([A-Za-z_][A-Za-z0-9_]*)\}")


def from_text(text: str) -> str:
    """A tag as an operator writes it, as wire text. Raises ValueError, a sentence."""
    wire = text.encode().decode("latin-1")
    if not wire or "\0" in wire:
        raise ValueError(f"{text!r} is no tag: it must not be empty or hold a NUL")
    if len(wire) > MAX_TAG:
        raise ValueError(f"a tag has at most {MAX_TAG} bytes, not {len(wire)}")
    return wire


class TagTemplate:
    """A policy's tag, with `{path.NAME}` for a route's captures."""

    __slots__ = ("_pieces", "captures", "text")

    def __init__(self, text: str, pieces: tuple[tuple[bool, str], ...]) -> None:
        self.text = text
        self._pieces = pieces
        self.captures = frozenset(piece for capture, piece in pieces if capture)
        """Names of the captures that a route must have."""

    @classmethod
    def parse(cls, text: str) -> "TagTemplate":
        """Reads a template. Raises ValueError, a sentence."""
        from_text(text)
        pieces: list[tuple[bool, str]] = []
        place = 0
        for capture in _CAPTURE.finditer(text):
            pieces += [(False, text[place : capture.start()]), (True, capture[1])]
            place = capture.end()
        pieces.append((False, text[place:]))
        literal = "".join(piece for capture, piece in pieces if not capture)
        if "{" in literal or "}" in literal:
            raise ValueError(f"{text!r} holds a brace that belongs to no {{path.NAME}}")
        wired = ((c, p if c else p.encode().decode("latin-1")) for c, p in pieces if p)
        return cls(text, tuple(wired))

    def fill(self, captures: Mapping[str, str]) -> str:
        """The tag of one request; `captures` are the route's, raw."""
        return "".join([_decoded(captures[p]) if c else p for c, p in self._pieces])


def _decoded(raw: str) -> str:
    if "%" not in raw:
        return raw
    return unquote_to_bytes(raw.encode("latin-1")).decode("latin-1")


def groups(response: Fields, name: str = "cache-groups") -> tuple[str, ...]:
    """The Strings of Cache-Groups (or Cache-Group-Invalidation); () where it is not a List of
    Strings. Parameters are ignored."""
    value = response.index.get(name)
    if not value:
        return ()
    try:
        members: Any = http_sf.parse(value.encode("latin-1"), tltype="list")
    except ValueError:
        return ()
    found = []
    for member in members:
        text = member[0]
        if not isinstance(text, str):  # a Token and a Display String are types of their own
            return ()
        if text:
            found.append(text)
    return tuple(dict.fromkeys(found))


def of(
    response: Fields,
    templates: Sequence[TagTemplate] = (),
    captures: Mapping[str, str] | None = None,
    origin: str | None = None,
) -> tuple[str, ...] | None:
    """All tags of an answer, each once, or None where they are too many or too long to carry.

    `response` is the origin's; `captures` are the route's, raw. With the `origin` of the request
    (core.cache.urls) its Cache-Groups are also found by Cache-Group-Invalidation, through hidden
    tags that do not count against the caps.
    """
    found = [template.fill(captures or {}) for template in templates]
    index = response.index
    if "surrogate-key" in index:
        for line in response.all("surrogate-key"):
            found += line.split()
    if "cache-tag" in index:
        for line in response.all("cache-tag"):
            found += [tag.strip(" \t") for tag in line.split(",")]
    grouped = groups(response) if "cache-groups" in index else ()
    found += grouped
    tags = tuple(dict.fromkeys(tag for tag in found if tag))
    if tags and (
        len(tags) > MAX_TAGS or max(map(len, tags)) > MAX_TAG or sum(map(len, tags)) > MAX_TOTAL
    ):
        return None
    if origin is None or not grouped:
        return tags
    return tags + tuple(group_tag(origin, group) for group in grouped)


def filled(templates: Iterable[TagTemplate], captures: Mapping[str, str]) -> tuple[str, ...]:
    """The tags that a route's `invalidate` names for one request. What is too long to be carried by
    anything stored (`of`) is none."""
    found = dict.fromkeys(t.fill(captures) for t in templates)
    return tuple(tag for tag in found if 0 < len(tag) <= MAX_TAG)


def without_tags(lines: Lines) -> Lines:
    """The lines that a client sees where tags are not exposed."""
    return [line for line in lines if line[0].lower() not in HIDDEN_FIELDS]
