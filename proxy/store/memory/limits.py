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
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import Any

from proxy.core.limits.decision import Decision, State
from proxy.metrics import Metrics
from proxy.policy.limit_plans import LimitVariant
from proxy.store.charge import Charge

OVERFLOW = b"overflow"
"""The key of a space's overflow bucket; real keys have 16 bytes."""
_SHARDS = 256
_STEPS = 2  # looks at due keys per charge: more than it can file, so no backlog grows
_SEARCH = 16  # looks for an idle key when the store is full
_FINEST = 20  # the narrowest bucket of the wheel is 2^20 µs, about a second
_SECOND = 1_000_000


_Shard = dict[bytes, State | None]
"""Key → state; None: forgotten, and still in the wheel."""
_UNKNOWN: Any = object()
_Charged = tuple[_Shard, bytes, State | None]
"""Where a charge's key is, or would be; the key; its state before."""
_Allowed = tuple[Charge, _Shard, State | None]
"""A charge that was allowed; where its key is, or would be; its state when last looked at."""


class _Space:
    """One limit space: its keys' states, and a wheel of when they fall idle.

    The states lie in many small dicts rather than a large one, which would stop the process for
    tens of milliseconds whenever it has to grow.

    The wheel has each key once, filed under a time no earlier than when it falls idle as of the
    filing. What is charged later stays where it is until its bucket is due, and is then filed
    anew: a charge touches only the dict. A bucket is at most a sixteenth as wide as it is far
    away, so there are few buckets, however many keys.
    """

    __slots__ = ("_buckets", "ends", "shards", "size", "variant")

    def __init__(self, variant: LimitVariant) -> None:
        self.variant = variant
        """The one that charged last, which knows how to read the states."""
        self.size = 0
        self.shards: tuple[_Shard, ...] = tuple({} for _ in range(_SHARDS))
        """The dict that holds a key's state, if any does, by the key's last byte. States of keys
        that are there may be replaced; to add one, `put`."""
        self._buckets: dict[int, deque[bytes]] = {}
        self.ends: list[int] = []
        """A heap of the buckets' ends, µs since the epoch: the first says when a sweep is due."""

    def get(self, key: bytes) -> State | None:
        """The key's state, None where it is new."""
        return self.shards[key[-1]].get(key)

    def put(self, key: bytes, state: State, now: int) -> None:
        """Keeps the state of a key that is not there yet."""
        self.shards[key[-1]][key] = state
        self.size += 1
        self._file(key, self.variant.algorithm.idle_at(state, self.variant.params, now), now)

    def forget(self, key: bytes) -> None:
        """Makes the key new, if it is here; it keeps its place in the wheel."""
        states = self.shards[key[-1]]
        if key in states:
            states[key] = None

    def sweep(self, now: int, steps: int, most: int) -> int:
        """Looks at `steps` keys at most, drops up to `most` idle ones, returns how many it did.

        Keys of buckets that are due come first; then, as part of it may be idle already, the next.
        """
        dropped = 0
        ends = self.ends
        while ends and steps > 0 and dropped < most:
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
            heappush(self.ends, end)
        bucket.append(key)


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
        "_spaces",
    )

    def __init__(
        self, clock: Callable[[], int], metrics: Metrics, *, max_keys: int = 1_000_000
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._max_keys = max_keys
        self._reserve = max_keys // 1000
        self._spaces: dict[str, _Space] = {}
        self._count = 0
        self._refused_at = 0

    def __len__(self) -> int:
        """How many keys are kept, over all spaces."""
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
        refused = False
        for charge in charges:
            variant = charge.variant
            space = self._spaces.get(variant.space)
            if space is None or space.variant is not variant:
                space = self._space(variant)
            key = charge.key
            states = space.shards[key[-1]]
            before = states.get(key, _UNKNOWN)
            if before is _UNKNOWN:
                key = self._slot(space, key, now, fresh)
                if key is OVERFLOW:
                    self._metrics.limit(variant.limit).overflow += 1
                states = space.shards[key[-1]]
                before = states.get(key, _UNKNOWN)
            is_new = before is _UNKNOWN
            if is_new:
                before = _pending(new, space, key) if new else None
            after, decision = variant.algorithm.step(before, variant.params, now, charge.cost)
            decisions.append(decision)
            charged.append((states, key, before))
            if not decision.allowed:
                refused |= not charge.shadow
            elif charge.cost:
                charge.at = now
                if is_new:
                    fresh += before is None
                    new.append((space, key, after))
                else:
                    states[key] = after
                    if space.ends[0] <= now:  # there is one: the wheel has this key
                        self._count -= space.sweep(now, _STEPS, _STEPS)
        if refused:
            self._refused_at = now
            return _uncharged(charges, decisions, charged, now)
        if new:
            self._add(new, now)
        return decisions

    def denial(self, charges: Sequence[Charge], decisions: Sequence[Decision]) -> Denial | None:
        """What the last `decide` has just refused these charges for. None where a key has no state
        of its own to go by (it may share a bucket, or was charged by the same request before), and
        where a state is too large to be kept beside the store."""
        at = self._refused_at
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
            held.forget(key)

    async def close(self) -> None:
        self._spaces.clear()
        self._count = 0

    def retain(self, spaces: Iterable[str]) -> None:
        """Forgets every space but these: what a reload no longer names."""
        for name in self._spaces.keys() - set(spaces):
            self._count -= self._spaces.pop(name).size

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
        if self._count + fresh < self._max_keys or key in space.shards[key[-1]]:
            return key
        if space.size < self._reserve:
            return key
        self._count -= space.sweep(now, _SEARCH, fresh + 1)
        for other in self._spaces.values():
            if self._count + fresh < self._max_keys:
                return key
            if other is not space and other.ends and other.ends[0] <= now:
                self._count -= other.sweep(now, _SEARCH, fresh + 1)
        return key if self._count + fresh < self._max_keys else OVERFLOW

    def _add(self, new: "Sequence[_New]", now: int) -> None:
        for space, key, state in new:
            states = space.shards[key[-1]]
            if key in states:  # charged twice by one request
                states[key] = state
            else:
                space.put(key, state, now)
                self._count += 1
            if space.ends[0] <= now:
                self._count -= space.sweep(now, _STEPS, _STEPS)


_New = tuple[_Space, bytes, State]
"""A key that is not there yet, and the state to begin with."""


def _pending(new: Sequence[_New], space: _Space, key: bytes) -> State | None:
    """The state of a new key as the charges before leave it; None where they did not charge it."""
    for other, name, state in reversed(new):
        if other is space and name == key:
            return state
    return None


def _uncharged(
    charges: Sequence[Charge],
    decisions: Sequence[Decision],
    charged: Sequence[_Charged],
    now: int,
) -> list[Decision]:
    """Takes back what a refused request was charged; its decisions: a limit that would have
    admitted it has not been charged, and says so."""
    for charge, (states, key, before) in zip(reversed(charges), reversed(charged), strict=True):
        if charge.at:
            charge.at = 0
            if key in states:
                states[key] = before
    answers = list(decisions)
    for place, charge in enumerate(charges):
        if decisions[place].allowed:
            variant = charge.variant
            states, key, _ = charged[place]
            answers[place] = variant.algorithm.step(states.get(key), variant.params, now, 0)[1]
    return answers
