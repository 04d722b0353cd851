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
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from proxy.core.fields import Lines
from proxy.core.http1.request import HeadError, RequestHead
from proxy.core.message import BodyError, Reply, StreamCut
from proxy.core.problems import problem
from proxy.edge.body import IncomingBody
from proxy.edge.express import END, KEEP, ExpressLane, Outcome
from proxy.edge.intake import Intake
from proxy.edge.tunnel import ClientHalf, relay
from proxy.edge.writer import ClientGone, interim_head, reset, write_at_once, write_reply
from proxy.exchange import Exchange

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
    "_process_keepalive", "_request_in_progress", "_task_handler", "_waiter", "connection_lost",
    "connection_made", "data_received", "force_close", "pause_reading", "resume_reading", "start",
    "transport",
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


class GatewayProtocol(ExpressLane):
    """One client connection."""

    __slots__ = ("_front", "_head_timer", "_intake", "_peer", "_scheme", "_take_timer", "_tunnel")

    def __init__(
        self, front: "Front", manager: web.Server, loop: asyncio.AbstractEventLoop
    ) -> None:
        server = front.snapshot.server
        super().__init__(
            manager,
            loop=loop,
            keepalive_timeout=server.idle_timeout,
            access_log=None,
            lingering_time=LINGERING,
        )
        self._front = front
        self._intake = Intake(self, server)
        self._parser = self._intake  # type: ignore[assignment]
        self._head_timer: asyncio.TimerHandle | None = None
        self._take_timer: asyncio.TimerHandle | None = None
        self._tunnel: ClientHalf | None = None
        self._peer = ""
        self._scheme = "http"

    # The socket's events.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peername = transport.get_extra_info("peername")
        # A unix socket's peer has no address; IPv6 scope ids are of no use to anyone here.
        self._peer = peername[0].partition("%")[0] if isinstance(peername, tuple) else "unix"
        if transport.get_extra_info("ssl_object") is not None:
            self._scheme = "https"
        if self._front.full():
            self._refuse(
                problem(
                    "overloaded",
                    "The gateway is at its limit of connections.",
                    fields=(("Retry-After", "1"),),
                )
            )

    def data_received(self, data: bytes) -> None:
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
        self._leave_express()

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The connection's own task, while it runs."""
        return self._task_handler

    @property
    def idle(self) -> bool:
        """Between two requests."""
        return not self._request_in_progress and not self._messages and not self._intake.mid_head

    def _time_head(self) -> None:
        self._head_timer = self._loop.call_later(
            self._front.snapshot.server.header_timeout, self._head_timed_out
        )

    def _head_timed_out(self) -> None:
        self._head_timer = None
        if self.transport is None:
            return
        if self._request_in_progress or self._messages:
            self._time_head()  # the answer to what came before it goes first
            return
        self._refuse(problem("request-timeout", "The request head took too long."))

    def _refuse(self, reply: Reply) -> None:
        """Answers outside any request, and closes."""
        self._front.count_refusal(self._peer, reply.status)
        transport = self.transport
        if transport is not None:
            write_at_once(self, reply, "GET", close=True)
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
            self.data_received(b"")
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
        self._front.count_refusal(self._peer, reply.status)
        await write_reply(self, reply, "GET", 11, close=True)
        return END

    async def _serve(self, head: RequestHead, payload: Any) -> Outcome:
        front = self._front
        started = perf_counter()
        body = payload if isinstance(payload, IncomingBody) else None
        ex = Exchange(  # by position: by name, each request would cost a dict of them
            front.snapshot,
            head.method,
            head.target,
            head.version,
            head.fields,
            head.authority,
            self._scheme,
            self._peer,
            body,
            head.expect_continue,
            head.upgrade,
            self._inform if head.version == 11 else None,
        )
        status = 499
        sent = 0
        try:
            reply = front.at_the_door(ex) or await self._answer(ex)
            if reply.tunnel is not None:
                status = 101
                sent = await self._run_tunnel(ex, reply)
                return END
            close = (
                reply.close
                or not head.keep_alive
                or front.draining
                or (body is not None and not body.arrived)
            )
            status = reply.status
            try:
                at_once = write_at_once(self, reply, head.method, close)
                if at_once is None:
                    sent = await write_reply(self, reply, head.method, head.version, close)
                else:
                    sent = at_once
            finally:
                if reply.stream is not None:
                    reply.stream.close()
            return END if close or front.draining else KEEP
        except StreamCut:
            if self.transport is not None:
                reset(self.transport)
            raise ClientGone from None
        except ClientGone:
            status = 499
            raise
        except asyncio.CancelledError:
            if self.transport is None:
                status = 499
            raise
        finally:
            front.count(ex, status, sent, perf_counter() - started)

    async def _answer(self, ex: Exchange) -> Reply:
        try:
            return await self._front.flow.answer(ex)
        except BodyError as left:  # any other failure of the body was answered by the flow
            raise ClientGone from left
        except Exception:
            log.exception("a request failed inside the gateway (route %s)", _route_name(ex))
            return problem("internal", "The gateway failed to answer this request.", close=True)

    def _inform(self, status: int, lines: Lines) -> None:
        if self._paused:
            return  # a client that takes nothing needs no hints, and must not make us keep them
        self.write_interim(interim_head(status, lines))

    async def _run_tunnel(self, ex: Exchange, reply: Reply) -> int:
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


def _route_name(ex: Exchange) -> str:
    return ex.route.name if ex.route is not None else "none"
