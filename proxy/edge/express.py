"""The express lane: a simple request is answered in the call that brought its bytes.

Simple is what comes alone at a message boundary, whole in one read, well-formed, as HTTP/1.1 with
keep-alive, without a body or an upgrade. It goes past aiohttp's queue, its waiter and its task for
each request; as far as nothing has to be waited for, it needs no task and no future at all. What
has to wait is driven on from there, and what comes behind it is held until it is answered.

What is not taken here has neither been consumed nor charged: the other lane reads it anew, and says
what is wrong with it, if anything is.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from aiohttp.web_protocol import RequestHandler

from proxy.core.http1.request import HeadError, RequestHead, parse_request_head
from proxy.edge.body import NO_BODY
from proxy.edge.driving import ENDED, Driven, begun
from proxy.edge.writer import ClientGone

if TYPE_CHECKING:
    from proxy.edge.intake import Intake
    from proxy.edge.server import Front

log = logging.getLogger(__name__)

_HELD: Final = 64 * 1024
"""Bytes of further requests that are read while one waits for its answer."""


class Outcome:
    """What aiohttp's loop asks of a response that is out already."""

    __slots__ = ("keep_alive",)

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive


KEEP: Final = Outcome(True)
END: Final = Outcome(False)


class ExpressLane(RequestHandler):
    """aiohttp's handler of one connection, with the lane beside its loop."""

    __slots__ = ("_express", "_held", "_is_held_up")

    _front: "Front"
    _intake: "Intake"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._express: Driven | None = None
        """The request that waits for something."""
        self._held = b""
        """What came behind it."""
        self._is_held_up = False
        """Whether no more of it is read."""

    async def _serve(self, head: RequestHead, payload: Any) -> Outcome:
        """From a parsed request to an answer that is out. Raises ClientGone."""
        raise NotImplementedError

    def _await_taking(self, transport: asyncio.Transport) -> None:
        """The answer is out, and has not been taken yet."""
        raise NotImplementedError

    def _takes_express(self, data: bytes) -> bool:
        """Takes what the socket brought, if it belongs here."""
        if self._express is not None:
            self._held += data
            if len(self._held) > _HELD:
                self._is_held_up = True
                self.pause_reading()
            return True
        end = len(data) - 4
        if (
            self._waiter is None  # aiohttp's loop is at a request, or about to close
            or self._messages
            or self._paused  # what the client does not take must not pile up
            or self._force_close
            or self._close
            or not self._keepalive
            or not self._front.express
            or data.find(b"\r\n\r\n") != end
            or end < 0
            or not self._intake.at_boundary
        ):
            return False
        plan = self._intake.plan
        if end >= plan.max_header_bytes:
            return False
        try:
            head = parse_request_head(data[: end + 2], plan.max_headers, plan.max_target_bytes)
        except HeadError:
            return False
        if head.version != 11 or not head.keep_alive or head.chunked or head.length or head.upgrade:
            return False
        serving = self._serve_express(head)
        try:
            awaited = begun(serving)
        except (Exception, asyncio.CancelledError) as error:
            self._arrived(error)
            return True
        if awaited is not ENDED:
            self._express = Driven(serving, awaited, self._arrived)
        return True

    async def _serve_express(self, head: RequestHead) -> None:
        """One request; the connection is at rest again, or ended."""
        front = self._front
        self._request_in_progress = True
        front.began()
        outcome = END
        try:
            outcome = await self._serve(head, NO_BODY)
            transport = self.transport
            if transport is not None and transport.get_write_buffer_size():
                self._await_taking(transport)
        except ClientGone:
            pass
        finally:
            self._request_in_progress = False
            front.ended()
            if outcome.keep_alive:
                self._rest()
            else:
                self.force_close()

    def _rest(self) -> None:
        """The idle timeout runs from now."""
        idle = self._keepalive_timeout
        self._next_keepalive_close_time = self._loop.time() + idle
        if self._keepalive_handle is None and idle:
            self._keepalive_handle = self._loop.call_at(
                self._next_keepalive_close_time, self._process_keepalive
            )

    def _arrived(self, error: BaseException | None) -> None:
        self._express = None
        if error is not None and not isinstance(error, asyncio.CancelledError):
            log.error("a request failed inside the gateway", exc_info=error)
            self.force_close()
        if self._is_held_up:
            # First, as what is held may begin a body that pauses for itself.
            self._is_held_up = False
            self.resume_reading()
        if self._held:
            held, self._held = self._held, b""
            self.data_received(held)

    def _leave_express(self) -> None:
        """The client left: so does its request."""
        if self._express is not None:
            self._express.cancel()

    def _process_keepalive(self) -> None:
        if self._express is None:
            super()._process_keepalive()
        else:
            self._keepalive_handle = None  # it is set again after the answer
