"""sliding_window: the last window's count fades out while this window's count grows.

estimate = previous · (1 − elapsed/period) + current, and a request passes while the estimate with
it is at most N. Exact for even traffic; never more than 2N in any period.

State: (start, previous, current). `start` is the tick at which the current window began, a
multiple of the period since the epoch.

Rules:
- Everything is compared in units of 1/period, and by moving terms over rather than adding them,
  so that the largest number is N · period.
- Counts above N, which a reload lowered, count as N: the window then is full, not worse than full.
- Time before `start` counts as `start`, if by no more than a period.
"""

from proxy.core.limits import bounds
from proxy.core.limits.decision import Algorithm, Decision, Quota, Rate, State


class Params:
    """`period` is ticks of `tick` microseconds. A sliding_log has the same."""

    __slots__ = ("amount", "period", "tick", "window")

    def __init__(self, amount: int, period: int, tick: int, window: int | None) -> None:
        self.amount = amount
        self.period = period
        self.tick = tick
        self.window = window


def _free_at(start: int, previous: int, current: int, params: Params, units: int) -> int:
    """The first tick at which `units` fit, if nothing is charged meanwhile; 1 <= units <= N, and
    they do not fit yet."""
    amount, period = params.amount, params.period
    spare = amount - current - units
    if previous and spare >= 0:
        # previous · (period − elapsed) <= spare · period
        return start + period - spare * period // previous
    # Not in this window, as what it counted itself stays: in the next, where that fades.
    fading = period - (amount - units) * period // current
    return start + period + max(0, fading)


class SlidingWindow(Algorithm):
    """The algorithm; see the module."""

    __slots__ = ()
    name = "sliding_window"

    def compile(self, rate: Rate, burst: int | None, refundable: bool = True) -> Params:
        bounds.check_rate(self.name, rate)
        bounds.refuse_burst(self.name, burst)
        tick = bounds.tick_of(rate.period)
        period = rate.period // tick
        bounds.check_product(rate.amount * period)
        return Params(rate.amount, period, tick, bounds.whole_seconds(rate, rate.period))

    def step(
        self, state: State | None, params: Params, now: int, cost: int
    ) -> tuple[State, Decision]:
        amount, period, tick = params.amount, params.period, params.tick
        begun: int
        before: int = 0
        count: int = 0
        at = now // tick
        start = at - at % period
        if state is not None:
            begun, before, count = state
            if start != begun:
                if start < begun and begun - at <= period:
                    start = at = begun
                    now = at * tick
                else:
                    before = count if start == begun + period else 0
                    count = 0
        previous = before if before < amount else amount
        current = count if count < amount else amount
        rest = start + period - at
        weight = bounds.up(previous * rest, period)
        free = amount - current - weight
        if cost > free and cost:
            left = free if free > 0 else 0
            reset = _free_at(start, previous, current, params, left + 1) * tick - now
            retry = _free_at(start, previous, current, params, cost) * tick - now
            return (start, before, count), Decision(False, 0, reset, retry, 0)
        current += cost
        count += cost
        left = free - cost if free > cost else 0
        reset = 0
        if left < amount:
            reset = _free_at(start, previous, current, params, left + 1) * tick - now
        return (start, before, count), Decision(True, left, reset, 0, 0)

    def refund(self, state: State, params: Params, charged: int, now: int, cost: int) -> State:
        start, previous, current = state
        at = charged // params.tick
        at -= at % params.period
        if at == start:
            return start, previous, max(0, current - cost)
        if at + params.period == start:
            return start, max(0, previous - cost), current
        return state

    def idle_at(self, state: State, params: Params, now: int) -> int:
        start, _, current = state
        if start - now // params.tick > params.period:
            return 0
        at: int = start + params.period * (2 if current else 1)
        return at * params.tick

    def capacity(self, params: Params) -> int:
        return params.amount

    def quota(self, params: Params) -> Quota:
        return Quota(params.amount, params.window)
