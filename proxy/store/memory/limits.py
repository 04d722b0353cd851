"""Limits counted in this process: the cores' step over a dict, bounded and never suspending.

It is the embedded store, and what a process falls back to when it cannot reach a shared one.

Rules:
- Charges all or none. A charge sees those before it in the same request.
- A key is forgotten once it is idle: from then on its answers are those of a key never seen.
- At `max_keys` a new key takes the place of an idle one. Where none is idle, new keys of a limit
  share one overflow bucket. A key that counts is never dropped, so a flood of random keys resets
  nobody.
- A flood on one limit is not another's trouble: one that holds less than a thousandth of
  `max_keys` may still add keys of its own.
- No call looks at more than a few keys, whatever their number.
- A key counts by its size (`Algorithm.weight`): a long log as the keys that would take its memory.
  To grow, a key needs room as a new one does. Where there is none, a bucket forgets what only
  refunds need, and what a log cannot remember falls into the overflow bucket.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from proxy.core.limits.decision import Decision, State
from proxy.metrics import Metrics
from proxy.policy.limit_plans import LimitVariant
from proxy.store.charge import Charge
from proxy.store.memory.limit_space import UNKNOWN, Shard, Space

OVERFLOW = b"overflow"
"""The key of a space's overflow bucket; real keys have 16 bytes."""
_STEPS: Final = 2  # looks at due keys per charge: more than it can file, so no backlog grows
_SEARCH: Final = 16  # looks for an idle key when the store is full
_SECOND: Final = 1_000_000

_Charged = tuple[Shard, bytes, State | None]
"""Where a charge's key is, or would be; the key; its state before."""
_Allowed = tuple[Charge, Shard, State | None]
"""A charge that was allowed; where its key is, or would be; its state when last looked at."""


_LONG_LOG = 64
"""Charges of a sliding_log; 8 bytes each."""


def _is_long(state: State) -> bool:
    """Whether a state has a log of many charges."""
    log = state[0]
    return isinstance(log, array) and len(log) > _LONG_LOG


class Denial:
    """What the limits said that refused a request. It stands while they would refuse it again and
    the whole seconds of what was said are still the same: whatever changes a key's state meanwhile
    (a refund, a reset, a cheaper request that passes) puts another state in its place.

    The limits that allowed it must still do so: a 429 names every limit that refuses the request.
    One whose state has not changed does, as time alone gives units back.
    """

    __slots__ = ("_allowed", "_clock", "_denied", "_since", "_until")

    def __init__(
        self,
        clock: Callable[[], int],
        denied: list[_Charged],
        allowed: list[_Allowed],
        since: int,
        until: int,
    ) -> None:
        self._clock = clock
        self._denied = denied
        self._allowed = allowed
        self._since = since
        self._until = until

    def stands(self) -> bool:
        """Whether the same request would be told the same now."""
        now = self._clock()
        if now >= self._until or now < self._since:
            return False
        for states, key, state in self._denied:
            if states.get(key) is not state:
                return False
        for place, (charge, shard, known) in enumerate(self._allowed):
            current = shard.get(charge.key)
            if current is not known:
                variant = charge.variant
                step = variant.algorithm.step
                if not step(current, variant.params, now, charge.cost)[1].allowed:
                    return False
                self._allowed[place] = (charge, shard, current)
        return True


