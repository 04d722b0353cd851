"""From a request to an answer that is out: what both lanes of a connection end in."""

import asyncio
import logging
from collections.abc import Awaitable
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from proxy.core.fields import Lines
from proxy.core.http1.request import RequestHead
from proxy.core.message import BodyError, Reply, StreamCut
from proxy.core.problems import problem
from proxy.edge.body import IncomingBody
from proxy.edge.writer import (
    ClientGone,
    Outlet,
    at_once,
    body_length,
    interim_head,
    refused_again,
    reset,
    write_reply,
)
from proxy.exchange import Exchange, Memo

if TYPE_CHECKING:
    from proxy.edge.server import Front

log = logging.getLogger(__name__)


class Outcome:
    """What aiohttp's loop asks of a response that is out already."""

    __slots__ = ("keep_alive",)

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive


KEEP: Final = Outcome(True)
END: Final = Outcome(False)


class Client(Outlet, Protocol):
    """The client connection as its requests need it."""

    @property
    def choked(self) -> bool:
        """Whether the client has yet to take what was written before."""

    def write_interim(self, data: bytes) -> None:
        """Writes an interim answer at once."""

    def at_rest(self, outcome: Outcome) -> None:
        """A request is over: the connection is at rest, or ends."""

    async def tunnel(self, reply: Reply) -> int:
        """Runs an upgraded connection to its end; the number of bytes sent to the client."""


class Serving:
    """The requests of one client connection, each from its head to its answer."""

    __slots__ = ("_client", "front", "inform", "peer", "scheme")

    def __init__(self, client: Client, front: "Front") -> None:
        self._client = client
        self.front = front
        self.peer = ""
        """An address as text, or "unix"."""
        self.scheme = "http"
        self.inform = self._inform
        """Passes an interim answer on."""

    def exchange(self, head: RequestHead, body: IncomingBody | None) -> Exchange:
        """A request that has come."""
        return Exchange(  # by position: by name, each request would cost a dict of them
            self.front.snapshot,
            head.method,
            head.target,
            head.version,
            head.fields,
            head.authority,
            self.scheme,
            self.peer,
            body,
            head.expect_continue,
            head.upgrade,
            self.inform if head.version == 11 else None,
        )

    def begin(self, ex: Exchange) -> Reply | Awaitable[Reply]:
        """Its answer, or what gives it where something must be waited for."""
        front = self.front
        try:
            return front.at_the_door(ex) or front.flow.begin(ex)
        except Exception as fault:
            return _failed(ex, fault)

    def tell(self, data: bytes) -> None:
        """Writes an answer of the express lane."""
        transport = self._client.transport
        if transport is None:
            return
        transport.write(data)
        if transport.get_write_buffer_size():
            self._client.at_rest(KEEP)  # not with the kernel yet

    def finish_at_once(self, ex: Exchange, reply: Reply, started: float) -> Outcome | None:
        """Sends an answer to an express request if nothing need be waited for; None where
        something must be: then nothing was done, and it is `conclude`'s."""
        front = self.front
        transport = self._client.transport
        if transport is None or reply.stream is not None:
            return None
        close = reply.close or front.draining
        data = at_once(reply, ex.method, close)
        if data is None:
            return None
        front.turn.tell(self, data)
        sent = body_length(reply, ex.method)
        memo = ex.memo
        if memo is not None and memo.refusal is not None and not memo.refusal.date:
            front.remember_refusal(memo, memo.refusal, reply, ex.request_id)
        front.count(ex, reply.status, sent, monotonic() - started)
        return END if close else KEEP

    def refuses(self, memo: Memo, started: float) -> bool:
        """Answers a request that was refused before as it was then, if it still is; whether it
        did. Nothing has been done where it did not."""
        refusal = memo.refusal
        route = memo.route
        front = self.front
        transport = self._client.transport
        if refusal is None or route is None or transport is None or front.draining:
            return False
        request_id = memo.name()
        data = refused_again(refusal, request_id)
        if data is None or not front.flow.refuses(refusal):
            memo.refusal = None
            return False
        front.turn.tell(self, data)
        seconds = monotonic() - started
        if front.access.on:
            ex = memo.exchange("", None)
            ex.request_id, ex.denied = request_id, refusal.names
            front.count(ex, 429, refusal.sent, seconds)
        else:
            route.tally.count(memo.method, 429, seconds)
        return True

    async def conclude(
        self,
        ex: Exchange,
        answer: Reply | Awaitable[Reply],
        started: float,
        keep_alive: bool,
        body: IncomingBody | None = None,
    ) -> Outcome:
        """Waits for the answer and sends it. Raises ClientGone."""
        front, client = self.front, self._client
        status = 499
        sent = 0
        try:
            reply = answer if isinstance(answer, Reply) else await _awaited(ex, answer)
            if reply.tunnel is not None:
                status = 101
                sent = await client.tunnel(reply)
                return END
            close = (
                reply.close
                or not keep_alive
                or front.draining
                or (body is not None and not body.arrived)
            )
            status = reply.status
            try:
                sent = await write_reply(client, reply, ex.method, ex.version, close)
            finally:
                if reply.stream is not None:
                    reply.stream.close()
            return END if close or front.draining else KEEP
        except StreamCut:
            if client.transport is not None:
                reset(client.transport)
            raise ClientGone from None
        except ClientGone:
            status = 499
            raise
        except asyncio.CancelledError:
            if client.transport is None:
                status = 499
            raise
        finally:
            front.count(ex, status, sent, monotonic() - started)

    def _inform(self, status: int, lines: Lines) -> None:
        if self._client.choked:
            return  # a client that takes nothing needs no hints, and must not make us keep them
        self._client.write_interim(interim_head(status, lines))


async def _awaited(ex: Exchange, answer: Awaitable[Reply]) -> Reply:
    try:
        return await answer
    except BodyError as left:  # any other failure of the body was answered by the flow
        raise ClientGone from left
    except Exception as fault:
        return _failed(ex, fault)


def _failed(ex: Exchange, fault: Exception) -> Reply:
    route = "none" if ex.route is None else ex.route.name
    log.error("a request failed inside the gateway (route %s)", route, exc_info=fault)
    return problem("internal", "The gateway failed to answer this request.", close=True)
