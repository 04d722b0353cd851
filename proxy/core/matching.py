"""Where a request goes: what a route asks of it, and the table that finds the first such route.

The table is a trie over path segments whose leaves are split by host; the first route that matches
wins. As several ways through the trie may fit one path, a look-up walks them together: the places
that they come to at once are remembered, so it costs about the path's length, not the number of
routes, and little more than one dict for each segment. Paths that are asked for again and again
cost one.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from proxy.core.fields import Fields
from proxy.core.paths import PathPattern, Rewrite, plain_segment, split_path

__all__ = [
    "COMMON_METHODS",
    "MAX_METHOD_BYTES",
    "Match",
    "MethodNotAllowed",
    "Misdirected",
    "NoRoute",
    "PathPattern",
    "Rewrite",
    "RouteMatch",
    "RouteTable",
    "Verdict",
    "split_path",
]

T = TypeVar("T")

_MAX_KNOWN: Final = 4096
"""Paths of which a table remembers where they lead; then all are forgotten."""
_MAX_KNOWN_CHARS: Final = 256

MAX_METHOD_BYTES: Final = 32
"""Unknown methods are forwarded up to this length."""

COMMON_METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
"""What Allow says of a route that takes any method."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOST = re.compile(r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")


class RouteMatch:
    """What a route asks of a request: path, methods, hosts and header values.

    `methods` None is any; GET brings HEAD along. `hosts` () is any; "*.a.b" is one or more labels
    before a.b. `headers` must all be there with exactly that value (repeated lines joined).
    Raises ValueError, a sentence, for a method, host or header name that no request can have.
    """

    __slots__ = ("headers", "hosts", "methods", "path")

    def __init__(
        self,
        path: PathPattern,
        methods: frozenset[str] | None = None,
        hosts: tuple[str, ...] = (),
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.path = path
        self.methods = None if methods is None else _require_methods(methods)
        self.hosts = tuple(_require_host(host) for host in hosts)
        for name, _ in headers:
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is not a header name")
        # Values are compared as wire text: YAML's UTF-8, one character per byte.
        self.headers = tuple((n.lower(), v.encode().decode("latin-1")) for n, v in headers)

    def accepts_headers(self, fields: Fields) -> bool:
        return all(fields.get(name) == value for name, value in self.headers)


def _require_methods(methods: Iterable[str]) -> frozenset[str]:
    chosen = set(methods)
    if not chosen:
        raise ValueError("an empty list of methods matches nothing; leave it out for any method")
    for method in chosen:
        if not _TOKEN.fullmatch(method) or len(method) > MAX_METHOD_BYTES:
            raise ValueError(f"{method!r} is not a method: a token of at most 32 bytes")
        if method in ("CONNECT", "TRACE"):
            raise ValueError(f"{method} is never forwarded")
        if method != method.upper() and method.upper() in COMMON_METHODS:
            raise ValueError(f"methods are case-sensitive: write {method.upper()}")
    if "GET" in chosen:
        chosen.add("HEAD")
    return frozenset(chosen)


def _require_host(text: str) -> str:
    host = text.lower().removesuffix(".")
    if not _HOST.fullmatch(host):
        raise ValueError(f'{text!r} is not a host: a name or address without port, or "*.a.b"')
    return host


class Match(Generic[T]):
    """The route found, and its pattern's captures, raw. Shared by the requests of a path; not to
    be changed, yet not frozen, as that would make it dear."""

    __slots__ = ("captures", "item")

    def __init__(self, item: T, captures: dict[str, str]) -> None:
        self.item = item
        self.captures = captures

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Match) and self.item == other.item and self.captures == other.captures
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class NoRoute:
    """404: no route has this path (and host, and headers)."""


@dataclass(frozen=True)
class Misdirected:
    """421: every route names its hosts, and this one is not among them."""


@dataclass(frozen=True)
class MethodNotAllowed:
    """405: `allow` is the sorted union over the routes that match but for the method."""

    allow: tuple[str, ...]


Verdict = NoRoute | Misdirected | MethodNotAllowed

_NO_ROUTE = NoRoute()
_MISDIRECTED = Misdirected()


