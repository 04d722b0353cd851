"""What an answer to an unsafe request makes invalid (RFC 9111 §4.4, RFC 9875 §3).

Rules:
- Unsafe is every method that is not known to be safe; an error (4xx, 5xx) invalidates nothing.
- The target URI goes, and what Location and Content-Location name where it has the same origin
  (scheme, host and port): another origin's entries are not for this one to drop.
- Cache-Group-Invalidation names groups of this origin. It is ignored on answers to safe requests
  and, as everything here, on errors, or whoever is refused could still empty a group.
- What is invalidated is found through hidden tags (core.cache.urls): all variants, in every cache.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from proxy.core.cache.seen import Request, forwarded_scheme, hosts, target_origin
from proxy.core.cache.tags import groups
from proxy.core.cache.urls import QueryRule, group_tag, resolve, url_tags
from proxy.core.fields import Fields

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH"})
"""Methods registered as safe."""


@dataclass(frozen=True)
class Invalidated:
    """`urls` are (authority, target) pairs, the target URI first; `groups` are Cache-Groups of
    `origin`."""

    urls: tuple[tuple[str, str], ...] = ()
    groups: tuple[str, ...] = ()
    origin: str = ""

    def __bool__(self) -> bool:
        return bool(self.urls)

    def tags(self, rules: Iterable[QueryRule]) -> tuple[str, ...]:
        """The hidden tags to move on; `rules` are the key rules of all caches."""
        rules = tuple(rules)
        found = [tag for host, target in self.urls for tag in url_tags(rules, host, target)]
        found += [group_tag(self.origin, group) for group in self.groups]
        return tuple(dict.fromkeys(found))


NOTHING: Final = Invalidated()


def invalidates(method: str, status: int) -> bool:
    """Whether an answer of this status to this method invalidates anything."""
    return method not in SAFE and 200 <= status < 400


def targets(ex: Request, status: int, response: Fields) -> Invalidated:
    """What an upstream's answer makes invalid. Never raises."""
    if not invalidates(ex.method, status):
        return NOTHING
    scheme = forwarded_scheme(ex)
    known = hosts(ex)
    urls = [(host, ex.target) for host in known]
    for name in ("location", "content-location"):
        if name in response.index:
            urls += [
                found
                for reference in response.all(name)
                for host in known
                if (found := resolve(scheme, host, ex.target, reference)) is not None
            ]
    return Invalidated(
        tuple(dict.fromkeys(urls)),
        groups(response, "cache-group-invalidation"),
        target_origin(ex),
    )
