"""Who asks: the client's address out of a trusted chain, and the host that is asked for.

Rules:
- Only the configured header is read, only from a trusted peer, from right to left: each entry was
  written by the hop to its right, so the walk ends at the first address that is not trusted
  (the client) or at the first entry that is no address (then the last good one stands).
- Forwarded (RFC 7239) is cut from the right as well, so a quote that a client leaves open cannot
  swallow what a trusted proxy appended. `unknown` and obfuscated nodes are no addresses.
- A Host is a name, an IPv4 address or a bracketed IPv6 address, with an optional port
  (RFC 9110 §7.2); a name is letters, digits, "-", "_" and "." here, less than RFC 3986 would allow,
  because nothing else is resolvable and much else is an attack.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final

from proxy.core.addresses import parse_address

UNIX: Final = "unix"
"""The peer of a connection over a unix socket."""

_AUTHORITY = re.compile(
    r"(?:[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?|\[(?P<v6>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{0,5}))?"
)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# A node (RFC 7239 §6) or an X-Forwarded-For entry: an address, perhaps with a port.
_NODE = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[0-9.]+))(?::[0-9]{1,5})?|(?P<bare>[0-9A-Fa-f:.]+)"
)
# A forwarded-pair; proxies are met that send an unquoted port or bracket, so more than a token.
_PAIR = re.compile(
    r"[ \t]*(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)="
    r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^";,\\\s]+))[ \t]*'
)


# What is remembered by a client's text must be short: there are thousands of them.
_LONGEST_AUTHORITY: Final = 300
_LONGEST_ADDRESS: Final = 64


def valid_authority(text: str) -> bool:
    """Whether this can be a Host: no user, no spaces, no path, nothing empty, a port to 65535."""
    return len(text) <= _LONGEST_AUTHORITY and _valid_authority(text)


@lru_cache(maxsize=1024)
def _valid_authority(text: str) -> bool:
    found = _AUTHORITY.fullmatch(text)
    if found is None or int(found["port"] or 0) > 65535:
        return False
    if found["v6"] is not None:
        try:
            IPv6Address(found["v6"])
        except ValueError:
            return False
    return True


@lru_cache(maxsize=1024)  # of what is valid: short
def normalise_host(authority: str) -> str:
    """A valid authority as routes compare it: lower case, without port and final dot."""
    host = authority.lower()
    if host.startswith("["):
        return host[: host.find("]") + 1]
    return host.partition(":")[0].removesuffix(".")


def valid_request_id(text: str | None) -> bool:
    """Whether a client's X-Request-Id is passed on."""
    return text is not None and _REQUEST_ID.fullmatch(text) is not None


def plain_address(text: str) -> str:
    """An address in its one spelling, IPv4-mapped as IPv4; "unix" and other text as it is."""
    return _usual_address(text) if len(text) <= _LONGEST_ADDRESS else _spelled(text)


@lru_cache(maxsize=4096)
def _usual_address(text: str) -> str:
    return _spelled(text)


def _spelled(text: str) -> str:
    try:
        return str(parse_address(text))
    except ValueError:
        return text


def client_address(
    peer: str, header: str, chain: str | None, is_trusted: Callable[[str], bool]
) -> str:
    """The client's address: the peer's, or what a trusted peer's chain says.

    `peer` is an address or "unix"; `header` is "x-forwarded-for" or "forwarded"; `chain` is its
    value, all lines joined, or None. Never raises.
    """
    client = plain_address(peer)
    if chain is None or not is_trusted(peer):
        return client
    entries = _forwarded_nodes(chain) if header == "forwarded" else reversed(chain.split(","))
    for entry in entries:
        address = _node_address(entry)
        if address is None:
            break
        client = address
        if not is_trusted(client):
            break
    return client


def _node_address(node: str | None) -> str | None:
    found = _NODE.fullmatch(node.strip(" \t")) if node is not None else None
    if found is None:
        return None
    try:
        return str(parse_address(found["v6"] or found["v4"] or found["bare"]))
    except ValueError:
        return None


def _forwarded_nodes(chain: str) -> Iterator[str | None]:
    """The `for` of each element, from the right; None for an element without a sound one."""
    for element in _elements_from_right(chain):
        if not element.strip(" \t"):
            continue  # an empty list member says nothing (RFC 9110 §5.6.1)
        yield _for_parameter(element)


def _elements_from_right(chain: str) -> Iterator[str]:
    if '"' not in chain:
        yield from reversed(chain.split(","))
        return
    end = len(chain)
    quoted = False
    for place in range(len(chain) - 1, -1, -1):
        char = chain[place]
        if char == '"':
            if not _is_escaped(chain, place):
                quoted = not quoted
        elif char == "," and not quoted:
            yield chain[place + 1 : end]
            end = place
    yield chain[:end]


def _is_escaped(text: str, place: int) -> bool:
    before = text[:place]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def _for_parameter(element: str) -> str | None:
    node: str | None = None
    place = 0
    while place < len(element):
        pair = _PAIR.match(element, place)
        if pair is None:
            return None
        if pair["name"].lower() == "for":
            if node is not None:
                return None  # each parameter at most once (RFC 7239 §4)
            node = re.sub(r"\\(.)", r"\1", pair["quoted"]) if pair["bare"] is None else pair["bare"]
        place = pair.end()
        if place < len(element):
            if element[place] != ";":
                return None
            place += 1
    return node
