"""May this answer be stored, and as what (RFC 9111 §3).

Rules:
- Stored are final answers to GET and HEAD without a body, but never those that speak of one request
  only: 206, 304, 412, 416 and their like, nor 428, 429, 431 and 511 (RFC 6585).
- The origin forbids it by no-store, private, a Vary that nothing can match, must-understand with a
  status that we do not know; by silence where the request had credentials (§3.5): only public,
  must-revalidate or s-maxage lifts that. must-understand with a known status lifts no-store.
- Credentials are Authorization; Proxy-Authorization, which is sent on and so may be the origin's to
  read; and the headers that only a trusted peer may send, as they stand where it has taken off an
  Authorization: unless they are keyed, or the answer varies by them.
- A request's no-store keeps that exchange out of the cache.
- Something must allow it: the origin's own lifetime, `public`, a status that is fresh by itself, or
  the policy. A cookie outside the key leaves only the origin's own word (core.cache.freshness), or
  its no-cache, as each use then asks the origin.
- There must be a use for it: time left, a way to validate, or leave to be served stale.
- Set-Cookie is for one client. Such an answer is not stored, unless the policy says
  `store_set_cookie` or the origin withholds just that field (`private="set-cookie"`), and then
  without it.
- Fields that are not stored (§3.1): hop-by-hop, Proxy-Authenticate and its like, fields that
  private="…" or no-cache="…" name; Age, Content-Length and X-Request-Id, made anew for each answer;
  RateLimit of any kind, which spoke of another request.

Times are integer milliseconds.
"""

import re
from typing import Final, Literal, NamedTuple

from proxy.core.cache import vary
from proxy.core.cache.directives import ResponseDirectives, read_request, read_response
from proxy.core.cache.freshness import HEURISTIC_STATUSES, Lifetime, Moments, lifetime, moments
from proxy.core.cache.record import SECOND, CacheTerms, Stored
from proxy.core.cache.seen import Source
from proxy.core.dates import imf_fixdate
from proxy.core.fields import Fields, Lines
from proxy.core.headers import HOP_BY_HOP

UNSTORABLE: Final = frozenset({206, 304, 407, 412, 416, 417, 421, 426, 428, 429, 431, 511})
"""Final statuses that answer something in one request that the key does not hold."""

UNDERSTOOD: Final = frozenset(
    {
        200, 201, 202, 203, 204, 205, 300, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405,
        406, 408, 409, 410, 411, 413, 414, 415, 422, 500, 501, 502, 503, 504, 505,
    }
)  # fmt: skip
"""Statuses of RFC 9110 whose rules for caches are kept here (must-understand, §5.2.2.3)."""

UNSTORED_FIELDS: Final = HOP_BY_HOP | {
    "age", "content-length", "proxy-authenticate", "proxy-authentication-info",
    "proxy-authorization", "ratelimit", "ratelimit-policy", "set-cookie", "set-cookie2",
    "x-request-id",
}  # fmt: skip
UNSTORED_PREFIXES: Final = ("ratelimit-", "x-ratelimit-")

CREDENTIALS: Final = frozenset({"authorization", "proxy-authorization"})
"""Fields that say who asks, whether or not they are keyed (§3.5)."""

# An unquoted tag is sent back as it stands, as its origin will compare it so; "*" would match all.
_ETAG = re.compile(r'(?:W/)?"[^"]*"|[^\s",*]+')


class NotStored(NamedTuple):
    """Why an answer is not stored.

    `hit_for_miss`: this resource's answers will not be stored either, so nobody should wait for
    one. Not where it is the request's doing, or an error that may be gone in a moment.
    """

    reason: str
    """method, request-body, request-no-store, status, not-understood, no-store, private, vary,
    authorization, cookie, set-cookie, no-cache, no-freshness or expired."""
    hit_for_miss: bool

    @property
    def marks(self) -> bool:
        """Whether that is remembered, for all requests or for those with such credentials."""
        return self.hit_for_miss or self.reason in ("authorization", "cookie")


