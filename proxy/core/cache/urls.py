"""URLs as purges and invalidations name them, and the hidden tags through which they find objects.

Every stored object carries two hidden tags: of its host with its target, and of its target alone.
Purging a URL moves their generation on, as with any tag; so it finds every variant, every value of
a key header or cookie, GET and HEAD, in every cache and route, without an index of keys.

Rules:
- Two spellings that RFC 3986 §6.2.2 calls the same URL have the same tag: host in lower case
  without final dot and default port, escapes of unreserved characters decoded, hex in upper case.
  So a tag may cover more than one cache key, never less than one.
- The scheme is not part of it: which one a client used is often known only to a proxy in front.
- A target's query is filtered by the cache's key rule first: what is stored for `/a?utm=1` under a
  rule that ignores utm answers for `/a`, so it must be found as `/a`.
- So a tag also names the rule's way to read queries (`QueryRule.reading`): purging `/a?b` must find
  `/a` where queries are ignored, and leave `/a` where they are not. Caches that read queries alike
  share tags, so that a purge has as few of them as it can.
- Hidden tags begin with NUL, which neither a header nor a policy nor a purge can hold.
"""

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Protocol

from proxy.core.identity import valid_authority
from proxy.core.paths import plain_segment

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_TARGET = re.compile(r"/[!-\"$-~\x80-\xff]*")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class QueryRule(Protocol):
    """What a cache does to queries; a CacheKeyRule is one."""

    @property
    def reading(self) -> str:
        """The same for rules that do the same."""

    def keyed_query(self, query: str | None) -> str | None: ...


def plain_host(authority: str, ports: Iterable[str] = ("80", "443")) -> str:
    """An authority in its one spelling. `ports` are those left out; an empty port always is."""
    host, colon, port = authority.lower().rpartition(":")
    if not colon or "]" in port:
        host, port = authority.lower(), ""
    host, port = host.removesuffix("."), port.lstrip("0")
    return host if not port or port in ports else f"{host}:{port}"


def plain_target(target: str) -> str:
    """A path (and query) in its one spelling: what a prefix ban is compared with."""
    return plain_segment(target)


def keyed_target(rule: QueryRule, target: str) -> str:
    """The target as a cache with this rule tells it from others, in its one spelling."""
    path, mark, query = target.partition("?")
    kept = rule.keyed_query(query if mark else None)
    return plain_target(path if kept is None else f"{path}?{kept}")


def _hidden(kind: str, *parts: str) -> str:
    text = "".join([f"{len(part)}:{part}" for part in parts])
    return f"\0{kind}:{blake2b(text.encode('latin-1'), digest_size=16).hexdigest()}"


def target_tag(rule: QueryRule, plain: str) -> str:
    """The hidden tag of a `keyed_target` of this rule on every host."""
    return _hidden("path", rule.reading, plain)


def host_tag(rule: QueryRule, authority: str, plain: str) -> str:
    """The hidden tag of a `keyed_target` of this rule on one host."""
    return _hidden("url", rule.reading, plain_host(authority), plain)


def group_tag(origin: str, group: str) -> str:
    """The hidden tag of a Cache-Group of one origin (RFC 9875 §2.1: groups of two origins that
    share a name are two groups)."""
    return _hidden("group", origin, group)


def origin(scheme: str, authority: str) -> str:
    """`scheme://host[:port]` in its one spelling (RFC 9110 §4.3.1)."""
    scheme = scheme.lower()
    return f"{scheme}://{plain_host(authority, (_DEFAULT_PORTS.get(scheme, ''),))}"


def url_tags(rules: Iterable[QueryRule], authority: str | None, target: str) -> tuple[str, ...]:
    """The hidden tags to move on where this URL is purged or invalidated, one per way in which
    `rules` (of all caches) read its query. `authority` None is every host."""
    plains = [(rule, keyed_target(rule, target)) for rule in rules]
    if authority is None:
        return tuple(dict.fromkeys(target_tag(rule, plain) for rule, plain in plains))
    return tuple(dict.fromkeys(host_tag(rule, authority, plain) for rule, plain in plains))


def parse_purge_url(text: str) -> tuple[str | None, str]:
    """A URL to purge as (authority, target): absolute, or a path with query for every host
    (authority None). Non-ASCII characters are taken as their UTF-8, percent-encoded. Raises
    ValueError, a sentence.
    """
    wire = _percent_encoded(text)
    authority = None
    found = _SCHEME.match(wire)
    if found is not None:
        if found[1].lower() not in _DEFAULT_PORTS or wire[found.end() : found.end() + 2] != "//":
            raise ValueError(f"{text!r} is not an http or https URL")
        authority, target = _split_authority(wire[found.end() + 2 :])
        if not valid_authority(authority):
            raise ValueError(f"{text!r} has no valid host")
        wire = target
    if not _TARGET.fullmatch(wire):
        raise ValueError(f"{text!r} is neither an absolute URL nor a path with its query")
    return authority, wire


def parse_purge_prefix(text: str) -> str:
    """A path prefix to purge, as it is compared with the beginning of a `keyed_target`. Raises
    ValueError, a sentence."""
    wire = _percent_encoded(text)
    if not _TARGET.fullmatch(wire):
        raise ValueError(f"{text!r} is not the beginning of a path")
    return plain_target(wire)


def _percent_encoded(text: str) -> str:
    return "".join(c if c < "\x80" else "".join(f"%{b:02X}" for b in c.encode()) for c in text)


def _split_authority(rest: str) -> tuple[str, str]:
    end = next((place for place, char in enumerate(rest) if char in "/?#"), len(rest))
    target = rest[end:]
    return rest[:end], target if target.startswith("/") else f"/{target}"


def resolve(scheme: str, authority: str, target: str, reference: str) -> tuple[str, str] | None:
    """A URI reference against its base (RFC 3986 §5.2) as (authority, target), the fragment left
    out; None where it leads to another origin or is no http URL. Never raises."""
    reference = reference.partition("#")[0]
    home = origin(scheme, authority)
    found = _SCHEME.match(reference)
    if found is not None:
        scheme, reference = found[1], reference[found.end() :]
        if not reference.startswith("//"):
            return None
    if reference.startswith("//"):
        named, reference = _split_authority(reference[2:])
        if not valid_authority(named) or origin(scheme, named) != home:
            return None
        authority = named
    base = target.partition("?")[0]
    if not reference:
        return authority, target
    path, mark, query = reference.partition("?")
    if not path:
        path = base
    elif not path.startswith("/"):
        path = base[: base.rfind("/") + 1] + path
    if not path.startswith("/"):
        return None
    merged = _without_dots(path) + mark + query
    return (authority, merged) if _TARGET.fullmatch(merged) else None


def _without_dots(path: str) -> str:
    """RFC 3986 §5.2.4, for a path that begins with "/"."""
    out: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        plain = plain_segment(segment)
        if plain == "..":
            del out[-1:]
        elif plain != ".":
            out.append(segment)
    if plain_segment(segments[-1]) in (".", ".."):
        out.append("")
    return "/" + "/".join(out)