class MemoryLimits:
    """A LimitStore over dicts, which answers at once (`decide`). `clock` gives microseconds since
    the epoch."""

    __slots__ = (
        "_clock",
        "_count",
        "_max_keys",
        "_metrics",
        "_refused_at",
        "_reserve",
        "_seen",
        "_spaces",
    )

    def __init__(
        self, clock: Callable[[], int], metrics: Metrics, *, max_keys: int = 1_000_000
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._max_keys = max_keys
        self._reserve = max_keys // 1000
        self._spaces: dict[str, Space] = {}
        self._count = 0
        self._refused_at = 0
        self._seen = 0

    def __len__(self) -> int:
        """What is kept, over all spaces, in keys."""
        return self._count

    async def admit(self, charges: Sequence[Charge]) -> list[Decision]:
        return self.decide(charges)

    def decide(self, charges: Sequence[Charge]) -> list[Decision]:
        """`admit`, for callers that are not coroutines."""
        # What is allowed is charged at once, and taken back where a later one refuses. New keys
        # wait until none does: a request that is refused leaves none behind.
        now = self._clock()
        decisions: list[Decision] = []
        charged: list[_Charged] = []
        new: list[_New] = []
        fresh = 0
        refused = spilt = False
        for charge in charges:
            variant = charge.variant
            space = self._spaces.get(variant.space)
            if space is None or space.variant is not variant:
                space = self._space(variant)
            key = charge.key
            states = space.shards[key[-1]]
            before = states.get(key, UNKNOWN)
            is_new = before is UNKNOWN
            if is_new:
                key, states, before, is_new = self._unknown(space, key, new, fresh, now)
            after, decision = variant.algorithm.step(before, variant.params, now, charge.cost)
            if space.varies and charge.cost and decision.allowed and not is_new:
                kept = self._grown(space, key, before, after, fresh, now)
                if kept is None:
                    spilt = True
                    key, states, before, is_new = self._overflow(space, new)
                    step = variant.algorithm.step
                    after, decision = step(before, variant.params, now, charge.cost)
                    if decision.allowed and not is_new:
                        self._reweigh(space, before, after)
                else:
                    after, is_new = kept, key not in states  # idle ones were dropped to make room
            decisions.append(decision)
            charged.append((states, key, before))
            if not decision.allowed:
                refused |= not charge.shadow
            elif charge.cost:
                charge.at = 0 if key is OVERFLOW else now  # what is shared is not given back
                if is_new:
                    fresh += before is None
                    new.append((space, key, after))
                else:
                    states[key] = after
                    if space.ends[0] <= now:  # there is one: the wheel has this key
                        self._count -= space.sweep(now, _STEPS, _STEPS)
        if refused:
            self._refused_at = 0 if spilt else now
            return self._uncharged(charges, decisions, charged, now)
        if new:
            self._add(new, now)
        return decisions

    def denial(self, charges: Sequence[Charge], decisions: Sequence[Decision]) -> Denial | None:
        """What the last `decide` has just refused these charges for. None where a key has no state
        of its own to go by (it may share a bucket, or was charged by the same request before), and
        where a state is too large to be kept beside the store."""
        at = self._refused_at
        if not at:
            return None
        left = _SECOND
        denied: list[_Charged] = []
        allowed: list[_Allowed] = []
        for charge, decision in zip(charges, decisions, strict=True):
            shards = self._spaces[charge.variant.space].shards
            states = shards[charge.key[-1]]
            state = states.get(charge.key)
            if state is None:
                if not decision.allowed or OVERFLOW in shards[OVERFLOW[-1]]:
                    return None
            elif _is_long(state):
                return None  # whoever keeps the denial would keep an old log, when it is a new one
            if decision.allowed:
                allowed.append((charge, states, state))
                continue
            denied.append((states, charge.key, state))
            for told in (decision.reset, decision.retry_after):
                left = min(left, (told - 1) % _SECOND + 1)
        return Denial(self._clock, denied, allowed, at, at + left)

    async def give_back(self, charges: Sequence[Charge]) -> None:
        self.refund(charges)

    def refund(self, charges: Sequence[Charge]) -> None:
        """`give_back` for callers that are not coroutines."""
        now = self._clock()
        for charge in charges:
            variant = charge.variant
            space = self._spaces.get(variant.space)
            if not charge.at or space is None:
                continue
            # One that fell into the overflow bucket stays charged: it is nobody's own.
            states = space.shards[charge.key[-1]]
            state = states.get(charge.key)
            if state is not None:
                refund = variant.algorithm.refund
                state = refund(state, variant.params, charge.at, now, charge.cost)
                self._reweigh(space, states[charge.key], state)
                states[charge.key] = state
            charge.at = 0

    async def peek(self, charge: Charge) -> Decision:
        now = self._clock()
        variant = charge.variant
        space = self._spaces.get(variant.space)
        state = None
        if space is not None:
            state = space.get(self._slot(space, charge.key, now, 0))
        return variant.algorithm.step(state, variant.params, now, charge.cost)[1]

    async def reset(self, space: str, key: bytes) -> None:
        held = self._spaces.get(space)
        if held is not None:
            self._count -= held.forget(key)

    async def close(self) -> None:
        self._spaces.clear()
        self._count = 0

    def retain(self, spaces: Iterable[str]) -> None:
        """Forgets every space but these: what a reload no longer names."""
        for name in self._spaces.keys() - set(spaces):
            self._count -= self._spaces.pop(name).size

    def _space(self, variant: LimitVariant) -> Space:
        space = self._spaces.get(variant.space)
        if space is None:
            space = self._spaces[variant.space] = Space(variant)
        space.serve(variant)
        return space

    def _slot(self, space: Space, key: bytes, now: int, fresh: int) -> bytes:
        """The key that counts for `key`: itself, or OVERFLOW where there is no room for it.
        This request may add `fresh` others."""
        if now > self._seen:
            self._seen = now
        elif now < self._seen - _SECOND:
            for held in self._spaces.values():
                held.set_back(now)
            self._seen = now
        if self._count + fresh < self._max_keys or key in space.shards[key[-1]]:
            return key
        return key if self._room(space, fresh + 1, now) else OVERFLOW

    def _room(self, space: Space, wanted: int, now: int) -> bool:
        """Whether so many keys more may be kept in the space; idle ones make room."""
        most = self._max_keys - wanted
        if self._count <= most or space.size < self._reserve:
            return True
        self._count -= space.sweep(now, _SEARCH, self._count - most)
        for other in self._spaces.values():
            if self._count <= most:
                return True
            if other is not space and other.ends and other.ends[0] <= now:
                self._count -= other.sweep(now, _SEARCH, self._count - most)
        return self._count <= most

    def _grown(
        self, space: Space, key: bytes, before: State | None, after: State, fresh: int, now: int
    ) -> State | None:
        """The state to keep in place of `before`, which is weighed with that: `after`, or less of
        it where there is no room for it to grow; None where it cannot do with less."""
        grown = space.weight(after) - space.weight(before)
        if not grown:
            return after
        if grown > 0 and key is not OVERFLOW and not self._room(space, fresh + grown, now):
            after = space.variant.algorithm.shortened(after)
            grown = space.weight(after) - space.weight(before)
            if grown > 0:
                return None
        if key in space.shards[key[-1]]:
            space.size += grown
            self._count += grown
        return after

    def _unknown(
        self, space: Space, key: bytes, new: "Sequence[_New]", fresh: int, now: int
    ) -> "_Found":
        """What counts for a key that is not there."""
        if self._slot(space, key, now, fresh) is OVERFLOW:
            return self._overflow(space, new)
        return key, space.shards[key[-1]], _pending(new, space, key), True

    def _overflow(self, space: Space, new: "Sequence[_New]") -> "_Found":
        """What counts for a key that there is no room for."""
        self._metrics.limit(space.variant.limit).overflow += 1
        states = space.shards[OVERFLOW[-1]]
        before = states.get(OVERFLOW, UNKNOWN)
        if before is UNKNOWN:
            return OVERFLOW, states, _pending(new, space, OVERFLOW), True
        return OVERFLOW, states, before, False

    def _reweigh(self, space: Space, before: State | None, after: State | None) -> None:
        """One state takes the place of another."""
        grown = space.weight(after) - space.weight(before)
        space.size += grown
        self._count += grown

    def _add(self, new: "Sequence[_New]", now: int) -> None:
        for space, key, state in new:
            states = space.shards[key[-1]]
            if key in states:  # charged twice by one request
                self._reweigh(space, states[key], state)
                states[key] = state
            else:
                self._count += space.put(key, state, now)
            if space.ends[0] <= now:
                self._count -= space.sweep(now, _STEPS, _STEPS)

    def _uncharged(
        self,
        charges: Sequence[Charge],
        decisions: Sequence[Decision],
        charged: Sequence[_Charged],
        now: int,
    ) -> list[Decision]:
        """Takes back what a refused request was charged; its decisions: a limit that would have
        admitted it has not been charged, and says so."""
        for place in range(len(charges) - 1, -1, -1):
            charge = charges[place]
            charge.at = 0
            states, key, before = charged[place]
            if charge.cost and decisions[place].allowed and key in states:
                self._reweigh(self._spaces[charge.variant.space], states[key], before)
                states[key] = before
        answers = list(decisions)
        for place, charge in enumerate(charges):
            if decisions[place].allowed:
                variant = charge.variant
                states, key, _ = charged[place]
                answers[place] = variant.algorithm.step(states.get(key), variant.params, now, 0)[1]
        return answers


_New = tuple[Space, bytes, State]
"""A key that is not there yet, and the state to begin with."""
_Found = tuple[bytes, Shard, State | None, bool]
"""The key that counts for another, where it is, or would be, its state, and whether it is new."""


def _pending(new: Sequence[_New], space: Space, key: bytes) -> State | None:
    """The state of a new key as the charges before leave it; None where they did not charge it."""
    for other, name, state in reversed(new):
        if other is space and name == key:
            return state
    return None
