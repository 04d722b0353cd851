"""A request's body on its way to the upstream, beside the answer on its way back.

- Pieces go out as they come, and no faster than the upstream takes them.
- A body that fails or comes up short aborts the request; it is never finished (RFC 9112 §8).
- With `Expect: 100-continue` the body waits for the upstream's 100, or for one second.
- What is there already goes out with the head in one write, without a task.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from proxy.core.message import BodyError, RequestBody
from proxy.edge.driving import resumed
from proxy.edge.upstream.connection import WRITE_HIGH_WATER, Connection

if TYPE_CHECKING:
    from proxy.edge.upstream.call import Call

EXPECT_PATIENCE: Final = 1.0
"""Seconds to wait for a 100 before the body goes out all the same (RFC 9110 §10.1.1)."""


class Upload:
    """Sends one body. `waiting`: none of it was read, for want of a 100."""

    __slots__ = (
        "_body",
        "_call",
        "_connection",
        "_corked",
        "_corked_size",
        "_reading_since",
        "_task",
        "_timer",
        "_waited",
        "_waiter",
        "waiting",
    )

    def __init__(self, call: "Call", connection: Connection, body: RequestBody) -> None:
        self._call = call
        self._connection = connection
        self._body = body
        self._corked: list[bytes] | None = None
        self._corked_size = 0
        self._reading_since = 0.0
        """When the next piece of the body began to be waited for."""
        self._waited = 0.0
        """Seconds for which pieces were waited for, all before it together."""
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.waiting = False

    def waited(self, now: float) -> float:
        """Seconds for which the upstream has been kept waiting for more of the body, if that is
        what it waits for now; 0 where it takes no more itself. With Expect the client holds its
        body back: an upstream need not say 100, and may close before the body goes out."""
        if self._connection.congested:
            return 0.0
        return self._waited + now - self._reading_since

    def start(self, head: bytes, *, expect: bool) -> None:
        """Sends the head and what there is of the body; a task sends the rest.

        `expect`: the head asked for a 100 first.
        """
        self._corked = [head]
        self.waiting = expect
        sending = self._run()
        try:
            first = sending.send(None)
        except StopIteration:
            pass
        else:
            self._task = asyncio.get_running_loop().create_task(resumed(sending, first))
        if self._call.failure is None:
            self._uncork()

    def go_ahead(self) -> None:
        """The upstream said 100, or has been waited for long enough.

        The client hears of it here and not later: the final head may have come in the same read,
        and no 100 can follow that.
        """
        if self.waiting:
            self.waiting = False
            self._body.proceed()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def stop(self) -> None:
        """Sends no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    async def _run(self) -> None:
        call = self._call
        self._reading_since = asyncio.get_running_loop().time()
        try:
            if self.waiting:
                await self._permission()
            await self._pump()
        except BodyError as error:
            call.fail(error)
        except ConnectionError:
            return  # the call has heard of it from the connection
        else:
            call.uploaded(asyncio.get_running_loop().time())

    async def _permission(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        self._timer = loop.call_later(EXPECT_PATIENCE, self.go_ahead)
        await self._waiter

    async def _pump(self) -> None:
        left = self._body.length
        call = self._call
        connection = self._connection
        loop = asyncio.get_running_loop()
        while piece := await self._body.read():
            self._waited += loop.time() - self._reading_since
            if left is None:
                self._write(b"%x\r\n%b\r\n" % (len(piece), piece))
            else:
                left -= len(piece)
                self._write(piece)
            if connection.congested:
                call.stalled(loop.time())
                await connection.drain()
                call.stalled(None)
            self._reading_since = loop.time()
        if left is None:
            self._write(b"0\r\n\r\n")
        elif left:
            raise BodyError(400, "The request body is not as long as announced.")

    def _write(self, data: bytes) -> None:
        if self._corked is None:
            self._connection.transport.write(data)
            return
        self._corked.append(data)
        self._corked_size += len(data)
        if self._corked_size > WRITE_HIGH_WATER:
            self._uncork()

    def _uncork(self) -> None:
        """Sends what was gathered while the first step ran; from here on pieces go out singly."""
        if self._corked is not None:
            self._connection.transport.write(b"".join(self._corked))
            self._corked = None
