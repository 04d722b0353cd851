"""A link to one Redis server: a connection, and another whenever it is lost.

Rules:
- Calls never wait for a connection: without one they fail at once as down.
- Attempts follow each other after a random wait that grows to `LONGEST_WAIT` at most, so a server
  that is back is found within that, and a fleet does not come all at once.
- The handshake puts in every script that has run, so a server that is new to them gets no flood.
- The log has one line when the server is lost, and one when it is found.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from proxy.store.ports import StoreError
from proxy.store.redis.access import CLIENT_NAME, CONNECT_TIMEOUT, Access, Address
from proxy.store.redis.connection import Connection, ErrorReply, Word, pack
from proxy.store.redis.road_port import Script
from proxy.store.redis.waits import Waits, patience

log = logging.getLogger(__name__)

LONGEST_WAIT: Final = 0.5
_FIRST_WAIT: Final = 0.05

NOT_SERVING: Final = frozenset(("LOADING", "MASTERDOWN", "NOAUTH", "WRONGPASS", "CLUSTERDOWN"))
"""Codes of a server that is there, and of no use to anybody."""


class NotServing(Exception):
    """A server that was reached and cannot be used; the sentence is for the log."""


class Link:
    """Calls to the server that `find` names (asked before every attempt to connect)."""

    def __init__(
        self,
        access: Access,
        find: Callable[[], Awaitable[Address]],
        scripts: dict[str, bytes],
        *,
        primary: bool = False,
        greet: Callable[["Link"], Awaitable[None]] | None = None,
        on_lost: Callable[["Link"], None] | None = None,
    ) -> None:
        """`scripts` (hash → source) is shared: what has run anywhere. `primary`: any other role
        is refused. `greet` is awaited after every handshake, without holding up calls."""
        self.connection: Connection | None = None
        """The one in use; None while there is none."""
        self.address: Address | None = None
        """Where it is, or was."""
        self.up = asyncio.Event()
        self._waits: Waits | None = None
        self._access = access
        self._find = find
        self._scripts = scripts
        self._primary = primary
        self._greet = greet
        self._on_lost = on_lost
        self._reason = "not connected yet"
        self._told: str | None = None
        self._down = asyncio.Event()
        self._closed = False
        self._task = asyncio.get_running_loop().create_task(self._keep())

    @property
    def reason(self) -> str:
        """Why there is no connection."""
        return self._reason

    @property
    def usable(self) -> bool:
        """Whether a call would be sent; else it fails at once."""
        return self.connection is not None and not self.connection.stalled

    async def ask(self, *command: Word, timeout: float, asking: bool = False) -> Any:
        """One command's reply; `asking` as in `run`. Raises ErrorReply or StoreError."""
        connection = self.connection
        if connection is None:
            raise StoreError("down", self._reason)
        return await _reply(connection.call(pack(command), timeout, asking=asking))

    async def run(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[Word],
        timeout: float,
        *,
        asking: bool = False,
    ) -> Any:
        """A script's reply; its source is sent only where the server does not know it.

        `asking`: the first key's slot is on its way to this server. Raises ErrorReply or
        StoreError.
        """
        connection = self.connection
        if connection is None:
            raise StoreError("down", self._reason)
        tail = (len(keys), *keys, *args)
        call = pack((b"EVALSHA", script.sha, *tail))
        reply = await connection.call(call, timeout, asking=asking)
        if type(reply) is not ErrorReply and type(reply) is not StoreError:
            return reply
        if not isinstance(reply, ErrorReply) or reply.code != "NOSCRIPT":
            raise reply
        return await self._bring(connection, script, tail, timeout, asking)

    async def run_and_wait(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[Word],
        replicas: int,
        timeout: float,
        *,
        asking: bool = False,
    ) -> tuple[Any, int]:
        """As `run`, and then how many replicas have what it wrote: so many as are asked for or
        more, or how many within `timeout`. Never of another connection than the script's."""
        connection, waits = self.connection, self._waits
        if connection is None or waits is None:
            raise StoreError("down", self._reason)
        tail = (len(keys), *keys, *args)
        longer = patience(timeout)  # as a WAIT that is under way holds it up
        call = pack((b"EVALSHA", script.sha, *tail))
        running = connection.call(call, longer, asking=asking)
        acknowledged = waits.ask(replicas, timeout)
        try:
            reply = await _reply(running)
        except ErrorReply as error:
            if error.code != "NOSCRIPT":
                raise
            reply = await self._bring(connection, script, tail, longer, asking)
            acknowledged = waits.ask(replicas, timeout)
        return reply, int(await _reply(acknowledged))

    async def _bring(
        self,
        connection: Connection,
        script: Script,
        tail: tuple[Word, ...],
        timeout: float,
        asking: bool,
    ) -> Any:
        """A script's reply from a server that did not know it."""
        # Only the first of many that were under way brings the source again: the others' new
        # calls come after it on the same connection.
        sha = script.sha
        self._scripts[sha] = script.source
        on_its_way = connection.scripts_sent
        if sha in on_its_way:
            again = pack((b"EVALSHA", sha, *tail))
            return await _reply(connection.call(again, timeout, asking=asking))
        on_its_way.add(sha)
        try:
            again = pack((b"EVAL", script.source, *tail))
            return await _reply(connection.call(again, timeout, asking=asking))
        finally:
            on_its_way.discard(sha)

    def renew(self, reason: str) -> None:
        """Gives the connection up and finds the server anew."""
        if self.connection is not None:
            self.connection.close(reason)

    async def close(self) -> None:
        await ended(self._task)
        self._closed = True
        if self.connection is not None:
            self.connection.close("closed")

    # Keeping it up

    async def _keep(self) -> None:
        wait = _FIRST_WAIT
        while True:
            try:
                connection = await self._open()
            except (OSError, TimeoutError, NotServing, StoreError, UnicodeError) as error:
                self._fail(_sentence(error))  # UnicodeError: a host that can be no name
                await asyncio.sleep(wait * (0.5 + random.random() / 2))
                wait = min(LONGEST_WAIT, wait * 2)
                continue
            wait = _FIRST_WAIT
            if connection.gone:  # before it was of use
                continue
            self._begin(connection)
            if self._greet is not None:
                try:
                    await self._greet(self)
                except (StoreError, ErrorReply) as error:
                    log.debug("redis %s: %s", self.address, error)
            await self._down.wait()

    async def _open(self) -> Connection:
        """A connection with its handshake behind it."""
        made: Connection | None = None
        try:
            self.address = await self._find()
            async with asyncio.timeout(CONNECT_TIMEOUT):
                made = await self._access.connect(self.address, self._lost)
                await self._handshake(made)
        except BaseException:
            if made is not None:
                made.close("its handshake failed")
            raise
        return made

    async def _handshake(self, connection: Connection) -> None:
        must = self._access.handshake()
        may: list[tuple[Word, ...]] = [(b"CLIENT", b"SETNAME", CLIENT_NAME)]
        may += [(b"SCRIPT", b"LOAD", source) for source in self._scripts.values()]
        commands = [*must, *may, (b"PING",), *([(b"ROLE",)] if self._primary else [])]
        futures = [connection.call(pack(c), CONNECT_TIMEOUT) for c in commands]
        replies = [await future for future in futures]
        for place, reply in enumerate(replies):
            if isinstance(reply, StoreError):
                raise reply
            if isinstance(reply, ErrorReply) and (place < len(must) or reply.code in NOT_SERVING):
                raise NotServing(f"it answers {reply}")
        if self._primary and isinstance(replies[-1], list) and replies[-1][0] != b"master":
            raise NotServing("it is no primary")

    def _begin(self, connection: Connection) -> None:
        self._down.clear()
        self.connection = connection
        self._waits = Waits(connection)
        self.up.set()
        if self._told is not None:
            self._told = None
            log.info("redis %s: connected again", self.address)
        else:
            log.info("redis %s: connected", self.address)

    def _lost(self, connection: Connection, reason: str) -> None:
        if connection is not self.connection:  # never begun
            return
        self._down.set()
        self.connection = None
        self.up.clear()
        if self._closed:
            return
        self._fail(reason)
        if self._on_lost is not None:
            self._on_lost(self)

    def _fail(self, reason: str) -> None:
        self._reason = reason
        if self._told is None:
            self._told = reason
            log.warning("redis %s: not connected: %s", self.address or "", reason)


async def _reply(future: asyncio.Future[Any]) -> Any:
    reply = await future
    if isinstance(reply, (ErrorReply, StoreError)):
        raise reply
    return reply


def _sentence(error: BaseException) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    return str(error) or type(error).__name__


def refused(error: ErrorReply) -> StoreError:
    """What an error reply means to whoever wanted to count."""
    if error.code in NOT_SERVING:
        return StoreError("down", str(error))
    return StoreError("refused", str(error))


async def wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event came in time."""
    if event.is_set():
        return True
    # No asyncio.timeout: a request may be driven without a task up to here.
    waiting = asyncio.get_running_loop().create_task(event.wait())
    try:
        await asyncio.wait((waiting,), timeout=seconds)
    finally:
        waiting.cancel()
    return event.is_set()


async def ended(task: asyncio.Task[None]) -> None:
    """Cancels a task and waits for its end. More than once: redis-py swallows a cancellation that
    comes while it connects."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.05)
