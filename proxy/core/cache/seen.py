"""A request's fields as the upstream sees them: the only ones that a key or Vary may read.

A cache that keys what the client sent, while the upstream saw something else, can be poisoned:
`Connection: Accept-Language` takes the field off on its way, and the answer for "no language" would
be kept as the answer for the language that the client named. So:
- what Connection lists is absent, hop-by-hop fields too;
- what the gateway writes itself (X-Forwarded-For, -Proto, -Host, Forwarded, Via, X-Request-Id) has
  the value that is sent, so `Vary: X-Forwarded-For` parts clients as the origin meant it;
- what the route's request_headers set or remove is constant.
"""

from typing import Protocol

from proxy.core.cache.urls import origin
from proxy.core.fields import Fields
from proxy.core.headers import FRAMING, Forwarded, connection_options, forward_request_lines

_REWRITTEN = FRAMING | {
    "forwarded", "max-forwards", "via", "x-forwarded-for", "x-forwarded-host",
    "x-forwarded-proto", "x-request-id",
}  # fmt: skip
"""Names whose value upstream is not simply the client's."""

_NOTHING: frozenset[str] = frozenset()


class Source(Protocol):
    """Fields to read: Fields, or a Seen."""

    def get(self, name: str, /) -> str | None:
        """The value of the field called `name` (lower case), lines joined; None where absent."""


class Edits(Protocol):
    """A route's request_headers: `remove` (lower case) goes first, then `set` replaces."""

    @property
    def set(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def remove(self) -> frozenset[str]: ...


class Routed(Protocol):
    """What is read of a route."""

    @property
    def name(self) -> str: ...
    @property
    def request_headers(self) -> Edits | None: ...


class Request(Forwarded, Protocol):
    """What is read of a request that has a route; an Exchange is one."""

    @property
    def path(self) -> str: ...
    @property
    def query(self) -> str | None: ...
    @property
    def target(self) -> str: ...
    @property
    def route(self) -> Routed | None: ...


class Seen:
    """The fields of one routed request as they go upstream. Cheap to make; what needs the
    rewritten lines builds them once."""

    __slots__ = ("_edits", "_ex", "_index", "_rewritten", "listed")

    def __init__(self, ex: Request) -> None:
        self._ex = ex
        self._index = index = ex.fields.index
        connection = index.get("connection")
        self.listed = _NOTHING if connection is None else connection_options(connection)
        """Names that Connection takes off."""
        route = ex.route
        self._edits = None if route is None else route.request_headers
        self._rewritten: Fields | None = None

    def get(self, name: str, /) -> str | None:
        """The value of the field called `name` (lower case) as it goes upstream."""
        if self._edits is not None:
            for edited, value in reversed(self._edits.set):
                if edited.lower() == name:
                    return value
            if name in self._edits.remove:
                return None
        if name in _REWRITTEN:
            return self._forwarded(name)
        if name in self.listed:
            return None
        return self._index.get(name)

    def _forwarded(self, name: str) -> str | None:
        if name == "host":
            return self._ex.authority or None
        if self._rewritten is None:
            self._rewritten = Fields(forward_request_lines(self._ex))
        return self._rewritten.get(name)


def forwarded_scheme(ex: Request) -> str:
    """The scheme of the target URI as the upstream is told: a trusted peer's X-Forwarded-Proto,
    else the connection's. Lower case; the first of several."""
    if ex.trusted:
        told = ex.fields.index.get("x-forwarded-proto")
        if told and "x-forwarded-proto" not in connection_options(ex.fields.get("connection")):
            return told.partition(",")[0].strip(" \t").lower()
    return ex.scheme


def target_origin(ex: Request) -> str:
    """The origin of the target URI (`urls.origin`)."""
    return origin(forwarded_scheme(ex), ex.authority)


def hosts(ex: Request) -> tuple[str, ...]:
    """The authorities that this request's URL is known under: its Host, and a trusted peer's
    X-Forwarded-Host, as a proxy in front may have put its own name into Host."""
    if ex.trusted:
        told = ex.fields.index.get("x-forwarded-host")
        if told and told != ex.authority:
            return ex.authority, told.partition(",")[0].strip(" \t")
    return (ex.authority,)
