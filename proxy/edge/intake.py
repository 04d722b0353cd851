"""Bytes in, messages out: the strict parser that stands in aiohttp's connection loop.

aiohttp's own parser accepts what a gateway must not (`Host: a@evil`, HTTP/2.0, chunked on
HTTP/1.0, header names seen twice) and knows only the methods of its list. This one has the same
face (`feed_data`, `message_consumed`, `pause_reading`) and `proxy.core.http1`'s rules.
"""

from collections.abc import Sequence
from typing import Final

from proxy.core.http1.body import ChunkedDecoder, Decoder, FramingError, LengthDecoder, UntilClose
from proxy.core.http1.request import HeadBuffer, HeadError, RequestHead, parse_request_head
from proxy.core.message import BodyError
from proxy.edge.body import HIGH_WATER, NO_BODY, BodySource, IncomingBody, _NoBody
from proxy.policy.snapshot import ServerPlan

Message = tuple[RequestHead | HeadError, IncomingBody | _NoBody]

# How many requests may be read ahead of the one that is being answered.
MAX_PIPELINED: Final = 32
_NOTHING: Final[tuple[Sequence[Message], bool, bytes]] = ((), False, b"")


class Intake:
    """One connection's parser. A refused head is its last message; what follows is thrown away.

    After the head of an upgrade request it holds what comes until `resume` (the upgrade was
    declined) or `take_rest` (accepted: the bytes belong to the tunnel).
    """

    __slots__ = (
        "_ahead",
        "_body",
        "_decoder",
        "_heads",
        "_held",
        "_paused",
        "_source",
        "_waiting",
        "plan",
    )

    def __init__(self, source: BodySource, plan: ServerPlan) -> None:
        self._source = source
        self.plan = plan
        """As it was when the connection was made."""
        self._heads = HeadBuffer(plan.max_header_bytes, plan.max_target_bytes)
        self._decoder: Decoder | None = None
        self._body: IncomingBody | None = None
        self._held = b""
        self._ahead = 0
        self._waiting = False  # for the answer to an upgrade request
        self._paused = False

    @property
    def mid_head(self) -> bool:
        """Whether a head has begun that is not complete: header_timeout runs."""
        return self._heads.started

    @property
    def at_boundary(self) -> bool:
        """Whether the next byte begins a request, and none waits to be answered."""
        return (
            not self._ahead
            and self._decoder is None
            and not self._heads.started
            and not self._waiting
            and not self._held
        )

    def feed_data(self, data: bytes) -> tuple[Sequence[Message], bool, bytes]:
        """aiohttp's interface: (messages, upgraded, tail); the last two are never used."""
        if self._held:
            data, self._held = self._held + data, b""
        messages: list[Message] = []
        while data:
            if self._decoder is not None:
                data = self._feed_body(data)
                if self._decoder is not None:
                    break
            elif self._waiting or self._ahead >= MAX_PIPELINED:
                self._held = data
                if self._waiting and len(data) > HIGH_WATER and not self._paused:
                    self._paused = True
                    self._source.pause_reading()
                break
            else:
                message = self._next_head(data)
                if message is None:
                    break
                data = message[1]
                messages.append(message[0])
        return (messages, False, b"") if messages else _NOTHING

    def message_consumed(self) -> None:
        """aiohttp takes a message from its queue."""
        self._ahead -= 1

    def pause_reading(self) -> None:
        """aiohttp pauses the transport; what was read already is small enough to take."""

    def resume(self) -> bool:
        """A request was answered: True where bytes held behind it are to be parsed now, as it
        was a declined upgrade."""
        if self._ahead:
            return False  # the upgrade is asked for by one that was not answered yet
        self._waiting = False
        self._go_on()
        return bool(self._held)

    def take_rest(self) -> bytes:
        """An upgrade was accepted: what the client sent behind its request."""
        rest, self._held = self._held, b""
        self._go_on()
        return rest

    def _go_on(self) -> None:
        if self._paused:
            self._paused = False
            self._source.resume_reading()

    def connection_lost(self) -> None:
        """No more bytes will come."""
        if self._body is not None:
            self._body.fail(BodyError(499, "The client closed its connection."))
            self._body = None

    def _feed_body(self, data: bytes) -> bytes:
        decoder, body = self._decoder, self._body
        assert decoder is not None
        assert body is not None
        try:
            pieces, rest = decoder.feed(data)
        except FramingError:
            body.fail(BodyError(400, "The chunked request body is malformed."))
            self._decoder = UntilClose()
            return b""
        for piece in pieces:
            body.feed(piece)
        if decoder.done:
            body.finish()
            self._decoder = self._body = None
        return rest

    def _next_head(self, data: bytes) -> tuple[Message, bytes] | None:
        plan = self.plan
        try:
            found = self._heads.feed(data)
            if found is None:
                return None
            block, rest = found
            head = parse_request_head(block, plan.max_headers, plan.max_target_bytes)
        except HeadError as refused:
            self._ahead += 1
            return (refused, self._throw_away()), b""
        self._ahead += 1
        if head.upgrade is not None:
            self._waiting = True
        if not head.chunked and not head.length:
            return (head, NO_BODY), rest
        body = IncomingBody(
            self._source, head.length, plan.max_body_bytes, plan.body_timeout, head.expect_continue
        )
        self._body = body
        self._decoder = ChunkedDecoder() if head.length is None else LengthDecoder(head.length)
        return (head, body), rest

    def _throw_away(self) -> IncomingBody:
        """A body that takes and drops all that still comes: a connection closed over unread
        bytes is reset, and our answer with it (RFC 9112 §9.6)."""
        self._decoder = UntilClose()
        self._body = IncomingBody(self._source, None, 0, 0.0, False)
        self._body.fail(BodyError(400, "The request head was refused."))
        return self._body
