"""Ticks, and the bounds within which a limit counts without rounding.

Rules:
- A tick is 1 µs, or 1 ms for periods of more than an hour. A fraction such as a third of a second
  is never rounded: amounts are counted in units of 1/period instead.
- The Lua twins count in doubles, which hold whole numbers up to 2^53. A limit whose largest
  product passes that is refused when the YAML is read, not miscounted when it is used.
- No limit looks further ahead than a century, so that times since the epoch stay below 2^53 µs.
"""

from proxy.core.limits.decision import Rate

EXACT = 2**53
SECOND: int = 1_000_000
HOUR: int = 3600 * SECOND
CENTURY = 36_525 * 24 * HOUR
SF_INTEGER = 10**15 - 1
"""The largest Integer of a structured field (RFC 9651 §3.3.1)."""


def tick_of(period: int) -> int:
    """The tick of a limit with this period, in microseconds."""
    return 1 if period <= HOUR else 1000


def up(numerator: int, denominator: int) -> int:
    """The quotient rounded up."""
    return -(-numerator // denominator)


def check_rate(name: str, rate: Rate) -> None:
    """Raises ValueError where no algorithm, or not this one, can count the rate."""
    if rate.amount < 1:
        raise ValueError(f"rate must allow at least 1, not {rate.amount}")
    if rate.amount > SF_INTEGER:
        raise ValueError(f"rate must be at most {SF_INTEGER}, which is all that RateLimit can say")
    if rate.monthly:
        if name != "fixed_window":
            raise ValueError(f"{name} cannot count by calendar month: only fixed_window can")
    elif rate.period < 1:
        raise ValueError("rate needs a period of at least 1 µs")
    elif rate.period > CENTURY:
        raise ValueError("rate has a period of more than a century")
    elif rate.period % tick_of(rate.period):
        raise ValueError("a period of more than an hour must be whole milliseconds")


def refuse_burst(name: str, burst: int | None) -> None:
    """Raises ValueError where a burst is given to an algorithm that has none."""
    if burst is not None:
        raise ValueError(f"{name} has no burst: only token_bucket and leaky_bucket do")


def check_product(largest: int) -> None:
    """Raises ValueError where a limit's largest product would not be exact in a double."""
    if largest > EXACT:
        raise ValueError(
            f"the limit is too large to count exactly: it needs numbers up to {largest}, "
            f"more than 2^53; lower the rate, the burst or the period"
        )


def whole_seconds(rate: Rate, span: int) -> int | None:
    """RateLimit-Policy's w for a span in microseconds: None for months and for periods under a
    second."""
    return None if rate.monthly or rate.period < SECOND else up(span, SECOND)
