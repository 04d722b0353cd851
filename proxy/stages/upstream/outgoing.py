"""The request as it goes upstream, rebuilt from parsed parts; its body, kept while it may have to
be sent again."""

from typing import Final

from proxy.core.headers import apply_edits, forward_request_lines
from proxy.core.message import Outgoing, RequestBody
from proxy.exchange import Exchange
from proxy.policy.snapshot import Destination

KEPT_BODY: Final = 64 * 1024
"""Bytes of a request's body that are kept for another attempt; a longer one is sent once."""
_KEY: Final = frozenset(("idempotency-key",))


def outgoing(ex: Exchange, there: Destination | None = None) -> Outgoing:
    """The request as it goes to its route's upstream, or `there` instead."""
    route = ex.route
    assert route is not None
    if there is None:
        there = route.upstream
    path = ex.path if route.rewrite is None else route.rewrite.apply(ex.path, ex.captures)
    plan = route.idempotency
    if plan is None or ex.method not in plan.methods:
        lines = forward_request_lines(ex)
    else:  # what the upstream did under a key can be looked up only where it has seen the key
        lines = forward_request_lines(ex, _KEY)
    edits = route.request_headers
    if edits is not None:
        lines = apply_edits(lines, edits.remove, edits.set)
    preserve = there.plan.host_header == "preserve" and ex.authority
    affinity = there.affinity
    return Outgoing(
        ex.method,
        path if ex.query is None else f"{path}?{ex.query}",
        ex.authority if preserve else None,
        lines,
        ex.body,
        expect_continue=ex.expect_continue,
        upgrade=ex.upgrade,
        inform=ex.inform,
        affinity=0 if affinity is None else int.from_bytes(affinity.digest(ex)[:8]),
        announced=ex.claim,
    )


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
