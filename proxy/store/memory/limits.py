"""Limits counted in this process: the cores' step over a dict, bounded and never suspending.

It is the embedded store, and what a process falls back to when it cannot reach a shared one.

Rules:
- Checks all, then commits all or none. A charge sees those before it in the same request.
- A key is forgotten once it is idle: from then on its answers are those of a key never seen.
- At `max_keys` a new key takes the place of an idle one. Where none is idle, new keys of a limit
  share one overflow bucket. A key that counts is never dropped, so a flood of random keys resets
  nobody.
- A flood on one limit is not another's trouble: one that holds less than a thousandth of
  `max_keys` may still add keys of its own.
- No call looks at more than a few keys, whatever their number.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush

from proxy.core.limits.decision import Decision, State
from proxy.metrics import Metrics
from proxy.policy.snapshot import LimitVariant
from proxy.store.ports import Charge

OVERFLOW = b"overflow"
"""The key of a space's overflow bucket; real keys have 16 bytes."""
_SHARDS = 256
_UNASKED = Decision(True, 0, 0, 0, 0)
_STEPS = 2  # looks at due keys per charge: more than it can file, so no backlog grows
_SEARCH = 16  # looks for an idle key when the store is full
_FINEST = 20  # the narrowest bucket of the wheel is 2^20 µs, about a second


_Shard = dict[bytes, State | None]
"""Key → state; None: forgotten, and still in the wheel."""


class _Space:
    """One limit space: its keys' states, and a wheel of when they fall idle.

    The states lie in many small dicts rather than a large one, which would stop the process for
    tens of milliseconds whenever it has to grow.

    The wheel has each key once, filed under a time no earlier than when it falls idle as of the
    filing. What is charged later stays where it is until its bucket is due, and is then filed
    anew: a charge touches only the dict. A bucket is at most a sixteenth as wide as it is far
    away, so there are few buckets, however many keys.
    """

    __slots__ = ("_buckets", "_ends", "_shards", "size", "variant")

    def __init__(self, variant: LimitVariant) -> None:
        self.variant = variant
        """The one that charged last, which knows how to read the states."""
        self.size = 0
        self._shards: tuple[_Shard, ...] = tuple({} for _ in range(_SHARDS))
        self._buckets: dict[int, deque[bytes]] = {}
        self._ends: list[int] = []  # a heap of the buckets' ends, µs since the epoch

    def shard(self, key: bytes) -> _Shard:
        """The dict that holds the state of this key, if any does. To write, `put`."""
        return self._shards[key[-1]]

    def put(self, key: bytes, state: State, now: int) -> bool:
        """Keeps a state; whether the key is new."""
        states = self._shards[key[-1]]
        new = key not in states
        states[key] = state
        if new:
            self.size += 1
            self._file(key, self.variant.algorithm.idle_at(state, self.variant.params), now)
        return new

    def forget(self, key: bytes) -> None:
        """Makes the key new, if it is here; it keeps its place in the wheel."""
        states = self._shards[key[-1]]
        if key in states:
            states[key] = None

    def due(self, now: int) -> bool:
        return bool(self._ends) and self._ends[0] <= now

    def sweep(self, now: int, steps: int, most: int) -> int:
        """Looks at `steps` keys at most, drops up to `most` idle ones, returns how many it did.

        Keys of buckets that are due come first; then, as part of it may be idle already, the next.
        """
        dropped = 0
        ends = self._ends
        while ends and steps > 0 and dropped < most:
            steps -= 1
            bucket = self._buckets[ends[0]]
            if not bucket:
                del self._buckets[heappop(ends)]
                continue
            key = bucket.popleft()
            states = self._shards[key[-1]]
            state = states[key]
            idle_at = 0
            if state is not None:
                idle_at = self.variant.algorithm.idle_at(state, self.variant.params)
            if idle_at <= now:
                del states[key]
                dropped += 1
            else:
                self._file(key, idle_at, now)
        self.size -= dropped
        return dropped

    def _file(self, key: bytes, idle_at: int, now: int) -> None:
        width = max(_FINEST, (idle_at - now).bit_length() - 5)
        end = ((idle_at >> width) + 1) << width
        bucket = self._buckets.get(end)
        if bucket is None:
            bucket = self._buckets[end] = deque()
            heappush(self._ends, end)
        bucket.append(key)