def judge(
    method: str,
    request: Fields,
    status: int,
    reason: str,
    response: Fields,
    terms: CacheTerms,
    requested: int,
    received: int,
    *,
    has_body_in_request: bool = False,
    length: int | None = None,
    seen: Source | None = None,
) -> Stored | NotStored:
    """Decides at the response head.

    `request` has the fields as the client sent them, `seen` as they went upstream (for Vary; left
    out: the same). `response` has end-to-end lines; `length` is what Content-Length said. Tags are
    the caller's to fill in.
    """
    refused = _request_forbids(method, request, has_body_in_request)
    if refused is None and (status < 200 or status in UNSTORABLE):
        refused = "status"
    if refused is not None:
        return NotStored(refused, False)
    directives = read_response(response)
    names = vary.names(response)
    authorized = has_credentials(request, terms, names or ())
    refused = forbidden(status, directives, names, authorized=authorized)
    if refused is None and "set-cookie" in response.index and not terms.store_set_cookie:
        refused = None if "set-cookie" in directives.withheld else "set-cookie"
    if refused is not None or names is None:
        return not_stored(refused or "vary", status)
    stored = _blank("GET" if method == "GET" else "HEAD", status, reason, requested, received)
    stored.length = length
    stored.vary = vary.values(names, request if seen is None else seen)
    stored.authorized = authorized
    stored.unkeyed_cookie = has_unkeyed_cookie(request, terms)
    refused = settle(stored, response, directives, terms)
    return stored if refused is None else not_stored(refused, status)


def forbidden(
    status: int,
    directives: ResponseDirectives,
    names: tuple[str, ...] | None,
    *,
    authorized: bool,
) -> str | None:
    """Why the origin does not let this be stored, whatever its freshness; None where it does.
    `names` are Vary's (core.cache.vary)."""
    if directives.must_understand:
        if status not in UNDERSTOOD:
            return "not-understood"
    elif directives.no_store:
        return "no-store"
    if directives.private:
        return "private"
    if names is None:
        return "vary"
    lifted = directives.public or directives.must_revalidate or directives.s_maxage is not None
    return "authorization" if authorized and not lifted else None


def settle(
    stored: Stored, response: Fields, directives: ResponseDirectives, terms: CacheTerms
) -> str | None:
    """Fills in what follows from a response's fields and times, in place, on a record that nobody
    else has yet; its requested, received and unkeyed_cookie are set. Returns why there is no
    leave to store it, or no use in it; None where it may be stored.
    """
    times = moments(response, stored.requested, stored.received)
    lasts = lifetime(stored.status, directives, times, terms, unkeyed_cookie=stored.unkeyed_cookie)
    stored.lines = _stored_lines(response, directives.withheld, times)
    stored.date = times.date
    stored.initial_age = times.initial_age
    stored.lifetime = lasts.span
    stored.no_cache = directives.no_cache
    stored.must_revalidate = (
        directives.must_revalidate or directives.proxy_revalidate or directives.s_maxage is not None
    )
    stored.immutable = directives.immutable
    _settle_stale(stored, directives, terms, lasts)
    etag = response.index.get("etag")
    withheld = directives.withheld
    stored.etag = etag if etag and "etag" not in withheld and _ETAG.fullmatch(etag) else None
    stored.last_modified = None if "last-modified" in withheld else times.last_modified
    return _no_leave(stored, directives, lasts, times, terms) or _no_use(stored, lasts)


def not_stored(reason: str, status: int) -> NotStored:
    """A refusal for a response's sake. Errors say little of what the resource answers next."""
    lasting = status < 400 or (status in HEURISTIC_STATUSES and status < 500)
    return NotStored(reason, lasting and reason not in ("authorization", "cookie"))


