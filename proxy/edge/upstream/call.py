"""One request's way through an upstream: its slot, its connection, its answer as it arrives.

A call outlives `send` where the answer is streamed: it is the Reply's stream, and ends, giving
back slot and connection, when the body does, when it breaks, or when whoever holds it lets go.
After its end it touches nothing, so a late `close` never meets the connection's next user.

An answer that comes whole in one read, head and body, is there at once: nothing is streamed, and
the connection is free before anybody looks at it. What comes in pieces goes through a parser.
"""

import asyncio
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final

from proxy.core.headers import forward_response_lines
from proxy.core.http1.body import FramingError
from proxy.core.http1.response import InvalidResponse, ResponseHead, ResponseParser, whole
from proxy.core.message import Outgoing, Reply, SlowClientReply, StreamCut, UpstreamError
from proxy.edge.upstream.connection import Connection
from proxy.edge.upstream.slow_clients import Unread, fault
from proxy.edge.upstream.tunnel import UpstreamTunnel

if TYPE_CHECKING:
    from proxy.edge.upstream.client import HttpUpstream
    from proxy.edge.upstream.upload import Upload

HIGH_WATER: Final = 64 * 1024
"""Unread answer bytes above which the connection stops reading."""

QUEUED, CONNECTING, SENDING, WAITING, ANSWERED = range(5)
_EXPIRED: Final = {
    QUEUED: ("queue_timeout", "no connection became free in time"),
    SENDING: ("timeout", "the upstream stopped taking the request"),
    WAITING: ("timeout", "no answer came in time"),
}


