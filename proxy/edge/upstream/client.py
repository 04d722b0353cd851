"""The upstream client: one request to one endpoint, over HTTP/1.1, and its answer.

What goes out is rebuilt from parsed parts with one framing of our own; what comes back is parsed
strictly (core/http1/response.py). The environment is not consulted: no proxies, no cookies, no
decompression, no redirects. Nothing here decides about retries by policy; only a request that
cannot have been seen is sent again by itself:
- an idle connection that turns out closed before a byte was written is replaced, for any method;
- one that closes without a byte of an answer is replaced once, for idempotent requests without
  a body (RFC 9112 §9.3.1).
"""

import asyncio
from time import monotonic
from typing import Final

from proxy.core.fields import written
from proxy.core.message import Announced, Outgoing, Reply, UpstreamError
from proxy.edge.upstream.call import CONNECTING, Call
from proxy.edge.upstream.connection import Connection
from proxy.edge.upstream.endpoints import Endpoints
from proxy.edge.upstream.pool import Pool
from proxy.edge.upstream.upload import Upload
from proxy.metrics import UpstreamTally
from proxy.policy.snapshot import UpstreamPlan

_IDEMPOTENT: Final = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE"))
_BODY_EXPECTED: Final = frozenset(("POST", "PUT", "PATCH"))


