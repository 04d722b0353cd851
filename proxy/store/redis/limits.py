"""Limits counted in Redis: one call of lua/admit.lua per request, whatever the number of limits.

Rules:
- The server decides, by its clock: all or none. What it cannot be asked is a StoreError, never an
  admission.
- In a cluster, charges in several slots go in groups, one after another in a fixed order: enforced
  ones by slot, those with a leaky_bucket last (it cannot be refunded), then the shadow ones, which
  are charged only if all the others admit. A refusal refunds the groups before it, and only asks
  those after it. Others may be refused for that moment; nobody is admitted beyond a limit.
- A denial is remembered for a moment; see `proxy.store.redis.denials`.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, Final

from proxy.core.limits.decision import NOT_ASKED, Decision
from proxy.store.charge import Charge
from proxy.store.keys import LimitKeys
from proxy.store.ports import StoreError
from proxy.store.redis.connection import ErrorReply
from proxy.store.redis.denials import Denials
from proxy.store.redis.road_port import Direct, Road
from proxy.store.redis.spelling import CHARGE, PEEK, REFUSED, SERVERS_CLOCK, Spelling
from proxy.store.scripts import Script, script

# Read when the program starts: never on the event loop.
_ADMIT: Final = script("admit")
_REFUND: Final = script("refund")
_RESET: Final = script("reset")
# Answers as lua/admit.lua packs them.
_TIME: Final = Struct("<d")
_ANSWERED: Final = Struct("<ddd")
_ALONE: Final = Struct("<dddd")


class _Asked:
    """A request's charges (or some of them) as a call names them."""

    __slots__ = ("charges", "names", "words")

    def __init__(
        self, charges: Sequence[Charge], names: Sequence[bytes], words: Sequence[bytes]
    ) -> None:
        self.charges = charges
        self.names = names
        self.words = words

    def part(self, places: Sequence[int]) -> "_Asked":
        return _Asked(
            [self.charges[p] for p in places],
            [self.names[p] for p in places],
            [self.words[p] for p in places],
        )


class RedisLimits:
    """A LimitStore over a Road, which it closes with itself.

    `timeout`: seconds for a whole request where it takes several calls; None is the road's own
    for each. `now` gives µs since the epoch in place of the server's clock, for tests.
    """

    def __init__(
        self,
        road: Road,
        prefix: str,
        *,
        timeout: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], int] | None = None,
        max_remembered: int = 10_000,
    ) -> None:
        self._road = road
        self._keys = LimitKeys(prefix)
        self._timeout = timeout
        self._monotonic = monotonic
        self._now = now
        self._spelling = Spelling(self._keys, _ADMIT)
        self._denials = Denials(monotonic, max_remembered)
        self.asked = 0
        """As `SharedLimits` says."""
        self._background: set[asyncio.Task[None]] = set()
        denials = self._denials
        road.subscribe(self._keys.reset_channel, denials.forget, denials.forget_all)

    async def admit(self, charges: Sequence[Charge]) -> list[Decision]:
        """As the port says. Raises StoreError; where it does, what was charged is given back."""
        if not charges:
            return []
        denials = self._denials
        if denials:
            remembered = denials.answer(charges, self._spelling.names(charges))
            if remembered is not None:
                return remembered
        at = self._monotonic()
        forgotten = denials.forgotten
        direct = self._road.direct
        if direct is None or self._now is not None:
            asked = self._spelt(charges)
            if len(charges) > 1 and self._road.cluster:
                slots = [self._road.slot(name) for name in asked.names]
                if slots.count(slots[0]) != len(slots):
                    return await self._admit_groups(asked, slots)
            decisions, when = await self._ask(_ADMIT, CHARGE, asked.names, asked.words)
        else:
            decisions, when = await self._ask_directly(direct, charges)
        for decision in decisions:
            if not decision.allowed:
                names = self._spelling.names(charges)
                denials.remember(charges, names, decisions, at, forgotten)
                if _denied(charges, decisions):
                    return decisions
                break
        _note_charged(charges, decisions, when)
        return decisions

    async def give_back(self, charges: Sequence[Charge]) -> None:
        taken: dict[tuple[int, int], list[Charge]] = {}
        for charge, name in zip(charges, self._spelling.names(charges), strict=True):
            if charge.at and charge.cost:
                slot = self._road.slot(name) if self._road.cluster else 0
                taken.setdefault((slot, charge.at), []).append(charge)
        for (_, when), part in taken.items():
            await self._give_back(self._spelt(part), when, None)

    async def peek(self, charge: Charge) -> Decision:
        asked = self._spelt([charge])
        decisions, _ = await self._ask(_ADMIT, PEEK, asked.names, asked.words)
        return decisions[0]

    async def reset(self, space: str, key: bytes) -> None:
        """As the port says; every process on this store hears of it. Raises StoreError."""
        name = self._keys.name(key, self._keys.tail(space))
        args = (self._keys.reset_channel,)
        _RESET.check(1, len(args))
        self.asked += 1
        await self._road.run(_RESET, (name,), args)
        self._denials.forget(name)

    async def close(self) -> None:
        for task in self._background:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background)
        await self._road.close()

    # Calls

    def _spelt(self, charges: Sequence[Charge]) -> _Asked:
        return _Asked(charges, self._spelling.names(charges), self._spelling.words(charges))

    async def _ask_directly(
        self, direct: Direct, charges: Sequence[Charge]
    ) -> tuple[list[Decision], int]:
        """As `_ask` for `CHARGE`, over a road to one server that knows the script, as any does
        but for the first time."""
        self.asked += 1
        reply = await direct.post(self._spelling.command(charges))
        if isinstance(reply, Exception):
            if isinstance(reply, ErrorReply) and reply.code == "NOSCRIPT":
                asked = self._spelt(charges)
                return await self._ask(_ADMIT, CHARGE, asked.names, asked.words)
            raise direct.failure(reply)
        return _read(_ADMIT, reply, len(charges))

    async def _ask(
        self,
        which: Script,
        order: int,
        names: Sequence[bytes],
        words: Sequence[bytes],
        timeout: float | None = None,
    ) -> tuple[list[Decision], int]:
        """A script's answer: a Decision per charge, and the server's time. `order` as in
        `Spelling.argument`."""
        now = SERVERS_CLOCK if self._now is None else self._now()
        which.check(len(names), 1)
        self.asked += 1
        argument = self._spelling.argument(order, now, words)
        reply = await self._road.run(which, names, (argument,), timeout=timeout)
        return _read(which, reply, len(names))

    # Several slots

    async def _admit_groups(self, asked: _Asked, slots: Sequence[int]) -> list[Decision]:
        answers = [NOT_ASKED] * len(asked.charges)
        until = None if self._timeout is None else self._monotonic() + self._timeout
        taken: list[tuple[Sequence[int], int]] = []
        refused = False
        for places in _groups(asked.charges, slots):
            part = asked.part(places)
            try:
                order = REFUSED if refused else CHARGE
                left = self._left(until)
                decisions, at = await self._ask(_ADMIT, order, part.names, part.words, left)
            except StoreError:
                if refused or all(charge.shadow for charge in part.charges):
                    continue  # what the request is told is settled without these
                self._give_back_later(asked, taken)
                raise
            _put(answers, places, decisions)
            if refused:
                continue
            refused = _denied(part.charges, decisions)
            if refused:
                for earlier, when in reversed(taken):
                    refunded = await self._give_back(asked.part(earlier), when, until)
                    if refunded is not None:
                        _put(answers, earlier, refunded)
            else:
                taken.append((places, at))
        if not refused:
            for group, at in taken:
                part = asked.part(group)
                _note_charged(part.charges, [answers[place] for place in group], at)
        return answers

    def _left(self, until: float | None) -> float | None:
        if until is None:
            return None
        left = until - self._monotonic()
        if left <= 0:
            raise StoreError("timeout", "the time for this request is over")
        return left

    async def _give_back(
        self, part: _Asked, when: int, until: float | None
    ) -> list[Decision] | None:
        """Refunds one group, and returns its limits' decisions after that. A group that cannot be
        reached (None) stays charged, which refuses others but admits nobody."""
        # Sent even where the time is over, for what it does rather than for what it says.
        left = None if until is None else max(0.001, until - self._monotonic())
        try:
            decisions, _ = await self._ask(_REFUND, when, part.names, part.words, left)
        except StoreError:
            return None
        return decisions

    def _give_back_later(self, asked: _Asked, taken: list[tuple[Sequence[int], int]]) -> None:
        """Refunds groups without keeping the request, which goes on elsewhere."""

        async def give_back() -> None:
            for places, when in reversed(taken):
                await self._give_back(asked.part(places), when, None)

        if taken:
            task = asyncio.get_running_loop().create_task(give_back())
            self._background.add(task)
            task.add_done_callback(self._background.discard)


