"""A stored answer as data, and the terms it was stored under: parsed once, then only compared.

Times are integer milliseconds since the epoch (wall clock, as replicas share what is stored);
spans are integer milliseconds.
"""

from dataclasses import dataclass
from typing import Literal

from proxy.core.fields import Lines

SECOND = 1000


@dataclass(frozen=True)
class CacheTerms:
    """What a cache policy says about freshness. Spans in milliseconds."""

    default_ttl: int = 0
    """Where the origin gives neither explicit freshness nor Last-Modified."""
    ttl: int | None = None
    """Replaces the origin's freshness, never its prohibitions."""
    ttl_by_status: tuple[tuple[int, int], ...] = ()
    """(status, ttl) where the origin gives no explicit freshness."""
    stale_while_revalidate: int = 0
    """Where the origin says nothing."""
    stale_if_error: int = 0
    """Where the origin says nothing."""
    store_set_cookie: bool = False
    """Whether such answers are stored, without the cookie."""
    keyed_cookies: frozenset[str] = frozenset()
    """Cookies that are part of the key."""
    keyed_headers: frozenset[str] = frozenset()
    """Request headers (lower case) that are part of the key."""
    trusted_headers: frozenset[str] = frozenset()
    """Headers (lower case) by which a trusted peer says who asks, outside the key."""


@dataclass
class Stored:
    """One stored answer without its body: what a lookup compares and a hit sends.

    Treated as immutable: freshening makes a new one (`dataclasses.replace`).
    """

    method: Literal["GET", "HEAD"]
    """HEAD answers HEAD only; GET answers both."""
    status: int
    reason: str
    lines: Lines
    """End-to-end field lines as stored (RFC 9111 §3.1 exclusions applied, RateLimit, Age and the
    gateway's own fields dropped, Content-Length dropped: `length` says it)."""
    length: int | None
    """Bytes of the body; for a HEAD answer what Content-Length said, or None."""
    vary: tuple[tuple[str, str | None], ...]
    """(field name, its normalised value in the request), sorted by name; None is absent."""
    date: int
    """Date's value, or the time of receipt, in ms."""
    requested: int
    """When the request that brought it went out."""
    received: int
    """When its head came (RFC 9111 §4.2.3 response_time)."""
    initial_age: int
    """corrected_initial_age."""
    lifetime: int
    """freshness_lifetime."""
    stale_while_revalidate: int
    stale_if_error: int
    no_cache: bool
    """Only after validation (unqualified no-cache, or qualified and taken as such)."""
    must_revalidate: bool
    """must-revalidate, proxy-revalidate or s-maxage: never stale without validation."""
    immutable: bool
    etag: str | None
    last_modified: int | None
    """Last-Modified in ms, where it is a valid date."""
    authorized: bool = False
    """Its request had credentials (core.cache.storing): only public, must-revalidate or s-maxage
    lets others have it, and a 304 can take that back (RFC 9111 §3.5)."""
    unkeyed_cookie: bool = False
    """Its request had a cookie outside the key: only the origin's own freshness counts."""
    tags: tuple[str, ...] = ()
    """Of the policy and of the origin's Surrogate-Key, Cache-Tag and Cache-Groups; bounded."""
    cost: int = 0
    """How long the fetch took, for XFetch."""

    def age(self, now: int) -> int:
        """current_age in ms (RFC 9111 §4.2.3), never negative."""
        return max(0, self.initial_age + now - self.received)

    def left(self, now: int) -> int:
        """Freshness left in ms; negative once stale."""
        return self.lifetime - self.age(now)
