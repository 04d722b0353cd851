"""A relay in front of a real server, which makes the way to it slow or silent."""

import asyncio
from collections import deque


class Relay:
    """A TCP relay in front of a server. `delay` (seconds) holds back what the server says;
    `swallow` drops everything, both ways, and leaves connections open.

    It listens on `port`, or on any that is free.
    """

    def __init__(self, target: int, port: int = 0) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self.delay = 0.0
        self.swallow = False
        self.port = port
        self.requests = 0
        """Pieces that clients sent, as they came from the socket."""

    async def __aenter__(self) -> "Relay":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for client in self._clients:
            client.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._clients.add(writer)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            self._left(task, writer)
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, back, answers=False))
                group.create_task(self._pump(there, writer, answers=True))
        except* (OSError, _Ended):
            pass
        finally:
            back.transport.abort()
            self._left(task, writer)

    def _left(self, task: asyncio.Task[None], client: asyncio.StreamWriter) -> None:
        client.transport.abort()
        self._clients.discard(client)
        self._tasks.discard(task)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        held: deque[bytes] = deque()
        due = 0.0

        def let_go() -> None:
            piece = held.popleft()
            if not writer.transport.is_closing():
                writer.write(piece)

        while piece := await reader.read(1 << 16):
            self.requests += not answers
            if self.swallow:
                continue
            if answers and (self.delay or held):
                held.append(piece)  # what comes after a delay is over does not overtake it
                due = max(due, loop.time() + self.delay)
                loop.call_at(due, let_go)
            else:
                writer.write(piece)
        raise _Ended


class _Ended(Exception):
    pass
