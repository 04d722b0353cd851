"""Asking the origin whether a stored answer still holds, and what its answer changes (RFC 9111
§3.2, §4.3).

Rules:
- A condition is sent for each validator there is (§4.3.1).
- A 304 freshens the entry whose strong ETag it names; if it names only weak ones (a W/ ETag, or
  Last-Modified) the entry that matches weakly; if it names none, the one that was asked about
  (§4.3.4, and what origins do). A strong ETag that fits no entry freshens none: ask again without
  conditions.
- A 304 replaces every field it has, all lines of it; others stay (§3.2). Not replaced:
  Content-Length and Content-Range, which speak of a body that a 304 does not have. Nor is what is
  never stored (core.cache.storing). Date, Age and the lifetime begin anew with the 304's times.
- A 304 can take back the leave to store: then the entry is used for this answer and dropped.
- A 304 to a request with credentials or a cookie outside the key may have fields made for one
  user, as a full answer may. Where that would not be stored, the 304 is for its client alone: the
  entry stays as it is.
- A HEAD's 200 updates a stored GET where what it shows of the body (ETag, Last-Modified,
  Content-Length) is the same; where something differs the GET is stale at once (§4.3.5). One that
  shows nothing of it proves nothing, and changes nothing; nor does one for a single user.

After any other answer the stored one is replaced or left alone; for errors see core.cache.reuse.
Times are integer milliseconds.
"""

from dataclasses import replace
from typing import Final, NamedTuple

from proxy.core.cache import vary
from proxy.core.cache.directives import read_response
from proxy.core.cache.record import SECOND, CacheTerms, Stored
from proxy.core.cache.seen import Source
from proxy.core.cache.storing import (
    UNSTORED_PREFIXES,
    NotStored,
    forbidden,
    has_credentials,
    has_unkeyed_cookie,
    not_stored,
    settle,
)
from proxy.core.dates import imf_fixdate, parse_http_date
from proxy.core.fields import Fields, Lines

CONDITIONS: Final = frozenset({"if-none-match", "if-modified-since"})
"""What a request's own conditions are called, where ours stand in for them."""

_NOT_REPLACED = frozenset({"content-length", "content-range"})
_OWN = frozenset({"set-cookie", "set-cookie2", "ratelimit", "ratelimit-policy"})


class Freshened(NamedTuple):
    """A stored answer after a 304."""

    stored: Stored
    """What to answer now, and to store where `refused` is None."""
    refused: NotStored | None
    """Why this is not stored."""
    drop: bool
    """Whether the entry must go too; else, where `refused`, it stays as it was."""
    own: Lines
    """Lines of the 304 that are never stored, but are for the client whose request brought it:
    Set-Cookie, RateLimit, fields that it withholds from others."""


class Outdated(NamedTuple):
    """A stored GET that a HEAD has shown to be outdated: the same, now stale, to be stored."""

    stored: Stored


def conditions(stored: Stored) -> Lines:
    """The lines that make a request ask about this answer; none where it has no validator."""
    lines: Lines = []
    if stored.etag is not None:
        lines.append(("If-None-Match", stored.etag))
    if stored.last_modified is not None:
        lines.append(("If-Modified-Since", imf_fixdate(stored.last_modified // SECOND)))
    return lines


def answers(stored: Stored, response: Fields) -> bool:
    """Whether this 304 freshens this entry."""
    etag = response.index.get("etag")
    if etag and (stored.etag is not None or not etag.startswith("W/")):
        if stored.etag is None:
            # Asked by date only: a date that is the same says that nothing has changed.
            return _same_date(stored, response)
        if etag.startswith("W/"):
            return stored.etag.removeprefix("W/") == etag.removeprefix("W/")
        return stored.etag == etag
    if "last-modified" in response.index and stored.last_modified is not None:
        return _same_date(stored, response)
    return True


def freshen(
    stored: Stored,
    response: Fields,
    requested: int,
    received: int,
    terms: CacheTerms,
    *,
    request: Fields,
    seen: Source,
) -> Freshened:
    """What a 304 that `answers` this entry makes of it. `request` is the one that brought it, as
    the client sent it, and `seen` as it went upstream: a 304 may change Vary."""
    fresh = replace(
        stored, requested=requested, received=received, cost=max(0, received - requested)
    )
    merged = _merge(stored.lines, response)
    directives = read_response(merged)
    names = vary.names(merged)
    if names is not None and names != tuple(name for name, _ in stored.vary):
        fresh.vary = vary.values(names, seen)
    status = stored.status
    useless = settle(fresh, merged, directives, terms)
    fresh.authorized = stored.authorized or _was_told_apart(stored, terms, names or ())
    refused = forbidden(status, directives, names, authorized=fresh.authorized) or useless
    drop = refused is not None
    if not drop:
        authorized = fresh.authorized or has_credentials(request, terms, names or ())
        refused = forbidden(status, directives, names, authorized=authorized)
        if refused is None and not stored.unkeyed_cookie and has_unkeyed_cookie(request, terms):
            refused = settle(replace(fresh, unkeyed_cookie=True), merged, directives, terms)
    return Freshened(
        fresh,
        None if refused is None else not_stored(refused, status),
        drop,
        [line for line in response.lines if _is_own(line[0].lower(), directives.withheld)],
    )


def head_update(
    stored: Stored,
    response: Fields,
    requested: int,
    received: int,
    terms: CacheTerms,
    *,
    request: Fields,
    seen: Source,
    status: int,
    length: int | None = None,
) -> Freshened | Outdated | None:
    """What the answer to a forwarded HEAD makes of a stored GET that the HEAD would have selected.
    `length` is its Content-Length. None: nothing."""
    if status != 200 or stored.status != 200 or stored.method != "GET":
        return None
    shown = same = 0
    if (etag := response.index.get("etag")) is not None:
        shown, same = shown + 1, same + (etag == Fields(stored.lines).index.get("etag"))
    if "last-modified" in response.index:
        shown, same = shown + 1, same + _same_date(stored, response)
    if length is not None and stored.length is not None:
        shown, same = shown + 1, same + (length == stored.length)
    if not shown:
        return None
    found = freshen(stored, response, requested, received, terms, request=request, seen=seen)
    if found.refused is not None and not found.drop:
        return None
    return found if same == shown else Outdated(outdated(stored, received))


def outdated(stored: Stored, now: int) -> Stored:
    """The same answer without any freshness left, and not to be served while it is refreshed."""
    return replace(stored, lifetime=min(stored.lifetime, stored.age(now)), stale_while_revalidate=0)


def _merge(stored: Lines, response: Fields) -> Fields:
    new = [line for line in response.lines if line[0].lower() not in _NOT_REPLACED]
    # Its Date goes even where the 304 has none: that is then the time of receipt.
    replaced = {name.lower() for name, _ in new} | {"date"}
    return Fields([line for line in stored if line[0].lower() not in replaced] + new)


def _was_told_apart(stored: Stored, terms: CacheTerms, names: tuple[str, ...]) -> bool:
    """Whether it was made for one user, known by a trusted header that it varied by until now."""
    return any(
        name in terms.trusted_headers and value is not None and name not in names
        for name, value in stored.vary
    )


def _same_date(stored: Stored, response: Fields) -> bool:
    text = response.index.get("last-modified")
    return text is not None and parse_http_date(text, stored.received) == stored.last_modified


def _is_own(name: str, withheld: frozenset[str]) -> bool:
    return name in _OWN or name in withheld or name.startswith(UNSTORED_PREFIXES)
