"""How long an answer is fresh and how old it is (RFC 9111 §4.2, §5.1).

Rules:
- Lifetime, the first that is given: s-maxage, max-age, Expires − Date (§4.2.1). What cannot be read
  is 0. After a valid CDN-Cache-Control neither Cache-Control nor Expires is looked at (RFC 9213).
- Without any of these: 10 % of Date − Last-Modified, at most a day, for statuses that RFC 9110
  §15.1 lists or `public` (§4.2.2).
- What the policy says counts from receipt, whatever Age the answer came with: `ttl: 60s` keeps
  it for 60 s. `ttl` replaces the origin's lifetime; `ttl_by_status` stands where the origin gives
  none, and there, being the more specific, before `ttl`; `default_ttl` where there is no
  Last-Modified either. `ttl` and `default_ttl` are for answers that could be fresh without them:
  listed statuses, `public`, or the origin's own lifetime; other statuses are named in
  `ttl_by_status`.
- A request that came with a cookie outside the key may have got an answer made for one user. Only
  the origin can know that it was not, so then only its own explicit lifetime counts.

All times are integer milliseconds.
"""

from typing import Final, NamedTuple

from proxy.core.cache.directives import ResponseDirectives, delta_seconds
from proxy.core.cache.record import SECOND, CacheTerms
from proxy.core.dates import parse_http_date
from proxy.core.fields import Fields

HEURISTIC_STATUSES: Final = frozenset({200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501})
"""RFC 9110 §15.1: what may be fresh though nothing says so."""

_LONGEST_GUESS = 24 * 3600 * SECOND


class Moments(NamedTuple):
    """What a response says of its own time."""

    date: int
    """Date, or the time of receipt where it has no valid one (RFC 9110 §6.6.1)."""
    dated: bool
    """Whether `date` is the response's own."""
    expires: int | None
    """Expires; 0 where it is no date or more than one line; None where there is none."""
    last_modified: int | None
    initial_age: int
    """corrected_initial_age (§4.2.3)."""


class Lifetime(NamedTuple):
    """How long a response is fresh."""

    span: int
    """freshness_lifetime, at least 0."""
    source: str | None
    """s-maxage, max-age, expires, heuristic, ttl, ttl_by_status or default_ttl; None where nothing
    says how long (the span is 0)."""
    explicit: bool
    """Whether the origin gave a lifetime, also where the policy replaced it."""


def moments(response: Fields, requested: int, received: int) -> Moments:
    """Reads Date, Expires, Last-Modified and Age of a response that was asked for at `requested`
    and came at `received`."""
    index = response.index
    date = _date(index.get("date"), received)
    expires = index.get("expires")
    # Date is in whole seconds: the part of a second that it leaves out is not age.
    apparent = 0 if date is None else max(0, received - received % SECOND - date)
    corrected = _age_value(index.get("age")) + max(0, received - requested)
    return Moments(
        date=received if date is None else date,
        dated=date is not None,
        expires=None if expires is None else parse_http_date(expires, received) or 0,
        last_modified=_date(index.get("last-modified"), received),
        initial_age=max(apparent, corrected),
    )


def lifetime(
    status: int,
    directives: ResponseDirectives,
    times: Moments,
    terms: CacheTerms,
    *,
    unkeyed_cookie: bool,
) -> Lifetime:
    """The lifetime by the rules above."""
    own = _explicit(directives, times)
    if unkeyed_cookie:
        return own or Lifetime(0, None, False)
    if own is None:
        for named, ttl in terms.ttl_by_status:
            if named == status:
                return Lifetime(times.initial_age + ttl, "ttl_by_status", False)
    likely = status in HEURISTIC_STATUSES or directives.public
    if terms.ttl is not None and (own is not None or likely):
        return Lifetime(times.initial_age + terms.ttl, "ttl", own is not None)
    if own is not None:
        return own
    if likely:
        modified = times.last_modified
        if modified is None:
            if terms.default_ttl:
                return Lifetime(times.initial_age + terms.default_ttl, "default_ttl", False)
        elif modified < times.date:
            guess = min((times.date - modified) // 10, _LONGEST_GUESS)
            return Lifetime(guess, "heuristic", False)
    return Lifetime(0, None, False)


def _explicit(directives: ResponseDirectives, times: Moments) -> Lifetime | None:
    """What the origin gave (§4.2.1)."""
    if directives.s_maxage is not None:
        return Lifetime(directives.s_maxage, "s-maxage", True)
    if directives.max_age is not None:
        return Lifetime(directives.max_age, "max-age", True)
    if times.expires is not None and not directives.targeted:
        return Lifetime(max(0, times.expires - times.date), "expires", True)
    return None


def _date(text: str | None, now: int) -> int | None:
    return None if text is None else parse_http_date(text, now)


def _age_value(text: str | None) -> int:
    """The first member of the first line; what is not digits only is ignored (§5.1)."""
    return 0 if text is None else delta_seconds(text.partition(",")[0].strip(" \t")) or 0
