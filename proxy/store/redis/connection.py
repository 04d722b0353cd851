"""One established connection to one Redis server: commands out in one write per turn of the event
loop, replies back in order, deadlines that judge the server and not this process.

Rules:
- A call is answered by a value, an ErrorReply or a StoreError; the future itself never fails, so
  nothing is left unretrieved where the caller went away.
- A deadline runs from the write, not from the call. One timer serves all calls.
- When it fires, the socket is read once more before anything is judged: what has arrived counts.
- A call is given another deadline, IF_LATE times at most, where the event loop itself was late by
  half of one or more; and IF_AT_WORK times where the server is at work on a burst of ours: a call
  that went out together with it, or less than a deadline before, was answered in time, and
  answers still come. A server that is merely slow is out of such calls within one deadline.
- The reply to a call that failed is still read in its turn, and dropped.
- A server that owes a reply for twice the deadline is stalled: calls fail at once, as no answer
  could overtake the one it owes. Silent for `SILENCE`, the connection is given up.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any, Final, cast

from hiredis import ProtocolError, Reader, pack_command

from proxy.store.ports import StoreError

IF_LATE: Final = 2
IF_AT_WORK: Final = 9
SILENCE: Final = 1.0
_HIGH_WATER: Final = 16 * 1024 * 1024  # bytes that the kernel has not taken


Word = bytes | str | int
"""One word of a command."""


def pack(command: tuple[Word, ...]) -> bytes:
    """A command as it goes over the wire."""
    return cast(bytes, pack_command(command))  # type: ignore[arg-type]  # its stub takes 1-tuples only


_ASKING: Final = pack((b"ASKING",))


class ErrorReply(Exception):
    """An error reply. `code` is its first word: OOM, MOVED, NOSCRIPT, …"""

    @property
    def code(self) -> str:
        return str(self).partition(" ")[0]


class _Call:
    """A command on its way. `future` None: nobody waits for the reply."""

    __slots__ = ("due", "extended", "future", "given_up", "sent", "timeout")

    def __init__(self, future: asyncio.Future[Any] | None, timeout: float) -> None:
        self.future = future
        self.timeout = timeout
        self.sent = inf
        self.due = inf
        self.extended = 0
        self.given_up = False


class Connection:
    """The client's end of one connection. Speaks RESP2.

    An asyncio.Protocol by its methods: one that derives from it could not be compiled.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_lost: Callable[["Connection", str], None]
    ) -> None:
        self._loop = loop
        self._on_lost = on_lost
        self._reader = Reader(replyError=ErrorReply)
        self._transport: asyncio.Transport | None = None
        self._pending: deque[_Call] = deque()
        self._outgoing: list[bytes] = []
        self._fresh: list[_Call] = []  # those of `_outgoing`
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._answered_at = -inf  # when a call was answered last, before it was given up
        self._prompt = -inf  # when the last call went out that was answered in time
        self._choked = False
        self._gone: str | None = None
        self.stalled = False
        """Owes a reply for too long: calls fail at once until bytes arrive."""
        self.scripts_sent: set[str] = set()
        """Hashes of scripts whose source went out again on this connection."""

    # What callers use.

    def call(self, command: bytes, timeout: float, *, asking: bool = False) -> asyncio.Future[Any]:
        """Sends a packed command. The future's result is the reply, an ErrorReply or a StoreError.

        `timeout` is in seconds. `asking` puts ASKING in front of it (a slot that is moving).
        Raises StoreError where it cannot be sent.
        """
        if self._gone is not None:
            raise StoreError("down", self._gone)
        if self.stalled or self._choked:
            raise StoreError("timeout", "the server owes replies")
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        if asking:
            self._queue(_ASKING, _Call(None, timeout))
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue(command, _Call(future, timeout))
        return future

    @property
    def gone(self) -> bool:
        return self._gone is not None

    def close(self, reason: str) -> None:
        """Ends the connection; what is pending fails as down."""
        self._end(reason)
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        self.stalled = False
        reader = self._reader
        pending = self._pending
        now = time.monotonic()
        try:
            reader.feed(data)
            reply = reader.gets()
            while reply is not False:
                if not pending:
                    self.close("the server sent what nobody asked for")
                    return
                call = pending.popleft()
                future = call.future
                if future is not None and not future.done():
                    future.set_result(reply)
                    self._answered_at = now
                    if not call.extended:
                        self._prompt = call.sent
                reply = reader.gets()
        except ProtocolError as error:
            self.close(f"the server does not speak Redis's protocol: {error}")

    def pause_writing(self) -> None:
        self._choked = True

    def resume_writing(self) -> None:
        self._choked = False

    def eof_received(self) -> None:
        """The transport closes by itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("the server closed the connection" if exc is None else str(exc))

    # Sending

    def _queue(self, command: bytes, call: _Call) -> None:
        self._outgoing.append(command)
        self._fresh.append(call)
        self._pending.append(call)

    def _flush(self) -> None:
        if self._gone is not None or not self._outgoing:
            return
        assert self._transport is not None
        self._transport.write(
            b"".join(self._outgoing) if len(self._outgoing) > 1 else self._outgoing[0]
        )
        now = time.monotonic()
        nearest = inf
        for call in self._fresh:
            call.sent = now
            call.due = due = now + call.timeout
            if due < nearest:
                nearest = due
        self._outgoing.clear()
        self._fresh.clear()
        self._arm(nearest)

    # Deadlines

    def _arm(self, when: float) -> None:
        """Sees to it that calls are judged at `when` (monotonic seconds) at the latest."""
        if when >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_later(max(0.0, when - time.monotonic()), self._on_deadline)

    def _on_deadline(self) -> None:
        self._timer = None
        fired_at = time.monotonic()
        lag = fired_at - self._timer_at
        self._timer_at = -inf  # nothing is armed before the verdict
        # Timers may run before the I/O of their turn: two hops make sure that the socket was read.
        self._loop.call_soon(self._loop.call_soon, self._judge, fired_at, lag)

    def _judge(self, now: float, lag: float) -> None:
        """Gives up the calls that were due at `now`, when the loop was `lag` seconds late."""
        self._timer_at = inf
        if self._gone is not None:
            return
        nearest = inf
        for call in self._pending:
            if call.due <= now and not call.given_up and not self._extend(call, now, lag):
                call.given_up = True
                if call.future is not None and not call.future.done():
                    call.future.set_result(StoreError("timeout", "no reply in time"))
            if not call.given_up:
                nearest = min(nearest, call.due)
        if self._pending and self._pending[0].given_up:
            owed = self._pending[0]
            overdue = now - owed.due
            if overdue >= SILENCE:
                self.close("the server fell silent")
                return
            self.stalled = overdue >= owed.timeout
            nearest = min(nearest, time.monotonic() + owed.timeout)
        if nearest < inf:
            self._arm(nearest)

    def _extend(self, call: _Call, now: float, lag: float) -> bool:
        """Whether the call gets another deadline."""
        if call.future is None or call.future.done():
            return False
        most = IF_LATE if lag >= call.timeout / 2 else 0
        if self._prompt > call.sent - call.timeout and now - self._answered_at < call.timeout:
            most = IF_AT_WORK
        if call.extended >= most:
            return False
        call.extended += 1
        call.due = time.monotonic() + call.timeout
        return True

    def _end(self, reason: str) -> None:
        if self._gone is not None:
            return
        self._gone = reason
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for call in self._pending:
            if call.future is not None and not call.future.done():
                call.future.set_result(StoreError("down", reason))
        self._pending.clear()
        self._outgoing.clear()
        self._fresh.clear()
        self._on_lost(self, reason)
