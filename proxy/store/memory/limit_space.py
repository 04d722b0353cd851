"""What one limit counts in this process: the states of its keys, and when they fall idle.

Sizes are in keys: a key is 1, and 1 more for each `UNIT` bytes beyond what most states take
(`Algorithm.weight`).
"""

from collections import deque
from heapq import heappop, heappush
from typing import Any, Final

from proxy.core.limits.decision import State
from proxy.policy.limit_plans import LimitVariant

_SHARDS: Final = 256
_FINEST: Final = 20  # the narrowest bucket of the wheel is 2^20 µs, about a second

Shard = dict[bytes, State | None]
"""Key → state; None: forgotten, and still in the wheel."""
UNKNOWN: Any = object()
"""Stands for the state of a key that is not there."""


class Space:
    """One limit space: its keys' states, and a wheel of when they fall idle.

    The states lie in many small dicts rather than a large one, which would stop the process for
    tens of milliseconds whenever it has to grow.

    The wheel has each key once, filed under a time no earlier than when it falls idle as of the
    filing. What is charged later stays where it is until its bucket is due, and is then filed
    anew: a charge touches only the dict. A bucket is at most a sixteenth as wide as it is far
    away, so there are few buckets, however many keys.
    """

    __slots__ = ("_buckets", "ends", "shards", "size", "variant", "varies")

    def __init__(self, variant: LimitVariant) -> None:
        self.variant = variant
        """The one that charged last, which knows how to read the states. `serve` sets it."""
        self.varies = False
        """Whether some key may weigh more than another."""
        self.size = 0
        """What all keys weigh."""
        self.shards: tuple[Shard, ...] = tuple({} for _ in range(_SHARDS))
        """The dict that holds a key's state, if any does, by the key's last byte. States of keys
        that are there may be replaced; to add one, `put`."""
        self._buckets: dict[int, deque[bytes]] = {}
        self.ends: list[int] = []
        """A heap of the buckets' ends, µs since the epoch: the first says when a sweep is due."""

    def serve(self, variant: LimitVariant) -> None:
        """From now on `variant` charges."""
        self.variant = variant
        self.varies = self.varies or variant.algorithm.varies(variant.params)

    def weight(self, state: State | None) -> int:
        """What a key of this state weighs."""
        return 1 if state is None else self.variant.algorithm.weight(state)

    def get(self, key: bytes) -> State | None:
        """The key's state, None where it is new."""
        return self.shards[key[-1]].get(key)

    def put(self, key: bytes, state: State, now: int) -> int:
        """Keeps the state of a key that is not there yet; returns what it weighs."""
        self.shards[key[-1]][key] = state
        weight = self.weight(state)
        self.size += weight
        self._file(key, self.variant.algorithm.idle_at(state, self.variant.params, now), now)
        return weight

    def forget(self, key: bytes) -> int:
        """Makes the key new, if it is here; it keeps its place in the wheel. Returns what is
        freed."""
        states = self.shards[key[-1]]
        if key not in states:
            return 0
        freed = self.weight(states[key]) - 1
        states[key] = None
        self.size -= freed
        return freed

    def sweep(self, now: int, steps: int, most: int) -> int:
        """Looks at `steps` keys at most, drops idle ones until `most` is freed; returns what is.

        Keys of buckets that are due come first; then, as part of it may be idle already, the next.
        """
        freed = 0
        ends = self.ends
        while ends and steps > 0 and freed < most:
            steps -= 1
            bucket = self._buckets[ends[0]]
            if not bucket:
                del self._buckets[heappop(ends)]
                continue
            key = bucket.popleft()
            states = self.shards[key[-1]]
            state = states[key]
            idle_at = 0
            if state is not None:
                idle_at = self.variant.algorithm.idle_at(state, self.variant.params, now)
            if idle_at <= now:
                del states[key]
                freed += self.weight(state)
            else:
                self._file(key, idle_at, now)
        self.size -= freed
        return freed

    def set_back(self, now: int) -> None:
        """The clock was set back, to `now`: every bucket is due. What was filed for a time that is
        far ahead now would stay until then, though it is idle."""
        buckets = [self._buckets[end] for end in sorted(self.ends)]
        first = now - len(buckets)
        self.ends = list(range(first, now))
        self._buckets = dict(zip(self.ends, buckets, strict=True))

    def _file(self, key: bytes, idle_at: int, now: int) -> None:
        width = max(_FINEST, (idle_at - now).bit_length() - 5)
        end = ((idle_at >> width) + 1) << width
        bucket = self._buckets.get(end)
        if bucket is None:
            bucket = self._buckets[end] = deque()
            heappush(self.ends, end)
        bucket.append(key)
