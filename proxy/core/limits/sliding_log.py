"""sliding_log: at most N units in any period, exactly.

Each charged unit is remembered until it is one period old. A unit charged at t counts at every
moment before t + period, and no longer at t + period.

State: (log, head, tail, last, count). The newest charge is `count` units at the tick `last`; the
older ones are log[head:tail], one tick per unit, in order.

The log is an array that states share: charging in place costs O(1) where a copy would cost O(N).
No state sees that it is shared. The newest charge is in the state itself and enters the log only
with the next charge, and only where the log still ends at this state's tail; where another branch
of history was written there, the live part is copied. Cells in front of `head` go when they
outnumber the live ones, so a key holds at most 2N cells of 8 bytes.
"""

from array import array
from bisect import bisect_left, bisect_right
from typing import Any

from proxy.core.limits import bounds
from proxy.core.limits.decision import UNIT, Algorithm, Decision, Quota, Rate, State
from proxy.core.limits.sliding_window import Params

MOST = 10_000
_SLACK = 16
_EMPTY: Any = ()  # not an array: most keys have one charge, and the collector passes () over


def _appended(
    log: "array[int]", head: int, tail: int, last: int, count: int
) -> tuple["array[int]", int, int]:
    """The log (and its bounds) with `count` units at `last` behind its tail."""
    if head == tail:
        log = array("q")
        head = tail = 0
    elif tail != len(log) or head > tail - head + _SLACK:
        log = log[head:tail]
        head, tail = 0, tail - head
    if count == 1:
        log.append(last)
    else:
        log.extend([last] * count)
    return log, head, tail + count


class SlidingLog(Algorithm):
    """The algorithm; see the module."""

    __slots__ = ()
    name = "sliding_log"

    def compile(self, rate: Rate, burst: int | None, refundable: bool = True) -> Params:
        bounds.check_rate(self.name, rate)
        bounds.refuse_burst(self.name, burst)
        if rate.amount > MOST:
            raise ValueError(
                f"sliding_log remembers every request, so N is at most {MOST}, not {rate.amount}: "
                "take sliding_window"
            )
        tick = bounds.tick_of(rate.period)
        window = bounds.whole_seconds(rate, rate.period)
        return Params(rate.amount, rate.period // tick, tick, window)

    def step(
        self, state: State | None, params: Params, now: int, cost: int
    ) -> tuple[State, Decision]:
        amount, period, tick = params.amount, params.period, params.tick
        at = now // tick
        if state is None:
            log, head, tail, last, count = _EMPTY, 0, 0, at, 0
        else:
            log, head, tail, last, count = state
            gone = at - period
            if at < last <= at + period:
                at = last
                now = at * tick
                gone = at - period
            if last <= gone or last > at:
                log, head, tail, last, count = _EMPTY, 0, 0, at, 0
            elif head < tail and log[head] <= gone:
                head = bisect_right(log, gone, head, tail)
        older = tail - head
        used = older + count
        over = used + cost - amount
        if cost and over > 0:
            # The unit whose end makes room for one more, and the one for all of this request.
            first = used - amount if used > amount else 0
            reset = log[head + first] if first < older else last
            retry = log[head + over - 1] if over <= older else last
            return (log, head, tail, last, count), Decision(
                False, 0, (reset + period) * tick - now, (retry + period) * tick - now, 0
            )
        if cost:
            if at > last and count:
                log, head, tail = _appended(log, head, tail, last, count)
                older = tail - head
                count = 0
            last = at
            count += cost
            used += cost
        reset = 0
        if used:
            first = used - amount if used > amount else 0
            reset = ((log[head + first] if first < older else last) + period) * tick - now
        left = amount - used if used < amount else 0
        return (log, head, tail, last, count), Decision(True, left, reset, 0, 0)

    def refund(self, state: State, params: Params, charged: int, now: int, cost: int) -> State:
        log, head, tail, last, count = state
        at = charged // params.tick
        if at == last:
            if count > cost:
                return log, head, tail, last, count - cost
            # The newest charge is gone, and its tick with it: a clock that was set back meanwhile
            # counts from the charge before it, as where only that was ever stored.
            if head == tail:
                return _EMPTY, 0, 0, 0, 0
            last = log[tail - 1]
            start = bisect_left(log, last, head, tail)
            return log, head, start, last, tail - start
        stop = bisect_right(log, at, head, tail)
        start = max(bisect_left(log, at, head, tail), stop - cost)
        if start == stop:
            return state
        kept = log[head:start] + log[stop:tail]
        return kept, 0, len(kept), last, count

    def idle_at(self, state: State, params: Params, now: int) -> int:
        last: int = state[3]
        if last - now // params.tick > params.period:
            return 0
        return (last + params.period) * params.tick

    def varies(self, params: Params) -> bool:
        return True

    def weight(self, state: State) -> int:
        # The array is an object of its own, with room for an eighth more than it holds.
        tail: int = state[2]
        return 1 + (200 + 9 * tail) // UNIT

    def capacity(self, params: Params) -> int:
        return params.amount

    def quota(self, params: Params) -> Quota:
        return Quota(params.amount, params.window)
