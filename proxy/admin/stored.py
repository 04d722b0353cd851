"""What is stored under a key, as an operator may see it: figures, tags and the names of fields,
never a field's value or a body."""

from collections.abc import Iterable
from typing import Any

from proxy.store.memory.cache import Held


def described(shelf: Iterable[Held], now: int) -> list[dict[str, Any]]:
    """Each variant; `now` in ms since the epoch. `fresh_s` is negative once it is stale."""
    return [
        {
            "status": held.stored.status,
            "vary": [name for name, _ in held.stored.vary],
            "age_s": held.stored.age(now) // 1000,
            "fresh_s": held.stored.left(now) // 1000,
            "bytes": held.size,
            "tags": [text(tag) for tag in held.stored.tags if not tag.startswith("\0")],
        }
        for held in shelf
    ]


def text(wire: str) -> str:
    """Wire text as an operator would write it."""
    return wire.encode("latin-1").decode("utf-8", "replace")
