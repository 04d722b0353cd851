"""`upstreams`: where requests go, and how patient the gateway is with them."""

import re
from ipaddress import ip_address
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from proxy.policy.models.leaves import (
    HOST_NAME,
    LEAF,
    Boolean,
    Choice,
    Count,
    FilePath,
    Positive,
    Section,
    Text,
    Timeout,
    default,
    filled,
    items,
    text,
    whole,
)
from proxy.policy.models.limits import KeyPart
from proxy.policy.models.server import socket_path
from proxy.policy.snapshot import Endpoint

_URL = re.compile(r"(https?)://(\[[^\]]*\]|[^/?#:@\[\]]*)(?::([0-9]{1,5}))?(/[^?#]*)?")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*")
_DOT_SEGMENT = re.compile(r"/\.{1,2}(?:/|$)")
_UNIX = "http+unix://"
_TARGET = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")


def read_endpoint(value: str) -> Endpoint:
    """`http://host:port[/path]`, `https://…` or `http+unix:///path/to.sock`; of weight 1."""
    if value.startswith(_UNIX):
        path = value.removeprefix(_UNIX)
        return Endpoint("http", "localhost", 80, "", socket=socket_path(path))
    found = _URL.fullmatch(value)
    if found is None:
        raise ValueError(_why_no_url(value))
    scheme, host, port_text, path = found.groups()
    port = int(port_text) if port_text else (443 if scheme == "https" else 80)
    if not 1 <= port <= 65535:
        raise ValueError(f"has port {port}; ports are 1 to 65535")
    path = (path or "").rstrip("/")
    if not _PATH.fullmatch(path) or _DOT_SEGMENT.search(path):
        raise ValueError(f'has the path "{path}", which cannot stand in a request as it is')
    return Endpoint("https" if scheme == "https" else "http", _endpoint_host(host), port, path)


def _endpoint_host(host: str) -> str:
    if host.startswith("[") or re.fullmatch(r"[0-9.]+", host):
        try:
            return str(ip_address(host.strip("[]")))
        except ValueError:
            raise ValueError(f'has "{host}", which is no IP address') from None
    if not HOST_NAME.fullmatch(host):
        raise ValueError(f'has "{host}", which is no host name' if host else "has no host")
    return host.lower()


def _why_no_url(value: str) -> str:
    scheme, mark, rest = value.partition("://")
    if "@" in value:  # before anything that would print the password
        return "holds a user and password: set an Authorization header with request_headers"
    if not mark:
        if value.startswith(("unix:", "/")):
            path = value.removeprefix("unix:")
            return f'must be a URL, not "{value}": write {_UNIX}{path}'
        return f'must be a URL, not "{value}": write http://{value}'
    if scheme not in ("http", "https"):
        return f'has the scheme "{scheme}"; http, https and http+unix are spoken'
    if "?" in rest or "#" in rest:
        return "ends at its path: a query or fragment cannot be put in front of a request"
    return f'must be a URL such as http://127.0.0.1:9001, not "{value}"'


def _server_name(value: str) -> str:
    if not HOST_NAME.fullmatch(value):
        raise ValueError(f'must be a host name, not "{value}"')
    return value.lower()


def _health_target(value: str) -> str:
    if "#" in filled(value):
        raise ValueError("has a fragment (#), which no request carries")
    if not _TARGET.fullmatch(value):
        raise ValueError(f'must be a path such as /healthz, with or without a query, not "{value}"')
    return value


class ShortForm(BeforeValidator):
    """Annotation of an endpoint that may also be written as its URL alone."""

    def __init__(self) -> None:
        super().__init__(lambda raw: raw if isinstance(raw, dict) else {"url": raw})

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{LEAF: True, **_URL_SCHEMA}, handler(schema)]}


_URL_SCHEMA: dict[str, Any] = {
    "type": "string",
    "pattern": "^(https?://[^/?#@]+(/[^?#]*)?|http\\+unix:///.+)$",
}


class EndpointSection(Section):
    """One address of an upstream."""

    url: Annotated[Endpoint, text("a URL", read_endpoint, **_URL_SCHEMA)]
    """Where it is: http://host:port, https://host:port or http+unix:///path."""
    weight: Annotated[int, whole(1, 1000)] = 1
    """How many requests it takes, compared with the others."""


class UpstreamTlsSection(Section):
    """How the gateway speaks TLS with https endpoints."""

    ca: FilePath | None = None
    """A PEM file with the authorities to trust; the system's where left out."""
    cert: FilePath | None = None
    """A PEM file with the gateway's own certificate."""
    key: FilePath | None = None
    """A PEM file with the private key of cert."""
    server_name: (
        Annotated[str, text("a host name", _server_name, type="string", pattern="^[^:/]+$")] | None
    ) = None
    """The name to ask for and to verify, where it is not the endpoint's host."""
    verify: Boolean = True
    """Whether the upstream must prove who it is."""


class HealthCheckSection(Section):
    """How the gateway asks each endpoint whether it is well."""

    path: Annotated[str, text("a path", _health_target, type="string", pattern="^/[^#\\s]*$")]
    """What is asked for with GET, such as /healthz; any 2xx or 3xx is well."""
    interval: Timeout = default("5s")
    """How often."""
    timeout: Timeout = default("1s")
    """How long an answer may take."""
    unhealthy_after: Positive = 3
    """How many failures in a row take the endpoint out."""
    healthy_after: Positive = 2
    """How many successes in a row bring it back."""


class UpstreamSection(Section):
    """A named upstream."""

    endpoints: list[Annotated[EndpointSection, ShortForm()]] = items(least=1)
    """Its addresses, such as ["http://127.0.0.1:9001"]."""
    balance: Annotated[Literal["round_robin", "least_requests", "hash"], Choice()] = default(
        "round_robin"
    )
    """How an endpoint is chosen."""
    hash_key: list[KeyPart] | None = items(None, least=1)
    """With balance: hash, what goes to the same endpoint, such as ["header:X-Api-Key|ip"]."""
    connect_timeout: Timeout = default("1s")
    """How long a connection may take to open."""
    response_timeout: Timeout = default("10s")
    """From the last request byte to the response head."""
    read_timeout: Timeout = default("30s")
    """The longest pause between two reads of the response body."""
    tunnel_idle_timeout: Timeout = default("1h")
    """How long a WebSocket stays open while nothing passes in either direction."""
    deadline: Timeout = default("30s")
    """Queueing and answering together, up to the response head."""
    idle_timeout: Timeout = default("4s")
    """How long a pooled connection may stay idle: shorter than the upstream's own timeout."""
    max_connections: Positive = 256
    """The most connections to this upstream."""
    queue: Count = 100
    """The most requests that wait for a connection."""
    queue_timeout: Timeout = default("1s")
    """How long a request may wait for a connection."""
    dns_refresh: Timeout = default("30s")
    """How often names are resolved again."""
    tls: UpstreamTlsSection | None = None
    """Trust and identity for https endpoints."""
    host_header: Annotated[Literal["preserve", "upstream"], Choice()] = default("preserve")
    """The Host that is sent: the client's (preserve) or the endpoint's (upstream)."""
    breaker: Text | None = None
    """The name of a breaker from the policy files."""
    retry: Text | None = None
    """The name of a retry from the policy files."""
    health_check: HealthCheckSection | None = None
    """How endpoints are asked whether they are well; they are not where left out."""
