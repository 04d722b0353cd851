"""An upstream's connections and the right to use one: slots, a queue, idle stacks, one clock.

- A call holds one of `max_connections` slots from its start to the end of its answer's *body*.
  Without a free slot it waits in line; the line has `queue` places.
- Idle connections are stacked per endpoint, the last used on top. They leave after
  `idle_timeout`, or one second before the upstream's own `Keep-Alive: timeout`.
- Open connections never exceed `max_connections`: the idle one nearest its end makes room.
- Deadlines cost no timer per call: one timer runs at the earliest moment anything can be due.
"""

import asyncio
import errno
import ssl
from collections import deque
from collections.abc import Collection
from functools import partial
from typing import Protocol

from proxy.core.message import UpstreamError
from proxy.edge.upstream.connection import READ_SIZE, Connection
from proxy.edge.upstream.failures import (
    ConnectFailure,
    connect_failure,
    resolve_failure,
    says_little,
)
from proxy.edge.upstream.resolve import Addresses
from proxy.edge.upstream.tls import client_context
from proxy.policy.snapshot import UpstreamPlan

_OWN_SHORTAGE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
# No more than this often does the clock look; timeouts are met within it.
_TICK = 0.005


class Timed(Protocol):
    """A call as the pool sees it: when something about it is due, and what then. `shut`: the
    upstream was closed under it."""

    due: float
    slot: bool
    waiter: asyncio.Future[bool] | None

    def expire(self, now: float) -> None: ...
    def shut(self) -> None: ...


