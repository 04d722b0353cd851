"""token_bucket: a bucket of `burst` units that refills at N per period, evenly and all the time.

State: (debt, last, low, end, least, floor, low, end, …). `debt` is what is missing from a full
bucket at the tick `last`, in units of 1/period: a request owes `period` for each unit of its cost,
and each tick pays off N. So 3/s is exactly 3/s, where a refill every 333,333 µs would not be. The
rest is what refunds need, see below: (debt, last) stands for (debt, last, last, last, 0, 0).

Rules:
- A debt of 0 is a key never seen, whatever the burst. A debt above a lowered burst is an empty
  bucket.
- The elapsed time is cut to what fills an empty bucket before it is multiplied.
- A request that does not fit leaves the debt as it is.
- Time before `last` counts as `last`, if by no more than a period. A state that is further ahead
  comes from a clock that was set back since: it counts as a key never seen, or the bucket would
  not fill until the clock is there again. All five algorithms do so.

Refunds. A full bucket does not fill further: time that passes without a debt is lost, and without
a charge more of it would have been lost. So a charge still weighs the smallest debt that there has
been since, and its cost at most. (The debt is a reflected walk: what was charged, minus the refill,
minus the lowest that this has been, where that is below 0. Without the charge the walk is lower
from there on, and the lowest that it has been is lower by as much as it then falls short.) So the
state keeps the debt's minima, each of which begins a stretch of charges; the earliest comes first:

- `low` and `end` are the ticks of the first charge in the stretch and the last one. Before the
  first the debt had a minimum.
- `least` is the smallest debt in the stretch: what was charged before the stretch gets back no more
  than that, all together.
- `floor` is what the debt in the stretch stays above, whatever of the stretch is given back: the
  debt at `low`, less the refill up to `end`.
- A charge within the time of one unit after `low` belongs to the stretch. So a refund can be short
  by what is refilled in that time, less than a unit, and all refunds together by no more.
- What was charged last comes back whole: nothing has happened since.
- At most MOST stretches are kept; beyond that two that are no longer than they are old become one.
  Refunds that come so late may be short by the refill of their stretch, once; none gives back too
  much.
- A limit that gives nothing back keeps no stretches.
"""

from typing import Final

from proxy.core.limits import bounds
from proxy.core.limits.decision import UNIT, Algorithm, Decision, Quota, Rate, State

MOST: Final = 16
"""Stretches that are kept."""


class Params:
    """`period` and `full` (from empty to full) are ticks of `tick` microseconds; `volume` is
    `size` units in units of 1/period; `refundable` is whether charges may be given back."""

    __slots__ = ("amount", "full", "period", "refundable", "size", "tick", "volume", "window")

    def __init__(
        self,
        amount: int,
        period: int,
        tick: int,
        size: int,
        volume: int,
        full: int,
        window: int | None,
        refundable: bool,
    ) -> None:
        self.amount = amount
        self.period = period
        self.tick = tick
        self.size = size
        self.volume = volume
        self.full = full
        self.window = window
        self.refundable = refundable


def compile_bucket(name: str, rate: Rate, size: int, refundable: bool) -> Params:
    """Parameters of a bucket that holds `size` units."""
    bounds.check_rate(name, rate)
    if size > bounds.SF_INTEGER:
        raise ValueError(f"burst must be below {bounds.SF_INTEGER}, all that RateLimit can say")
    tick = bounds.tick_of(rate.period)
    period = rate.period // tick
    volume = size * period
    full = bounds.up(volume, rate.amount)
    bounds.check_product(full * rate.amount)
    if full * tick > bounds.CENTURY:
        raise ValueError("burst would take more than a century to refill at this rate")
    window = bounds.whole_seconds(rate, bounds.up(size * rate.period, rate.amount))
    return Params(rate.amount, period, tick, size, volume, full, window, refundable)


def _denied(debt: int, owed: int, at: int, params: Params, now: int) -> Decision:
    """The answer where what would be `owed` at the tick `at` is more than the bucket holds."""
    amount, period, tick, size = params.amount, params.period, params.tick, params.size
    left = size + -debt // period
    wait = bounds.up(debt - (size - left - 1) * period, amount)
    retry = bounds.up(owed - params.volume, amount)
    return Decision(False, 0, (at + wait) * tick - now, (at + retry) * tick - now, 0)


def _minima(state: State, params: Params, debt: int, at: int) -> list[int]:
    """The stretches after a charge at the tick `at`, before which there was a debt."""
    owed: int = state[0]
    last: int = state[1]
    if owed > params.volume:
        return []  # a reload has made the bucket smaller: what was charged before stays charged
    minima: list[int] = list(state[2:]) or [last, last, 0, 0]
    if (at - minima[-4]) * params.amount < params.period:
        minima[-3] = at
        minima[-2] = least = min(debt, minima[-2])
        minima[-1] -= owed - debt
        while len(minima) > 4 and minima[-6] >= least:
            del minima[-8:-4]
    else:
        while minima and minima[-2] >= debt:
            del minima[-4:]
        if len(minima) == 4 * MOST:
            _join(minima, params.amount, at)
        minima += [at, at, debt, debt]
    return _brief(minima, at)