def has_credentials(request: Fields, terms: CacheTerms, names: tuple[str, ...] = ()) -> bool:
    """Whether the request says who asks, outside the key. `names` are those that the answer varies
    by: a trusted header among them does not count."""
    index = request.index
    if not CREDENTIALS.isdisjoint(index):
        return True
    trusted = terms.trusted_headers
    return bool(trusted) and any(name in index and name not in names for name in trusted)


def has_unkeyed_cookie(request: Fields, terms: CacheTerms) -> bool:
    """Whether the request has a cookie that is no part of the key."""
    value = request.index.get("cookie")
    if not value or "cookie" in terms.keyed_headers:
        return False
    names = {pair.partition("=")[0].strip(" \t") for pair in value.split(";") if pair.strip(" \t")}
    return not names <= terms.keyed_cookies


def _request_forbids(method: str, request: Fields, has_body: bool) -> str | None:
    if method not in ("GET", "HEAD"):
        return "method"
    if has_body:
        return "request-body"
    return "request-no-store" if read_request(request).no_store else None


def _blank(
    method: Literal["GET", "HEAD"], status: int, reason: str, requested: int, received: int
) -> Stored:
    """A record that `settle` can fill in."""
    return Stored(
        method=method,
        status=status,
        reason=reason,
        lines=[],
        length=None,
        vary=(),
        date=received,
        requested=requested,
        received=received,
        initial_age=0,
        lifetime=0,
        stale_while_revalidate=0,
        stale_if_error=0,
        no_cache=False,
        must_revalidate=False,
        immutable=False,
        etag=None,
        last_modified=None,
        cost=max(0, received - requested),
    )


def _stored_lines(response: Fields, withheld: frozenset[str], times: Moments) -> Lines:
    drop = UNSTORED_FIELDS | withheld if withheld else UNSTORED_FIELDS
    if not times.dated:
        drop = drop | {"date"}
    lines = [
        line
        for line in response.lines
        if (low := line[0].lower()) not in drop and not low.startswith(UNSTORED_PREFIXES)
    ]
    if not times.dated:
        # RFC 9110 §6.6.1: what is stored has the time of its receipt.
        lines.append(("Date", imf_fixdate(times.date // SECOND)))
    return lines


def _settle_stale(
    stored: Stored, directives: ResponseDirectives, terms: CacheTerms, lasts: Lifetime
) -> None:
    stored.stale_while_revalidate = stored.stale_if_error = 0
    if stored.no_cache or stored.must_revalidate:
        return  # §4.2.4, RFC 5861: both yield
    behind, error = directives.stale_while_revalidate, directives.stale_if_error
    # The policy's leave to serve stale is no leave to serve what never was fresh.
    usual = terms.stale_while_revalidate if lasts.source is not None else 0
    stored.stale_while_revalidate = usual if behind is None else behind
    stored.stale_if_error = terms.stale_if_error if error is None else error


def _no_leave(
    stored: Stored,
    directives: ResponseDirectives,
    lasts: Lifetime,
    times: Moments,
    terms: CacheTerms,
) -> str | None:
    """§3: one of explicit freshness, public, a status that is cacheable by itself, the policy."""
    status = stored.status
    if lasts.source is None and not directives.public and status not in HEURISTIC_STATUSES:
        return "no-freshness"
    if not stored.unkeyed_cookie or lasts.explicit or stored.no_cache:
        return None
    # Without the cookie, would it be stored? Then it is the request's doing.
    other = lifetime(status, directives, times, terms, unkeyed_cookie=False)
    return "no-freshness" if other.source is None and not _validator(stored) else "cookie"


def _no_use(stored: Stored, lasts: Lifetime) -> str | None:
    if _validator(stored):
        return None
    if stored.no_cache:
        return "no-cache"
    if lasts.source is None:
        return "no-freshness"
    left = stored.lifetime > stored.initial_age
    if left or stored.stale_while_revalidate or stored.stale_if_error:
        return None
    return "expired"


def _validator(stored: Stored) -> bool:
    return stored.etag is not None or stored.last_modified is not None
