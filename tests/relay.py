"""A relay in front of a real server (an origin, a Redis) that makes the way to it go wrong.

A fault strikes each connection at its own moment: when it is made, when a request comes, or when
so many bytes of the answers have passed. The relay knows no protocol, only bytes.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

_SIZE: Final = 1 << 16
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST

Moment = Literal["connect", "accept", "request", "answer"]
Manner = Literal["refuse", "ignore", "silence", "reset", "close", "half-close", "garbage", "drip"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens, and when.

    Moments: `connect`, in place of accepting (`refuse`, `ignore`); `accept`, before anything is
    read; `request`, when bytes came, which are not passed on; `answer`, when `after` bytes of
    what the server says have been passed on.

    Manners: `refuse`: nobody listens. `ignore`: someone does, and does not accept. `silence`:
    nothing more passes, and the connection stays; at `accept` nothing is read either. `reset`:
    RST. `close`: FIN, and nothing is read any more. `half-close`: FIN, and reading goes on.
    `garbage`: junk, then silence. `drip`: `length` bytes go one by one, `pace` seconds apart,
    and then the rest at once.
    """

    moment: Moment
    manner: Manner
    after: int = 0
    pace: float = 0.005
    length: int = 1 << 30


SILENCE: Final = Fault("request", "silence")
JUNK: Final = b"\x00\xff junk: no protocol at all \r\n\r\n" * 8


