"""Clients' conditions, answered from the cache (RFC 9110 §13, RFC 9111 §4.3.2).

Rules:
- Only If-None-Match and If-Modified-Since, only for GET and HEAD, only against a stored 200 that
  may be used now. If-Match and If-Unmodified-Since are the origin's to judge: forwarded.
- If-None-Match is compared weakly, `*` matches what is there; it beats If-Modified-Since even where
  it is nonsense.
- Entity tags are opaque bytes: no unquoting, commas within quotes are theirs, `W/` has case. A tag
  that an origin sends without quotes is compared as it stands.
- If-Modified-Since is one valid date, else ignored; it is compared with Last-Modified, or with Date
  where the answer has none (RFC 9111 §4.3.2).
- A 304 has what the 200 has, but for the metadata of the body that is not sent (RFC 9110 §15.4.5);
  Last-Modified goes too where there is an ETag.
"""

import re
from typing import Final

from proxy.core.cache.record import Stored
from proxy.core.dates import parse_http_date
from proxy.core.fields import Fields, Lines

# A quoted tag, or whatever else stands before the next comma.
_ENTITY_TAG = re.compile(r'[ \t,]*((?:W/)?"[^"]*"(?=[ \t]*(?:,|\Z))|[^,"]*(?:"[^,]*)?)')

BODY_METADATA: Final = frozenset(
    {
        "content-digest", "content-disposition", "content-encoding",
        "content-language", "content-length", "content-md5", "content-range", "content-type",
    }
)  # fmt: skip
"""Fields that say something of a body, so that a 304 has no use for them."""


def must_forward(request: Fields) -> bool:
    """Whether the request has a condition that only the origin may judge."""
    index = request.index
    return "if-match" in index or "if-unmodified-since" in index


def client_has_it(method: str, request: Fields, stored: Stored, now: int) -> bool:
    """Whether a 304 answers the request. `now` in ms reads two-digit years."""
    if stored.status != 200 or method not in ("GET", "HEAD"):
        return False
    index = request.index
    tags = index.get("if-none-match")
    if tags is not None:
        return tags == "*" or (stored.etag is not None and lists(tags, stored.etag))
    since = index.get("if-modified-since")
    if since is None:
        return False
    at = parse_http_date(since, now)
    if at is None:
        return False
    return (stored.date if stored.last_modified is None else stored.last_modified) <= at


def lists(field: str, etag: str) -> bool:
    """Whether a list of entity tags has one that matches `etag` weakly. Never raises."""
    opaque = etag.removeprefix("W/")
    if not opaque or opaque not in field:
        return False
    place = 0
    while place < len(field):
        found = _ENTITY_TAG.match(field, place)
        if found is None or found.end() == place:
            return False
        if found[1].strip(" \t").removeprefix("W/") == opaque:
            return True
        place = found.end()
    return False


def not_modified_lines(lines: Lines) -> Lines:
    """The stored lines that the 304 has."""
    drop = BODY_METADATA
    if any(len(name) == 4 and name.lower() == "etag" for name, _ in lines):
        drop = drop | {"last-modified"}
    return [line for line in lines if line[0].lower() not in drop]