class Call:
    """One request and its answer. Implements `ReplyStream`; belongs to `upstream`."""

    _upload_began: float

    __slots__ = (
        "_connection",
        "_ended",
        "_keeps",
        "_request",
        "_slow_client",
        "_unread",
        "_upload_began",
        "_upstream",
        "began",
        "body",
        "deadline",
        "due",
        "failure",
        "head",
        "index",
        "parser",
        "phase",
        "slot",
        "tunnel",
        "upload",
        "waiter",
        "whole",
    )

    def __init__(self, upstream: "HttpUpstream", request: Outgoing, now: float) -> None:
        patience = request.patience
        self._upstream = upstream
        self._request = request
        self._connection: Connection | None = None
        self.parser: ResponseParser | None = None
        """Takes the answer, where it does not come in one read."""
        self._ended = False
        self._slow_client = False
        """The answer is an error that may be the client's fault."""
        self._unread: Unread | None = None
        self._keeps = True
        """The connection is fit for another request, if the answer says so too."""
        self.phase = QUEUED
        self.began = monotonic()
        """When the upstream's own time began: with a slot, or once it had the whole body. Not by
        the loop's clock: uvloop's counts whole milliseconds and stands still within a turn."""
        self.deadline = self.due = now + (upstream.plan.deadline if patience is None else patience)
        self.waiter: asyncio.Future[bool] | None = None
        self.slot = False
        self.index = -1
        """The endpoint's place in the upstream's list, once chosen."""
        self.upload: Upload | None = None
        """The request's body while it is being sent."""
        self.head: ResponseHead | None = None
        self.tunnel: UpstreamTunnel | None = None
        """What an upgraded connection became."""
        self.whole = False
        """The answer is complete; `body` is its body where it came in one read."""
        self.body = b""
        self.failure: Exception | None = None

    # What the client does with it.

    def queued(self, now: float) -> None:
        """It waits in line."""
        self.due = min(now + self._upstream.plan.queue_timeout, self.deadline)

    def begin(self, connection: Connection, now: float) -> None:
        """Uses this connection from here on, and goes out at once, unless `sending` follows.
        Raises UpstreamError where the connection is gone already."""
        if connection.closed:
            raise UpstreamError("reset", "the connection was closed at once", sent=False)
        self._connection = connection
        connection.call = self
        self.sent(now)

    def again(self) -> None:
        """Needs a new connection, whatever became of the one before."""
        self.phase = CONNECTING
        self.due = self.deadline
        self.failure = None
        self.parser = None

    def sent(self, now: float) -> None:
        """The request is out: its answer is due."""
        self.phase = WAITING
        due = now + self._upstream.plan.response_timeout
        self.due = due if due < self.deadline else self.deadline

    def sending(self, now: float) -> None:
        """The request's body is on its way. While the client is slow nothing is due: that is
        the request body's own business, and not the upstream's fault."""
        self.phase = SENDING
        self.due = inf
        self._upload_began = now

    def stalled(self, now: float | None) -> None:
        """The upstream takes no more of the body since `now`; None: it does again."""
        if self.phase == SENDING:
            self.due = inf if now is None else now + self._upstream.plan.response_timeout

    def uploaded(self, now: float) -> None:
        """All of the body was sent. The deadline does not count the time that took."""
        self.upload = None
        if self.phase == SENDING:
            self.deadline += now - self._upload_began
            self.began = monotonic()
            self.sent(now)
            self._upstream.pool.hasten(self.due)  # little of the deadline may be left

    def answer(self) -> asyncio.Future[bool]:
        """Done once `reply` has something to say."""
        waiter = self.waiter = self._upstream.pool.loop.create_future()
        if self.head is not None or self.failure is not None:
            waiter.set_result(False)
        return waiter

    def reply(self) -> Reply:
        """The answer. Raises UpstreamError, or the request body's BodyError."""
        self.waiter = None
        if self.failure is not None:
            raise self.failure
        head = self.head
        assert head is not None
        self.phase = ANSWERED
        self.due = inf
        lines = head.end_to_end()
        if self._slow_client:  # no class in a variable: compiled, that is called the slow way
            reply: Reply = SlowClientReply(
                head.status, lines, self.body, head.length, head.reason, True
            )
        else:
            reply = Reply(head.status, lines, self.body, head.length, head.reason, True)
        reply.took = monotonic() - self.began
        if self.tunnel is not None:
            reply.tunnel = self.tunnel
        elif not self.whole:
            reply.stream = self
        elif self.parser is not None:
            reply.body = self.parser.take()
        return reply

    @property
    def heard(self) -> bool:
        """Whether any byte of the answer came, over the connection in use."""
        return self.parser is not None or self.head is not None

    def check(self) -> None:
        """Raises what the call has failed with, if it has."""
        if self.failure is not None:
            raise self.failure

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(False)

    def expire(self, now: float) -> None:
        """`due` has passed (see Pool.watch)."""
        self.due = inf
        if self.phase == ANSWERED:
            detail = "the upstream stopped sending"
            if fault(self.upload, None, now):
                self.fail(UpstreamError("client_slow", detail, sent=True))
            else:
                self.fail(StreamCut(detail))
            return
        if self.phase != QUEUED and (now >= self.deadline or self.phase not in _EXPIRED):
            reason, detail = "deadline", "the deadline passed before an answer"
        else:
            reason, detail = _EXPIRED[self.phase]
        self.fail(UpstreamError(reason, detail, sent=self.phase >= SENDING))

    def shut(self) -> None:
        self.fail(UpstreamError("reset", "the upstream was closed", sent=self.phase >= SENDING))

    def fail(self, error: Exception) -> None:
        """Nothing more will come of it. Before `answer` has returned, that raises `error`;
        afterwards a reader gets what has arrived, then StreamCut."""
        if self._ended or self.failure is not None:
            return
        self.failure = error
        if self.phase == ANSWERED:
            self.end()
        else:
            self._drop()
        self.wake()

    # ReplyStream.

    async def read(self) -> bytes:
        parser = self.parser
        assert parser is not None
        while not parser.pieces:
            if self.whole:
                return b""
            failure = self.failure
            if failure is not None:
                cut = StreamCut(str(failure))
                cut.__cause__ = failure  # `circuit` goes by it; compiled, "from" would be lost
                raise cut
            loop = self._upstream.pool.loop
            self.waiter = loop.create_future()
            self.due = loop.time() + self._upstream.plan.read_timeout
            try:
                await self.waiter
            finally:
                self.waiter = None
                self.due = inf
        content = parser.take()
        if self._unread is not None and self._connection is not None:
            self._unread.end(self._upstream.pool.loop.time())
            self._connection.resume_reading()
        return content

    def close(self) -> None:
        if not self._ended:
            if self.failure is None:
                self.failure = StreamCut("the answer was let go")
            if self.parser is not None:
                self.parser.take()
            self.end()
            self.wake()

    def end(self) -> None:
        """Gives back what the call holds. The connection is kept only after a whole answer."""
        if self._ended:
            return
        self._ended = True
        self._drop()
        self._upstream.ended(self)

    def _drop(self) -> None:
        """Gives the connection up and stops the upload."""
        if self.upload is not None:
            self.upload.stop()
            self.upload = None
        connection = self._connection
        if connection is not None:
            self._connection = None
            connection.call = None
            connection.abort()

    # The connection's side.

    def feed(self, data: bytes) -> None:
        """Takes bytes of the answer."""
        try:
            parser = self.parser
            if parser is None:
                request = self._request
                if self.upload is None:
                    answer = whole(data, request.method == "HEAD")
                    if answer is not None:
                        self.head, self.body = answer
                        self._free(answer[0])
                        self.wake()
                        return
                parser = self.parser = ResponseParser(request.method, request.upgrade is not None)
            heads = parser.feed(data)
        except (InvalidResponse, FramingError) as error:
            self.fail(UpstreamError("invalid", error.detail, sent=True))
            return
        for head in heads:
            if head.status >= 200 or head.status == 101:
                self.head = head
                if self.upload is not None:
                    self._answered_early(self.upload, head)
            else:
                self._interim(head)
        if parser.done:
            self._complete(parser.rest)
        elif parser.size > HIGH_WATER and self._connection is not None:
            if self._unread is None:
                self._unread = Unread()
            self._unread.begin(self._upstream.pool.loop.time())
            self._connection.pause_reading()
        waiter = self.waiter
        if waiter is not None and self.head is not None and not waiter.done():
            waiter.set_result(False)

    def ended(self) -> bool:
        """The upstream ended its half of the connection."""
        if self.parser is not None and self.parser.eof():
            self._complete(b"")
            self.wake()
        else:
            self.lost(None)
        return False

    def lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        detail = "the upstream closed the connection"
        blamed = self._blamed()
        if blamed:
            self.fail(UpstreamError("client_slow", f"{detail} while {blamed}", sent=True))
        else:
            self.fail(UpstreamError("reset", detail, sent=True))

    def _blamed(self) -> str:
        return fault(self.upload, self._unread, self._upstream.pool.loop.time())

    def _interim(self, head: ResponseHead) -> None:
        if head.status == 100:
            if self.upload is not None:
                self.upload.go_ahead()
        elif self._request.inform is not None:
            self._request.inform(head.status, forward_response_lines(head.lines))

    def _answered_early(self, upload: "Upload", head: ResponseHead) -> None:
        """The answer's head came before all of the request was sent."""
        # An answer that refuses needs no more of the request (RFC 9110 §10.1.1). An early
        # 2xx may depend on the rest, as an echo does: the upload goes on beside it.
        if upload.waiting or not 200 <= head.status < 300:
            # What it gives in place of a 100 is what it was asked for: that counts.
            refused = head.status >= 400 and not upload.waiting
            self._slow_client = refused and bool(self._blamed())
            upload.stop()
            self.upload = None
            self._keeps = False  # `head` says nothing of this exchange

    def _complete(self, rest: bytes) -> None:
        """The answer is whole: slot and connection are free at once, read or not."""
        head = self.head
        assert head is not None
        if head.status == 101:
            self._upgrade(head, rest)
        elif self._keeps and self.upload is None and not rest:
            self._free(head)
        else:
            self.whole = True
            self.end()

    def _free(self, head: ResponseHead) -> None:
        """The answer is whole, and nothing of this exchange is left on its connection."""
        self.whole = True
        connection = self._connection
        if not head.keep_alive or connection is None:
            self.end()
            return
        self._connection = None
        self._ended = True
        upstream = self._upstream
        upstream.pool.give(connection, head.keep_alive_timeout)
        upstream.ended(self)

    def _upgrade(self, head: ResponseHead, first: bytes) -> None:
        """Hands the connection to a tunnel, which holds the call until it is closed."""
        connection = self._connection
        assert connection is not None
        asked = self._request.upgrade
        if asked is None or head.upgrade is None or "upgrade" not in head.options:
            matches = False
        else:
            matches = head.upgrade.lower() == asked.lower()
        if not matches:
            self.fail(UpstreamError("invalid", "101 for another protocol", sent=True))
            return
        self.tunnel = UpstreamTunnel(
            self, connection, first, self._upstream.plan.tunnel_idle_timeout
        )