class Relay:
    """A TCP relay in front of a server on `target`. It listens on `port`, or on any that is free.

    `delay` (seconds) holds back what the server says, in order.
    """

    def __init__(self, target: int, port: int = 0) -> None:
        self.target = target
        self.port = port
        self.delay = 0.0
        self.requests = 0
        """Pieces that clients sent, as they came from the socket."""
        self._fault: Fault | None = None
        self._left: int | None = None
        self._listener: socket.socket | None = None
        self._fillers: list[socket.socket] = []
        self._ways: set[_Way] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Relay":
        self._loop = asyncio.get_running_loop()
        self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop_listening()
        self._fill_no_more()
        for way in self._ways:
            way.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # Faults.

    def suffer(self, fault: Fault, *, times: int | None = None, drop: bool = False) -> None:
        """From now on the fault strikes connections, those that exist too; only `times` of them,
        where that is given. `drop`: those that exist are reset now, so that new ones come."""
        self.recover()
        if drop or fault.moment in ("connect", "accept"):
            for way in self._ways:
                way.reset()
        for way in self._ways:
            way.passed = 0
        self._fault, self._left = fault, times
        if fault.manner == "refuse":
            self._stop_listening()
        elif fault.manner == "ignore":
            self._accept_no_more()

    def recover(self) -> None:
        """All is well from now on. What was struck is beyond repair, and is reset."""
        self._fault = None
        self._fill_no_more()
        if self._listener is None:
            self._listen()
        for way in self._ways:
            if way.struck is not None:
                way.reset()

    def strikes(self, moment: Moment, passed: int = 0) -> Fault | None:
        """The fault that strikes at this moment; it is counted."""
        fault = self._fault
        if fault is None or fault.moment != moment or passed < fault.after or self._left == 0:
            return None
        if self._left is not None:
            self._left -= 1
        return fault

    def due_after(self, passed: int) -> int | None:
        """How many more bytes of an answer pass before the fault; None where there is none."""
        fault = self._fault
        if fault is None or fault.moment != "answer" or self._left == 0:
            return None
        return fault.after - passed

    # Listening.

    def _listen(self) -> None:
        # With the protocol named, asyncio turns off Nagle's delay for what is accepted.
        listener = self._listener = socket.socket(proto=socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._accept_again(listener)

    def _accept_again(self, listener: socket.socket) -> None:
        listener.listen(1024)
        self._loop.add_reader(listener, self._accept, listener)

    def _accept_no_more(self) -> None:
        """The kernel's queue is made short, and filled: SYNs get no answer from then on."""
        listener = self._listener
        assert listener is not None
        self._loop.remove_reader(listener)
        listener.listen(0)
        for _ in range(2):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._fillers.append(filler)

    def _fill_no_more(self) -> None:
        if self._fillers and self._listener is not None:
            self._accept_again(self._listener)
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
        except OSError:  # whoever it was is gone
            return
        accepted.setblocking(False)
        task = self._loop.create_task(self._serve(accepted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, accepted: socket.socket) -> None:
        way = _Way(self, accepted, *await asyncio.open_connection(sock=accepted))
        self._ways.add(way)
        try:
            await way.run()
        finally:
            self._ways.discard(way)
            way.abort()


class _Ended(Exception):
    """Nothing more comes or goes on this connection."""


class _Way:
    """One connection from a client, and the one to the server that belongs to it."""

    def __init__(
        self,
        relay: Relay,
        accepted: socket.socket,
        reader: asyncio.StreamReader,
        client: asyncio.StreamWriter,
    ) -> None:
        self.passed = 0
        """Bytes of the server's, since the fault began."""
        self.struck: Fault | None = None
        self._relay = relay
        self._socket = accepted
        self._reader = reader
        self._client = client
        self._server: asyncio.StreamWriter | None = None
        self._held: deque[Callable[[], None]] = deque()
        self._due = 0.0

    async def run(self) -> None:
        """Passes everything on, until both sides have ended or either has broken off."""
        # What was written is out before a fault strikes: `drain` waits for the last byte.
        self._client.transport.set_write_buffer_limits(0)
        try:
            if (fault := self._relay.strikes("accept")) is not None:
                if fault.manner == "silence":
                    self._client.transport.pause_reading()  # type: ignore[attr-defined]
                await self._strike(fault, b"")
                await self._upwards()
            else:
                there, self._server = await asyncio.open_connection("127.0.0.1", self._relay.target)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._upwards())
                    group.create_task(self._downwards(there))
        except* (OSError, _Ended):
            pass

    def reset(self) -> None:
        if not self._client.transport.is_closing():
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.abort()

    def abort(self) -> None:
        self._client.transport.abort()
        if self._server is not None:
            self._server.transport.abort()

    async def _upwards(self) -> None:
        while piece := await self._reader.read(_SIZE):
            relay = self._relay
            relay.requests += 1
            if self.struck is None and (fault := relay.strikes("request")):
                await self._strike(fault, b"")
            if self._server is not None and (self.struck is None or self.struck.manner == "drip"):
                self._server.write(piece)
                await self._server.drain()
        if self._server is None or self.struck is not None:
            raise _Ended
        self._server.write_eof()

    async def _downwards(self, there: asyncio.StreamReader) -> None:
        while piece := await there.read(_SIZE):
            if self.struck is not None and self.struck.manner != "drip":
                continue
            room = self._relay.due_after(self.passed)
            self.passed += len(piece)
            fault = self._relay.strikes("answer", self.passed) if self.struck is None else None
            if fault is None:
                await self._write(piece)
                continue
            assert room is not None
            await self._write(piece[:room])
            await self._strike(fault, piece[room:])
        if self.struck is None:
            self._after_delay(self._client.write_eof)

    async def _strike(self, fault: Fault, rest: bytes) -> None:
        """Does what the fault says. `rest`: what the server has said and nobody has heard."""
        self.struck = fault
        client = self._client
        match fault.manner:
            case "reset":
                self.reset()
                raise _Ended
            case "close":
                client.close()
                raise _Ended
            case "half-close":
                client.write_eof()
            case "garbage":
                client.write(JUNK)
            case "drip":
                for place in range(min(fault.length, len(rest))):
                    client.write(rest[place : place + 1])
                    await asyncio.sleep(fault.pace)
                    if client.transport.is_closing():
                        raise _Ended
                await self._write(rest[fault.length :])

    # What a delay holds back keeps its order.

    async def _write(self, piece: bytes) -> None:
        if self._relay.delay or self._held:
            self._after_delay(lambda: self._client.write(piece))
        else:
            self._client.write(piece)
            await self._client.drain()

    def _after_delay(self, act: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        if not (self._relay.delay or self._held):
            act()
            return
        self._due = max(self._due, loop.time() + self._relay.delay)
        self._held.append(act)
        loop.call_at(self._due, self._let_go)

    def _let_go(self) -> None:
        act = self._held.popleft()
        if not self._client.transport.is_closing():
            act()
