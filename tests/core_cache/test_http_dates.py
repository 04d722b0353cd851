"""Dates: three forms are read, all else is no date (RFC 9110 §5.6.7, RFC 9111 §4.2, §5.3)."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.dates import imf_fixdate, parse_http_date

NOW = 1_767_225_600_000  # 2026


def ms(*when):
    return int(datetime(*when, tzinfo=UTC).timestamp()) * 1000


WHEN = ms(1994, 11, 6, 8, 49, 37)

# rule: (text, ms)
READ = {
    "IMF-fixdate": ("Sun, 06 Nov 1994 08:49:37 GMT", WHEN),
    "RFC 850": ("Sunday, 06-Nov-94 08:49:37 GMT", WHEN),
    "asctime, one digit": ("Sun Nov  6 08:49:37 1994", WHEN),
    "asctime, two digits": ("Sun Nov 16 08:49:37 1994", ms(1994, 11, 16, 8, 49, 37)),
    "§4.2: case of the weekday": ("THU, 18 Aug 2050 02:01:18 GMT", ms(2050, 8, 18, 2, 1, 18)),
    "§4.2: case of the month": ("Thu, 18 AUG 2050 02:01:18 GMT", ms(2050, 8, 18, 2, 1, 18)),
    "§4.2: case of the zone": ("Thu, 18 Aug 2050 02:01:18 gMT", ms(2050, 8, 18, 2, 1, 18)),
    "RFC 850 in any case": ("sunDAY, 06-nOV-94 08:49:37 gmt", WHEN),
    "a weekday that is wrong": ("Mon, 06 Nov 1994 08:49:37 GMT", WHEN),
    "a leap second is the next minute's first": (
        "Sat, 31 Dec 2016 23:59:60 GMT", ms(2017, 1, 1)),
    "29 February": ("Thu, 29 Feb 2024 00:00:00 GMT", ms(2024, 2, 29)),
    "before the epoch": ("Wed, 31 Dec 1969 23:59:59 GMT", -1000),
    "the last year": ("Fri, 31 Dec 9999 23:59:59 GMT", ms(9999, 12, 31, 23, 59, 59)),
}  # fmt: skip

# rule: text
NO_DATE = {
    "a number": "0",
    "minus one": "-1",
    "nothing": "",
    "no comma": "Thu 18 Aug 2050 02:01:18 GMT",
    "UTC": "Thu, 18 Aug 2050 02:01:18 UTC",
    "another zone": "Thu, 18 Aug 2050 02:01:18 AEST",
    "an offset": "Thu, 18 Aug 2050 02:01:18 +0000",
    "no zone": "Thu, 18 Aug 2050 02:01:18",
    "two-digit year in IMF form": "Thu, 18 Aug 50 02:01:18 GMT",
    "four-digit year in RFC 850 form": "Thursday, 18-Aug-2050 02:01:18 GMT",
    "short weekday in RFC 850 form": "Thu, 18-Aug-50 02:01:18 GMT",
    "long weekday in IMF form": "Thursday, 18 Aug 2050 02:01:18 GMT",
    "dashes in IMF form": "Thu, 18-Aug-2050 02:01:18 GMT",
    "periods in the time": "Thu, 18 Aug 2050 02.01.18 GMT",
    "one-digit hour": "Thu, 18 Aug 2050 2:01:18 GMT",
    "one-digit day": "Sun, 6 Nov 1994 08:49:37 GMT",
    "double spaces": "Thu, 18  Aug  2050 02:01:18 GMT",
    "asctime with a zone": "Sun Nov  6 08:49:37 1994 GMT",
    "asctime with a zero day": "Sun Nov 06 08:49:37 94",
    "hour 24": "Thu, 18 Aug 2050 24:00:00 GMT",
    "minute 60": "Thu, 18 Aug 2050 02:60:00 GMT",
    "second 61": "Thu, 18 Aug 2050 02:01:61 GMT",
    "day 0": "Thu, 00 Aug 2050 02:01:18 GMT",
    "day 32": "Thu, 32 Aug 2050 02:01:18 GMT",
    "29 February of a common year": "Thu, 29 Feb 2023 02:01:18 GMT",
    "no such month": "Thu, 18 Agu 2050 02:01:18 GMT",
    "no such weekday": "Foo, 18 Aug 2050 02:01:18 GMT",
    "no such long weekday": "Tueday, 18-Aug-50 02:01:18 GMT",
    "year 0": "Thu, 18 Aug 0000 02:01:18 GMT",
    "space before": " Thu, 18 Aug 2050 02:01:18 GMT",
    "space after": "Thu, 18 Aug 2050 02:01:18 GMT ",
    "a line feed after": "Thu, 18 Aug 2050 02:01:18 GMT\n",
    "two of them": "Thu, 18 Aug 2050 02:01:18 GMT, Thu, 18 Aug 2050 02:01:18 GMT",
    "digits of another script": "Thu, 1٨ Aug 2050 02:01:18 GMT",
    "a dotless i": "Frı, 18 Aug 2050 02:01:18 GMT",
    "a long s": "Sun, 06 Nov 1994 08:49:37 GMT".replace("S", "ſ"),
}

# rule: (now, two digits of the year, full year)
CENTURIES = {
    "this year": (2026, "26", 2026),
    "in the past": (2026, "94", 1994),
    "up to 50 years ahead": (2026, "75", 2075),
    "more than 50 years ahead is the past": (2026, "77", 1977),
    "over the turn of a century": (2090, "05", 2105),
    "before the turn": (2090, "60", 2060),
    "just after the turn": (2101, "99", 2099),
}


@pytest.mark.parametrize(("text", "expected"), READ.values(), ids=READ)
def test_a_date_is_read(text, expected):
    assert parse_http_date(text, NOW) == expected


@pytest.mark.parametrize("text", NO_DATE.values(), ids=NO_DATE)
def test_what_is_not_exactly_a_date_is_none(text):
    assert parse_http_date(text, NOW) is None


@pytest.mark.parametrize(("now", "digits", "year"), CENTURIES.values(), ids=CENTURIES)
def test_two_digits_are_the_latest_year_at_most_50_ahead(now, digits, year):
    text = f"Monday, 01-Jun-{digits} 12:00:00 GMT"
    assert parse_http_date(text, ms(now, 7, 1)) == ms(year, 6, 1, 12)


def test_fifty_years_are_counted_to_the_day():
    ahead = ms(2026, 6, 15)
    assert parse_http_date("Monday, 01-Jun-76 00:00:00 GMT", ahead) == ms(2076, 6, 1)
    assert parse_http_date("Monday, 01-Jul-76 00:00:00 GMT", ahead) == ms(1976, 7, 1)


def test_a_29_february_that_no_century_has_is_none():
    assert parse_http_date("Monday, 29-Feb-25 00:00:00 GMT", NOW) is None


@given(st.integers(0, 253_402_300_799))
def test_what_is_written_is_read_back(second):
    text = imf_fixdate(second)
    assert parse_http_date(text, NOW) == second * 1000
    assert int(parsedate_to_datetime(text).timestamp()) == second


@given(st.integers(-62_135_596_800, 253_402_300_799))
def test_asctime_is_read_as_it_is_written(second):
    at = datetime.fromtimestamp(second, UTC)
    text = at.ctime()
    text = text[:-4] + f"{at.year:04d}" if len(text) == 24 else text
    assert parse_http_date(text, NOW) == second * 1000


@given(st.text() | st.from_regex(r"\A[A-Za-z]{3},? ?\d{1,2}[ -][A-Za-z]{3}[ -]\d{2,4} [\d:]+ ?G?"))
def test_no_text_raises(text):
    assert parse_http_date(text, NOW) is None or isinstance(parse_http_date(text, NOW), int)
