"""The data port's listening sockets: how they are opened, and closed without losing a client.

Rules:
- A TLS connection counts as one from when it is accepted, not only once its handshake is over:
  whoever does not finish a handshake takes a descriptor all the same.
- When a listener closes, what the kernel has completed is accepted first: a connection that is
  established is answered, not reset.
"""

import asyncio
import logging
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final

from proxy.edge.protocol import self_test
from proxy.policy.snapshot import Listen, ServerTls
from proxy.sockets import SocketPath, bind_unix, binding, refuse_handshakes

if TYPE_CHECKING:
    from proxy.edge.server import Front

log = logging.getLogger(__name__)

BACKLOG: Final = 4096
_HANDSHAKES: Final = 0.1
"""Seconds that handshakes which have begun have to be over, before a port is closed."""
_AGAIN: Final = 0.1
"""Seconds until accepting is tried again where the process had no descriptor left."""


class Listener:
    """One listening socket, or several where a name has several addresses."""

    def __init__(
        self, front: "Front", tls: ssl.SSLContext | None, handshake_timeout: float
    ) -> None:
        missing = self_test()
        if missing:
            raise RuntimeError(
                f"this aiohttp does not fit: RequestHandler lacks {', '.join(missing)}"
            )
        self._front = front
        self._tls = tls
        self._handshake_timeout = handshake_timeout
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self._sockets: list[socket.socket] = []
        """On which it accepts by itself: with TLS always, without only while it closes."""
        self._path: SocketPath | None = None

    @property
    def port(self) -> int:
        """The TCP port that is bound (0 was asked: the one given); 0 for a unix socket."""
        assert self._server is not None
        name = _listening(self._server)[0].getsockname()
        return name[1] if isinstance(name, tuple) else 0

    async def open(self, listen: Listen) -> None:
        """Binds and accepts. Raises OSError (with the address in it) where it cannot bind."""
        if listen.path is not None:
            bound, self._path = await asyncio.to_thread(bind_unix, listen.path)
            await self.open_given(bound)
            return
        with binding(str(listen)):
            self._server = await self._loop.create_server(
                self._front.manager,
                listen.host,
                listen.port,
                backlog=self._backlog(),
                start_serving=self._tls is None,
            )
        self._begin(self._server)

    async def open_given(self, bound: socket.socket) -> None:
        """Accepts on a socket that somebody else has bound; a unix socket's path is theirs."""
        loop, manager, serves = self._loop, self._front.manager, self._tls is None
        backlog = self._backlog()
        if bound.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(
                manager, sock=bound, backlog=backlog, start_serving=serves
            )
        else:
            self._server = await loop.create_server(
                manager, sock=bound, backlog=backlog, start_serving=serves
            )
        self._begin(self._server)

    async def close(self) -> None:
        """Stops accepting; open connections go on."""
        if self._path is not None:
            await asyncio.to_thread(self._path.unlink)
        if self._server is None:
            return
        if self._tls is None:
            self._sockets = _copies(self._server)
        if sum(map(refuse_handshakes, self._sockets)):
            await asyncio.sleep(_HANDSHAKES)
        self._server.close()
        for listening in self._sockets:
            self._loop.remove_reader(listening)
            self._accept(listening)
            listening.close()
        self._sockets.clear()

    def _backlog(self) -> int:
        # All that waits there may be accepted in one turn of the loop, before the first is refused.
        return min(BACKLOG, max(16, self._front.capacity))

    def _begin(self, server: asyncio.Server) -> None:
        if self._tls is None:
            return
        self._sockets = _copies(server)
        for listening in self._sockets:
            listening.listen(self._backlog())
            self._loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Accepts all that there is."""
        while True:
            try:
                accepted, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("cannot accept a connection: %s", error.strerror)
                if self._loop.remove_reader(listening):
                    self._loop.call_later(_AGAIN, self._resume, listening)
                return
            self._front.arrives(accepted, self._tls, self._handshake_timeout)

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)


def _listening(server: Any) -> list[socket.socket]:
    """A server's sockets: a tuple in asyncio, as it is typed, but a list in uvloop, which compiled
    code would take for an error."""
    return list(server.sockets)


def _copies(server: asyncio.Server) -> list[socket.socket]:
    """A server's sockets, to accept on for longer than the server does."""
    copies = [socket.socket(fileno=os.dup(bound.fileno())) for bound in _listening(server)]
    for copy in copies:
        copy.setblocking(False)
    return copies


def server_tls(tls: ServerTls) -> ssl.SSLContext:
    """TLS 1.2 or newer, HTTP/1.1 by ALPN. Raises OSError or ssl.SSLError for unusable files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(tls.cert, tls.key)
    return context
