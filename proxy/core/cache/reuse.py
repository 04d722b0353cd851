"""May this stored answer be used for this request, now (RFC 9111 §4, §4.2.4, §5.2.1; RFC 5861).

Rules:
- `no-cache` of the response: never without validation, not even to survive an error.
- Fresh is lifetime > age. A fresh answer is used unless the request asks for a younger one
  (max-age), one that lasts longer (min-fresh), or validation (no-cache). An immutable one is not
  validated for max-age, as no reload could change it (RFC 8246 §2).
- A stale answer is used within the request's max-stale, or within stale-while-revalidate, and then
  refreshed behind the client's back; not where the response forbids stale (must-revalidate,
  proxy-revalidate, s-maxage), nor for a request that names max-age without max-stale, or min-fresh.
- After an error answer a stored one is used while fresh or within stale-if-error, the response's
  or the request's; without any answer (unreachable, closed, timed out) as long as nothing forbids
  it. What else the request says of freshness does not count then (RFC 5861 §4), but its no-cache
  leaves only its own stale-if-error.

The caller has matched key, Vary and method. Everything here compares integers that were worked out
when the answer was stored. Times are milliseconds.
"""

from typing import Final, Literal, NamedTuple

from proxy.core.cache.directives import PLAIN, RequestDirectives
from proxy.core.cache.record import Stored

ERROR_STATUSES: Final = frozenset({500, 502, 503, 504})
"""The answers that stale-if-error is for (RFC 5861 §4)."""

Trouble = Literal["error", "disconnected"]
"""How the upstream failed: with one of ERROR_STATUSES, or without an answer."""


_LONG_ODDS: Final = 32.0


class Fresh(NamedTuple):
    """Serve it; `age` for the Age field."""

    age: int


class Stale(NamedTuple):
    """Serve it, though stale; refresh it behind where `refresh` (stale-while-revalidate), not
    where only the client's max-stale allows it."""

    age: int
    refresh: bool


class Validate(NamedTuple):
    """Ask the upstream first; with only-if-cached in the request that is 504.

    `why`: stale; no-cache (the response's); request (fresh, but the request asks for more).
    """

    why: Literal["stale", "no-cache", "request"]


Verdict = Fresh | Stale | Validate

_STALE = Validate("stale")
_NO_CACHE = Validate("no-cache")
_REQUEST = Validate("request")


def decide(stored: Stored, request: RequestDirectives, now: int) -> Verdict:
    """What to do with a stored answer that matches the request."""
    age = stored.age(now)
    left = stored.lifetime - age
    if stored.no_cache:
        return _NO_CACHE
    if left > 0:
        plain = request is PLAIN  # spares nearly every lookup the call
        return Fresh(age) if plain or _young_enough(stored, request, age, left) else _REQUEST
    return _stale(stored, request, age, -left)


def on_error(stored: Stored, request: RequestDirectives, now: int, trouble: Trouble) -> bool:
    """Whether a stored answer may stand in for one that the upstream failed to give.

    False with `stored.must_revalidate` and no answer is 504 to the client (§5.2.2.2).
    """
    if stored.no_cache or stored.must_revalidate:
        return False
    staleness = -stored.left(now)
    asked = request.stale_if_error or 0
    if request.no_cache:
        return staleness < asked and asked > 0
    return trouble == "disconnected" or staleness < max(stored.stale_if_error, asked)


def may_be_early(stored: Stored, left: int, beta: float) -> bool:
    """Whether `early` can be true at all, for a fresh answer with `left` ms to go: an exponential
    variate above _LONG_ODDS is not worth drawing."""
    return stored.cost * beta * _LONG_ODDS > left


def early(stored: Stored, now: int, beta: float, random_exp: float) -> bool:
    """Whether to refresh a fresh answer ahead of time, by chance (XFetch): the likelier the longer
    the fetch takes and the less is left, so that few of many callers do.

    `random_exp`: an exponential variate of mean 1, i.e. −ln(U). `beta`: 0 is never, 1 the usual.
    """
    left = stored.left(now)
    return left > 0 and not stored.no_cache and stored.cost * beta * random_exp >= left


def _young_enough(stored: Stored, request: RequestDirectives, age: int, left: int) -> bool:
    if request.no_cache:
        return False
    if request.min_fresh is not None and left < request.min_fresh:
        return False
    return request.max_age is None or age <= request.max_age or stored.immutable


def _stale(stored: Stored, request: RequestDirectives, age: int, staleness: int) -> Verdict:
    if stored.must_revalidate or request.no_cache or request.min_fresh is not None:
        return _STALE
    if request.max_age is not None and (request.max_stale is None or age > request.max_age):
        return _STALE
    if staleness < stored.stale_while_revalidate:
        return Stale(age, True)
    if request.max_stale is not None and staleness <= request.max_stale:
        return Stale(age, False)
    return _STALE