class _Leaf:
    """Route numbers that end at one place of the trie, split by the host they ask for."""

    __slots__ = ("any_host", "by_host", "by_suffix")

    def __init__(self) -> None:
        self.any_host: list[int] = []
        self.by_host: dict[str, list[int]] = {}
        self.by_suffix: dict[str, list[int]] = {}

    def add(self, number: int, hosts: tuple[str, ...]) -> None:
        if not hosts:
            self.any_host.append(number)
        for host in hosts:
            if host.startswith("*."):
                self.by_suffix.setdefault(host[2:], []).append(number)
            else:
                self.by_host.setdefault(host, []).append(number)

    def collect(self, host: str, found: list[int]) -> None:
        found += self.any_host
        if self.by_host and (named := self.by_host.get(host)):
            found += named
        if self.by_suffix:
            for suffix in _suffixes(host):
                found += self.by_suffix.get(suffix, ())


def _suffixes(host: str) -> Iterable[str]:
    """What may stand behind "*." for this host: "x.a.b" gives "a.b", "b"."""
    rest = host
    while "." in rest:
        head, _, rest = rest.partition(".")
        if head:
            yield rest


class _Node:
    """One place in the trie: the ways on, and the routes that end or take the remainder here."""

    __slots__ = ("digits", "end", "literals", "rest", "segment")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.segment: _Node | None = None
        self.digits: _Node | None = None
        self.end: _Leaf | None = None
        self.rest: _Leaf | None = None

    def step(self, part: str | tuple[str, str]) -> "_Node":
        """The node behind one part of a pattern, made if it is new."""
        if isinstance(part, str):
            return self.literals.setdefault(part, _Node())
        if part[1] == "int":
            self.digits = self.digits or _Node()
            return self.digits
        self.segment = self.segment or _Node()
        return self.segment


class _Place:
    """What a path may have come to: nodes of the trie, taken as one, and what took the remainder
    on the way. Where a segment leads on from here is remembered."""

    __slots__ = ("digits", "ends", "named", "nodes", "rests", "word")

    def __init__(self, nodes: tuple[_Node, ...], rests: tuple[_Leaf, ...] = ()) -> None:
        self.nodes = nodes
        self.rests = rests
        self.named: dict[str, _Place | None] = {"": None}
        """By segment: the empty one, and those that a node has as a literal."""
        for node in nodes:
            self.named.update(dict.fromkeys(node.literals))
        self.digits: _Place | None = None
        self.word: _Place | None = None
        """For every other segment: one of digits, and any other."""
        self.ends: list[int] | None = None
        """The routes of a path that ends here, in order; None where the host has a say."""
        leaves = self.leaves()
        if not any(leaf.by_host or leaf.by_suffix for leaf in leaves):
            self.ends = sorted(number for leaf in leaves for number in leaf.any_host)

    def leaves(self) -> list[_Leaf]:
        """Of a path that ends here."""
        return [*self.rests, *(node.end for node in self.nodes if node.end is not None)]

    def step(self, segment: str) -> "_Place":
        """Where this segment leads, its unreserved characters decoded."""
        digits = segment.isdigit() and segment.isascii()
        onward: list[_Node] = []
        for node in self.nodes:
            if (literal := node.literals.get(segment)) is not None:
                onward.append(literal)
            if node.segment is not None and segment:
                onward.append(node.segment)
            if node.digits is not None and digits:
                onward.append(node.digits)
        taken = tuple(node.rest for node in self.nodes if node.rest is not None)
        place = _Place(tuple(onward), self.rests + taken)
        if segment in self.named:
            self.named[segment] = place
        elif digits:
            self.digits = place
        else:
            self.word = place
        return place


