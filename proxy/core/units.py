"""The units of the YAML: durations, sizes, shares and rates as text → whole numbers.

Pure. Every function takes the text as written and raises ValueError with a sentence that fits
after the key's path: what it must be, what it is instead and, where it can be guessed, what to
write. Whole numbers only: `1.5s` is written `1500ms`, so that nothing is rounded in silence.
"""

import re

from proxy.core.limits.decision import Rate

MICROSECONDS = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
LONGEST = 3650 * MICROSECONDS["d"]

# What people write who come from elsewhere, and what it is called here.
_SPELLINGS = {
    "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "min": "m", "mins": "m", "minute": "m", "minutes": "m",
    "hr": "h", "hrs": "h", "hour": "h", "hours": "h",
    "day": "d", "days": "d",
    "msec": "ms", "millis": "ms", "millisecond": "ms", "milliseconds": "ms",
}  # fmt: skip
_DURATION_UNITS = ("ms", "s", "m", "h", "d")
_NUMBER = re.compile(r"([0-9]{1,15})([A-Za-z]*)")


def duration_us(text: str) -> int:
    """`250ms`, `30s`, `5m`, `24h` or `7d` in microseconds."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        hint = _decimal_hint(text)
        raise ValueError(
            f'must be a duration such as 250ms, 30s, 5m, 24h or 7d, not "{text}"{hint}'
        )
    number, unit = found.groups()
    if unit == "":
        raise ValueError(f"is a duration without a unit: write {number}s or {number}ms")
    if unit not in _DURATION_UNITS:
        known = _SPELLINGS.get(unit.lower()) or (unit.lower() if unit != "M" else "m")
        hint = f": write {number}{known}" if known in _DURATION_UNITS else ""
        raise ValueError(f'has an unknown unit "{unit}" (ms, s, m, h, d){hint}')
    value = int(number) * MICROSECONDS[unit]
    if value > LONGEST:
        raise ValueError("is longer than 3650d")
    return value


def duration(text: str) -> float:
    """A duration in seconds."""
    return duration_us(text) / 1_000_000


def size(text: str) -> int:
    """`16KiB`, `1MiB`, `10MB` or `512B` in bytes."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise ValueError(f'must be a size such as 16KiB, 1MiB or 10MB, not "{text}"')
    number, unit = found.groups()
    if unit == "":
        raise ValueError(f"is a size without a unit: write {number}B or {number}KiB")
    if unit not in BYTES:
        hint = _size_hint(number, unit)
        raise ValueError(f'has an unknown unit "{unit}" (B, KB, MB, GB, KiB, MiB, GiB){hint}')
    return int(number) * BYTES[unit]


def share(text: str) -> float:
    """`50%` as 0.5; 0% to 100%."""
    if not re.fullmatch(r"[0-9]{1,3}(?:\.[0-9]{1,4})?%", text):
        raise ValueError(f'must be a share such as 50%, not "{text}"')
    value = float(text[:-1])
    if value > 100:
        raise ValueError(f"must be between 0% and 100%, not {text}")
    return value / 100


def rate(text: str) -> Rate:
    """`100/s`, `60/m`, `1000/h`, `10000/d`, `5/10s` or `1000/month`."""
    amount_text, slash, per = text.partition("/")
    if not slash or not re.fullmatch(r"[0-9]{1,15}", amount_text):
        raise ValueError(f'must be a rate such as 100/s, 60/m, 5/10s or 10000/month, not "{text}"')
    amount = int(amount_text)
    if amount == 0:
        raise ValueError("must allow at least 1: a rate of 0 would refuse every request")
    if per == "month":
        return Rate(amount, 0, monthly=True)
    if per in _DURATION_UNITS:
        return Rate(amount, MICROSECONDS[per])
    if per.lower() in _SPELLINGS:
        raise ValueError(f'has an unknown unit "{per}": write {amount}/{_SPELLINGS[per.lower()]}')
    if per[:1].isdigit():
        try:
            period = duration_us(per)
        except ValueError as error:
            raise ValueError(f'has a period, "{per}", that {error}') from None
        if period == 0:
            raise ValueError(f'has a period of nothing: "{per}"')
        return Rate(amount, period)
    raise ValueError(f'has an unknown unit "{per}" (s, m, h, d, month or a duration such as 10s)')


def rate_text(rate: Rate) -> str:
    """A rate as `rate` reads it."""
    if rate.monthly:
        return f"{rate.amount}/month"
    unit = next(unit for unit in ("d", "h", "m", "s", "ms") if not rate.period % MICROSECONDS[unit])
    number = rate.period // MICROSECONDS[unit]
    return f"{rate.amount}/{unit if number == 1 and unit != 'ms' else f'{number}{unit}'}"


def _decimal_hint(text: str) -> str:
    found = re.fullmatch(r"([0-9]{1,9})\.([0-9]{1,3})(s|m|h)", text)
    if found is None:
        return ""
    whole, part, unit = found.groups()
    smaller, factor = {"s": ("ms", 1000), "m": ("s", 60), "h": ("m", 60)}[unit]
    value = int(whole + part) * factor
    number, rest = divmod(value, 10 ** len(part))
    return "" if rest else f": write {number}{smaller}"


def _size_hint(number: str, unit: str) -> str:
    folded = {known.lower(): known for known in BYTES}
    folded |= {"k": "KiB", "m": "MiB", "g": "GiB", "ki": "KiB", "mi": "MiB", "gi": "GiB"}
    known = folded.get(unit.lower())
    return f": write {number}{known}" if known else ""
