"""HTTP dates (RFC 9110 §5.6.7): one form is written, three are read, nothing else is a date.

Reading is strict on purpose. A cache that guesses at a broken Expires keeps answers that the origin
meant to be gone, so what is not exactly one of the three forms is no date at all:
- names of days and months in any case (RFC 9111 §4.2), but spelled out as the form says;
- GMT only, two-digit hours, single spaces, no dashes or commas elsewhere;
- the weekday is not held against the date: nothing depends on it.
"""

import re
from datetime import UTC, date, datetime

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_NUMBER = {name.lower(): number for number, name in enumerate(_MONTHS, 1)}

_DAY = "(?:" + "|".join(_DAYS) + ")"
_FULL_DAY = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_MONTH = "(" + "|".join(_MONTHS) + ")"
_TIME = "([0-9]{2}):([0-9]{2}):([0-9]{2})"
_IMF = re.compile(rf"{_DAY}, ([0-9]{{2}}) {_MONTH} ([0-9]{{4}}) {_TIME} GMT", re.I | re.A)
_RFC850 = re.compile(rf"{_FULL_DAY}, ([0-9]{{2}})-{_MONTH}-([0-9]{{2}}) {_TIME} GMT", re.I | re.A)
_ASCTIME = re.compile(rf"{_DAY} {_MONTH} ([0-9]{{2}}| [0-9]) {_TIME} ([0-9]{{4}})", re.I | re.A)

_FIFTY_YEARS = 50 * 31_556_952_000  # of the calendar's mean length
_EPOCH = date(1970, 1, 1).toordinal()


def imf_fixdate(second: int) -> str:
    """Seconds since the epoch, as IMF-fixdate: the one form that may be generated."""
    at = datetime.fromtimestamp(second, UTC)
    return (
        f"{_DAYS[at.weekday()]}, {at.day:02d} {_MONTHS[at.month - 1]} {at.year:04d}"
        f" {at.hour:02d}:{at.minute:02d}:{at.second:02d} GMT"
    )


def parse_http_date(text: str, now: int) -> int | None:
    """A date's milliseconds since the epoch (negative before 1970), or None for what is no date.

    `now` in milliseconds tells the century of an RFC 850 date.
    """
    if match := _IMF.fullmatch(text):
        day, month, year, *time = match.groups()
        return _instant(int(year), month, day, time)
    if match := _RFC850.fullmatch(text):
        day, month, year, *time = match.groups()
        return _two_digit_year(int(year), month, day, time, now)
    if match := _ASCTIME.fullmatch(text):
        month, day, *time, year = match.groups()
        return _instant(int(year), month, day, time)
    return None


def _two_digit_year(year: int, month: str, day: str, time: list[str], now: int) -> int | None:
    """The latest such date that is not more than 50 years ahead."""
    this_year = datetime.fromtimestamp(now // 1000, UTC).year
    full = this_year - this_year % 100 + 100 + year
    while True:
        at = _instant(full, month, day, time)
        if at is None or at <= now + _FIFTY_YEARS:
            return at
        full -= 100


def _instant(year: int, month: str, day: str, time: list[str]) -> int | None:
    hour, minute, second = map(int, time)
    # 60 is a leap second: the first of the next minute.
    if hour > 23 or minute > 59 or second > 60:
        return None
    try:
        days = date(year, _MONTH_NUMBER[month.lower()], int(day)).toordinal() - _EPOCH
    except ValueError:
        return None
    return (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000
