"""Field lines on their way through: what a hop takes off, what the gateway puts on.

Rules (RFC 9110 §7.6, and the project's own for what a stranger may claim):
- Fields that `Connection` names go first, then every hop-by-hop field, in both directions; what
  the gateway sets is added after, so nobody strips it by naming it. A request that is executed
  once for its Idempotency-Key goes with the key, whatever `Connection` names.
- From a peer that is not trusted no forwarding field survives, no trusted header, and no name
  with "_" (which CGI-like origins read as "-").
- X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host are set on every request. A trusted
  peer's own -Proto and -Host are passed on, its chain is appended to. Of X-Forwarded-For and
  Forwarded the one that is not read is rebuilt (X-Forwarded-For) or dropped (Forwarded).
- Framing belongs to each hop: Host, Content-Length, Transfer-Encoding, Connection, Expect, Upgrade
  and TE are never in the lines returned here. Trailers are not forwarded, so Trailer goes too.
"""

from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Final, Protocol

from proxy.core.fields import Fields, Lines, read_written, written
from proxy.core.identity import UNIX, plain_address
from proxy.core.layouts import Layouts, form

PSEUDONYM: Final = "sluicegate"
"""Our name in Via."""

VIA_LIMIT: Final = 8
"""A request that has passed us this often is going in circles."""