class Pool:
    """The connections of one upstream. Belongs to the event loop that first uses it."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, plan: UpstreamPlan) -> None:
        self._plan = plan
        self._context = (
            client_context(plan.tls)
            if any(endpoint.scheme == "https" for endpoint in plan.endpoints)
            else None
        )
        self._addresses = [
            Addresses(endpoint.host, plan.dns_refresh, partial(self._moved, index))
            for index, endpoint in enumerate(plan.endpoints)
        ]
        self._idle: list[list[Connection]] = [[] for _ in plan.endpoints]
        self._open: set[Connection] = set()
        self.buffer = memoryview(bytearray(READ_SIZE))
        self._busy = 0
        self._max_busy = plan.max_connections
        self._idle_timeout = plan.idle_timeout  # 0 once no connection is kept any more
        self._line: deque[asyncio.Future[bool]] = deque()
        self._calls: set[Timed] = set()
        self.bound = False
        self._timer: asyncio.TimerHandle | None = None
        # The shortest time after which something that begins now can be due.
        self._shortest = min(
            plan.response_timeout,
            plan.read_timeout,
            plan.deadline,
            plan.queue_timeout,
            plan.idle_timeout,
        )
        self._closed = False
        self._retired = False
        self._empty: asyncio.Future[None] | None = None

    def bind(self) -> None:
        """Makes the running event loop the upstream's own; once, before anything else."""
        self.loop = asyncio.get_running_loop()
        self.bound = True

    # Calls, their slots and their clock.

    def enter(self, call: Timed) -> bool:
        """Takes the call in, and a slot if one is free and nobody waits: whether it has one.

        From here to `leave`, `call.expire` is called when `call.due` has passed.
        """
        self._calls.add(call)
        if self._timer is None:
            first = min(call.due, self.loop.time() + self._shortest)
            self._timer = self.loop.call_at(first, self._tick)
        if self._busy < self._max_busy and not self._line:
            self._busy += 1
            call.slot = True
            return True
        return False

    def hasten(self, due: float) -> None:
        """Something is due earlier than any call that begins now could have it."""
        if self._timer is not None and due < self._timer.when():
            self._timer.cancel()
            self._timer = self.loop.call_at(due, self._tick)

    def leave(self, call: Timed) -> None:
        """The call is over. If it had a slot, the first in line gets it."""
        self._calls.discard(call)
        if call.slot:
            if self._line:
                self.release()
            else:
                self._busy -= 1
        if self._retired and not self._calls:
            self._stop_lookups()

    def release(self) -> None:
        """Gives a slot back."""
        while self._line:
            place = self._line.popleft()
            if not place.done():
                place.set_result(True)
                return
        self._busy -= 1

    def _tick(self) -> None:
        loop = self.loop
        now = loop.time()
        earliest = now + self._shortest
        for call in tuple(self._calls):
            if call.due <= now:
                call.expire(now)
            elif call.due < earliest:
                earliest = call.due
        idle = False
        for stack in self._idle:
            for connection in tuple(stack):
                if connection.expires <= now:
                    stack.remove(connection)
                    connection.abort()
                else:
                    idle = True
                    earliest = min(earliest, connection.expires)
        self._timer = (
            loop.call_at(max(earliest, now + _TICK), self._tick) if idle or self._calls else None
        )

    async def queue(self, call: Timed) -> bool:
        """Waits in line for a slot. False where the call gave `waiter` a result of its own first.

        Raises UpstreamError(queue_full).
        """
        if len(self._line) >= self._plan.queue:
            raise UpstreamError("queue_full", "every connection is in use", sent=False)
        place: asyncio.Future[bool] = self.loop.create_future()
        call.waiter = place
        self._line.append(place)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.result():
                self.release()  # the slot came in the same moment
            raise
        finally:
            if place in self._line:
                self._line.remove(place)

    # Connections.

    def take(self, index: int, now: float) -> Connection | None:
        """An idle connection to the endpoint that can carry a request, the last used first."""
        stack = self._idle[index]
        while stack:
            connection = stack.pop()
            if connection.usable(now):
                return connection
            connection.abort()
        return None

    def give(self, connection: Connection, keep_alive_timeout: int | None) -> None:
        """Takes back a connection whose answer has been read to its end."""
        connection.call = None
        idle = self._idle_timeout
        if keep_alive_timeout is not None and keep_alive_timeout - 1 < idle:
            idle = keep_alive_timeout - 1.0
        if idle <= 0 or connection.closed:
            connection.abort()
            return
        if connection.reading_paused:
            connection.resume_reading()
        connection.used = True
        connection.expires = self.loop.time() + idle
        self._idle[connection.index].append(connection)

    async def connect(self, index: int) -> Connection:
        """A new connection to the endpoint, at the first of its addresses that accepts one.

        Raises UpstreamError(connect_error), or (no_socket) where it is this process that has no
        room for one.
        """
        endpoint = self._plan.endpoints[index]
        if self._closed:
            raise UpstreamError("connect_error", "the upstream is closed", sent=False)
        if endpoint.socket is not None:
            addresses: tuple[str, ...] = (endpoint.socket,)
        else:
            try:
                async with asyncio.timeout(self._plan.connect_timeout):
                    addresses = await self._addresses[index].candidates()
            except OSError as error:  # TimeoutError is one
                raise _unmade(endpoint.host, resolve_failure(error)) from error
        failure: OSError | None = None
        for address in addresses:
            self._make_room()
            try:
                async with asyncio.timeout(self._plan.connect_timeout):
                    connection = await self._dial(index, address)
            except OSError as error:  # ssl.SSLError and TimeoutError are among them
                if failure is None or not says_little(error):
                    failure = error
            else:
                # Only now: uvloop may close a connection that it has made, but not handed out,
                # without telling it.
                if not connection.closed:
                    self._open.add(connection)
                return connection
        assert failure is not None  # there is an address
        if failure.errno in _OWN_SHORTAGE:
            detail = f"this process has no socket left for it: {failure.strerror}"
            raise UpstreamError("no_socket", detail, sent=False) from failure
        tls = endpoint.scheme == "https"
        raise _unmade(endpoint.authority, connect_failure(failure, tls=tls)) from failure

    async def _dial(self, index: int, address: str) -> Connection:
        loop = self.loop
        endpoint = self._plan.endpoints[index]
        secure: ssl.SSLContext | None = None
        server_name: str | None = None
        if endpoint.scheme == "https":
            secure = self._context
            server_name = self._plan.tls.server_name or endpoint.host

        def build() -> Connection:
            return Connection(self, index, address)

        if endpoint.socket is not None:
            _, connection = await loop.create_unix_connection(
                build, address, ssl=secure, server_hostname=server_name
            )
        else:
            _, connection = await loop.create_connection(
                build, address, endpoint.port, ssl=secure, server_hostname=server_name
            )
        return connection

    def _make_room(self) -> None:
        """Closes idle connections until, with the one to be opened, the upstream's limit holds."""
        while sum(map(len, self._idle)) + self._busy > self._plan.max_connections:
            stacks = [stack for stack in self._idle if stack]
            if not stacks:
                return
            stack = min(stacks, key=lambda stack: stack[0].expires)
            stack.pop(0).abort()

    def _moved(self, index: int, addresses: Collection[str]) -> None:
        """The endpoint's name has new addresses: idle connections to old ones go."""
        stack = self._idle[index]
        for connection in tuple(stack):
            if connection.address not in addresses:
                stack.remove(connection)
                connection.abort()

    def lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        stack = self._idle[connection.index]
        if connection.call is None and connection in stack:
            stack.remove(connection)
        if self._empty is not None and not self._open and not self._empty.done():
            self._empty.set_result(None)

    def retire(self) -> None:
        """No snapshot names this upstream any more: idle connections close now, the others when
        the requests that still hold it are answered. One that begins late is still served."""
        self._retired = True
        self._idle_timeout = 0.0
        for stack in self._idle:
            for connection in stack:
                connection.abort()
            stack.clear()
        if not self._calls:
            self._stop_lookups()

    def _stop_lookups(self) -> None:
        for addresses in self._addresses:
            addresses.close()

    async def close(self) -> None:
        """Closes every connection, also in use, and returns when all sockets are closed."""
        self._closed = True
        self._idle_timeout = 0.0
        self._stop_lookups()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for call in tuple(self._calls):
            call.shut()
        if self._open:
            self._empty = self.loop.create_future()
            for connection in tuple(self._open):
                connection.abort()
            await self._empty

    def status(self) -> dict[str, int]:
        """Connections idle and busy, and requests waiting for one."""
        return {
            "idle": sum(map(len, self._idle)),
            "busy": self._busy,
            "waiting": sum(not place.done() for place in self._line),
        }


def _unmade(endpoint: str, failure: ConnectFailure) -> UpstreamError:
    """A connection that did not come about."""
    kind, cause = failure
    detail = f"{kind}: {endpoint}: {cause}"
    return UpstreamError("connect_error", detail, sent=False, kind=kind, cause=cause)