class HttpUpstream:
    """A named upstream. Implements `Upstream`; belongs to the event loop that first uses it.

    Raises OSError (ssl.SSLError among them) where the plan's TLS files are of no use.
    """

    __slots__ = ("_endpoints", "_hosts", "_paths", "_tally", "name", "plan", "pool")

    def __init__(self, plan: UpstreamPlan, tally: UpstreamTally) -> None:
        self.name = plan.name
        self.plan = plan
        self.pool = Pool(plan)
        self._tally = tally
        self._endpoints = Endpoints(plan, self.pool)
        self._paths = [endpoint.path for endpoint in plan.endpoints]
        self._hosts = [endpoint.authority for endpoint in plan.endpoints]

    async def send(self, request: Outgoing) -> Reply:
        """See `Upstream.send`. Cancelling it closes the upstream connection, as does `close` of
        the Reply's stream or tunnel before their end: whoever holds them must do one or the
        other. Until its first wait it needs no task."""
        pool = self.pool
        if not pool.bound:
            pool.bind()
        loop = pool.loop
        now = loop.time()
        call = Call(self, request, now)
        self._tally.in_flight += 1
        try:
            if not pool.enter(call):
                now = await self._queue(call, now)
                call.began = monotonic()
            index = call.index = self._endpoints.choose(request, now)
            connection = pool.take(index, now)
            if connection is None or request.announced is not None:
                connection = await self._prepare(call, connection, request.announced)
                now = loop.time()
            self._write(call, connection, request, now)
            await call.answer()
            if call.failure is not None and _unseen(call, connection, request):
                connection = await self._connect(call)
                self._write(call, connection, request, loop.time())
                await call.answer()
            reply = call.reply()
        except BaseException:
            call.close()
            raise
        self._tally.duration.observe(reply.took)
        return reply

    def start(self, before: "HttpUpstream | None" = None) -> None:
        """A snapshot that has this upstream is in use, in place of the one `before`: health checks
        begin, on the running event loop."""
        if not self.pool.bound:
            self.pool.bind()
        if before is not None:
            self._endpoints.inherit(before._endpoints)
        self._endpoints.start()

    def retire(self) -> None:
        """A reload has replaced this upstream: what is in flight finishes, then it is gone."""
        self._endpoints.stop()
        self.pool.retire()

    async def close(self) -> None:
        """Closes every connection; requests in flight fail. Returns when the sockets are
        closed."""
        self._endpoints.stop()
        await self.pool.close()

    def status(self) -> dict[str, object]:
        """Requests in flight, connections idle and busy, requests waiting; per endpoint too."""
        return {
            "in_flight": self._tally.in_flight,
            **self.pool.status(),
            "endpoints": self._endpoints.status(self.pool.loop.time() if self.pool.bound else 0.0),
        }

    def ended(self, call: Call) -> None:
        """The call is over, to the end of its body."""
        self._tally.in_flight -= 1
        if call.index >= 0:
            self._endpoints.left(call.index)
        self.pool.leave(call)

    async def _queue(self, call: Call, now: float) -> float:
        """Waits for a slot; the time when it came."""
        self._endpoints.ensure(now)
        call.queued(now)
        try:
            call.slot = await self.pool.queue(call)
        finally:
            call.waiter = None
        call.check()
        now = self.pool.loop.time()
        if now >= call.deadline:  # the line has taken all of it: that is not the upstream's fault
            raise UpstreamError("queue_timeout", "the deadline passed in the line", sent=False)
        return now

    async def _connect(self, call: Call) -> Connection:
        """A new connection, unless the call's deadline comes first."""
        call.again()
        loop = self.pool.loop
        began = loop.time()
        self._endpoints.trying(call.index, began)
        waiter = call.waiter = loop.create_future()

        def connected(task: asyncio.Task[Connection]) -> None:
            if not waiter.done():
                waiter.set_result(True)

        # A task of its own: it may time out though `send` is driven without one.
        dialling = loop.create_task(self.pool.connect(call.index))
        dialling.add_done_callback(connected)
        try:
            await waiter
            call.check()
            connection = dialling.result()
        except BaseException as error:
            if isinstance(error, UpstreamError):
                self._unmade(call.index, began, loop.time(), error)
            dialling.add_done_callback(_unwanted)
            dialling.cancel()
            raise
        else:
            self._endpoints.connected(call.index)
            return connection
        finally:
            call.waiter = None

    async def _prepare(
        self, call: Call, connection: Connection | None, announced: Announced | None
    ) -> Connection:
        """A connection, this one if there is one, once the request is known where it has to be."""
        if connection is None:
            connection = await self._connect(call)
        if announced is None:
            return connection
        call.phase = CONNECTING
        call.due = call.deadline
        try:
            await announced.announce()
            call.check()
        except BaseException:
            connection.abort()
            raise
        if connection.closed or (connection.used and not connection.usable(self.pool.loop.time())):
            connection.abort()
            connection = await self._connect(call)
        announced.written = True
        return connection

    def _unmade(self, index: int, began: float, now: float, error: UpstreamError) -> None:
        """A connect came to nothing. Where earlier tries or the line had left it little time, or
        this process has no socket for it, that says nothing of the endpoint."""
        if error.reason == "no_socket":
            return
        fair = min(self.plan.connect_timeout, self.plan.deadline) / 2
        if error.reason == "connect_error" or now - began >= fair:
            self._endpoints.failed(index, began, now, error.of_endpoint)

    def _write(self, call: Call, connection: Connection, request: Outgoing, now: float) -> None:
        call.begin(connection, now)
        method, head, body = request.method, request.head, request.body
        lines = head if isinstance(head, str) else written(head)
        if body is not None or request.upgrade is not None or method in _BODY_EXPECTED:
            lines += _framing(request)
        index = call.index
        raw = (
            f"{method} {self._paths[index]}{request.target} HTTP/1.1\r\n"
            f"Host: {request.host or self._hosts[index]}\r\n{lines}\r\n"
        ).encode("latin-1")
        if body is None:
            connection.transport.write(raw)
        else:
            call.sending(now)
            call.upload = Upload(call, connection, body)
            call.upload.start(raw, expect=request.expect_continue)


def _framing(request: Outgoing) -> str:
    """The lines of this hop, where there are any."""
    body, lines = request.body, ""
    if body is not None:
        length = body.length
        lines = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        lines += "\r\nExpect: 100-continue\r\n" if request.expect_continue else "\r\n"
    elif request.method in _BODY_EXPECTED:
        lines = "Content-Length: 0\r\n"
    if request.upgrade is not None:
        lines += f"Connection: Upgrade\r\nUpgrade: {request.upgrade}\r\n"
    return lines


def _unseen(call: Call, connection: Connection, request: Outgoing) -> bool:
    """Whether a request that failed may go out once more, as a reused connection was closed under
    it without a word."""
    error = call.failure
    return (
        connection.used
        and isinstance(error, UpstreamError)
        and error.reason == "reset"
        and not call.heard
        and request.body is None
        and request.method in _IDEMPOTENT
    )


def _unwanted(dialling: asyncio.Task[Connection]) -> None:
    """Nobody waits for this connection any more; it may have come all the same."""
    if not dialling.cancelled() and dialling.exception() is None:
        dialling.result().abort()
