"""The data port: listeners, the cap on connections, readiness at the door, and the drain."""

import asyncio
import logging
import os
import socket
import ssl
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, Final

from aiohttp import web

from proxy.core.message import Reply
from proxy.core.problems import problem
from proxy.core.recent import Recent
from proxy.edge.express import Memos
from proxy.edge.protocol import GatewayProtocol, Incoming, self_test
from proxy.edge.turn import Turn
from proxy.exchange import Exchange
from proxy.handler import Flow
from proxy.logs import AccessLog
from proxy.metrics import Metrics
from proxy.policy.snapshot import Listen, ServerTls, Snapshot

log = logging.getLogger(__name__)

BACKLOG: Final = 4096
MEMOS: Final = 4096
"""Requests that are remembered at least, where so many come again and again."""
_LOOK_AGAIN: Final = 0.01
"""Seconds between two looks at what clients have yet to take, when the process ends."""


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
        self.memos: Memos = Recent(MEMOS)
        self.flow = flow
        self.access = access
        self.turn = Turn(asyncio.get_running_loop())
        self.draining = False
        self.in_flight = 0
        self.manager = _Manager(self)
        self._metrics = metrics
        self._ready = ready
        self._quiet = asyncio.Event()

    def adopt(self, snapshot: Snapshot) -> None:
        """Serves by another snapshot from here on."""
        self.snapshot = snapshot
        # Connections that ask nothing, as tunnels, look at the old ones for as long as they last.
        self.memos.clear()
        self.memos = Recent(MEMOS)

    # For connections.

    def full(self) -> bool:
        """Whether a connection that was just made is one too many."""
        return len(self.manager.connections_by_protocol) > self.snapshot.server.max_connections

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
        """Lets requests in flight finish, at most `timeout` seconds; idle connections close now,
        the others after the answer that they are at."""
        self.turn.take()
        self.draining = True
        for conn in list(self.manager.connections_by_protocol):
            if conn.idle:
                conn.force_close()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._all_ended()
                await self._all_taken()
        if self.in_flight:
            log.warning("drain_timeout is over: %d requests are cut", self.in_flight)
        left = dict(self.manager.connections_by_protocol)
        tasks = [conn.task for conn in left if conn.task is not None]
        for transport in left.values():
            transport.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        with suppress(TimeoutError):  # the express lane's requests have no task to wait for
            async with asyncio.timeout(1.0):
                await self._all_ended()

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


def _unsent(transport: asyncio.Transport) -> int:
    return transport.get_write_buffer_size()


async def _unused_handler(request: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError("GatewayProtocol serves requests itself")


def _make_incoming(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> Any:
    return Incoming(message, payload)


class Listener:
    """One open listening socket. `path` is that of a unix socket which ends with it."""

    def __init__(self, path: str | None, server: asyncio.Server) -> None:
        self._path = path
        self._server = server

    @property
    def port(self) -> int:
        """The TCP port that is bound (0 was asked: the one given); 0 for a unix socket."""
        name = self._server.sockets[0].getsockname()
        return name[1] if isinstance(name, tuple) else 0

    async def close(self) -> None:
        """Stops accepting; open connections go on."""
        self._server.close()
        if self._path is not None:
            with suppress(FileNotFoundError):
                await asyncio.to_thread(os.unlink, self._path)


async def open_listener(
    listen: Listen, front: Front, tls: ssl.SSLContext | None, handshake_timeout: float
) -> Listener:
    """Binds and accepts. Raises OSError (with the address in it) where it cannot bind."""
    loop = asyncio.get_running_loop()
    options = _options(tls, handshake_timeout)
    if listen.path is not None:
        await asyncio.to_thread(clear_stale_socket, listen.path)
        server = await loop.create_unix_server(front.manager, listen.path, **options)
    else:
        server = await loop.create_server(front.manager, listen.host, listen.port, **options)
    return Listener(listen.path, server)


async def open_given(
    bound: socket.socket, front: Front, tls: ssl.SSLContext | None, handshake_timeout: float
) -> Listener:
    """Accepts on a socket that somebody else has bound; a unix socket's path is theirs."""
    loop = asyncio.get_running_loop()
    options = _options(tls, handshake_timeout)
    if bound.family == socket.AF_UNIX:
        server = await loop.create_unix_server(front.manager, sock=bound, **options)
    else:
        server = await loop.create_server(front.manager, sock=bound, **options)
    return Listener(None, server)


def _options(tls: ssl.SSLContext | None, handshake_timeout: float) -> dict[str, Any]:
    missing = self_test()
    if missing:
        raise RuntimeError(f"this aiohttp does not fit: RequestHandler lacks {', '.join(missing)}")
    options: dict[str, Any] = {"backlog": BACKLOG, "ssl": tls}
    if tls is not None:
        options["ssl_handshake_timeout"] = handshake_timeout
    return options


def clear_stale_socket(path: str) -> None:
    """Removes a socket that a dead process left; a living one keeps its address."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def server_tls(tls: ServerTls) -> ssl.SSLContext:
    """TLS 1.2 or newer, HTTP/1.1 by ALPN. Raises OSError or ssl.SSLError for unusable files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(tls.cert, tls.key)
    return context
