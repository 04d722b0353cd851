"""What Cache-Control says, read once per message (RFC 9111 §5.2, RFC 9213).

Rules:
- A directive is a token, with or without an argument; the argument is a token or a quoted string.
  Commas and directives inside a quoted string are text. Names compare without case. Repeated lines
  are one list.
- Of a directive given twice with numbers the first counts (§4.2.1). A prohibition counts wherever
  it stands and however it is dressed (`no-store=1`); a permission counts only where it is well
  formed. Freshness that cannot be read is none: max-age and s-maxage become 0 (§4.2.1).
- Numbers end at 2^31 seconds (§1.2.2).
- A response field that breaks off inside a quoted string may have lost anything: no-store.
- `CDN-Cache-Control` decides alone where it is a valid, non-empty dictionary: Cache-Control and
  Expires are then not looked at (RFC 9213 §2.2). A number that is not an Integer makes it invalid.
- A request's Pragma counts only where it has no Cache-Control (§5.4); a response's never does.

Spans are milliseconds.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar, cast

import http_sf

from proxy.core.fields import Fields

MOST: Final = 2**31 * 1000
"""The longest span a directive can give."""

UNLIMITED: Final = 1 << 62
"""max-stale without a number: however stale."""

_PART = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))+', re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWS = " \t"


@dataclass(frozen=True)
class ResponseDirectives:
    """A response's directives. None is not given."""

    targeted: bool = False
    """Of CDN-Cache-Control: Expires does not count."""
    no_store: bool = False
    no_cache: bool = False
    """Without field names: the whole response."""
    private: bool = False
    """Without field names: the whole response."""
    withheld: frozenset[str] = frozenset()
    """Fields (lower case) that private="…" or no-cache="…" keep from other users."""
    public: bool = False
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    must_understand: bool = False
    immutable: bool = False
    s_maxage: int | None = None
    max_age: int | None = None
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None


@dataclass(frozen=True)
class RequestDirectives:
    """A request's directives. None is not given; `PLAIN` is the one without any."""

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age: int | None = None
    max_stale: int | None = None
    """UNLIMITED where it has no argument."""
    min_fresh: int | None = None
    stale_if_error: int | None = None


PLAIN: Final = RequestDirectives()
"""No directives at all: what nearly every request says. Compare with `is`."""


class _Member(NamedTuple):
    name: str
    """Lower case."""
    argument: str | None
    sound: bool
    """Whether it follows the grammar to its end."""


def read_response(fields: Fields) -> ResponseDirectives:
    """The directives that hold for this response."""
    targeted = fields.index.get("cdn-cache-control")
    if targeted is not None and (found := _read_targeted(targeted)) is not None:
        return found
    value = fields.index.get("cache-control")
    return NOTHING if value is None else _read_plain(value)


def read_request(fields: Fields) -> RequestDirectives:
    """The directives of a request: `PLAIN`, the same object, where there are none."""
    index = fields.index
    value = index.get("cache-control")
    if value is None:
        value = index.get("pragma")
        if value is None:
            return PLAIN
        return _NO_CACHE if any(m.name == "no-cache" for m in _members(value)) else PLAIN
    return _read_request(value)


NOTHING: Final = ResponseDirectives()
"""No directives at all."""

_NO_CACHE = RequestDirectives(no_cache=True)
_T = TypeVar("_T")


def _remembered(read: Callable[[str], _T]) -> Callable[[str], _T]:
    """Browsers and origins send the same few values. Long ones are read anew, so that what is
    remembered stays small whatever strangers send."""
    short = lru_cache(maxsize=256)(read)
    return lambda value: short(value) if len(value) < 128 else read(value)


@_remembered
def _read_request(value: str) -> RequestDirectives:
    flags: set[str] = set()
    spans: dict[str, int | None] = {}
    for name, argument, sound in _members(value):
        if name in ("no-cache", "no-store", "only-if-cached"):
            flags.add(name)
        elif name in spans:
            continue
        elif name == "max-age":
            spans[name] = _span(argument, sound) or 0
        elif name == "max-stale" and argument is None and sound:
            spans[name] = UNLIMITED
        elif name in ("max-stale", "min-fresh", "stale-if-error"):
            spans[name] = _span(argument, sound)
    read = RequestDirectives(
        no_cache="no-cache" in flags,
        no_store="no-store" in flags,
        only_if_cached="only-if-cached" in flags,
        max_age=spans.get("max-age"),
        max_stale=spans.get("max-stale"),
        min_fresh=spans.get("min-fresh"),
        stale_if_error=spans.get("stale-if-error"),
    )
    return PLAIN if read == PLAIN else read


