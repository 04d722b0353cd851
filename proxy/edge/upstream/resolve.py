"""An endpoint's addresses: its name looked up at first use and every `dns_refresh`.

- A literal address is its own answer and is never looked up.
- Connections begin at each address in turn, so all are used; the others follow as fallbacks.
- While lookups fail, the last good answer stands. Without any answer yet, the failure is the
  caller's, and the next call tries again.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection
from ipaddress import ip_address

Lookup = Callable[[str], Awaitable[Collection[str]]]


class Addresses:
    """The addresses of one `host`, refreshed every `refresh` seconds after the first use.

    `changed` is told the new addresses whenever they differ from the ones before.
    """

    __slots__ = ("_changed", "_first", "_host", "_known", "_refresh", "_task", "_turn", "lookup")

    def __init__(
        self, host: str, refresh: float, changed: Callable[[Collection[str]], None]
    ) -> None:
        self._host = host
        self._refresh = refresh
        self._changed = changed
        self._known: tuple[str, ...] = (host,) if _is_literal(host) else ()
        self._first: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._turn = 0
        self.lookup: Lookup = system_lookup

    async def candidates(self) -> tuple[str, ...]:
        """Every address, beginning at the next one's turn. Raises OSError."""
        if not self._known:
            await self._look_up()
        known = self._known
        turn = self._turn % len(known)
        self._turn = turn + 1
        return known[turn:] + known[:turn]

    def close(self) -> None:
        """Ends the lookups."""
        for task in (self._first, self._task):
            if task is not None:
                task.cancel()

    async def _look_up(self) -> None:
        """The first lookup, shared by all who wait for it; one who leaves does not end it."""
        if self._first is None:
            self._first = asyncio.create_task(self._start())
            self._first.add_done_callback(self._started)
        await asyncio.shield(self._first)

    async def _start(self) -> None:
        self._known = await self._resolve()
        if self._task is None:
            self._task = asyncio.create_task(self._keep())

    def _started(self, task: asyncio.Task[None]) -> None:
        self._first = None
        if not task.cancelled():
            task.exception()  # told to whoever waits; nobody may be left

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._refresh)
            try:
                answer = await self._resolve()
            except OSError:
                continue
            if set(answer) != set(self._known):
                self._known = answer
                self._changed(answer)

    async def _resolve(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(await self.lookup(self._host)))


async def system_lookup(host: str) -> list[str]:
    """The addresses that the system's resolver knows for `host`. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
