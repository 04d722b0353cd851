"""fixed_window: N units in each window; windows begin at multiples of the period since the epoch.

State: (end, used). `end` is the microsecond at which the window that was charged last ends. It
alone says whether that window still lasts, so time that runs backwards stays in it, unless it runs
back by more than a period.

Rules:
- In UTC, a day begins at 00:00 and an hour at :00. `month` is the calendar month.
- A request at exactly `end` belongs to the next window.
- Worst case: N just before the end of a window and N just after it, 2N in an instant.
"""

from proxy.core.limits import bounds
from proxy.core.limits.decision import Algorithm, Decision, Quota, Rate, State

DAY = 24 * bounds.HOUR
LONGEST_MONTH = 31 * DAY

# Dates are counted from 0000-03-01, so that the leap day is the last day of its year.
_MARCH_0000 = 719_468  # days from there to 1970-01-01
_DAYS_IN_400_YEARS = 146_097


def month_end(now: int) -> int:
    """When the UTC calendar month that holds `now` ends (both µs since the epoch)."""
    day = now // DAY + _MARCH_0000
    # Years of the mean length are at most one or two ahead of the real ones.
    year = day * 400 // _DAYS_IN_400_YEARS + 1
    while _first_day(year) > day:
        year -= 1
    month = (5 * (day - _first_day(year)) + 2) // 153  # 0 is March; five months have 153 days
    if month == 11:
        following = _first_day(year + 1)
    else:
        following = _first_day(year) + (153 * (month + 1) + 2) // 5
    return (following - _MARCH_0000) * DAY


def _first_day(year: int) -> int:
    """Days from 0000-03-01 to the first of March of `year` (Gregorian leap years)."""
    return 365 * year + year // 4 - year // 100 + year // 400


class Params:
    """`period` is microseconds; 0 is a calendar month. `lead` is how far the end of a window may be
    ahead: that of the next one."""

    __slots__ = ("amount", "lead", "period", "window")

    def __init__(self, amount: int, period: int, window: int | None) -> None:
        self.amount = amount
        self.lead = 2 * (period or LONGEST_MONTH)
        self.period = period
        self.window = window


class FixedWindow(Algorithm):
    """The algorithm; see the module."""

    __slots__ = ()
    name = "fixed_window"

    def compile(self, rate: Rate, burst: int | None, refundable: bool = True) -> Params:
        bounds.check_rate(self.name, rate)
        bounds.refuse_burst(self.name, burst)
        window = bounds.whole_seconds(rate, rate.period)
        return Params(rate.amount, 0 if rate.monthly else rate.period, window)

    def step(
        self, state: State | None, params: Params, now: int, cost: int
    ) -> tuple[State, Decision]:
        amount, period = params.amount, params.period
        end: int
        used: int
        if state is not None and now < state[0] <= now + params.lead:
            end, used = state
        else:
            used = 0
            end = now - now % period + period if period else month_end(now)
        if cost and used + cost > amount:
            return (end, used), Decision(False, 0, end - now, end - now, 0)
        used += cost
        left = amount - used if used < amount else 0
        return (end, used), Decision(True, left, end - now if used else 0, 0, 0)

    def refund(self, state: State, params: Params, charged: int, now: int, cost: int) -> State:
        end, used = state
        period = params.period
        window = charged - charged % period + period if period else month_end(charged)
        return (end, max(0, used - cost)) if window == end else state

    def idle_at(self, state: State, params: Params, now: int) -> int:
        end: int = state[0]
        return end if end <= now + params.lead else 0

    def capacity(self, params: Params) -> int:
        return params.amount

    def quota(self, params: Params) -> Quota:
        return Quota(params.amount, params.window)