def _read(which: Script, reply: Any, count: int) -> tuple[list[Decision], int]:
    """A script's answer about so many charges: a Decision for each, and the server's time."""
    if type(reply) is not bytes or len(reply) != _TIME.size + _ANSWERED.size * count:
        raise StoreError("refused", f"{which.name}.lua answered something else: {reply!r}")
    if count == 1:
        at, remaining, reset, wait = _ALONE.unpack(reply)
        return [_decision(remaining, reset, wait)], int(at)
    (at,) = _TIME.unpack_from(reply)
    told = _ANSWERED.iter_unpack(reply[_TIME.size :])
    return [_decision(remaining, reset, wait) for remaining, reset, wait in told], int(at)


def _decision(remaining: float, reset: float, wait: float) -> Decision:
    """One charge's numbers as lua/admit.lua says them."""
    if remaining < 0:
        return Decision(False, 0, int(reset), int(wait), 0)
    return Decision(True, int(remaining), int(reset), 0, int(wait))


def _note_charged(charges: Sequence[Charge], decisions: Sequence[Decision], at: int) -> None:
    """Notes when the charges of an admitted request were made; a shadow limit may have denied."""
    for place, decision in enumerate(decisions):
        if decision.allowed:
            charges[place].at = at


def _denied(charges: Sequence[Charge], decisions: Sequence[Decision]) -> bool:
    """Whether an enforced limit denied."""
    return any(
        not (decision.allowed or charge.shadow)
        for charge, decision in zip(charges, decisions, strict=True)
    )


def _put(answers: list[Decision], places: Sequence[int], decisions: Sequence[Decision]) -> None:
    for place, decision in zip(places, decisions, strict=True):
        answers[place] = decision


def _groups(charges: Sequence[Charge], slots: Sequence[int]) -> list[list[int]]:
    """The places of the charges by slot, in the order in which they are asked."""
    enforced: dict[int, list[int]] = {}
    shadow: dict[int, list[int]] = {}
    last: set[int] = set()
    for place, (charge, slot) in enumerate(zip(charges, slots, strict=True)):
        if charge.shadow:
            shadow.setdefault(slot, []).append(place)
        else:
            enforced.setdefault(slot, []).append(place)
            if charge.variant.algorithm.name == "leaky_bucket":
                last.add(slot)
    order = sorted(enforced, key=lambda slot: (slot in last, slot))
    if order and order[-1] in shadow:  # asked together with what is asked last of the enforced
        places = enforced[order[-1]]
        places.extend(shadow.pop(order[-1]))
        places.sort()
    return [enforced[slot] for slot in order] + [shadow[slot] for slot in sorted(shadow)]
