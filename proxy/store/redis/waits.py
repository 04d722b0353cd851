"""WAIT on one connection: how many replicas have what was written over it.

Rules:
- WAIT counts for what its own connection wrote before it, so it goes out there or not at all.
- One is under way at a time, as it holds up whatever follows on the connection. Those that are
  asked for meanwhile share the next one, which is about all that was written until then.
- A server ends it late: it looks at those who wait ten times a second (`hz`).
"""

import asyncio
from functools import partial
from typing import Any, Final

from proxy.store.ports import StoreError
from proxy.store.redis.connection import Connection, pack

_ROUGHLY: Final = 0.2
"""Seconds that a server may take longer than it was told."""


def patience(timeout: float) -> float:
    """Seconds until a WAIT of `timeout`, and what it holds up, is surely answered."""
    return 2 * timeout + _ROUGHLY


class Waits:
    """The WAITs of one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._under_way = False
        self._next: list[asyncio.Future[Any]] = []
        self._replicas = 0
        self._timeout = 0.0

    def ask(self, replicas: int, timeout: float) -> "asyncio.Future[Any]":
        """How many replicas have what was sent before this: `replicas` or more, or how many there
        are after `timeout` seconds. The result is that, an ErrorReply or a StoreError."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._next.append(future)
        self._replicas = max(self._replicas, replicas)
        self._timeout = max(self._timeout, timeout)
        if not self._under_way:
            self._send()
        return future

    def _send(self) -> None:
        asked, self._next = self._next, []
        replicas, self._replicas = self._replicas, 0
        timeout, self._timeout = self._timeout, 0.0
        command = pack((b"WAIT", replicas, max(1, round(timeout * 1000))))  # 0 is for ever
        try:
            waiting = self._connection.call(command, patience(timeout))
        except StoreError as error:
            _answer(asked, error)
            return
        self._under_way = True
        waiting.add_done_callback(partial(self._answered, asked))

    def _answered(self, asked: "list[asyncio.Future[Any]]", waiting: "asyncio.Future[Any]") -> None:
        self._under_way = False
        if self._next:
            self._send()
        _answer(asked, waiting.result())


def _answer(asked: "list[asyncio.Future[Any]]", reply: Any) -> None:
    for future in asked:
        if not future.done():
            future.set_result(reply)
