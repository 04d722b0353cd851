"""Counts of results over the last seconds.

The window is the running second and the whole ones before it, `length` in all: so it reaches back
between `length - 1` and `length` seconds. Seconds are those of the clock, not of the first result.
"""

from collections import deque
from math import ceil
from typing import NamedTuple


class Counts(NamedTuple):
    total: int
    failed: int
    slow: int
    """Successes that took too long."""


_NONE = Counts(0, 0, 0)


class Window:
    """`total`, `failed` and `slow` are those of the last `add` or `counts`. Beside them it keeps
    what had been counted since ever when each second of the window began: a result costs one
    addition, a second one tuple, whatever the length and the traffic."""

    __slots__ = ("_marks", "_next", "_second", "failed", "slow", "total")

    def __init__(self, length: float) -> None:
        """`length`: seconds; a part of one counts as a whole one."""
        self._marks: deque[Counts] = deque(maxlen=max(1, ceil(length)))
        self.clear()

    def clear(self) -> None:
        self.total = self.failed = self.slow = 0
        self._second = 0
        self._next = 1.0
        self._marks.extend([_NONE] * (self._marks.maxlen or 1))

    def add(self, now: float, failed: bool, slow: bool) -> None:
        if now >= self._next:
            self._roll(now)
        self.total += 1
        self.failed += failed
        self.slow += slow

    def counts(self, now: float) -> Counts:
        if now >= self._next:
            self._roll(now)
        return Counts(self.total, self.failed, self.slow)

    def _roll(self, now: float) -> None:
        """Begins the second of `now`; those that leave the window take their counts along."""
        second = int(now)
        marks = self._marks
        gone = marks[0]
        ever = Counts(gone.total + self.total, gone.failed + self.failed, gone.slow + self.slow)
        marks.extend([ever] * min(second - self._second, marks.maxlen or 1))
        gone = marks[0]
        self.total = ever.total - gone.total
        self.failed = ever.failed - gone.failed
        self.slow = ever.slow - gone.slow
        self._second = second
        self._next = second + 1.0
