"""Which endpoint gets the next request. Pure: weights in, an index out.

`round_robin` is smooth: with weights 5:1:1 the light endpoints come in between, not at the end.
`least_requests` takes the endpoint with the fewest requests in flight for its weight, and of
equals the one that waited longest, so that idle endpoints take turns.
"""

from collections.abc import Sequence
from typing import Literal, Protocol


class Balance(Protocol):
    """Chooses among endpoints, known by their place in the upstream's list."""

    def pick(self, in_flight: Sequence[int]) -> int:
        """The next endpoint's index. `in_flight`: its requests now, per endpoint."""


class _Only:
    """A single endpoint leaves nothing to choose."""

    __slots__ = ()

    def pick(self, in_flight: Sequence[int]) -> int:
        return 0


class RoundRobin:
    """Every endpoint gains its weight per turn; the one in front is taken and pays them all."""

    __slots__ = ("_credit", "_total", "_weights")

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = tuple(weights)
        self._total = sum(weights)
        self._credit = [0] * len(weights)

    def pick(self, in_flight: Sequence[int]) -> int:
        credit = self._credit
        best = 0
        for index, weight in enumerate(self._weights):
            credit[index] += weight
            if credit[index] > credit[best]:
                best = index
        credit[best] -= self._total
        return best


class LeastRequests:
    """The smallest (in flight + 1) / weight; ties go round."""

    __slots__ = ("_last", "_turn", "_weights")

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = tuple(weights)
        self._last = [0] * len(weights)
        self._turn = 0

    def pick(self, in_flight: Sequence[int]) -> int:
        weights = self._weights
        last = self._last
        best = 0
        for index in range(1, len(weights)):
            # a/w < b/v compared as a·v < b·w: whole numbers, no rounding.
            mine = (in_flight[index] + 1) * weights[best]
            theirs = (in_flight[best] + 1) * weights[index]
            if mine < theirs or (mine == theirs and last[index] < last[best]):
                best = index
        self._turn += 1
        last[best] = self._turn
        return best


def balance(kind: Literal["round_robin", "least_requests"], weights: Sequence[int]) -> Balance:
    """The balance of that name over endpoints of these weights (each at least 1)."""
    if len(weights) == 1:
        return _Only()
    return RoundRobin(weights) if kind == "round_robin" else LeastRequests(weights)
