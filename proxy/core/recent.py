"""What came lately, and came again: a memory of bounded size for what is dear to work out.

Rules:
- Only what comes a second time is worth being kept: `again` says when that is. Of what came once
  only the key's hash is kept; two keys of one hash make the second be kept a bit early.
- There are two generations. What is asked for moves to the younger one; once that is full, it
  becomes the older one, whose rest is forgotten. So what is in use stays, and no step ever costs
  more than a few look-ups.
- A generation is full by number or by weight. Two generations weigh at most `most_bytes` together.
"""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by key: at least the `most` used last, if they do not weigh too much, at most twice as
    many. 0 keeps nothing. `weigh` gives the bytes that an entry holds."""

    __slots__ = ("_most", "_most_bytes", "_old", "_once", "_weigh", "_weight", "_young")

    def __init__(self, most: int, most_bytes: int, weigh: Callable[[K, V], int]) -> None:
        self._most = most
        self._most_bytes = most_bytes // 2
        """Of one generation."""
        self._weigh = weigh
        self._young: dict[K, V] = {}
        self._weight = 0
        """Of the younger generation."""
        self._old: dict[K, V] = {}
        self._once: set[int] = set()
        """The hashes of keys that came once."""

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
        mark = hash(key)
        if mark in once:
            once.discard(mark)
            return True
        if self._most:
            if len(once) >= self._most:
                once.clear()
            once.add(mark)
        return False

    def put(self, key: K, value: V) -> None:
        """Keeps a value."""
        if self._most:
            self._old.pop(key, None)
            self._keep(key, value)

    def grew(self, weight: int) -> None:
        """A value that was just asked for holds so many bytes more than when it was weighed."""
        self._weight += weight

    def clear(self) -> None:
        """Forgets everything."""
        self._young.clear()
        self._weight = 0
        self._old.clear()
        self._once.clear()

    def _keep(self, key: K, value: V) -> None:
        weight = self._weigh(key, value)
        if len(self._young) >= self._most or self._weight + weight > self._most_bytes:
            self._old = self._young
            self._young = {}
            self._weight = 0
        self._young[key] = value
        self._weight += weight
