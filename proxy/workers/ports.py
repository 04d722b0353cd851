"""The data port of several workers: bound by the supervisor, accepted on by the workers.

Each worker has a socket of its own on the same port (SO_REUSEPORT), so the kernel spreads new
connections over them. The supervisor keeps every socket open: while a worker is replaced, what
connects waits in its socket's queue and is served by its successor, and nobody is refused. A unix
socket has no such option; all workers accept on the one.
"""

import socket

from proxy.policy.snapshot import Listen
from proxy.sockets import SocketPath, bind_unix, binding


class Port:
    """The bound sockets: `sockets[n]` are those of worker n, one per address of the host."""

    def __init__(self, listen: Listen, workers: int) -> None:
        """Binds; it is the workers who listen. Raises OSError, with the address in it. It looks
        up names and touches the disk: it belongs in a thread."""
        self._path: SocketPath | None = None
        self.sockets: list[list[socket.socket]] = [[] for _ in range(workers)]
        if listen.path is not None:
            self._bind_unix(listen.path)
            return
        try:
            with binding(str(listen)):
                self._bind_tcp(listen.host, listen.port)
        except OSError:
            self.close()
            raise

    def _bind_unix(self, path: str) -> None:
        bound, self._path = bind_unix(path)
        self.sockets[0].append(bound)
        for sockets in self.sockets[1:]:
            sockets.append(bound.dup())

    def _bind_tcp(self, host: str, port: int) -> None:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )
        for family, _, _, _, address in dict.fromkeys(found):
            # Among our own sockets the port is shared; with another process's it must not be,
            # or a second gateway would silently take half of the connections.
            with _bound(family, address, share=False) as alone:
                name = alone.getsockname()
            for sockets in self.sockets:
                sockets.append(_bound(family, name, share=True))

    @property
    def number(self) -> int:
        """The TCP port (0 was asked: the one given); 0 for a unix socket."""
        name = self.sockets[0][0].getsockname()
        return name[1] if isinstance(name, tuple) else 0

    def close(self) -> None:
        """Lets go of the sockets: once the workers have closed theirs, clients are refused."""
        for sockets in self.sockets:
            for bound in sockets:
                bound.close()

    def unlink(self) -> None:
        """Removes a unix socket's path."""
        if self._path is not None:
            self._path.unlink()


def _bound(family: int, address: object, *, share: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)  # type: ignore[arg-type]
    except OSError:
        bound.close()
        raise
    return bound
