"""The data port: the cap on connections, readiness at the door, and the drain."""

import asyncio
import fcntl
import logging
import socket
import ssl
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, Final

from aiohttp import web

from proxy.core.message import Reply
from proxy.core.problems import problem
from proxy.descriptors import client_connections
from proxy.edge.express import REFUSAL_BYTES, Memos, memos
from proxy.edge.protocol import GatewayProtocol, Incoming
from proxy.edge.turn import Turn
from proxy.edge.writer import keep_refusal
from proxy.exchange import Exchange, Memo, Refusal
from proxy.handler import Flow
from proxy.logs import AccessLog
from proxy.metrics import Metrics
from proxy.policy.snapshot import Snapshot

log = logging.getLogger(__name__)

_LOOK_AGAIN: Final = 0.01
"""Seconds between two looks at what clients have yet to send or take, when the process ends."""
_FIRST_REQUEST: Final = 1.0
"""Seconds that a client which has connected has for its request, when the process ends."""


class Front:
    """What every client connection shares. `snapshot` is swapped whole by a reload, and with it
    what is remembered under it (`memos`)."""

    express: ClassVar[bool] = True
    """Whether simple requests take the express lane."""

    def __init__(
        self,
        snapshot: Snapshot,
        flow: Flow,
        metrics: Metrics,
        access: AccessLog,
        ready: Callable[[], bool],
    ) -> None:
        self.snapshot = snapshot
        self.capacity = capacity(snapshot)
        """The most client connections: server.max_connections, or what the process has room for."""
        self.memos: Memos = memos()
        self.flow = flow
        self.access = access
        self.turn = Turn(asyncio.get_running_loop())
        self.draining = False
        self.in_flight = 0
        self.manager = _Manager(self)
        self._metrics = metrics
        self._ready = ready
        self._quiet = asyncio.Event()
        self._arriving: set[asyncio.Task[None]] = set()
        """Connections that were accepted and are not made yet: TLS handshakes, mostly."""

    def adopt(self, snapshot: Snapshot) -> None:
        """Serves by another snapshot from here on."""
        self.snapshot = snapshot
        self.capacity = capacity(snapshot)
        # Connections that ask nothing, as tunnels, look at the old ones for as long as they last.
        self.memos.clear()
        self.memos = memos()

    # For connections.

    def full(self) -> bool:
        """Whether a connection that was just made is one too many."""
        return self.connections() > self.capacity

    def arrives(
        self, accepted: socket.socket, tls: ssl.SSLContext | None, handshake_timeout: float
    ) -> None:
        """Makes a connection of an accepted socket, or closes it where there is no room."""
        if self.connections() + len(self._arriving) > self.capacity:
            accepted.close()
            return
        task = asyncio.create_task(self._arrive(accepted, tls, handshake_timeout))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _arrive(
        self, accepted: socket.socket, tls: ssl.SSLContext | None, handshake_timeout: float
    ) -> None:
        loop = asyncio.get_running_loop()
        accepted.setblocking(False)
        timeout = None if tls is None else handshake_timeout
        try:
            await loop.connect_accepted_socket(
                self.manager, accepted, ssl=tls, ssl_handshake_timeout=timeout
            )
        except OSError:  # ssl.SSLError and TimeoutError are: the client speaks no TLS, or left
            accepted.close()

    def began(self) -> None:
        """A request has begun."""
        self.in_flight += 1

    def ended(self) -> None:
        """A request has ended, answered or not."""
        self.in_flight -= 1
        if self.draining and not self.in_flight:
            self._quiet.set()

    def at_the_door(self, ex: Exchange) -> Reply | None:
        """What is answered before the flow: the health path, and a body that is too large."""
        server = ex.snapshot.server
        if server.health_path is not None and ex.path == server.health_path:
            ready = self._ready()
            text = b"ready\n" if ready else b"not ready\n"
            lines = [("Content-Type", "text/plain"), ("Cache-Control", "no-store")]
            return Reply(200 if ready else 503, lines, text)
        if ex.body is not None and (ex.body.length or 0) > server.max_body_bytes:
            detail = f"The request body is over {server.max_body_bytes} bytes."
            return problem("body-too-large", detail, close=True)
        return None

    def remember_refusal(self, memo: Memo, refusal: Refusal, reply: Reply, request_id: str) -> None:
        """Keeps the answer to a remembered request, which has just been refused, for the next."""
        keep_refusal(refusal, reply, memo.method, request_id)
        if not memo.was_refused:
            memo.was_refused = True
            self.memos.grew(REFUSAL_BYTES)

    def count(self, ex: Exchange, status: int, sent: int, seconds: float) -> None:
        """A request has ended."""
        route = ex.route
        tally = self._metrics.no_route if route is None else route.tally
        tally.count(ex.method, status, seconds)
        if self.access.on:
            self.access.write(ex, status, sent, seconds)

    def count_refusal(self, peer: str, status: int) -> None:
        """An answer to what never became a request."""
        self._metrics.no_route.count("other", status, 0.0)
        self.access.refused(peer, status, 0, 0.0)

    # For the process.

    def connections(self) -> int:
        """How many client connections are open."""
        return len(self.manager.connections_by_protocol)

    async def drain(self, timeout: float) -> None:
        """Lets requests in flight finish, at most `timeout` seconds. Idle connections close now,
        the others after the answer that they are at; those whose first request has yet to come
        have a moment for it."""
        self.turn.take()
        self.draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._all_begun()
                await self._all_ended()
                await self._all_taken()
        if self.in_flight:
            log.warning("drain_timeout is over: %d requests are cut", self.in_flight)
        left = dict(self.manager.connections_by_protocol)
        tasks = [conn.task for conn in left if conn.task is not None]
        for handshake in self._arriving:
            handshake.cancel()
        for transport in left.values():
            transport.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        with suppress(TimeoutError):  # the express lane's requests have no task to wait for
            async with asyncio.timeout(1.0):
                await self._all_ended()

    async def _all_begun(self) -> None:
        """Closes idle connections, until every connection left is at a request."""
        loop = asyncio.get_running_loop()
        patience = loop.time() + _FIRST_REQUEST
        while True:
            late = loop.time() >= patience
            waiting = bool(self._arriving)
            for conn, transport in list(self.manager.connections_by_protocol.items()):
                if conn.busy or transport.is_closing():
                    continue
                # What the kernel has read from the client is a request that must be answered.
                if conn.idle and (late or not conn.fresh) and not _unread(transport):
                    conn.force_close()
                else:
                    waiting = True
            if late or not waiting:
                return
            await asyncio.sleep(_LOOK_AGAIN)

    async def _all_ended(self) -> None:
        if self.in_flight:
            self._quiet.clear()
            await self._quiet.wait()

    async def _all_taken(self) -> None:
        """What was written is with the clients, or on its way. Transports have no event for it."""
        while any(map(_unsent, self.manager.connections_by_protocol.values())):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_AGAIN)


