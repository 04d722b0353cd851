"""The line between the supervisor and one worker: questions and answers over a socket pair.

Rules:
- A message is its length (4 bytes, big-endian) and a JSON object: `{id, ask, with}` is a question,
  `{id, reply}` or `{id, error}` its answer. Either side may ask; questions are taken up in order,
  and a slow one holds up no other.
- Whoever asks says how long they wait. A reply that comes later is dropped.
- When the other side has gone, every open question ends in Lost: a worker learns from this, and
  from nothing else, that its supervisor died.
"""

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

log = logging.getLogger(__name__)

_HEAD: Final = 4

Answer = Callable[[str, dict[str, Any]], Awaitable[Any]]


class Lost(Exception):
    """The other side has gone."""


class Refused(Exception):
    """The other side failed at the question, and says how."""


async def unasked(what: str, order: dict[str, Any]) -> Any:
    """The answer of a side that only asks."""
    raise Refused(f"nobody answers {what!r} here")


class Worker(Protocol):
    """Who is asked: a post, with a worker in it or not."""

    @property
    def ready(self) -> bool: ...

    async def ask(self, what: str, timeout: float, **order: Any) -> Any:
        """As `Channel.ask`."""

    def kill(self) -> None: ...


class Channel:
    """One end. `closed` is set once the other side has gone or `close` was called."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer
    ) -> None:
        self.closed = asyncio.Event()
        self._reader = reader
        self._writer = writer
        self._answer = answer
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._last = 0
        self._answering: set[asyncio.Task[None]] = set()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, end: socket.socket, answer: Answer) -> "Channel":
        """Over one end of a socket pair, which now belongs to the channel. `answer(what, order)`
        answers the other side's questions with something JSON can carry."""
        end.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=end), answer)

    async def ask(self, what: str, timeout: float, **order: Any) -> Any:
        """The other side's answer. Raises Lost, Refused, or TimeoutError after so many seconds."""
        self._last += 1
        number = self._last
        reply = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await self._send({"id": number, "ask": what, "with": order})
                return await reply
        finally:
            del self._asked[number]

    async def close(self) -> None:
        """Sends what is still to be sent, and ends."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass

    async def _send(self, message: dict[str, Any]) -> None:
        if self.closed.is_set():
            raise Lost
        data = json.dumps(message).encode()
        self._writer.write(len(data).to_bytes(_HEAD, "big") + data)
        try:
            await self._writer.drain()
        except OSError:
            raise Lost from None

    async def _read(self) -> None:
        try:
            while True:
                size = int.from_bytes(await self._reader.readexactly(_HEAD), "big")
                self._take(json.loads(await self._reader.readexactly(size)))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.closed.set()
            for reply in self._asked.values():
                if not reply.done():
                    reply.set_exception(Lost())

    def _take(self, message: dict[str, Any]) -> None:
        if "ask" in message:
            task = asyncio.create_task(self._reply(message))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
            return
        reply = self._asked.get(message["id"])
        if reply is None or reply.done():
            return
        if "error" in message:
            reply.set_exception(Refused(message["error"]))
        else:
            reply.set_result(message["reply"])

    async def _reply(self, message: dict[str, Any]) -> None:
        what = message["ask"]
        answer: dict[str, Any] = {"id": message["id"]}
        try:
            answer["reply"] = await self._answer(what, message["with"])
        except Refused as refused:
            answer["error"] = str(refused)
        except Exception as error:
            log.exception("failed at %r", what)
            answer["error"] = f"{type(error).__name__}: {error}"
        try:
            await self._send(answer)
        except Lost:
            pass
