"""What came lately, and came again: a memory of bounded size for what is dear to work out.

Rules:
- Only what comes a second time is worth being kept: `again` says when that is.
- There are two generations. What is asked for moves to the younger one; once that is full, it
  becomes the older one, whose rest is forgotten. So what is in use stays, and no step ever costs
  more than a few look-ups.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by key: at least the `most` used last, at most twice as many. 0 keeps nothing."""

    __slots__ = ("_most", "_old", "_once", "_young")

    def __init__(self, most: int) -> None:
        self._most = most
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self._once: dict[K, None] = {}
        """The keys that came once."""

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: K) -> V | None:
        """The value kept under a key, if it is."""
        found = self._young.get(key)
        if found is None and self._old:
            found = self._old.pop(key, None)
            if found is not None:
                self._keep(key, found)
        return found

    def again(self, key: K) -> bool:
        """Whether a key that `get` does not know came before, lately: it is worth a `put`."""
        once = self._once
        if key in once:
            del once[key]
            return True
        if self._most:
            if len(once) >= self._most:
                once.clear()
            once[key] = None
        return False

    def put(self, key: K, value: V) -> None:
        """Keeps a value."""
        if self._most:
            self._old.pop(key, None)
            self._keep(key, value)

    def clear(self) -> None:
        """Forgets everything."""
        self._young.clear()
        self._old.clear()
        self._once.clear()

    def _keep(self, key: K, value: V) -> None:
        if len(self._young) >= self._most:
            self._old = self._young
            self._young = {}
        self._young[key] = value
