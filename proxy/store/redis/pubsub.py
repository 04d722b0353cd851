"""Subscriptions: one connection of redis-py for all channels of a road, renewed when it is lost.

Messages may be missed while it is down, and nobody can tell how many: every loss is told.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from redis.exceptions import RedisError

from proxy.store.redis.access import Access, Address, let_go
from proxy.store.redis.link import NotServing, ended

log = logging.getLogger(__name__)

PING_EVERY: Final = 2.0
"""Seconds of silence after which the server is asked for a sign of life; twice that ends it."""
_WAIT: Final = 0.3  # seconds between two attempts


class Subscriptions:
    """What one road listens to. Connects once there is a channel."""

    def __init__(self, access: Access, find: Callable[[], Awaitable[Address]]) -> None:
        self._access = access
        self._find = find
        self._channels: dict[bytes, list[Callable[[bytes], None]]] = {}
        self._lost: list[Callable[[], None]] = []
        self._back: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self.up = asyncio.Event()
        """Every channel is subscribed to."""

    def add(
        self,
        channel: str,
        callback: Callable[[bytes], None],
        lost: Callable[[], None],
        back: Callable[[], None] | None = None,
    ) -> None:
        self._channels.setdefault(channel.encode(), []).append(callback)
        self._lost.append(lost)
        if back is not None:
            self._back.append(back)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        if self._task is not None:
            await ended(self._task)

    async def _keep(self) -> None:
        while True:
            try:
                await self._listen()
            except (RedisError, OSError, TimeoutError, NotServing) as error:
                log.debug("redis: no subscription: %s", error)
            except Exception:  # one that ends here would never listen again
                log.exception("redis: the subscription failed")
            if self.up.is_set():
                self.up.clear()
                for lost in self._lost:
                    lost()
            await asyncio.sleep(_WAIT)

    async def _listen(self) -> None:
        client = self._access.client(await self._find())
        pubsub = client.pubsub()
        try:
            await self._read(pubsub)
        finally:
            try:
                await let_go(pubsub)
            finally:
                await let_go(client)

    async def _read(self, pubsub: Any) -> None:
        heard = time.monotonic()
        asked = False
        subscribed: set[bytes] = set()
        confirmed = 0
        while True:
            if missing := self._channels.keys() - subscribed:
                self.up.clear()
                await pubsub.subscribe(*missing)
                subscribed |= missing
            message = await pubsub.get_message(timeout=PING_EVERY / 4)
            now = time.monotonic()
            if message is None:
                if now - heard > 2 * PING_EVERY:
                    raise TimeoutError
                if now - heard > PING_EVERY and not asked:
                    await pubsub.ping()
                    asked = True
                continue
            heard, asked = now, False
            if message["type"] == "subscribe":
                confirmed += 1
                if confirmed == len(self._channels):
                    self.up.set()
                    for back in self._back:
                        back()
            elif message["type"] == "message":
                for callback in self._channels[message["channel"]]:
                    callback(message["data"])
