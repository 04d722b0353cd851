"""Subscriptions: one connection of redis-py for all channels of a road, renewed when it is lost.

Rules:
- Messages may be missed while it is down, and nobody can tell how many: every loss is told.
- A connection can also die without a sign. So `alive` reports up to when everything was heard: with
  each message, and with each answer to a ping, which proves no more than when the ping was sent.
- A user without the right to subscribe hears nothing. The log has one line for that; rights that
  come later are found.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from redis.exceptions import NoPermissionError

from proxy.store.redis.access import FAILURES, Access, Address, let_go
from proxy.store.redis.link import NotServing, ended

log = logging.getLogger(__name__)

PING_EVERY: Final = 2.0
"""Seconds of silence after which the server is pinged, at most."""
SILENT: Final = 4.0
"""Seconds of silence after which the connection counts as lost."""
_WAIT: Final = 0.3  # seconds between two attempts
_REFUSED_WAIT: Final = 2.0  # rights do not come by themselves; each attempt is in the server's log


class Subscriptions:
    """What one road listens to. Connects once there is a channel."""

    def __init__(self, access: Access, find: Callable[[], Awaitable[Address]]) -> None:
        self._access = access
        self._find = find
        self._channels: dict[bytes, list[Callable[[bytes], None]]] = {}
        self._lost: list[Callable[[], None]] = []
        self._back: list[Callable[[], None]] = []
        self._alive: list[Callable[[float], None]] = []
        self._ping_every = PING_EVERY
        self._task: asyncio.Task[None] | None = None
        self._pubsub: Any = None
        self._subscribing: set[asyncio.Task[None]] = set()
        self._refused = False
        """Whether the log has it that the user may not subscribe."""
        self.up = asyncio.Event()
        """Every channel is subscribed to."""

    def add(
        self,
        channel: str,
        callback: Callable[[bytes], None],
        lost: Callable[[], None],
        back: Callable[[], None] | None = None,
        alive: Callable[[float], None] | None = None,
        ping_every: float = PING_EVERY,
    ) -> None:
        name = channel.encode()
        is_new = name not in self._channels
        self._channels.setdefault(name, []).append(callback)
        self._lost.append(lost)
        if back is not None:
            self._back.append(back)
        if alive is not None:
            self._alive.append(alive)
        self._ping_every = min(self._ping_every, ping_every)
        loop = asyncio.get_running_loop()
        if self._task is None:
            self._task = loop.create_task(self._keep())
        elif is_new and self._pubsub is not None:
            self.up.clear()
            task = loop.create_task(self._subscribe(self._pubsub, name))
            self._subscribing.add(task)
            task.add_done_callback(self._subscribing.discard)

    async def close(self) -> None:
        for task in self._subscribing:
            task.cancel()
        if self._task is not None:
            await ended(self._task)

    async def _subscribe(self, pubsub: Any, *channels: bytes) -> None:
        """Asks for channels; whoever reads hears the confirmation."""
        try:
            await pubsub.subscribe(*channels)
        except FAILURES as error:
            log.debug("redis: not subscribed: %s", error)  # the reader finds the connection lost

    async def _keep(self) -> None:
        while True:
            wait = _WAIT
            try:
                await self._listen()
            except NoPermissionError as error:
                wait = _REFUSED_WAIT
                self._refuse(error)
            except (*FAILURES, TimeoutError, NotServing) as error:
                log.debug("redis: no subscription: %s", error)
            except Exception:  # one that ends here would never listen again
                log.exception("redis: the subscription failed")
            if self.up.is_set():
                self.up.clear()
                for lost in self._lost:
                    lost()
            await asyncio.sleep(wait)

    def _refuse(self, error: NoPermissionError) -> None:
        if not self._refused:
            self._refused = True
            names = b", ".join(self._channels).decode()
            log.warning("redis: the user may not subscribe to %s, so nothing is heard: %s",
                        names, error)  # fmt: skip

    async def _listen(self) -> None:
        client = self._access.client(await self._find())
        pubsub = client.pubsub()
        try:
            await self._read(pubsub)
        finally:
            self._pubsub = None
            try:
                await let_go(pubsub)
            finally:
                await let_go(client)

    async def _read(self, pubsub: Any) -> None:
        heard = time.monotonic()
        pinged: float | None = None
        confirmed = 0
        subscribed: set[bytes] = set()
        while missing := self._channels.keys() - subscribed:
            await pubsub.subscribe(*missing)
            subscribed |= missing
        self._pubsub = pubsub  # what is added from here on is asked for at once
        while True:
            message = await pubsub.get_message(timeout=self._ping_every / 4)
            now = time.monotonic()
            if message is None:
                if now - heard > SILENT:
                    raise TimeoutError
                if now - heard > self._ping_every and pinged is None:
                    pinged = now
                    await pubsub.ping()
                continue
            heard = now
            if message["type"] == "pong" and pinged is not None:
                heard, pinged = pinged, None
            if message["type"] == "subscribe":
                confirmed += 1
                if confirmed == len(self._channels):
                    self.up.set()
                    self._refused = False
                    for back in self._back:
                        back()
            elif message["type"] == "message":
                for callback in self._channels[message["channel"]]:
                    callback(message["data"])
            for alive in self._alive:
                alive(now - heard)
