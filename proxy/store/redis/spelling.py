"""How calls of lua/admit.lua and lua/refund.lua are spelt: the names of the charges' keys, the one
argument that all the rest is packed into, and, where nothing has to be looked at on the way, the
whole call as it goes over the wire.

Rules:
- What is the same for every call about a limit is spelt once; a call adds the caller's key.
- `command` and `names` with `argument` say the same: the command is what packing those would give.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Final

from proxy.core.limits import ALGORITHMS
from proxy.policy.snapshot import LimitVariant
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
_REMEMBERED: Final = 10_000
_COSTS: Final = 64
_CHARGE_NOW: Final = _ORDER.pack(CHARGE, SERVERS_CLOCK)


class _Words:
    """A variant as calls spell it: its keys' names around the caller's part, its packed charges."""

    __slots__ = ("_charges", "_packed", "after", "alone", "before", "tail", "variant")

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
        self.alone: tuple[int, bool, tuple[bytes, bytes]] | None = None
        """Of the last call about this limit alone: its cost, whether it was in shadow, and what
        stood around the caller's part."""

    def charge(self, cost: int, shadow: bool) -> bytes:
        """A charge as the scripts read it."""
        known = self._charges.get((cost, shadow))
        if known is None:
            number = _NUMBERS[self.variant.algorithm.name]
            known = _PACKED.pack(number, shadow, cost, *self._packed)
            if len(self._charges) < _COSTS:  # costs come from headers, too
                self._charges[cost, shadow] = known
        return known


class Spelling:
    """Spells charges for calls of `admit`, a script that takes a key for each."""

    __slots__ = ("_admit", "_keys", "_openings", "_words")

    def __init__(self, keys: LimitKeys, admit: Script) -> None:
        self._keys = keys
        self._admit = admit
        self._openings: dict[int, tuple[bytes, bytes]] = {}
        self._words: dict[int, _Words] = {}

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
        """The call that charges them at the server's time, packed."""
        if len(charges) == 1:
            charge = charges[0]
            before, after = self._around(charge)
            return before + key_text(charge.key) + after
        opening = self._openings.get(len(charges))
        if opening is None:
            opening = self._openings[len(charges)] = self._opening(len(charges))
        parts = [opening[0]]
        words = [opening[1]]
        for charge in charges:
            spelt = self._spelt(charge.variant)
            parts.append(spelt.before)
            parts.append(key_text(charge.key))
            parts.append(spelt.after)
            words.append(spelt.charge(charge.cost, charge.shadow))
        words.append(b"\r\n")
        return b"".join(parts + words)

    def _around(self, charge: Charge) -> tuple[bytes, bytes]:
        """What stands around the caller's key in a call about this charge alone."""
        spelt = self._words.get(id(charge.variant)) or self._spelt(charge.variant)
        alone = spelt.alone
        if alone is not None and alone[0] == charge.cost and alone[1] == charge.shadow:
            return alone[2]
        head, argument = self._opening(1)
        word = spelt.charge(charge.cost, charge.shadow)
        around = head + spelt.before, b"%b%b%b\r\n" % (spelt.after, argument, word)
        spelt.alone = charge.cost, charge.shadow, around
        return around

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
