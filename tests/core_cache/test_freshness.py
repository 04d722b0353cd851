"""Lifetime and age (RFC 9111 §4.2, §5.1, §5.3; RFC 9213 §2.2; the contract's caches: keys)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_kit import DATE, DAY, NOW, SECOND, at, fields

from proxy.core.cache.directives import MOST, read_response
from proxy.core.cache.freshness import Lifetime, lifetime, moments
from proxy.core.cache.record import CacheTerms

MODIFIED = f"Last-Modified: {at(-1000)}"  # 10 % is 100 s


def lasts(*lines, status=200, terms=None, unkeyed_cookie=False, took=0):
    response = fields(*lines)
    return lifetime(
        status,
        read_response(response),
        moments(response, NOW - took, NOW),
        terms or CacheTerms(),
        unkeyed_cookie=unkeyed_cookie,
    )


def seconds(found):
    return found.span / SECOND, found.source


# rule: (lines, lifetime in s, source)
ORIGIN = {
    "nothing": ([DATE], 0, None),
    "§4.2.1: max-age": (["Cache-Control: max-age=60"], 60, "max-age"),
    "§4.2.1: s-maxage before a longer max-age": (
        ["Cache-Control: max-age=60, s-maxage=5"], 5, "s-maxage"),
    "§4.2.1: s-maxage before a shorter max-age": (
        ["Cache-Control: s-maxage=60, max-age=5"], 60, "s-maxage"),
    "§5.3: max-age before Expires": (
        ["Cache-Control: max-age=60", f"Expires: {at(5)}"], 60, "max-age"),
    "§5.3: max-age=0 before a future Expires": (
        ["Cache-Control: max-age=0", f"Expires: {at(500)}"], 0, "max-age"),
    "§5.3: max-age before a broken Expires": (
        ["Cache-Control: max-age=60", "Expires: 0"], 60, "max-age"),
    "§4.2.1: a broken max-age is stale, Expires or not": (
        ["Cache-Control: max-age=x", f"Expires: {at(500)}"], 0, "max-age"),
    "§4.2.1: Expires − Date": ([f"Date: {at(-10)}", f"Expires: {at(20)}"], 30, "expires"),
    "§4.2.1: both ahead of us": ([f"Date: {at(400)}", f"Expires: {at(500)}"], 100, "expires"),
    "§4.2.1: Expires before Date": ([f"Date: {at(400)}", f"Expires: {at(300)}"], 0, "expires"),
    "§4.2.1: Expires is Date": ([DATE, f"Expires: {at(0)}"], 0, "expires"),
    "§4.2.1: Expires without Date": ([f"Expires: {at(20)}"], 20, "expires"),
    "§5.3: Expires with a broken Date": (["Date: foo", f"Expires: {at(20)}"], 20, "expires"),
    "§5.3: 0 is the past": ([DATE, "Expires: 0"], 0, "expires"),
    "§5.3: two lines are no date": (
        [DATE, f"Expires: {at(20)}", f"Expires: {at(20)}"], 0, "expires"),
    "§5.3: an empty Expires is the past": ([DATE, "Expires:"], 0, "expires"),
    "§5.3: an unfit form is the past": ([DATE, "Expires: Thu, 18 Aug 50 02:01:18 GMT"], 0,
        "expires"),
    "RFC 9213: CDN-Cache-Control before Cache-Control": (
        ["CDN-Cache-Control: max-age=5", "Cache-Control: s-maxage=60"], 5, "max-age"),
    "RFC 9213: CDN-Cache-Control before Expires": (
        [DATE, "CDN-Cache-Control: none", f"Expires: {at(500)}"], 0, None),
    "RFC 9213: a broken one does not": (
        [DATE, 'CDN-Cache-Control: max-age="5"', f"Expires: {at(500)}"], 500, "expires"),
    "§4.2.2: a tenth since Last-Modified": ([DATE, MODIFIED], 100, "heuristic"),
    "§4.2.2: at most a day": (
        [DATE, f"Last-Modified: {at(-864_000 * 3)}"], 86_400, "heuristic"),
    "§4.2.2: also after a targeted field without freshness": (
        [DATE, MODIFIED, "CDN-Cache-Control: none"], 100, "heuristic"),
    "§4.2.2: not beside an explicit expiry": (
        [DATE, MODIFIED, "Cache-Control: max-age=0"], 0, "max-age"),
    "§4.2.2: not beside a broken expiry": ([DATE, MODIFIED, "Expires: -1"], 0, "expires"),
    "§4.2.2: modified in the future": ([DATE, f"Last-Modified: {at(5)}"], 0, None),
    "§4.2.2: a broken Last-Modified": ([DATE, "Last-Modified: yesterday"], 0, None),
}  # fmt: skip

TERMS = CacheTerms(
    default_ttl=7 * SECOND, ttl_by_status=((404, 9 * SECOND), (302, 8 * SECOND), (500, SECOND))
)
TTL = CacheTerms(ttl=30 * SECOND, default_ttl=7 * SECOND, ttl_by_status=((404, 9 * SECOND),))
ZERO = CacheTerms(ttl=0)

# rule: (terms, status, lines, lifetime in s, source)
POLICY = {
    "default_ttl where there is nothing": (TERMS, 200, [DATE], 7, "default_ttl"),
    "default_ttl: not beside a lifetime": (TERMS, 200, ["Cache-Control: max-age=60"], 60,
        "max-age"),
    "default_ttl: not beside max-age=0": (TERMS, 200, ["Cache-Control: max-age=0"], 0, "max-age"),
    "default_ttl: not beside Last-Modified": (TERMS, 200, [DATE, MODIFIED], 100, "heuristic"),
    "default_ttl: not beside Last-Modified that is now": (
        TERMS, 200, [DATE, f"Last-Modified: {at(0)}"], 0, None),
    "default_ttl: a broken Last-Modified is none": (
        TERMS, 200, [DATE, "Last-Modified: x"], 7, "default_ttl"),
    "default_ttl: not for an error": (TERMS, 503, [DATE], 0, None),
    "default_ttl: for an error that is public": (
        TERMS, 503, ["Cache-Control: public"], 7, "default_ttl"),
    "ttl_by_status": (TERMS, 404, [DATE], 9, "ttl_by_status"),
    "ttl_by_status: before the heuristic": (TERMS, 404, [DATE, MODIFIED], 9, "ttl_by_status"),
    "ttl_by_status: not beside a lifetime": (TERMS, 404, ["Cache-Control: max-age=60"], 60,
        "max-age"),
    "ttl_by_status: for any status": (TERMS, 500, [DATE], 1, "ttl_by_status"),
    "ttl_by_status: for a redirect": (TERMS, 302, [DATE], 8, "ttl_by_status"),
    "ttl replaces a longer lifetime": (TTL, 200, ["Cache-Control: max-age=60"], 30, "ttl"),
    "ttl replaces a shorter lifetime": (TTL, 200, ["Cache-Control: s-maxage=5"], 30, "ttl"),
    "ttl replaces max-age=0": (TTL, 200, ["Cache-Control: max-age=0"], 30, "ttl"),
    "ttl replaces Expires": (TTL, 200, [DATE, "Expires: 0"], 30, "ttl"),
    "ttl replaces the heuristic": (TTL, 200, [DATE, MODIFIED], 30, "ttl"),
    "ttl comes before default_ttl": (TTL, 200, [DATE], 30, "ttl"),
    "ttl: the more specific ttl_by_status first": (TTL, 404, [DATE], 9, "ttl_by_status"),
    "ttl: but not where the origin speaks": (TTL, 404, ["Cache-Control: max-age=60"], 30, "ttl"),
    "ttl: no error becomes fresh by it": (TTL, 500, [DATE], 0, None),
    "ttl: an error that the origin lets be fresh": (
        TTL, 500, ["Cache-Control: max-age=5"], 30, "ttl"),
    "ttl of 0": (ZERO, 200, ["Cache-Control: max-age=60"], 0, "ttl"),
    "policy counts from receipt": (TERMS, 200, [DATE, "Age: 1000"], 1007, "default_ttl"),
    "ttl counts from receipt": (TTL, 200, ["Cache-Control: max-age=60", "Age: 50"], 80, "ttl"),
}  # fmt: skip

HEURISTIC = {200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501}

# rule: (lines, took in s, initial age in s)
AGES = {
    "neither Date nor Age": ([], 0, 0),
    "§4.2.3: apparent age": ([f"Date: {at(-30)}"], 0, 30),
    "§4.2.3: Date ahead of us": ([f"Date: {at(30)}"], 0, 0),
    "§4.2.3: Age": ([DATE, "Age: 40"], 0, 40),
    "§4.2.3: Age and the time on the way": ([DATE, "Age: 40"], 2, 42),
    "§4.2.3: the time on the way alone": ([], 2, 2),
    "§4.2.3: the larger of the two": ([f"Date: {at(-50)}", "Age: 40"], 2, 50),
    "§5.1: not a number": (["Age: abc"], 0, 0),
    "§5.1: negative": (["Age: -7200"], 0, 0),
    "§5.1: a decimal": (["Age: 7200.0"], 0, 0),
    "§5.1: with a parameter": (["Age: 7200;foo=111"], 0, 0),
    "§5.1: the first member": (["Age: 7200, 0"], 0, 7200),
    "§5.1: the first member, also if smaller": (["Age: 0, 7200"], 0, 0),
    "§5.1: the first line": (["Age: 7200", "Age: 0"], 0, 7200),
    "§5.1: the first line, also if smaller": (["Age: 0", "Age: 7200"], 0, 0),
    "§5.1: a first line that is broken": (["Age: x", "Age: 7200"], 0, 0),
    "§1.2.2: 2^31 − 1": (["Age: 2147483647"], 0, 2**31 - 1),
    "§1.2.2: over the most": (["Age: 9999999999999"], 0, 2**31),
}


@pytest.mark.parametrize(("lines", "span", "source"), ORIGIN.values(), ids=ORIGIN)
def test_the_origins_lifetime(lines, span, source):
    assert seconds(lasts(*lines)) == (span, source)


@pytest.mark.parametrize(
    "status", [*sorted(HEURISTIC), 201, 202, 299, 302, 307, 403, 500, 502, 599]
)
def test_statuses_that_may_be_guessed(status):
    assert lasts(DATE, MODIFIED, status=status).source == (
        "heuristic" if status in HEURISTIC else None
    )
    public = lasts(DATE, MODIFIED, "Cache-Control: public", status=status)
    assert public.source == "heuristic"


@pytest.mark.parametrize(
    ("terms", "status", "lines", "span", "source"), POLICY.values(), ids=POLICY
)
def test_the_policys_lifetime(terms, status, lines, span, source):
    assert seconds(lasts(*lines, status=status, terms=terms)) == (span, source)


@pytest.mark.parametrize(("terms", "status", "lines"), [row[:3] for row in POLICY.values()])
def test_a_cookie_outside_the_key_leaves_the_origins_word_alone(terms, status, lines):
    found = lasts(*lines, status=status, terms=terms, unkeyed_cookie=True)
    without = lasts(*lines, status=status)
    assert found == (without if without.explicit else Lifetime(0, None, False))


def test_a_lifetime_that_the_policy_replaced_is_still_explicit():
    assert lasts("Cache-Control: max-age=60", terms=TTL).explicit
    assert not lasts(DATE, MODIFIED, terms=TTL).explicit
    assert not lasts(DATE, terms=TERMS).explicit
    assert not lasts(DATE, terms=TERMS, status=404).explicit


@pytest.mark.parametrize(("lines", "took", "age"), AGES.values(), ids=AGES)
def test_the_age_it_comes_with(lines, took, age):
    times = moments(fields(*lines), NOW - took * SECOND, NOW)
    assert times.initial_age == age * SECOND


def test_a_part_of_a_second_that_date_leaves_out_is_not_age():
    assert moments(fields(DATE), NOW + 900, NOW + 950).initial_age == 50
    assert moments(fields(f"Date: {at(-1)}"), NOW + 900, NOW + 950).initial_age == SECOND


def test_a_clock_set_back_on_the_way_makes_no_negative_age():
    assert moments(fields("Age: 3"), NOW, NOW - 5 * SECOND).initial_age == 3 * SECOND


def test_no_date_is_the_time_of_receipt():
    times = moments(fields("Date: yesterday"), NOW, NOW + 70)
    assert (times.date, times.dated) == (NOW + 70, False)
    times = moments(fields(f"Date: {at(-4)}"), NOW, NOW + 70)
    assert (times.date, times.dated) == (NOW - 4 * SECOND, True)


TEXT = st.text(st.characters(max_codepoint=255), max_size=30)
VALUES = st.sampled_from([at(0), at(-1000), at(60), "0", "60", "max-age=60", "public"]) | TEXT


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["Date", "Age", "Expires", "Last-Modified", "Cache-Control", "CDN-Cache-Control"]
            ),
            VALUES,
        )
    ),
    st.sampled_from([200, 302, 404, 500]),
    st.sampled_from([CacheTerms(), TERMS, TTL]),
    st.booleans(),
)
def test_no_response_raises_or_lasts_a_negative_time(lines, status, terms, cookie):
    found = lasts(
        *(f"{n}: {v}" for n, v in lines), status=status, terms=terms, unkeyed_cookie=cookie
    )
    # A date can be no further away than year 9999.
    assert 0 <= found.span <= MOST + 8000 * 366 * DAY
    assert found.span == 0 or found.source is not None
    assert found.explicit or found.source not in ("s-maxage", "max-age", "expires")
