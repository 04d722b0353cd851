"""Which of several stored answers a request selects (RFC 9111 §4.1, RFC 9110 §12.5.5).

Rules:
- `*` as any member, on any line, never matches; so does a member that is no field name, since
  nobody can tell what the origin meant by it.
- A field that is absent matches only where it is absent; every variant is judged by its own Vary.
- Values are compared as the upstream sees them (core.cache.seen), after what §4.1 permits and no
  more: lines are joined; whitespace around commas goes, but not within quotes and not in fields
  that are no lists; in Accept-Encoding and Accept-Language case and the writing of weights do not
  count, nor does order between different weights. Order between equal weights does: many origins
  take the first, and would send `de, en` another page than `en, de`.
- A value of more than LONGEST characters is remembered as a digest (128 bits, as primary keys are):
  clients choose these values, and each stored answer, mark and fetch would hold one.
- Of several matches the most recent by Date is taken, those with Vary first.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from proxy.core.cache.record import Stored
from proxy.core.cache.seen import Source
from proxy.core.fields import Fields

Pairs = tuple[tuple[str, str | None], ...]
"""(field name in lower case, its normalised value in a request or None), sorted by name."""

LONGEST: Final = 256
"""Characters of a value that is kept as it is, and remembered with its normal form."""

SINGLETONS: Final = frozenset(
    {
        "authorization", "content-length", "content-type", "cookie", "date", "dnt", "from", "host",
        "if-modified-since", "if-range", "if-unmodified-since", "max-forwards", "origin",
        "proxy-authorization", "referer", "user-agent", "x-request-id",
    }
)  # fmt: skip
"""Fields that are no lists: a comma in them is just a comma."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Either a quoted string (left alone, also one that never ends) or a comma with its whitespace.
_COMMA = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[ \t]*,[ \t]*')
_WEIGHTED = frozenset(("accept-encoding", "accept-language"))
_MEMBER = re.compile(
    r"([!#$%&'*+.^_`|~0-9a-z-]+)(?:[ \t]*;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?"
)


def names(response: Fields) -> tuple[str, ...] | None:
    """The names that Vary lists, lower case, sorted, each once; None where nothing can match."""
    value = response.index.get("vary")
    return () if value is None else _names(value)


@lru_cache(maxsize=256)  # the upstreams' own words
def _names(value: str) -> tuple[str, ...] | None:
    found = {member.strip(" \t").lower() for member in value.split(",")} - {""}
    if any(name == "*" or not _TOKEN.fullmatch(name) for name in found):
        return None
    return tuple(sorted(found))


def values(names: Iterable[str], request: Source) -> Pairs:
    """What a stored answer remembers of its request: each name with its normalised value."""
    return tuple([(name, normalised(name, request.get(name))) for name in names])


def normalised(name: str, value: str | None) -> str | None:
    """A field's value (lines joined) as it is compared. Doing it twice changes nothing."""
    if value is None:
        return None
    if len(value) > LONGEST:
        return _long(name, value)
    if name in _WEIGHTED:
        return _remembered(value)
    return value if name in SINGLETONS else _without_spaces(value)


@lru_cache(maxsize=8)  # those of the request at hand, as each stored variant asks for them again
def _long(name: str, value: str) -> str:
    """The normal form of a long value, or what stands for it where that is long as well. No field
    value holds NUL (RFC 9110 §5.5), so a digest equals none."""
    if name in _WEIGHTED:
        value = _weighted(value)
    elif name not in SINGLETONS:
        value = _without_spaces(value)
    if len(value) <= LONGEST:
        return value
    return "\0" + blake2b(value.encode("latin-1"), digest_size=16).hexdigest()


def _without_spaces(value: str) -> str:
    if "," not in value:
        return value
    return _COMMA.sub(lambda found: "," if found[0][0] != '"' else found[0], value)


def _weighted(value: str) -> str:
    members: list[tuple[str, int]] = []
    for member in value.split(","):
        text = member.strip(" \t").lower()
        found = _MEMBER.fullmatch(text)
        if found is None:
            if not text:
                continue  # an empty member says nothing (RFC 9110 §5.6.1)
            return _without_spaces(value)
        whole, _, fraction = (found[2] or "1").partition(".")
        members.append((found[1], int(whole) * 1000 + int(f"{fraction:0<3}")))
    members.sort(key=lambda member: -member[1])
    return ",".join([name if q == 1000 else f"{name};q={_weight(q)}" for name, q in members])


_remembered = lru_cache(maxsize=1024)(_weighted)


def _weight(thousandths: int) -> str:
    return f"0.{thousandths:03d}".rstrip("0").rstrip(".")


def matches(vary: Pairs, request: Source) -> bool:
    """Whether a request selects the answer that remembers these pairs."""
    for name, wanted in vary:
        value = request.get(name)
        # Most clients write a value as it was stored: no need to normalise it.
        if value != wanted and normalised(name, value) != wanted:
            return False
    return True


def select(variants: Sequence[Stored], request: Source, method: str) -> Stored | None:
    """The stored answer that a GET or HEAD selects, or None. HEAD's own answers HEAD alone."""
    best: Stored | None = None
    for stored in variants:
        if stored.method != "GET" and method != "HEAD":
            continue
        if (not stored.vary or matches(stored.vary, request)) and (
            best is None or _rank(stored) > _rank(best)
        ):
            best = stored
    return best


def _rank(stored: Stored) -> tuple[bool, int, int]:
    return bool(stored.vary), stored.date, stored.received