class RouteTable(Generic[T]):
    """Routes in their order, ready to be looked up."""

    __slots__ = ("_hosts", "_known", "_most", "_places", "_root", "_trie", "headers",
                 "methods", "routes")  # fmt: skip

    def __init__(self, routes: Iterable[tuple[RouteMatch, T]]) -> None:
        self.routes = tuple(routes)
        """In matching order."""
        self._trie = _Node()
        hosts = _Leaf()
        parts = 0
        for number, (match, _) in enumerate(self.routes):
            self._leaf(match.path).add(number, match.hosts)
            hosts.add(number, match.hosts)
            parts += len(match.path.parts)
        self._hosts = hosts
        self._root = _Place((self._trie,))
        self._places = 0
        self._known: dict[tuple[str, str, str], Match[T]] = {}
        """By method, host and path: what was found without a look at the fields."""
        # A node has a place of its own and dead ends; only odd sets of patterns have far more.
        self._most = 1000 + 4 * parts
        self.methods: tuple[str, ...] = self._union(range(len(self.routes)))
        """Every method that some route takes, sorted: the Allow of the whole server."""
        self.headers = frozenset(n for match, _ in self.routes for n, _ in match.headers)
        """The names, lower case, of all headers that some route asks for."""

    def _leaf(self, path: PathPattern) -> _Leaf:
        node = self._trie
        for part in path.parts:
            if not isinstance(part, str) and part[1] == "path":
                node.rest = node.rest or _Leaf()
                return node.rest
            node = node.step(part)
        node.end = node.end or _Leaf()
        return node.end

    def _union(self, numbers: Iterable[int]) -> tuple[str, ...]:
        union: set[str] = set()
        for number in numbers:
            union.update(self.routes[number][0].methods or COMMON_METHODS)
        return tuple(sorted(union))

    def _candidates(self, host: str, segments: Sequence[str]) -> list[int]:
        """The numbers of all routes whose path and host match, in order; not to be changed."""
        place = self._root
        for segment in segments:
            if "%" in segment:
                segment = plain_segment(segment)
            onward = place.named.get(segment)
            if onward is None:
                if segment not in place.named:
                    digits = segment.isdigit() and segment.isascii()
                    onward = place.digits if digits else place.word
                if onward is None:
                    onward = self._explore(place, segment)
            place = onward
        if place.ends is not None:
            return place.ends
        found: list[int] = []
        for leaf in place.leaves():
            leaf.collect(host, found)
        found.sort()
        return found

    def _explore(self, place: _Place, segment: str) -> _Place:
        """Where a way leads that nobody has gone yet."""
        if not place.nodes:
            return place  # a dead end, however long
        if self._places >= self._most:
            self._places = 0
            self._root = _Place((self._trie,))
        self._places += 1
        return place.step(segment)

    def find(self, method: str, host: str, path: str, fields: Fields) -> Match[T] | Verdict:
        """The first route that matches, or why there is none.

        `host` is normalised (lower case, no port, no final dot), `path` is raw. Raises ValueError
        as `split_path` does.
        """
        found = self._known.get((method, host, path))
        if found is not None:
            return found
        segments = split_path(path)
        candidates = self._candidates(host, segments)
        verdict = self._first(candidates, method, host, segments, fields)
        if (
            isinstance(verdict, Match)
            and len(host) + len(path) <= _MAX_KNOWN_CHARS
            and not any(self.routes[number][0].headers for number in candidates)
        ):
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[method, host, path] = verdict
        return verdict

    def search(
        self, method: str, host: str, segments: Sequence[str], fields: Fields
    ) -> Match[T] | Verdict:
        """`find`, of a path that is split, without what is known."""
        return self._first(self._candidates(host, segments), method, host, segments, fields)

    def _first(
        self,
        candidates: Iterable[int],
        method: str,
        host: str,
        segments: Sequence[str],
        fields: Fields,
    ) -> Match[T] | Verdict:
        barred: tuple[int, ...] = ()
        routes = self.routes
        for number in candidates:
            match, item = routes[number]
            if match.headers and not match.accepts_headers(fields):
                continue
            methods = match.methods
            if methods is None or method in methods:
                return Match(item, match.path.captures(segments))
            barred += (number,)
        if barred:
            return MethodNotAllowed(self._union(barred))
        return _NO_ROUTE if self._knows(host) else _MISDIRECTED

    def allow(self, host: str, segments: Sequence[str], fields: Fields) -> tuple[str, ...]:
        """The methods that some route takes at this place, sorted; () where none is there."""
        numbers = self._candidates(host, segments)
        return self._union(n for n in numbers if self.routes[n][0].accepts_headers(fields))

    def _knows(self, host: str) -> bool:
        if self._hosts.any_host or not self.routes:
            return True
        found: list[int] = []
        self._hosts.collect(host, found)
        return bool(found)