class MemoryLimits:
    """A LimitStore over dicts. `clock` gives microseconds since the epoch."""

    __slots__ = ("_clock", "_count", "_max_keys", "_metrics", "_reserve", "_spaces")

    def __init__(
        self, clock: Callable[[], int], metrics: Metrics, *, max_keys: int = 1_000_000
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._max_keys = max_keys
        self._reserve = max_keys // 1000
        self._spaces: dict[str, _Space] = {}
        self._count = 0

    def __len__(self) -> int:
        """How many keys are kept, over all spaces."""
        return self._count

    async def admit(self, charges: Sequence[Charge]) -> list[Decision]:
        """As the port says; one step, no suspension."""
        return self.decide(charges)

    def decide(self, charges: Sequence[Charge]) -> list[Decision]:
        """`admit` for callers that are not coroutines."""
        now = self._clock()
        if len(charges) == 1:
            return [self._decide_one(charges[0], now)]
        return self._decide_all(charges, now)

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
            state = space.shard(charge.key).get(charge.key)
            if state is not None:
                refund = variant.algorithm.refund
                state = refund(state, variant.params, charge.at, now, charge.cost)
                self._commit(space, charge.key, state, now)
            charge.at = 0

    async def peek(self, charge: Charge) -> Decision:
        now = self._clock()
        variant = charge.variant
        space = self._spaces.get(variant.space)
        state = None
        if space is not None:
            slot = self._slot(space, charge.key, now, 0)
            state = space.shard(slot).get(slot)
        return variant.algorithm.step(state, variant.params, now, charge.cost)[1]

    async def reset(self, space: str, key: bytes) -> None:
        held = self._spaces.get(space)
        if held is not None:
            held.forget(key)

    async def close(self) -> None:
        self._spaces.clear()
        self._count = 0

    def retain(self, spaces: Iterable[str]) -> None:
        """Forgets every space but these: what a reload no longer names."""
        for name in self._spaces.keys() - set(spaces):
            self._count -= self._spaces.pop(name).size

    def _decide_one(self, charge: Charge, now: int) -> Decision:
        variant = charge.variant
        space = self._space(variant)
        slot = self._slot(space, charge.key, now, 0)
        if slot is OVERFLOW:
            self._metrics.limit(variant.limit).overflow += 1
        state, decision = variant.algorithm.step(
            space.shard(slot).get(slot), variant.params, now, charge.cost
        )
        if charge.cost and decision.allowed:
            self._commit(space, slot, state, now)
            charge.at = now
        return decision

    def _decide_all(self, charges: Sequence[Charge], now: int) -> list[Decision]:
        decisions = [_UNASKED] * len(charges)
        staged: dict[tuple[str, bytes], tuple[_Space, State]] = {}
        slots = [OVERFLOW] * len(charges)
        refused = False
        fresh = 0
        for place, charge in enumerate(charges):
            variant = charge.variant
            space = self._space(variant)
            slot = slots[place] = self._slot(space, charge.key, now, fresh)
            if slot is OVERFLOW:
                self._metrics.limit(variant.limit).overflow += 1
            found = staged.get((variant.space, slot))
            before = space.shard(slot).get(slot) if found is None else found[1]
            state, decision = variant.algorithm.step(before, variant.params, now, charge.cost)
            decisions[place] = decision
            if not decision.allowed:
                refused |= not charge.shadow
            elif charge.cost:
                fresh += found is None and slot not in space.shard(slot)
                staged[variant.space, slot] = (space, state)
        if refused:
            return self._uncharged(charges, decisions, slots, now)
        for (_, slot), (space, state) in staged.items():
            self._commit(space, slot, state, now)
        for charge, decision in zip(charges, decisions, strict=True):
            if decision.allowed and charge.cost:
                charge.at = now
        return decisions

    def _uncharged(
        self,
        charges: Sequence[Charge],
        decisions: Sequence[Decision],
        slots: Sequence[bytes],
        now: int,
    ) -> list[Decision]:
        """The decisions of a refused request: a limit that would have admitted it has not been
        charged, and says so."""
        answers = []
        for charge, decision, slot in zip(charges, decisions, slots, strict=True):
            if decision.allowed:
                variant = charge.variant
                state = self._space(variant).shard(slot).get(slot)
                decision = variant.algorithm.step(state, variant.params, now, 0)[1]
            answers.append(decision)
        return answers

    def _space(self, variant: LimitVariant) -> _Space:
        space = self._spaces.get(variant.space)
        if space is None:
            space = self._spaces[variant.space] = _Space(variant)
        elif space.variant is not variant:
            space.variant = variant
        return space

    def _slot(self, space: _Space, key: bytes, now: int, fresh: int) -> bytes:
        """The key that counts for `key`: itself, or OVERFLOW where there is no room for it.
        This request may add `fresh` others."""
        if self._count + fresh < self._max_keys or key in space.shard(key):
            return key
        if space.size < self._reserve:
            return key
        self._count -= space.sweep(now, _SEARCH, fresh + 1)
        for other in self._spaces.values():
            if self._count + fresh < self._max_keys:
                return key
            if other is not space and other.due(now):
                self._count -= other.sweep(now, _SEARCH, fresh + 1)
        return key if self._count + fresh < self._max_keys else OVERFLOW

    def _commit(self, space: _Space, slot: bytes, state: State, now: int) -> None:
        if space.put(slot, state, now):
            self._count += 1
        if space.due(now):
            self._count -= space.sweep(now, _STEPS, _STEPS)
