"""Who is the primary, by Sentinel's word; which node has which slots, by the cluster's.

redis-py asks; nothing here is on a request's way.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from proxy.store.redis.access import Access, Address
from proxy.store.redis.link import NotServing

log = logging.getLogger(__name__)

WATCH_EVERY: Final = 1.0
"""Seconds between two questions to the Sentinels: a primary that was replaced is left by then,
also where it does not know yet."""
SLOTS: Final = 16384


class Sentinels:
    """Asks the Sentinels in turn; the one that answered is the first to be asked next time."""

    def __init__(
        self,
        access: Access,
        nodes: Sequence[tuple[str, int]],
        master: str,
        on_change: Callable[[Address], None],
    ) -> None:
        self._access = access
        self._nodes = list(nodes)
        self._master = master
        self._on_change = on_change
        self._open = self._make(with_password=False)
        self._task = asyncio.get_running_loop().create_task(self._watch())

    def _make(self, *, with_password: bool) -> Sentinel:
        more: dict[str, Any] = {"db": 0}
        if not with_password:
            more |= {"username": None, "password": None}
        sentinel = Sentinel([])  # type: ignore[no-untyped-call]
        sentinel.sentinels = [
            self._access.client(Address(host, port), **more) for host, port in self._nodes
        ]
        return sentinel

    async def find(self) -> Address:
        """The primary's address. Raises NotServing."""
        try:
            try:
                host, port = await self._open.discover_master(self._master)
            except (AuthenticationError, ResponseError):
                # Sentinels seldom have a password. Where they have, it is the servers'.
                if self._access.password is None:
                    raise
                await self._close_clients()
                self._open = self._make(with_password=True)
                host, port = await self._open.discover_master(self._master)
        except (RedisError, OSError) as error:
            raise NotServing(f"no Sentinel names a primary: {error}") from None
        return Address(host, int(port))

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._close_clients()

    async def _close_clients(self) -> None:
        for client in self._open.sentinels:
            await client.aclose()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_EVERY)
            try:
                self._on_change(await self.find())
            except NotServing as error:
                log.debug("%s", error)


async def read_slots(client: Redis, asked: Address) -> list[Address | None]:
    """Slot → address of its primary, as `asked` has it. Raises RedisError or OSError."""
    table: list[Address | None] = [None] * SLOTS
    ranges = await client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
    for first, last, primary, *_ in ranges:
        address = node_address(primary[0], primary[1], asked)
        table[first : last + 1] = [address] * (last + 1 - first)
    return table


def node_address(host: bytes | str | None, port: int, asked: Address) -> Address:
    """A node as another (`asked`) names it; one that does not know its own name leaves it out."""
    text = host.decode() if isinstance(host, bytes) else host
    return Address(text if text not in (None, "", "?") else asked.host, int(port))
