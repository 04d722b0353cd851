"""How calls of lua/admit.lua and lua/refund.lua are spelt: the names of the charges' keys, the one
argument that all the rest is packed into, and, where nothing has to be looked at on the way, the
whole call as it goes over the wire.

Rules:
- What is the same for every call about the same limits is spelt once; a call adds the keys.
- `command` and `names` with `argument` say the same: the command is what packing those would give.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Final

from proxy.core.limits import ALGORITHMS
from proxy.policy.limit_plans import LimitVariant
from proxy.store.charge import Charge
from proxy.store.keys import KEY_LENGTH, LimitKeys, key_text
from proxy.store.scripts import Script

# What a call of lua/admit.lua is for, as it says.
CHARGE: Final = 1
PEEK: Final = 2
REFUSED: Final = 3

SERVERS_CLOCK: Final = -1
"""In place of a time: the server's."""

# As lua/include/charges.lua reads them.
_ORDER: Final = Struct("<dd")
_PACKED: Final = Struct("<BBddddd")
_NUMBERS: Final = {name: number for number, name in enumerate(ALGORITHMS, 1)}
_PLAIN_BUCKET: Final = 6
_REMEMBERED: Final = 10_000
_CALLS: Final = 1_000
"""Calls that are remembered but for their keys, of some hundred bytes each."""
_COSTS: Final = 64
_CHARGE_NOW: Final = _ORDER.pack(CHARGE, SERVERS_CLOCK)


class _Words:
    """A variant as calls spell it: its keys' names around the caller's part, its packed charges."""

    __slots__ = ("_charges", "_packed", "after", "before", "tail", "variant")

    def __init__(self, variant: LimitVariant, keys: LimitKeys) -> None:
        params = variant.params
        self.variant = variant
        self.tail = tail = keys.tail(variant.space)
        self.before = b"$%d\r\n%b" % (len(keys.head) + KEY_LENGTH + len(tail), keys.head)
        self.after = tail + b"\r\n"
        self._packed = (
            params.amount,
            params.period,
            getattr(params, "tick", 0),
            getattr(params, "volume", 0),
        )
        self._charges: dict[tuple[int, bool], bytes] = {}

    def charge(self, cost: int, shadow: bool) -> bytes:
        """A charge as the scripts read it."""
        known = self._charges.get((cost, shadow))
        if known is None:
            name = self.variant.algorithm.name
            plain = name == "token_bucket" and not self.variant.params.refundable
            number = _PLAIN_BUCKET if plain else _NUMBERS[name]
            known = _PACKED.pack(number, shadow, cost, *self._packed)
            if len(self._charges) < _COSTS:  # costs come from headers, too
                self._charges[cost, shadow] = known
        return known


class _Call:
    """A call but for its keys: `pieces` stand before, between and behind them. It holds the
    variants, so nothing else gets their ids."""

    __slots__ = ("_variants", "pieces")

    def __init__(self, charges: Sequence[Charge], pieces: list[bytes]) -> None:
        self._variants = [charge.variant for charge in charges]
        self.pieces = pieces


class Spelling:
    """Spells charges for calls of `admit`, a script that takes a key for each."""

    __slots__ = ("_admit", "_calls", "_keys", "_words")

    def __init__(self, keys: LimitKeys, admit: Script) -> None:
        self._keys = keys
        self._admit = admit
        self._words: dict[int, _Words] = {}
        self._calls: dict[tuple[int, ...], _Call] = {}
        """By all charges of the call: the id of each one's variant, and its cost, inverted in
        shadow."""

    def names(self, charges: Sequence[Charge]) -> list[bytes]:
        """The names of the charges' keys."""
        keys = self._keys
        return [keys.name(charge.key, self._spelt(charge.variant).tail) for charge in charges]

    def words(self, charges: Sequence[Charge]) -> list[bytes]:
        """The charges as the scripts read them."""
        return [
            self._spelt(charge.variant).charge(charge.cost, charge.shadow) for charge in charges
        ]

    def argument(self, order: int, now: int, words: Sequence[bytes]) -> bytes:
        """The argument of a call about these charges. `order`: what a call of admit.lua is for, or
        for refund.lua when they were charged; times are µs since the epoch."""
        return b"".join((_ORDER.pack(order, now), *words))

    def command(self, charges: Sequence[Charge]) -> bytes:
        """The call that charges them (one or more) at the server's time, packed."""
        known = []
        for charge in charges:
            known.append(id(charge.variant))
            known.append(~charge.cost if charge.shadow else charge.cost)
        call = tuple(known)
        spelt = self._calls.get(call)
        if spelt is None:
            if len(self._calls) >= _CALLS:
                self._calls.clear()
            spelt = self._calls[call] = _Call(charges, self._pieces(charges))
        pieces = spelt.pieces
        parts = [pieces[0]]
        for place, charge in enumerate(charges, 1):
            parts.append(key_text(charge.key))
            parts.append(pieces[place])
        return b"".join(parts)

    def _pieces(self, charges: Sequence[Charge]) -> list[bytes]:
        opening, argument = self._opening(len(charges))
        pieces = [opening]
        for charge in charges:
            spelt = self._spelt(charge.variant)
            pieces[-1] += spelt.before
            pieces.append(spelt.after)
        pieces[-1] += b"".join((argument, *self.words(charges), b"\r\n"))
        return pieces

    def _opening(self, count: int) -> tuple[bytes, bytes]:
        """How a call about so many charges begins (RESP: an array of strings), and its argument,
        which comes after the keys."""
        self._admit.check(count, 1)
        number = b"%d" % count
        sha = self._admit.sha.encode()
        strings = b"".join(
            [b"$%d\r\n%b\r\n" % (len(string), string) for string in (b"EVALSHA", sha, number)]
        )
        size = _ORDER.size + _PACKED.size * count
        return b"*%d\r\n%b" % (3 + count + 1, strings), b"$%d\r\n%b" % (size, _CHARGE_NOW)

    def _spelt(self, variant: LimitVariant) -> _Words:
        known = self._words
        spelt = known.get(id(variant))
        if spelt is None:
            if len(known) > _REMEMBERED:  # variants of snapshots that are gone
                known.clear()
            # It holds the variant, so nothing else gets this id.
            spelt = known[id(variant)] = _Words(variant, self._keys)
        return spelt
