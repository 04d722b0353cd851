"""The request as it goes upstream, rebuilt from parsed parts; its body, kept while it may have to
be sent again."""

from typing import Final

from proxy.core.fields import Lines
from proxy.core.headers import (
    apply_edits,
    forward_request_lines,
    forward_request_text,
    recurring_request_text,
)
from proxy.core.message import Outgoing, RequestBody
from proxy.exchange import Exchange
from proxy.policy.snapshot import Destination

KEPT_BODY: Final = 64 * 1024
"""Bytes of a request's body that are kept for another attempt; a longer one is sent once."""
_KEY: Final = frozenset(("idempotency-key",))
_NONE: Final[frozenset[str]] = frozenset()


def outgoing(ex: Exchange, there: Destination | None = None) -> Outgoing:
    """The request as it goes to its route's upstream, or `there` instead."""
    route = ex.route
    assert route is not None
    if there is None:
        there = route.upstream
    target = ex.target
    if route.rewrite is not None:
        target = route.rewrite.apply(ex.path, ex.captures)
        if ex.query is not None:
            target = f"{target}?{ex.query}"
    keep = _NONE
    plan = route.idempotency
    if plan is not None and ex.method in plan.methods:
        keep = _KEY  # what the upstream did can be looked up only where it has seen the key
    edits = route.request_headers
    head: Lines | str
    if edits is None:
        head = _text(ex, keep)
    else:
        head = apply_edits(forward_request_lines(ex, keep), edits.remove, edits.set)
    affinity = there.affinity
    return Outgoing(  # by position: by name, each request would cost a dict of them
        ex.method,
        target,
        (ex.authority or None) if there.plan.host_header == "preserve" else None,
        head,
        ex.body,
        ex.expect_continue,
        ex.upgrade,
        ex.inform,
        0 if affinity is None else int.from_bytes(affinity.digest(ex)[:8]),
        ex.claim,
    )


def _text(ex: Exchange, keep: frozenset[str]) -> str:
    """The head, where no configuration changes it: what is the same each time made once."""
    memo = ex.memo
    if memo is None:
        return forward_request_text(ex, keep)
    recurring = memo.forwarded
    if recurring is None:
        recurring = memo.forwarded = recurring_request_text(ex) or ""
    if not recurring:
        return forward_request_text(ex, keep)
    trace = f"traceparent: {ex.trace}\r\n" if ex.trace else ""
    return f"{recurring}{trace}X-Request-Id: {ex.request_id}\r\n"


class KeptBody:
    """A request's body that can be sent again, from its first byte, while it is short enough.

    It goes out as it comes; what has been read is kept beside it. Implements `RequestBody`.
    """

    __slots__ = ("_ended", "_kept", "_next", "_source", "length")

    def __init__(self, source: RequestBody) -> None:
        self._source = source
        # One array: of a body that comes in pieces of a few bytes, pieces would cost far more.
        self._kept: bytearray | None = bytearray()
        self._next = 0
        self._ended = False
        self.length = source.length

    @property
    def replayable(self) -> bool:
        """Whether all that was read of it is still here."""
        return self._kept is not None

    def rewind(self) -> None:
        """Begins anew. Nobody may be reading."""
        assert self._kept is not None
        self._next = 0

    async def read(self) -> bytes:
        kept = self._kept
        if kept is not None and self._next < len(kept):
            again = bytes(kept[self._next :])
            self._next = len(kept)
            return again
        if self._ended:
            return b""
        piece = await self._source.read()
        if not piece:
            self._ended = True
        elif kept is not None:
            if len(kept) + len(piece) > KEPT_BODY:
                self._kept = None
            else:
                kept += piece
                self._next = len(kept)
        return piece

    def proceed(self) -> None:
        self._source.proceed()