class _Manager(web.Server):
    """aiohttp's registry of connections, making ours."""

    def __init__(self, front: Front) -> None:
        super().__init__(_unused_handler, request_factory=_make_incoming)
        self._front = front

    @property
    def connections_by_protocol(self) -> dict[GatewayProtocol, asyncio.Transport]:
        return self._connections  # type: ignore[return-value]

    def __call__(self) -> GatewayProtocol:
        return GatewayProtocol(self._front, self, self._loop)


def capacity(snapshot: Snapshot) -> int:
    """The most client connections of a process: server.max_connections, or as many as the limit
    of open files leaves room for."""
    upstreams = sum(there.plan.max_connections for there in snapshot.upstreams.values())
    return client_connections(snapshot.server.max_connections, upstreams)


def capacity_warnings(snapshot: Snapshot) -> list[str]:
    """What an operator must know about the limit of open files."""
    room, wanted = capacity(snapshot), snapshot.server.max_connections
    if room >= wanted:
        return []
    said = (
        f"{wanted} does not fit into the limit of open files (ulimit -n): {room} are taken at most"
    )
    return [f"server.max_connections: {said}"]


def _unread(transport: asyncio.Transport) -> int:
    """How many bytes the client has sent that were not read yet."""
    bound = transport.get_extra_info("socket")
    if bound is None or bound.fileno() < 0:
        return 0
    return int.from_bytes(fcntl.ioctl(bound.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)


def _unsent(transport: asyncio.Transport) -> int:
    return transport.get_write_buffer_size()


async def _unused_handler(request: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError("GatewayProtocol serves requests itself")


def _make_incoming(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> Any:
    return Incoming(message, payload)