HOP_BY_HOP: Final = frozenset(
    {
        "connection", "http2-settings", "keep-alive", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip

FRAMING: Final = HOP_BY_HOP | {"content-length", "expect", "host"}
"""Names that no configuration may edit: each hop makes its own."""

RESPONSE_DROP: Final = HOP_BY_HOP | {"content-length"}
"""Names that are never in an answer's end-to-end lines."""

FORWARDING: Final = frozenset(
    {
        "cf-connecting-ip", "forwarded", "true-client-ip", "x-client-ip", "x-cluster-client-ip",
        "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix",
        "x-forwarded-proto", "x-forwarded-scheme", "x-forwarded-server", "x-host",
        "x-http-host-override", "x-http-method", "x-http-method-override", "x-method-override",
        "x-original-host", "x-original-url", "x-real-ip", "x-rewrite-url",
    }
)  # fmt: skip
"""What only a trusted peer may say: who asks, for what, and by which way."""

# What the gateway replaces on every request.
_OURS = FRAMING | {
    "forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id",
}  # fmt: skip
_FORMS = Layouts(lambda names: form(names, _OURS))
_RECURRING = Layouts(lambda names: form(names, _OURS | {"traceparent"}))
_NOTHING: dict[str, str] = {}
_NONE: Final[frozenset[str]] = frozenset()
_LONGEST_OPTIONS: Final = 128
"""Characters of a Connection field beyond which it is not remembered."""
_VIA = {10: f"1.0 {PSEUDONYM}", 11: f"1.1 {PSEUDONYM}"}


class _ServerFacts(Protocol):
    @property
    def client_ip_header(self) -> str: ...


class _SnapshotFacts(Protocol):
    @property
    def server(self) -> _ServerFacts: ...


class Forwarded(Protocol):
    """What forwarding reads of a request; an Exchange is one."""

    @property
    def snapshot(self) -> _SnapshotFacts: ...
    @property
    def fields(self) -> Fields: ...
    @property
    def method(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def scheme(self) -> str: ...
    @property
    def authority(self) -> str: ...
    @property
    def peer(self) -> str: ...
    @property
    def trusted(self) -> bool: ...
    @property
    def client_ip(self) -> str: ...
    @property
    def request_id(self) -> str: ...


def without_claims(fields: Fields, trusted_headers: frozenset[str]) -> Fields:
    """An untrusted peer's fields without what it may not say. The same object if it said none."""
    index = fields.index
    if (
        FORWARDING.isdisjoint(index)
        and (not trusted_headers or trusted_headers.isdisjoint(index))
        and "_" not in "".join(index)
    ):
        return fields
    return Fields(
        line
        for line in fields.lines
        if (low := line[0].lower()) not in FORWARDING
        and low not in trusted_headers
        and "_" not in low
    )


def connection_options(value: str | None) -> frozenset[str]:
    """The names that a Connection field lists, lower case."""
    if value is None:
        return _NONE
    return _options(value) if len(value) > _LONGEST_OPTIONS else _usual_options(value)


@lru_cache(maxsize=64)  # nearly always keep-alive or close
def _usual_options(value: str) -> frozenset[str]:
    return _options(value)


def _options(value: str) -> frozenset[str]:
    return frozenset(option.strip(" \t").lower() for option in value.split(","))


def forward_request_lines(ex: Forwarded, keep: frozenset[str] = _NONE) -> Lines:
    """The end-to-end lines to send upstream, ours at the end. `keep`: names (lower case) that
    `Connection` cannot take off.

    Expects an exchange that has been through the identity stage: what an untrusted peer may not
    claim is already gone from `ex.fields`.
    """
    index = ex.fields.index
    drop = _OURS
    received = index if ex.trusted else _NOTHING
    if "connection" in index:
        listed = connection_options(index["connection"]) - keep
        if not listed <= HOP_BY_HOP:
            drop = _OURS | listed
            received = {name: value for name, value in received.items() if name not in listed}
    lines = [line for line in ex.fields.lines if line[0].lower() not in drop]
    if ex.method == "OPTIONS" and "max-forwards" in index:
        lines = _count_down(lines)
    lines += read_written(_ours(ex, received))
    lines.append(("X-Request-Id", ex.request_id))
    return lines


def forward_request_text(ex: Forwarded, keep: frozenset[str] = _NONE) -> str:
    """`forward_request_lines` as text (`fields.written`): cheap where no line has to be looked at,
    as where `Connection` names no field of the request's own."""
    text = _text(ex, _FORMS)
    if text is None:
        return written(forward_request_lines(ex, keep))
    return f"{text}X-Request-Id: {ex.request_id}\r\n"


def recurring_request_text(ex: Forwarded) -> str | None:
    """What of `forward_request_text` is the same for every request from this peer with the same
    fields but for traceparent: all but that and X-Request-Id. None where a line has to be looked
    at."""
    return _text(ex, _RECURRING)


def _text(ex: Forwarded, forms: Layouts[str]) -> str | None:
    """The fields' text by one of `forms`, and what the gateway says the same of all of them."""
    fields = ex.fields
    index = fields.index
    hop = index.get("connection")
    if (
        (hop is not None and not connection_options(hop) <= HOP_BY_HOP)
        or ex.method == "OPTIONS"  # it may have a Max-Forwards
        or not index
    ):
        return None
    names, values = zip(*fields.lines, strict=True)
    return f"{forms[names] % values}{_ours(ex, index if ex.trusted else _NOTHING)}"


def _ours(ex: Forwarded, received: dict[str, str]) -> str:
    """What the gateway says itself, as text; but for X-Request-Id. `received`: what a trusted peer
    said of it."""
    peer = plain_address(ex.peer)
    host, proto, chain, text = ex.authority, ex.scheme, "", ""
    if received:
        host = received.get("x-forwarded-host") or host
        proto = received.get("x-forwarded-proto") or proto
        chain = received.get("x-forwarded-for", "")
    if ex.snapshot.server.client_ip_header == "forwarded":
        # Rebuilt from what was believed; what the peer sent of it is not looked at.
        chain = ex.client_ip if ex.client_ip != peer else ""
        element = f"for={_node(peer)};host={_quoted(ex.authority)};proto={ex.scheme}"
        before = received.get("forwarded")
        text = f"Forwarded: {before}, {element}\r\n" if before else f"Forwarded: {element}\r\n"
    if peer != UNIX:  # a unix socket has no address to add
        chain = f"{chain}, {peer}" if chain else peer
    if chain:
        text = f"{text}X-Forwarded-For: {chain}\r\n"
    text = f"{text}X-Forwarded-Proto: {proto}\r\n"
    if host:  # HTTP/1.0 may come without
        text = f"{text}X-Forwarded-Host: {host}\r\n"
    via = _VIA[ex.version]
    before = ex.fields.index.get("via")
    if before:
        via = f"{before}, {via}"
    return f"{text}Via: {via}\r\n"


def _node(address: str) -> str:
    """An address as RFC 7239 §6 writes it."""
    if address == UNIX:
        return "unknown"
    return f'"[{address}]"' if ":" in address else address


def _quoted(authority: str) -> str:
    # ":" and brackets are no token characters, so only a bare name may stand unquoted.
    return f'"{authority}"' if ":" in authority else authority


def _count_down(lines: Lines) -> Lines:
    """Max-Forwards less one (RFC 9110 §7.6.2); 0 never comes here, anything else is left."""
    return [
        (name, str(hops - 1)) if name.lower() == "max-forwards" and (hops := max_forwards(value))
        else (name, value)
        for name, value in lines
    ]  # fmt: skip


def max_forwards(value: str | None) -> int | None:
    """The hops that are left, or None where it says nothing usable."""
    if value is None or not (value.isascii() and value.isdigit()) or len(value) > 18:
        return None
    return int(value)


def passes(via: str | None) -> int:
    """How often our name stands in Via."""
    if via is None or PSEUDONYM not in via.lower():
        return 0
    hops = (member.split(None, 2) for member in via.lower().split(","))
    return sum(len(hop) > 1 and hop[1] == PSEUDONYM for hop in hops)


def forward_response_lines(lines: Lines) -> Lines:
    """An upstream's end-to-end lines, in their order and with their bytes.

    Content-Length and Transfer-Encoding are left out: the body's framing is the edge's.
    """
    kept: Lines = []
    listed: frozenset[str] = frozenset()
    for line in lines:
        low = line[0].lower()
        if low not in RESPONSE_DROP:
            kept.append(line)
        elif low == "connection":
            listed |= connection_options(line[1])
    if listed <= HOP_BY_HOP:
        return kept
    return [line for line in kept if line[0].lower() not in listed]


def apply_edits(lines: Lines, remove: Collection[str], replace: Iterable[tuple[str, str]]) -> Lines:
    """Takes off every line named in `remove` (lower case), then sets each of `replace`: it stands
    once, at the end, whatever stood there before."""
    replace = tuple(replace)
    drop = {name.lower() for name, _ in replace}
    drop.update(remove)
    kept = [line for line in lines if line[0].lower() not in drop]
    kept += replace
    return kept
