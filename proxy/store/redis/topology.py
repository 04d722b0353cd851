"""Who is the primary, by Sentinel's word; which node has which slots, by the cluster's.

redis-py asks; nothing here is on a request's way.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from proxy.store.redis.access import FAILURES, Access, Address, let_go
from proxy.store.redis.link import NotServing, ended

log = logging.getLogger(__name__)

WATCH_EVERY: Final = 1.0
"""Seconds between two questions to the Sentinels: a primary that was replaced is left by then,
also where it does not know yet."""
SLOTS: Final = 16384


class _Sentinel:
    """One Sentinel. It is asked without a password, as they seldom have one, until it wants one:
    that is the servers' then."""

    def __init__(self, access: Access, address: Address) -> None:
        self.address = address
        self._access = access
        self._client = access.client(address, db=0, username=None, password=None)
        self._asked_for_password = False

    async def primary(self, name: str) -> Address | None:
        """The primary's address; None where it knows none of this name. Raises one of
        FAILURES."""
        try:
            found = await self._client.sentinel_get_master_addr_by_name(name)
        except AuthenticationError:
            if self._asked_for_password or self._access.password is None:
                raise
            self._asked_for_password = True
            await let_go(self._client)
            self._client = self._access.client(self.address, db=0)
            found = await self._client.sentinel_get_master_addr_by_name(name)
        return Address(_text(found[0]), int(found[1])) if isinstance(found, tuple) else None

    async def close(self) -> None:
        await let_go(self._client)


class Sentinels:
    """Asks the Sentinels in turn; the one that answered is the first to be asked next time."""

    def __init__(
        self,
        access: Access,
        nodes: Sequence[tuple[str, int]],
        master: str,
        on_change: Callable[[Address], None],
    ) -> None:
        """`on_change` hears the primary's address again and again, changed or not."""
        self._sentinels = [_Sentinel(access, Address(*node)) for node in nodes]
        self._master = master
        self._on_change = on_change
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def find(self) -> Address:
        """The primary's address. Raises NotServing."""
        troubles: list[str] = []
        for sentinel in list(self._sentinels):
            self._sentinels.remove(sentinel)
            self._sentinels.append(sentinel)  # last next time, unless it answers
            try:
                found = await sentinel.primary(self._master)
            except FAILURES as error:
                troubles.append(f"{sentinel.address}: {error}")
                continue
            if found is not None:
                self._sentinels.remove(sentinel)
                self._sentinels.insert(0, sentinel)
                return found
            troubles.append(f"{sentinel.address} knows nobody of this name")
        raise NotServing(f"no Sentinel names the primary {self._master}: {'; '.join(troubles)}")

    async def close(self) -> None:
        await ended(self._task)
        for sentinel in self._sentinels:
            await sentinel.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_EVERY)
            try:
                self._on_change(await self.find())
            except NotServing as error:
                log.debug("%s", error)


async def read_slots(client: Redis, asked: Address) -> list[Address | None]:
    """Slot → address of its primary, as `asked` has it. Raises one of FAILURES."""
    table: list[Address | None] = [None] * SLOTS
    ranges = await client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
    for first, last, primary, *_ in ranges:
        address = node_address(primary[0], primary[1], asked)
        table[first : last + 1] = [address] * (last + 1 - first)
    return table


def node_address(host: bytes | str | None, port: int, asked: Address) -> Address:
    """A node as another (`asked`) names it; one that does not know its own name leaves it out."""
    text = "" if host is None else _text(host)
    return Address(asked.host if text in ("", "?") else text, int(port))


def _text(word: bytes | str) -> str:
    return word.decode() if isinstance(word, bytes) else word
