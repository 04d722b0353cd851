"""One client connection: aiohttp's loop and lifecycle, our parser, our writer; two lanes.

From aiohttp's `web.RequestHandler` come the connection's task, its queue of pipelined requests,
the keep-alive timer and the lingering close. Replaced are the parser (`intake`) and everything
between a parsed request and the bytes of its answer: no `web.Request`, no `web.Response`.
The members it stands on are checked at start by `self_test`.

Simple requests go past the queue and the tasks, by the express lane (`express`). Both lanes end in
`_serve`.
"""

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from proxy.core.http1.request import HeadError, RequestHead
from proxy.core.message import Reply
from proxy.core.problems import problem
from proxy.edge.body import IncomingBody
from proxy.edge.express import ExpressLane
from proxy.edge.intake import Intake
from proxy.edge.serving import END, Outcome, Serving
from proxy.edge.tunnel import ClientHalf, relay
from proxy.edge.writer import ClientGone, interim_head, write_at_once, write_reply

if TYPE_CHECKING:
    from proxy.edge.server import Front

log = logging.getLogger(__name__)

# How long what a client still sends is read and dropped after an answer that came early.
LINGERING: Final = 2.0
# The members of aiohttp's RequestHandler that the lanes override or use, or that its loop goes by.
_USED: Final = (
    "_buffer_paused", "_close", "_current_request", "_drain_helper", "_force_close",
    "_handle_request", "_keepalive", "_keepalive_handle", "_keepalive_timeout", "_loop",
    "_manager", "_messages", "_next_keepalive_close_time", "_parser", "_paused",
    "_process_keepalive", "_request_count", "_request_in_progress", "_task_handler", "_waiter",
    "connection_lost", "connection_made", "data_received", "eof_received", "force_close",
    "pause_reading", "resume_reading", "start", "transport",
)  # fmt: skip
_SWITCHING: Final = (("Connection", "upgrade"), ("Upgrade", "websocket"))


def self_test() -> list[str]:
    """The members of aiohttp's RequestHandler that are missing: an aiohttp that this does not
    fit must not serve. Neither lane could: our parser stands in its loop."""
    return [name for name in _USED if not hasattr(RequestHandler, name)]


class Incoming:
    """What aiohttp's loop passes around as the request: a parsed head and its payload."""

    __slots__ = ("_task", "head", "payload")

    def __init__(self, head: RequestHead | HeadError, payload: Any) -> None:
        self.head = head
        self.payload = payload
        self._task: Any = None

    def _cancel(self, exc: BaseException) -> None:
        """aiohttp tells a request that its connection is lost; the body knows already."""


