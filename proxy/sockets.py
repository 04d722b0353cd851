"""Listening sockets: paths of unix sockets, and how to close a port without losing a client."""

import ctypes
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

# The kernel has no constant in Python for it (socket(7)).
_SO_ATTACH_FILTER: Final = 26
# Classic BPF over a TCP segment (linux/filter.h). A segment with SYN and without ACK, which begins
# a handshake, is dropped; all others are taken.
_DROP_SYN: Final = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # only SYN?
    (0x06, 0, 0, 0),  # then drop it
    (0x06, 0, 0, 0xFFFFFFFF),
)


class SocketPath:
    """The path of a unix socket that this process has bound."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = _identity(path)

    def unlink(self) -> None:
        """Removes the path, unless another process has bound a socket of its own there since."""
        if self._identity is not None and _identity(self._path) == self._identity:
            with suppress(FileNotFoundError):
                os.unlink(self._path)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def binding(address: str) -> Iterator[None]:
    """Says in words which address could not be bound, and why: an event loop's own sentence is in
    Python's terms."""
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        why = os.strerror(number) if number > 0 else error.strerror  # getaddrinfo's are below 0
        raise OSError(error.errno, f"cannot bind {address}: {why}") from None


def bind_unix(path: str) -> tuple[socket.socket, SocketPath]:
    """A socket bound to the path; one that a dead process left there is replaced. Raises OSError
    (with the path in it), also where a living process listens there: an event loop's own
    `create_unix_server` would take its path away. It touches the disk: it belongs in a thread."""
    bound = socket.socket(socket.AF_UNIX)
    try:
        with binding(f"unix:{path}"):
            _clear_stale_socket(path)
            bound.bind(path)
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)
    return bound, SocketPath(path)


def _clear_stale_socket(path: str) -> None:
    """Removes a socket that a dead process left; a living one keeps its address."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a living process whose queue is full is no reason to wait
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except BlockingIOError:
            pass


def refuse_handshakes(listening: socket.socket) -> bool:
    """Lets nobody begin to connect any more, while those who have are still accepted. Returns
    whether the kernel can do that.

    The kernel resets what is in a socket's accept queue when it is closed, and new connections
    keep arriving until then. With a filter on the socket none do: a client that knocks now gets no
    answer, tries again a second later, and is refused.
    """
    if sys.platform != "linux" or listening.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    program = b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN)
    kept = ctypes.create_string_buffer(program, len(program))
    where = struct.pack("HL", len(_DROP_SYN), ctypes.addressof(kept))
    try:
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, where)
    except OSError:
        return False
    return True
