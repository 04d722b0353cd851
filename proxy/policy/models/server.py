"""`server`, `log` and `admin`: how the gateway itself runs."""

import re
from ipaddress import IPv6Network, ip_address, ip_network
from typing import Annotated, Literal

from proxy.policy.models.leaves import (
    HOST_NAME,
    Choice,
    Duration,
    FilePath,
    HeaderName,
    Positive,
    Section,
    Size,
    Text,
    Timeout,
    default,
    file_path,
    filled,
    items,
    text,
    whole,
)
from proxy.policy.problem import suggest
from proxy.policy.snapshot import Listen, Network

_HOST_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]]*):([0-9]{1,5})")
_LONGEST_SOCKET_PATH = 107  # sun_path of Linux, less its closing NUL


def read_listen(value: str) -> Listen:
    """`HOST:PORT`, `[::1]:PORT` or `unix:/path`."""
    if value.startswith("unix:"):
        return Listen(path=socket_path(value.removeprefix("unix:")))
    found = _HOST_PORT.fullmatch(value)
    if found is None:
        hint = f": write 127.0.0.1:{value}" if value.isdigit() else ""
        if value.count(":") > 1 and "[" not in value:
            hint = "; an IPv6 address stands in brackets"
        raise ValueError(f'must be HOST:PORT, "[IPV6]:PORT" or unix:/path, not "{value}"{hint}')
    host, port = found.group(1), int(found.group(2))
    if not host:
        raise ValueError(
            f"has no host: write 127.0.0.1:{port} for this machine only, 0.0.0.0:{port} for all"
        )
    if port > 65535:
        raise ValueError(f"has port {port}; ports end at 65535")
    return Listen(_listen_host(host), port)


def _listen_host(host: str) -> str:
    bare = host[1:-1] if host.startswith("[") else host
    if host.startswith("[") or re.fullmatch(r"[0-9.]+", host):
        try:
            return str(ip_address(bare))
        except ValueError:
            raise ValueError(f'has "{host}", which is no IP address') from None
    if not HOST_NAME.fullmatch(host):
        raise ValueError(f'has "{host}", which is no host name')
    return host.lower()


def socket_path(path: str) -> str:
    """A unix socket's path. Raises ValueError."""
    if not path.startswith("/") or path == "/":
        raise ValueError("needs the absolute path of a unix socket, such as unix:/run/app.sock")
    file_path(path)
    if len(path.encode()) > _LONGEST_SOCKET_PATH:
        raise ValueError(f"has a socket path of more than {_LONGEST_SOCKET_PATH} bytes")
    return path


def read_peer(value: str) -> Network | Literal["unix"]:
    """A CIDR, an address, or `unix`."""
    if value == "unix":
        return "unix"
    try:
        network = ip_network(value)
    except ValueError:
        try:
            loose = ip_network(value, strict=False)
        except ValueError:
            raise ValueError(
                f'must be a CIDR such as 10.0.0.0/8, an IP address or unix, not "{value}"'
            ) from None
        raise ValueError(f"has bits beyond its mask: write {loose}") from None
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
        raise ValueError("is an IPv4-mapped network: write it as IPv4")
    return network