class GatewayProtocol(RequestHandler):
    """One client connection."""

    __slots__ = ("_express", "_front", "_head_timer", "_intake", "_serving", "_take_timer",
                 "_tunnel")  # fmt: skip

    def __init__(
        self, front: "Front", manager: web.Server, loop: asyncio.AbstractEventLoop
    ) -> None:
        server = front.snapshot.server
        super().__init__(
            manager,
            loop=loop,
            keepalive_timeout=server.idle_timeout,
            access_log=None,  # type: ignore[arg-type]
            lingering_time=LINGERING,
        )
        self._front = front
        self._intake = Intake(self, server)
        self._parser = self._intake  # type: ignore[assignment]
        self._head_timer: asyncio.TimerHandle | None = None
        self._take_timer: asyncio.TimerHandle | None = None
        self._tunnel: ClientHalf | None = None
        self._serving = Serving(self, front)
        self._express = ExpressLane(self, self._serving, server)

    # The socket's events.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peername = transport.get_extra_info("peername")
        # A unix socket's peer has no address; IPv6 scope ids are of no use to anyone here.
        peer = peername[0].partition("%")[0] if isinstance(peername, tuple) else "unix"
        self._serving.peer = peer
        if transport.get_extra_info("ssl_object") is not None:
            self._serving.scheme = "https"
        if self._front.full():
            self._refuse(
                problem(
                    "overloaded",
                    "The gateway is at its limit of connections.",
                    fields=(("Retry-After", "1"),),
                )
            )

    def data_received(self, data: bytes) -> None:
        self._front.turn.add(self, data)

    def eof_received(self) -> None:
        self._front.turn.take()
        super().eof_received()

    def received(self, data: bytes) -> None:
        """Takes what the socket brought, or what was held back of it."""
        if self._tunnel is not None:
            self._tunnel.feed(data)
            return
        if self._takes_express(data):
            return
        super().data_received(data)
        if self._intake.mid_head:
            if self._head_timer is None:
                self._time_head()
        elif self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def connection_lost(self, exc: BaseException | None) -> None:
        task = self._task_handler
        self._intake.connection_lost()
        if self._head_timer is not None:
            self._head_timer.cancel()
        if self._take_timer is not None:
            self._take_timer.cancel()
        super().connection_lost(exc)
        if self._tunnel is not None:
            self._tunnel.feed_eof()  # what it sent last still goes upstream
        elif task is not None:
            task.cancel()  # the client left: so does its request
        self._express.leave()

    @property
    def choked(self) -> bool:
        """Whether the client has yet to take what was written before."""
        return bool(self._paused)

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The connection's own task, while it runs."""
        return self._task_handler

    @property
    def idle(self) -> bool:
        """Between two requests."""
        return not self._request_in_progress and not self._messages and not self._intake.mid_head

    @property
    def busy(self) -> bool:
        """Whether a request is being answered, or waits to be."""
        return bool(self._request_in_progress or self._messages or self._tunnel is not None)

    @property
    def fresh(self) -> bool:
        """Whether no request has come yet."""
        return not self._request_count and not self._express.used

    def _time_head(self) -> None:
        self._head_timer = self._loop.call_later(
            self._front.snapshot.server.header_timeout, self._head_timed_out
        )

    def _head_timed_out(self) -> None:
        self._front.turn.take()  # what came in time counts
        if self._head_timer is None or self.transport is None:
            return
        self._head_timer = None
        if self._request_in_progress or self._messages:
            self._time_head()  # the answer to what came before it goes first
            return
        self._refuse(problem("request-timeout", "The request head took too long."))

    def _refuse(self, reply: Reply) -> None:
        """Answers outside any request, and closes."""
        self._front.count_refusal(self._serving.peer, reply.status)
        transport = self.transport
        if transport is not None:
            write_at_once(transport, reply, "GET", close=True)
            self.force_close()

    # For the body, the writer and the tunnel.

    def write_interim(self, data: bytes) -> None:
        """Writes an interim answer at once."""
        if self.transport is not None:
            self.transport.write(data)

    async def drain(self) -> None:
        """Waits until the client has taken enough; one that takes nothing is let go."""
        if self.transport is None:
            raise ClientGone
        if self._paused:
            # Closing would wait for a client that takes nothing.
            timer = self._loop.call_later(self._keepalive_timeout, self.transport.abort)
            try:
                await self._drain_helper()
            except ConnectionError as gone:
                raise ClientGone from gone
            finally:
                timer.cancel()

    # For the express lane.

    def _takes_express(self, data: bytes) -> bool:
        """Takes what the socket brought, if it belongs in the express lane."""
        express = self._express
        if express.busy:
            express.hold(data)
            return True
        if (
            self._waiter is None  # aiohttp's loop is at a request, or about to close
            or self._messages
            or self._paused  # what the client does not take must not pile up
            or self._force_close
            or self._close
            or not self._keepalive
            or not self._front.express
            or not self._intake.at_boundary
        ):
            return False
        return express.takes(data)

    def engaged(self, is_engaged: bool) -> None:
        """A request in the express lane waits for something; or it no longer does."""
        self._request_in_progress = is_engaged

    def at_rest(self, outcome: Outcome) -> None:
        """A request in the express lane is over: the idle timeout runs, or the connection ends."""
        transport = self.transport
        if transport is not None and transport.get_write_buffer_size():
            self._await_taking(transport)
        if not outcome.keep_alive:
            self.force_close()
            return
        idle = self._keepalive_timeout
        self._next_keepalive_close_time = self._loop.time() + idle
        if self._keepalive_handle is None and idle:
            self._keepalive_handle = self._loop.call_at(
                self._next_keepalive_close_time, self._process_keepalive
            )

    def _process_keepalive(self) -> None:
        self._front.turn.take()
        if self._express.busy:
            self._keepalive_handle = None  # it is set again after the answer
        else:
            rested = self._express.rested + self._keepalive_timeout
            self._next_keepalive_close_time = max(self._next_keepalive_close_time, rested)
            super()._process_keepalive()

    # One request.

    async def _handle_request(  # type: ignore[override]
        self, request: Incoming, start_time: float | None, request_handler: Any
    ) -> tuple[Outcome, bool]:
        """aiohttp's seam: from a parsed request to an answer that is out."""
        self._request_in_progress = True
        self._front.began()
        try:
            if self._paused:
                await self.drain()  # earlier answers first: they must not pile up
            head = request.head
            if isinstance(head, RequestHead):
                outcome = await self._serve(head, request.payload)
            else:
                outcome = await self._serve_refusal(head)
            self._end_of_answer(outcome, request.payload)
            return outcome, False
        except ClientGone:
            return END, True
        finally:
            self._request_in_progress = False
            self._front.ended()

    def _end_of_answer(self, outcome: Outcome, payload: Any) -> None:
        if self._intake.resume():
            self.received(b"")
        transport = self.transport
        if transport is None:
            return
        if transport.get_write_buffer_size():
            self._await_taking(transport)
        if not outcome.keep_alive and not payload.is_eof() and transport.can_write_eof():
            # Staged close (RFC 9112 §9.6): our end first, then what still comes is read.
            transport.write_eof()

    def _await_taking(self, transport: asyncio.Transport) -> None:
        # Sent to nobody yet: a client that never takes it must not hold the socket for ever.
        if self._take_timer is not None:
            self._take_timer.cancel()  # the newest answer has all of the time
        self._take_timer = self._loop.call_later(self._keepalive_timeout, self._give_up, transport)

    def _give_up(self, transport: asyncio.Transport) -> None:
        at_rest = transport.is_closing() or not (self._request_in_progress or self._messages)
        if at_rest and transport.get_write_buffer_size():
            transport.abort()

    async def _serve_refusal(self, refused: HeadError) -> Outcome:
        reply = problem(refused.problem, refused.detail)
        self._front.count_refusal(self._serving.peer, reply.status)
        await write_reply(self, reply, "GET", 11, close=True)
        return END

    async def _serve(self, head: RequestHead, payload: Any) -> Outcome:
        serving = self._serving
        started = monotonic()
        body = payload if isinstance(payload, IncomingBody) else None
        ex = serving.exchange(head, body)
        return await serving.conclude(ex, serving.begin(ex), started, head.keep_alive, body)

    async def tunnel(self, reply: Reply) -> int:
        """Runs an upgraded connection to its end; the number of bytes sent to the client."""
        tunnel = reply.tunnel
        assert tunnel is not None
        client = ClientHalf(self)
        client.feed(self._intake.take_rest())
        self._tunnel = client
        self._keepalive = False
        self.write_interim(interim_head(101, [*_SWITCHING, *reply.fields]))
        try:
            return await relay(client, self, tunnel)
        finally:
            tunnel.close()
