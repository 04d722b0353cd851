"""The admin and probes listeners: what a connection to them may cost.

Rules:
- A request's head has server.header_timeout to arrive, a connection may be idle for
  server.idle_timeout, and a client that does not take its answer for that long is let go.
- Each listener has at most ADMIN_CONNECTIONS. The next one takes the place of the connection that
  has been at rest for the longest: one without a request, or whose client does not take its answer.
  So whoever fills a listener up keeps nobody out.
"""

import asyncio
from collections.abc import Callable

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from proxy.admin.app import make_admin_app, make_probes_app
from proxy.admin.control import Control
from proxy.descriptors import ADMIN_CONNECTIONS
from proxy.policy.snapshot import Listen, ServerPlan, Snapshot
from proxy.sockets import SocketPath, bind_unix, binding


class AdminListeners:
    """The admin listener and the probes listener of a gateway."""

    def __init__(self) -> None:
        self._runners: list[web.AppRunner] = []
        self._servers: list[asyncio.Server] = []
        self._paths: list[SocketPath] = []

    async def open(self, control: Control, snapshot: Snapshot) -> None:
        """Binds and serves. Raises OSError (with the address in it) where it cannot bind."""

        def plan() -> ServerPlan:
            return (control.snapshot() or snapshot).server

        admin = snapshot.admin
        await self._serve(make_admin_app(control, admin), admin.listen, plan)
        if admin.probes is not None:
            await self._serve(make_probes_app(control), admin.probes, plan)

    async def close(self) -> None:
        """Ends both, with every connection."""
        for server in self._servers:
            server.close()
        for path in self._paths:
            await asyncio.to_thread(path.unlink)
        for runner in self._runners:
            await runner.cleanup()

    async def _serve(
        self, app: web.Application, listen: Listen, plan: Callable[[], ServerPlan]
    ) -> None:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self._runners.append(runner)
        await runner.setup()
        assert runner.server is not None
        connections = _Connections(runner.server, plan)
        loop = asyncio.get_running_loop()
        # All that waits there may be accepted in one turn of the loop, before the first is closed.
        backlog = ADMIN_CONNECTIONS
        if listen.path is not None:
            bound, path = await asyncio.to_thread(bind_unix, listen.path)
            self._paths.append(path)
            server = await loop.create_unix_server(connections, sock=bound, backlog=backlog)
        else:
            with binding(str(listen)):
                server = await loop.create_server(
                    connections, listen.host, listen.port, backlog=backlog
                )
        self._servers.append(server)


class _Connections:
    """One listener's connections, the one that has been at rest for the longest first."""

    def __init__(self, server: web.Server, plan: Callable[[], ServerPlan]) -> None:
        self._server = server
        self._plan = plan
        self._open: dict[_Connection, None] = {}

    def __call__(self) -> "_Connection":
        return _Connection(self, self._server, self._plan(), asyncio.get_running_loop())

    def add(self, conn: "_Connection") -> None:
        """Takes a new connection in, in place of another one if need be."""
        if len(self._open) >= ADMIN_CONNECTIONS:
            # Where none is at rest, the one that began to work first: whoever keeps all of them at
            # work keeps nobody out.
            oldest = next(iter(self._open))
            replaced = next((other for other in self._open if other.at_rest), oldest)
            del self._open[replaced]
            replaced.cut()
        self._open[conn] = None

    def touch(self, conn: "_Connection") -> None:
        """A request has come: of the connections at rest, this will be the last to go."""
        if conn in self._open:
            self._open[conn] = self._open.pop(conn)

    def discard(self, conn: "_Connection") -> None:
        self._open.pop(conn, None)


class _Connection(RequestHandler):
    """aiohttp's connection, which knows an idle timeout and no other."""

    __slots__ = ("_connections", "_head_timeout", "_head_timer", "_taking_timer",
                 "_wire")  # fmt: skip

    def __init__(
        self,
        connections: _Connections,
        server: web.Server,
        plan: ServerPlan,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=plan.idle_timeout,
            access_log=None,  # type: ignore[arg-type]
            lingering_time=2.0,
        )
        self._connections = connections
        self._head_timeout = plan.header_timeout
        self._head_timer: asyncio.TimerHandle | None = None
        self._taking_timer: asyncio.TimerHandle | None = None
        self._wire: asyncio.Transport | None = None
        """The transport, also while it closes."""

    @property
    def at_rest(self) -> bool:
        """Whether nothing is done for it, or its client does not take what was done."""
        return bool(self._paused) or not (self._request_in_progress or self._messages)

    def cut(self) -> None:
        """Ends the connection at once, whatever the client has yet to take."""
        self.force_close()
        if self._wire is not None:
            self._wire.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._wire = self.transport
        self._time_head()
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self._stop_timing_head()
            self._connections.touch(self)
        elif self._head_timer is None and not self._request_in_progress:
            self._time_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._time_taking()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._taking_timer is not None:
            self._taking_timer.cancel()
            self._taking_timer = None

    def force_close(self) -> None:
        super().force_close()
        if self._wire is not None and self._taking_timer is None:
            self._time_taking()  # closing waits for what the client has yet to take

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._wire = None
        self._connections.discard(self)
        self._stop_timing_head()
        if self._taking_timer is not None:
            self._taking_timer.cancel()

    def _time_head(self) -> None:
        self._head_timer = self._loop.call_later(self._head_timeout, self._head_timed_out)

    def _stop_timing_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_timed_out(self) -> None:
        self._head_timer = None
        if self.at_rest:
            self.cut()

    def _time_taking(self) -> None:
        self._taking_timer = self._loop.call_later(self._keepalive_timeout, self._taking_timed_out)

    def _taking_timed_out(self) -> None:
        if self._wire is not None:
            self._wire.abort()