def read_health_path(value: str) -> str:
    if not re.fullmatch(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*", value):
        raise ValueError(f'must be a plain path such as /-/ready, not "{value}"')
    return value


def _client_ip_header(value: str) -> str:
    low = value.lower()
    if low not in ("x-forwarded-for", "forwarded"):
        hint = suggest(value, ("X-Forwarded-For", "Forwarded"))
        raise ValueError(f'must be X-Forwarded-For or Forwarded, not "{value}"{hint}')
    return low


def _token(value: str) -> str:
    # Its value is never part of a message.
    if not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", filled(value)):
        raise ValueError(
            'holds a character that a bearer token cannot have: letters, digits and "-._~+/" '
            '(and "=" at its end) are allowed (RFC 6750 §2.1)'
        )
    return value


def _admin_host(value: str) -> str:
    if not HOST_NAME.fullmatch(value):
        raise ValueError(f'must be a host name without port, not "{value}"')
    return value.lower().removesuffix(".")


Address = Annotated[
    Listen, text("HOST:PORT", read_listen, type="string", pattern="^(unix:/.+|.+:[0-9]{1,5})$")
]
Peer = Annotated[
    Network | Literal["unix"],
    text("a CIDR", read_peer, type="string", pattern="^(unix|[0-9A-Fa-f:.]+(/[0-9]{1,3})?)$"),
]


class ServerTlsSection(Section):
    """The certificate that clients see."""

    cert: FilePath
    """A PEM file with the certificate chain."""
    key: FilePath
    """A PEM file with the certificate's private key."""


class ServerSection(Section):
    """The data port: where clients connect, whom to believe, and how much is allowed."""

    listen: Address = default("127.0.0.1:8080")
    """Where clients connect: HOST:PORT, "[::1]:PORT" or unix:/path."""
    tls: ServerTlsSection | None = None
    """Certificate and key; plain HTTP where left out."""
    workers: Annotated[int, whole(1, 256)] = 1
    """Processes that share the port; more than 1 needs a Redis store."""
    health_path: (
        Annotated[str, text("a path", read_health_path, type="string", pattern="^/[^?#]*$")] | None
    ) = None
    """A path answered on the data port before routing and limits, such as /-/ready."""
    trusted_proxies: list[Peer] = items([])
    """CIDRs (and `unix`) whose client_ip_header and trusted_headers are believed."""
    client_ip_header: Annotated[
        Literal["x-forwarded-for", "forwarded"],
        text(
            "X-Forwarded-For or Forwarded",
            _client_ip_header,
            type="string",
            pattern="^([Xx]-[Ff]orwarded-[Ff]or|[Ff]orwarded)$",
        ),
    ] = default("X-Forwarded-For")
    """The one header that names the client behind a trusted proxy."""
    trusted_headers: list[HeaderName] = items([])
    """Headers believed from trusted_proxies and removed from everyone else."""
    max_header_bytes: Size = default("32KiB")
    """The longest request head."""
    max_headers: Positive = 100
    """The most header lines in a request."""
    max_target_bytes: Size = default("8KiB")
    """The longest request target."""
    max_body_bytes: Size = default("100MiB")
    """The largest request body."""
    body_buffer: Size = default("64MiB")
    """The most that request bodies which are read whole may hold together, in each process."""
    header_timeout: Timeout = default("10s")
    """How long a request head may take."""
    body_timeout: Timeout = default("30s")
    """The longest pause between two reads of a request body."""
    idle_timeout: Timeout = default("75s")
    """How long a connection may stay idle between requests."""
    max_connections: Positive = 10000
    """The most client connections at once."""
    drain_delay: Duration = default("0s")
    """How long to keep accepting after readiness drops."""
    drain_timeout: Duration = default("20s")
    """How long requests in flight may take to finish at shutdown."""
    ratelimit_headers: Annotated[Literal["standard", "legacy", "both", "off"], Choice()] = default(
        "standard"
    )
    """RateLimit fields (standard), X-RateLimit fields (legacy), both or none (off)."""


class LogSection(Section):
    """What is logged, and how."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Choice()] = default("info")
    """The least severe message that is logged."""
    format: Annotated[Literal["plain", "json"], Choice()] = default("plain")
    """The form of the application log."""
    access: Annotated[Literal["off", "json"], Choice()] = default("off")
    """The access log: one JSON line per request, or none."""
    key_salt: Text | None = None
    """A secret by which keys are hashed where they are shown; made once and kept in the store where
    left out."""


class AdminSection(Section):
    """The admin API, for operators only."""

    listen: Address = default("127.0.0.1:9090")
    """Where the admin API listens."""
    token: Annotated[str, text("text", _token)] | None = None
    """The bearer token; required where listen is not loopback."""
    hosts: list[
        Annotated[str, text("a host name", _admin_host, type="string", pattern="^[^:/]+$")]
    ] = items([])
    """Further Host names accepted, beside IP literals and localhost."""
    probes: Address | None = None
    """An address that serves /livez, /readyz and /metrics only, without a token."""
