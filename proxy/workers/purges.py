"""Purges as the supervisor passes them on: by one worker where the store tells all the others, by
each where every process has only its own."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from proxy.store.ports import Purge, StoreError
from proxy.workers.channel import Lost, Refused, Worker

_SECONDS: Final = 10.0


async def purge(posts: Sequence[Worker], purge: Purge, *, shared: bool) -> None:
    """Has it done. Raises StoreError where that is not certain."""
    ready = [post for post in posts if post.ready]
    if not shared:
        await asyncio.gather(*(_ask(post, purge) for post in ready))
        return
    for post in ready:
        if await _ask(post, purge):
            return
    raise StoreError("down", "no worker is there to tell the store")


async def _ask(post: Worker, purge: Purge) -> bool:
    """Whether the worker did it; False where it is gone, and what it had with it."""
    try:
        await post.ask("purge", _SECONDS, **packed(purge))
    except Lost:
        return False
    except TimeoutError:
        raise StoreError("timeout", "a worker did not answer") from None
    except Refused as refused:
        raise StoreError("down", str(refused)) from refused
    return True


def packed(purge: Purge) -> dict[str, Any]:
    """A purge as an order can carry it."""
    return {"tags": purge.tags, "prefix": purge.prefix, "soft": purge.soft}


def unpacked(order: dict[str, Any]) -> Purge:
    """The other way."""
    return Purge(tuple(order["tags"]), order["prefix"], order["soft"])