@_remembered
def _read_plain(value: str) -> ResponseDirectives:
    flags: set[str] = set()
    spans: dict[str, int] = {}
    withheld: set[str] = set()
    for name, argument, sound in _members(value):
        if name in _SPANS:
            if name not in spans:
                spans[name] = _span(argument, sound) or 0
        elif name in ("private", "no-cache"):
            names = _field_names(argument) if argument is not None and sound else frozenset()
            withheld |= names
            if not names:
                flags.add(name)
        elif sound or name not in _PERMISSIONS:
            flags.add(name)
    return _response(flags, spans, withheld)


@_remembered
def _read_targeted(value: str) -> ResponseDirectives | None:
    """RFC 9213's field, or None where it must be taken as absent."""
    try:
        parsed = http_sf.parse(value.encode("latin-1"), tltype="dictionary")
    except (http_sf.StructuredFieldError, ValueError):
        return None
    members = cast(dict[str, tuple[Any, Any]], parsed)
    if not members:
        return None
    flags: set[str] = set()
    spans: dict[str, int] = {}
    withheld: set[str] = set()
    for name, (argument, _) in members.items():
        if name in _SPANS:
            if type(argument) is not int:
                return None
            spans[name] = max(0, min(argument * 1000, MOST))
        elif name in ("private", "no-cache") and type(argument) is str:
            names = _field_names(argument)
            withheld |= names
            if not names:
                flags.add(name)
        elif argument is not False:
            flags.add(name)
    return _response(flags, spans, withheld, targeted=True)


_SPANS = frozenset({"s-maxage", "max-age", "stale-while-revalidate", "stale-if-error"})
_PERMISSIONS = frozenset({"public", "must-understand", "immutable"})
_STEERING = frozenset({"cache-control", "cdn-cache-control", "vary"})
_BROKEN = "\0"  # no directive's name: stands for a field that breaks off


def _response(
    flags: set[str], spans: dict[str, int], withheld: set[str], *, targeted: bool = False
) -> ResponseDirectives:
    return ResponseDirectives(
        targeted=targeted,
        no_store="no-store" in flags or _BROKEN in flags,
        no_cache="no-cache" in flags,
        private="private" in flags,
        withheld=frozenset(withheld),
        public="public" in flags,
        must_revalidate="must-revalidate" in flags,
        proxy_revalidate="proxy-revalidate" in flags,
        # What is lost in a broken field is not made good by a permission.
        must_understand="must-understand" in flags and _BROKEN not in flags,
        immutable="immutable" in flags,
        s_maxage=spans.get("s-maxage"),
        max_age=spans.get("max-age"),
        stale_while_revalidate=spans.get("stale-while-revalidate"),
        stale_if_error=spans.get("stale-if-error"),
    )


def _members(value: str) -> list[_Member]:
    quoted = '"' in value
    parts = _PART.findall(value) if quoted else value.split(",")
    found = [_member(part) for raw in parts if (part := raw.strip(_OWS))]
    if quoted and parts and _unclosed(parts[-1]):
        found.append(_Member(_BROKEN, None, False))
    return found


def _member(part: str) -> _Member:
    token = _TOKEN.match(part)
    if token is None:
        return _Member("", None, False)
    name = token.group().lower()
    rest = part[token.end() :]
    if not rest:
        return _Member(name, None, True)
    if rest[0] == "=":
        argument = rest[1:]
        if _TOKEN.fullmatch(argument):
            return _Member(name, argument, True)
        if quoted := _QUOTED.fullmatch(argument):
            return _Member(name, _ESCAPE.sub(r"\1", quoted.group(1)), True)
    return _Member(name, None, False)


def _unclosed(part: str) -> bool:
    return '"' in _QUOTED.sub("", part)


def delta_seconds(text: str) -> int | None:
    """delta-seconds as milliseconds, at most `MOST`; None where it is not digits only (§1.2.2)."""
    if not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0")
    return MOST if len(digits) > 10 else min(int(digits or "0") * 1000, MOST)


def _span(argument: str | None, sound: bool) -> int | None:
    return delta_seconds(argument) if argument is not None and sound else None


def _field_names(argument: str) -> frozenset[str]:
    """The names that private="…" or no-cache="…" lists. None of them where one is no name, or is a
    field that the cache itself needs: then the directive covers the whole response."""
    names = frozenset(name.lower() for raw in argument.split(",") if (name := raw.strip(_OWS)))
    clear = names.isdisjoint(_STEERING) and all(map(_TOKEN.fullmatch, names))
    return names if clear else frozenset()