def _join(minima: list[int], amount: int, at: int) -> None:
    """Makes one stretch of the first two that together are no longer than they are old."""
    place = 0
    for begin in range(0, len(minima) - 4, 4):
        end = minima[begin + 5]
        if end - minima[begin] <= at - end:
            place = begin
            break
    refilled = (minima[place + 5] - minima[place + 1]) * amount
    minima[place + 1] = minima[place + 5]
    minima[place + 2] = min(minima[place + 2], minima[place + 6])
    minima[place + 3] -= refilled
    del minima[place + 4 : place + 8]


def _brief(minima: list[int], last: int) -> list[int]:
    """The stretches as a state has them whose newest charge was at the tick `last`."""
    return [] if minima == [last, last, 0, 0] else minima


class TokenBucket(Algorithm):
    """The algorithm; see the module."""

    __slots__ = ()
    name = "token_bucket"

    def compile(self, rate: Rate, burst: int | None, refundable: bool = True) -> Params:
        if burst is not None and burst < 1:
            raise ValueError(f"burst must be at least 1, or nothing could ever pass, not {burst}")
        size = rate.amount if burst is None else burst
        return compile_bucket(self.name, rate, size, refundable)

    def step(
        self, state: State | None, params: Params, now: int, cost: int
    ) -> tuple[State, Decision]:
        amount, period, tick, size = params.amount, params.period, params.tick, params.size
        volume = params.volume
        at = now if tick == 1 else now // tick
        debt: int = 0
        last: int
        if state is not None:
            debt = state[0]
            last = state[1]
            if debt > volume:
                debt = volume
            elapsed = at - last
            if elapsed > 0:
                debt = debt - elapsed * amount if elapsed < params.full else 0
                if debt < 0:
                    debt = 0
            elif elapsed < -period:
                debt = 0
            elif elapsed:
                at = last
                now = at * tick
        owed = debt + cost * period
        if owed > volume:
            return (debt, at), _denied(debt, owed, at, params, now)
        if not owed:
            return (0, at), Decision(True, size, 0, 0, 0)
        left = size + -owed // period
        # Until the debt is one unit less, counting one that is begun as a whole one.
        wait = -(((size - left - 1) * period - owed) // amount)
        reset = wait if tick == 1 else (at + wait) * tick - now
        decision = Decision(True, left, reset, 0, 0)
        if debt and cost and state is not None and params.refundable:
            return (owed, at, *_minima(state, params, debt, at)), decision
        return (owed, at), decision

    def refund(self, state: State, params: Params, charged: int, now: int, cost: int) -> State:
        debt: int = state[0]
        last: int = state[1]
        elapsed = max(now // params.tick, last) - last
        left = debt - elapsed * params.amount if elapsed < params.full else 0
        since = charged // params.tick
        if left <= 0 or since > last:  # nothing is owed, or this is another state than was charged
            return state
        minima = list(state[2:]) or [last, last, 0, 0]
        price = cost * params.period
        back = min(price, left)
        own = -1  # the stretch in which it was charged
        if since < last:
            for place in range(0, len(minima), 4):
                if minima[place] <= since:
                    own = place
                else:
                    back = min(back, minima[place + 2])
            if own < 0:
                return state
            back = max(0, min(back, max(minima[own + 2], minima[own + 3] + price)))
        first = 0
        for place in range(0, len(minima), 4):
            more = price - back if minima[place] <= since else -back
            minima[place + 3] += more
            least = minima[place + 2] + (-back if place == own else more)
            minima[place + 2] = least = max(least, minima[place + 3])
            if least <= 0:
                first = place  # what was charged before it gets nothing back any more
        return (debt - back, last, *_brief(minima[first:], last))

    def idle_at(self, state: State, params: Params, now: int) -> int:
        debt: int = state[0]
        last: int = state[1]
        if last - now // params.tick > params.period:
            return 0
        return (last + bounds.up(min(debt, params.volume), params.amount)) * params.tick

    def varies(self, params: Params) -> bool:
        return params.refundable

    def weight(self, state: State) -> int:
        # Each number beyond the first two is an object of 32 bytes, and 8 in the tuple.
        return 1 + (len(state) - 2) * 40 // UNIT

    def shortened(self, state: State) -> State:
        return state[:2]

    def capacity(self, params: Params) -> int:
        return params.size

    def quota(self, params: Params) -> Quota:
        return Quota(params.size, params.window)
