"""Whether a client has kept the upstream waiting: then the end of the exchange is its own fault.

Upstreams close such connections for their own protection, or answer with an error. Clients must not
be able to have that held against them.
"""

from typing import Final

from proxy.edge.upstream.upload import Upload

SLOW: Final = 0.1
"""Seconds, in all, for which a client must have kept the upstream waiting to be blamed. Servers
wait for longer; less is how bodies come, piece by piece."""


class Unread:
    """For how long an answer was not read, as its client took no more of it."""

    __slots__ = ("_since", "_total")

    def __init__(self) -> None:
        self._since = 0.0  # 0 while it is read
        self._total = 0.0

    def begin(self, now: float) -> None:
        if not self._since:
            self._since = now

    def end(self, now: float) -> None:
        self._total = self.seconds(now)
        self._since = 0.0

    def seconds(self, now: float) -> float:
        """In all, up to now."""
        return self._total + now - self._since if self._since else self._total


def fault(upload: Upload | None, unread: Unread | None, now: float) -> str:
    """What the client did that an upstream may close a connection for; empty where the upstream
    had all that it waited for. Whoever writes to a client that does not read finds out late, when
    the client may be reading again: so any time that it did not read counts."""
    if upload is not None and upload.waited(now) >= SLOW:
        return "the client had not sent all of its request"
    if unread is not None and unread.seconds(now) >= SLOW:
        return "the client was slow to take the answer"
    return ""
