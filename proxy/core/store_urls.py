"""The URL of a store as text → its parts.

Pure. Raises ValueError with a sentence that fits after the key's path. A sentence never repeats
the URL's credentials.
"""

from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import unquote

Kind = Literal["memory", "standalone", "sentinel", "cluster"]

FORMS: Final = (
    "memory://",
    "redis://USER:PASSWORD@HOST:6379/0",
    "rediss://…",
    "unix:///PATH?db=0",
    "redis+sentinel://USER:PASSWORD@H1:26379,H2:26379/MASTER/0",
    "redis+cluster://H1:7000,H2:7001",
)
_SCHEMES: Final[dict[str, tuple[Kind, bool]]] = {
    "redis": ("standalone", False),
    "rediss": ("standalone", True),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_PORTS: Final[dict[Kind, int]] = {"standalone": 6379, "sentinel": 26379, "cluster": 6379}


@dataclass(frozen=True)
class StoreUrl:
    """Where a store is. For `sentinel` the nodes are Sentinels, for `cluster` any of its nodes."""

    kind: Kind
    nodes: tuple[tuple[str, int], ...] = ()
    """(host, port); IPv6 without brackets."""
    socket: str | None = None
    """A unix socket's path instead of a node."""
    master: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: bool = False

    def __str__(self) -> str:
        """For people: where it is, without credentials."""
        if self.kind == "memory":
            return "memory://"
        if self.socket is not None:
            return f"unix://{self.socket}"
        topology = "" if self.kind == "standalone" else f"+{self.kind}"
        hosts = ",".join(f"{f'[{h}]' if ':' in h else h}:{port}" for h, port in self.nodes)
        master = "" if self.master is None else f"/{self.master}"
        return f"redis{'s' if self.tls else ''}{topology}://{hosts}{master}"


MEMORY: Final = StoreUrl("memory")


def read_store_url(text: str) -> StoreUrl:
    """Any of FORMS; `rediss+sentinel` and `rediss+cluster` are the same over TLS."""
    if text == "memory://":
        return MEMORY
    scheme, mark, rest = text.partition("://")
    if not mark or not (scheme == "unix" or scheme in _SCHEMES):
        raise ValueError(f"must be one of {', '.join(FORMS)}")
    if any(char <= " " or char == "\x7f" or char == "#" for char in rest):
        raise ValueError("has a character that no URL may have; write it as %XX")
    if scheme == "unix":
        return _unix(rest)
    kind, tls = _SCHEMES[scheme]
    if "?" in rest:
        raise ValueError("takes no ?…: timeouts and TLS have keys of their own under store")
    credentials, at, place = rest.rpartition("@")
    username, password = _credentials(credentials) if at else (None, None)
    hosts, _, path = place.partition("/")
    nodes = tuple(_node(host, _PORTS[kind]) for host in hosts.split(","))
    if kind == "standalone" and len(nodes) > 1:
        raise ValueError("names several servers: write redis+sentinel:// or redis+cluster://")
    master = None
    if kind == "sentinel":
        name, _, path = path.partition("/")
        if not name:
            raise ValueError("needs the master's name as its path, as in …:26379/MASTER/0")
        master = unquote(name)
    database = _database(path)
    if kind == "cluster" and database:
        raise ValueError("names a database: a Redis Cluster has number 0 only")
    return StoreUrl(kind, nodes, None, master, username, password, database, tls)


def _unix(rest: str) -> StoreUrl:
    place, _, query = rest.partition("?")
    before, at, path = place.rpartition("@")
    username, password = _credentials(before) if at else (None, None)
    if not path.startswith("/") or path == "/":
        raise ValueError("needs the socket's absolute path, as in unix:///run/redis.sock")
    name, _, number = query.partition("=")
    if query and name != "db":
        raise ValueError("takes ?db=N at most")
    return StoreUrl(
        "standalone", (), unquote(path), None, username, password, _database(number), False
    )


def _credentials(text: str) -> tuple[str | None, str]:
    username, colon, password = text.partition(":")
    if not colon or not password:
        raise ValueError("has a user without a password: write USER:PASSWORD@ or :PASSWORD@")
    return unquote(username) or None, unquote(password)


def _node(text: str, port: int) -> tuple[str, int]:
    if text.startswith("["):
        host, bracket, after = text[1:].partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise ValueError("has an IPv6 address without its closing bracket")
        digits = after[1:] if after else str(port)
    else:
        host, colon, digits = text.partition(":")
        if ":" in digits:
            raise ValueError("has an IPv6 address without brackets: write [::1]:6379")
        digits = digits if colon else str(port)
    if not host:
        raise ValueError("lacks a host name or address")
    if not (digits.isascii() and digits.isdecimal() and 1 <= int(digits[:6]) <= 65535):
        raise ValueError("has a port that is no number from 1 to 65535")
    return unquote(host), int(digits)


def _database(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) <= 6):
        raise ValueError("has a database that is no number, as 0 is in redis://HOST:6379/0")
    return int(text)
