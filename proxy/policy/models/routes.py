"""`routes`: which requests are whose, and what happens to them on the way."""

from typing import Annotated

from pydantic import Field

from proxy.core.matching import PathPattern, Rewrite, RouteMatch
from proxy.policy.models.caches import Tag
from proxy.policy.models.leaves import HeaderName, HeaderValue, Section, Text, items, name, text
from proxy.policy.models.statuses import FinalStatuses

_ANY_PATH = PathPattern.parse("/{rest:path}")

# The gateway's own: framing (RFC 9112 §6), hop-by-hop (RFC 9110 §7.6.1), and Host.
GATEWAY_FIELDS = frozenset(
    ("connection", "content-length", "host", "http2-settings", "keep-alive", "proxy-connection",
     "te", "trailer", "transfer-encoding", "upgrade")
)  # fmt: skip


def method(value: str) -> str:
    """A method that can be forwarded. Raises ValueError, a sentence."""
    RouteMatch(_ANY_PATH, frozenset((value,)))
    return value


def _host(value: str) -> str:
    host = value.lower().removesuffix(".")
    if ":" in host and not host.startswith("["):
        raise ValueError(f'is matched without a port: write "{host.partition(":")[0]}"')
    return RouteMatch(_ANY_PATH, hosts=(value,)).hosts[0]


def _strip(value: str) -> str:
    Rewrite.strip(value)
    return value


def _route_name(value: str) -> str:
    if value == "none":
        raise ValueError('"none" is what metrics call a request without a route: take another name')
    return name(value)


def _edited(value: str) -> str:
    low = value.lower()
    if low == "host":
        raise ValueError("Host is the upstream's host_header to say")
    if low in GATEWAY_FIELDS:
        raise ValueError(f"{value} belongs to the connection: the gateway writes it itself")
    return value


Method = Annotated[
    str,
    text(
        "a method",
        method,
        type="string",
        pattern="^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}$",
        **{"not": {"enum": ["CONNECT", "TRACE"]}},
    ),
]
Host = Annotated[str, text("a host", _host, type="string", pattern="^[^/:\\s]+$|^\\[")]


class MatchSection(Section):
    """What a request must be like; everything named here must hold."""

    path: Annotated[
        PathPattern, text("a path", PathPattern.parse, type="string", pattern="^/[^?#*\\s\\\\]*$")
    ]
    """The path, such as "/users/{id}"; "/{rest:path}" is every path."""
    methods: list[Method] | None = items(None, least=1)
    """Methods, any where left out; GET includes HEAD."""
    hosts: list[Host] | None = items(None, least=1)
    """Hosts, any where left out; "*.example.com" is every name below it."""
    headers: dict[HeaderName, HeaderValue] | None = None
    """Headers and the exact values they must have."""

    def compile(self) -> RouteMatch:
        """The condition, ready for the route table."""
        return RouteMatch(
            self.path,
            frozenset(self.methods) if self.methods else None,
            tuple(self.hosts or ()),
            tuple((self.headers or {}).items()),
        )


class HeaderEditsSection(Section):
    """Changes to the header: `remove` goes first, then `set` replaces or adds."""

    set: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    """Headers and the values they get."""
    remove: list[HeaderName] = items([])
    """Headers to take away."""


class RouteSection(Section):
    """One route. The first that matches wins."""

    name: Annotated[
        str,
        text(
            "a name",
            _route_name,
            type=["string", "number"],
            pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        ),
    ]
    """The route's name, for metrics, logs and keys."""
    match: MatchSection
    """What a request must be like, such as {path: "/api/{rest:path}"}."""
    upstream: Text
    """The name of the upstream that gets the request."""
    strip_prefix: Annotated[str, text("a path", _strip, type="string", pattern="^/.+$")] | None = (
        None
    )
    """Whole segments cut off the front of the path."""
    rewrite: Annotated[str, text("a path", type="string", pattern="^/|^\\{")] | None = None
    """A new path, with {name} for the captures of match.path."""
    limits: list[Text] = items([])
    """Names of limits from the policy files."""
    cache: Text | None = None
    """The name of a cache from the policy files."""
    idempotency: Text | None = None
    """The name of an idempotency policy from the policy files."""
    invalidate: list[Tag] = items([])
    """Tags purged after the answer to an unsafe method, such as ["user:{path.id}"]."""
    invalidate_on: list[FinalStatuses] = items(["2xx"], least=1)
    """Statuses after which they are, such as [2xx, 303]."""
    request_headers: HeaderEditsSection | None = None
    """Changes to the request before it goes upstream."""
    response_headers: HeaderEditsSection | None = None
    """Changes to the answer before it goes to the client."""
