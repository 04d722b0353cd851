"""Which endpoint gets the next request. Pure: weights in, an index out.

`round_robin` is smooth: with weights 5:1:1 the light endpoints come in between, not at the end.
`least_requests` takes the endpoint with the fewest requests in flight for its weight, and of
equals the one that waited longest, so that idle endpoints take turns.
`hash` gives a key always the same endpoint, by weighted rendezvous hashing (Schindelhauer and
Schomaker, "Weighted Distributed Hash Tables", 2005): every endpoint draws a lot for the key, and
the best lot wins.

Rules:
- Only usable endpoints are taken. One that is out pays and gains nothing, so it comes back to its
  share, not to a burst of what it missed.
- hash: a lost endpoint moves only its own keys, and to the others by their weights; with it back
  they return. What is drawn depends on the key and the endpoint's name alone: not on the order of
  the list, nor on the process, so replicas and workers agree without a word.
"""

from collections.abc import Sequence
from hashlib import blake2b
from math import inf, log
from typing import Final, Literal, Protocol

Kind = Literal["round_robin", "least_requests", "hash"]

_PARTS: Final = 2**16
_64_BITS: Final = 2**64 - 1


class Balance(Protocol):
    """Chooses among endpoints, known by their place in the upstream's list."""

    def pick(self, in_flight: Sequence[int], usable: tuple[int, ...], affinity: int) -> int:
        """The next endpoint's index, one of `usable` (never empty, in ascending order; cheapest
        where it is the very tuple of the pick before).

        `in_flight`: its requests now, per endpoint. `affinity`: 64 evenly spread bits of what
        should stay with one endpoint, such as the first 8 bytes of a key's digest; only `hash`
        reads it.
        """


class _Only:
    """A single endpoint leaves nothing to choose."""

    __slots__ = ()

    def pick(self, in_flight: Sequence[int], usable: tuple[int, ...], affinity: int) -> int:
        return 0


class RoundRobin:
    """Every usable endpoint gains its share of a request per turn; the one in front is taken and
    pays them all.

    Credit is what an endpoint is owed, so it means the same whoever else is usable: when a heavy
    endpoint goes, the light ones owe each other a request, not a round. It is counted in whole
    parts of a request, exact while all are usable.
    """

    __slots__ = ("_credit", "_gains", "_total", "_usable", "_weights")

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = tuple(weights)
        self._credit = [0] * len(weights)
        self._share(tuple(range(len(weights))))

    def pick(self, in_flight: Sequence[int], usable: tuple[int, ...], affinity: int) -> int:
        if usable is not self._usable:
            self._share(usable)
        credit = self._credit
        best = -1
        most = 0
        for index, gain in self._gains:
            credit[index] = mine = credit[index] + gain
            if best < 0 or mine > most:
                best, most = index, mine
        credit[best] -= self._total
        return best

    def _share(self, usable: tuple[int, ...]) -> None:
        """Divides a request among `usable` by weight."""
        weights = self._weights
        request = sum(weights) * _PARTS
        among = sum(weights[index] for index in usable)
        self._usable = usable
        self._gains = tuple((index, request * weights[index] // among) for index in usable)
        self._total = sum(gain for _, gain in self._gains)


class LeastRequests:
    """The smallest (in flight + 1) / weight; ties go round."""

    __slots__ = ("_last", "_turn", "_weights")

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = tuple(weights)
        self._last = [0] * len(weights)
        self._turn = 0

    def pick(self, in_flight: Sequence[int], usable: tuple[int, ...], affinity: int) -> int:
        weights = self._weights
        last = self._last
        best = usable[0]
        for index in usable:
            # a/w < b/v compared as a·v < b·w: whole numbers, no rounding.
            mine = (in_flight[index] + 1) * weights[best]
            theirs = (in_flight[best] + 1) * weights[index]
            if mine < theirs or (mine == theirs and last[index] < last[best]):
                best = index
        self._turn += 1
        last[best] = self._turn
        return best


class Hash:
    """The largest log(lot) / weight, the lots evenly spread over (0, 1].

    -log(lot) / weight is exponentially distributed with the weight as its rate, and the smallest
    of such is each one's in proportion to its rate.
    """

    __slots__ = ("_draws",)

    def __init__(self, weights: Sequence[int], names: Sequence[str]) -> None:
        draws = []
        for index, (weight, name) in enumerate(zip(weights, names, strict=True)):
            # An endpoint that is listed twice has two lots, or the second would never win.
            again = names[:index].count(name)
            seed = blake2b(f"{again}:{name}".encode(), digest_size=16).digest()
            mask = int.from_bytes(seed[:8], "big")
            factor = int.from_bytes(seed[8:], "big") | 1
            draws.append((mask, factor, 1 / weight))
        self._draws = tuple(draws)

    def pick(self, in_flight: Sequence[int], usable: tuple[int, ...], affinity: int) -> int:
        draws = self._draws
        best = -1
        most = -inf
        for index in usable:
            mask, factor, share = draws[index]
            # The halves of a 128-bit product, folded: one multiplication spreads both well.
            product = (affinity ^ mask) * factor
            lot = ((product >> 64 ^ product) & _64_BITS | 1) * 2.0**-64
            mine = log(lot) * share
            if mine > most:
                best, most = index, mine
        return best


def balance(kind: Kind, weights: Sequence[int], names: Sequence[str]) -> Balance:
    """The balance of that name over endpoints of these weights (each at least 1) and names.

    `names`: what an endpoint is known by wherever it is listed, such as its URL.
    """
    if len(weights) == 1:
        return _Only()
    match kind:
        case "round_robin":
            return RoundRobin(weights)
        case "least_requests":
            return LeastRequests(weights)
        case "hash":
            return Hash(weights, names)
