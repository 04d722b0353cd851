"""token_bucket: a bucket of `burst` units that refills at N per period, evenly and all the time.

State: (debt, last). `debt` is what is missing from a full bucket at the tick `last`, in units of
1/period: a request owes `period` for each unit of its cost, and each tick pays off N. So 3/s is
exactly 3/s, where a refill every 333,333 µs would not be.

Rules:
- A debt of 0 is a key never seen, whatever the burst. A debt above a lowered burst is an empty
  bucket.
- The elapsed time is cut to what fills an empty bucket before it is multiplied.
- A request that does not fit leaves the debt as it is.
"""

from proxy.core.limits import bounds
from proxy.core.limits.decision import Algorithm, Decision, Quota, Rate, State


class Params:
    """`period` and `full` (from empty to full) are ticks of `tick` microseconds; `volume` is
    `size` units in units of 1/period."""

    __slots__ = ("amount", "full", "period", "size", "tick", "volume", "window")

    def __init__(
        self,
        amount: int,
        period: int,
        tick: int,
        size: int,
        volume: int,
        full: int,
        window: int | None,
    ) -> None:
        self.amount = amount
        self.period = period
        self.tick = tick
        self.size = size
        self.volume = volume
        self.full = full
        self.window = window


def compile_bucket(name: str, rate: Rate, size: int) -> Params:
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
    return Params(rate.amount, period, tick, size, volume, full, window)


def _denied(debt: int, owed: int, at: int, params: Params, now: int) -> Decision:
    """The answer where what would be `owed` at the tick `at` is more than the bucket holds."""
    amount, period, tick, size = params.amount, params.period, params.tick, params.size
    left = size + -debt // period
    wait = bounds.up(debt - (size - left - 1) * period, amount)
    retry = bounds.up(owed - params.volume, amount)
    return Decision(False, 0, (at + wait) * tick - now, (at + retry) * tick - now, 0)


class TokenBucket(Algorithm):
    """The algorithm; see the module."""

    __slots__ = ()
    name = "token_bucket"

    def compile(self, rate: Rate, burst: int | None) -> Params:
        if burst is not None and burst < 1:
            raise ValueError(f"burst must be at least 1, or nothing could ever pass, not {burst}")
        return compile_bucket(self.name, rate, rate.amount if burst is None else burst)

    def step(
        self, state: State | None, params: Params, now: int, cost: int
    ) -> tuple[State, Decision]:
        amount, period, tick, size = params.amount, params.period, params.tick, params.size
        volume = params.volume
        at = now if tick == 1 else now // tick
        debt: int = 0
        last: int
        if state is not None:
            debt, last = state
            if debt > volume:
                debt = volume
            elapsed = at - last
            if elapsed > 0:
                debt = debt - elapsed * amount if elapsed < params.full else 0
                if debt < 0:
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
        return (owed, at), Decision(True, left, reset, 0, 0)

    def refund(self, state: State, params: Params, charged: int, now: int, cost: int) -> State:
        debt, last = state
        elapsed = max(now // params.tick, last) - charged // params.tick
        if elapsed >= params.full:
            return state
        # What is owed for it is what has not been paid off since.
        owed = max(0, cost * params.period - elapsed * params.amount)
        return debt - min(debt, owed), last

    def idle_at(self, state: State, params: Params) -> int:
        debt, last = state
        at: int = last + bounds.up(min(debt, params.volume), params.amount)
        return at * params.tick

    def capacity(self, params: Params) -> int:
        return params.size

    def quota(self, params: Params) -> Quota:
        return Quota(params.size, params.window)
