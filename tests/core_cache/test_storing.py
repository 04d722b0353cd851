"""What is stored and as what (RFC 9111 §3, RFC 6585, RFC 5861, RFC 9213)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_kit import DATE, NOW, SECOND, at, fields, judged

from proxy.core.cache.record import CacheTerms, Stored
from proxy.core.cache.storing import (
    NotStored,
    has_unkeyed_cookie,
    judge,
    not_stored,
)
from proxy.core.fields import Fields

FRESH = "Cache-Control: max-age=60"
ETAG = 'ETag: "a"'
MODIFIED = f"Last-Modified: {at(-1000)}"
BASIC = ["Authorization: Basic eDp5"]
PROXY_BASIC = ["Proxy-Authorization: Basic eDp5"]
USER = ["X-User: 7"]
COOKIE = ["Cookie: sid=1"]
POLICY = CacheTerms(default_ttl=10 * SECOND)
TRUSTING = CacheTerms(default_ttl=SECOND, trusted_headers=frozenset({"x-user", "x-plan"}))
LENIENT = CacheTerms(stale_while_revalidate=5 * SECOND, stale_if_error=9 * SECOND)


def cc(text):
    return f"Cache-Control: {text}"


# rule: (response lines, further arguments)
STORED = {
    "§3: max-age": ([FRESH], {}),
    "§3: s-maxage": ([cc("s-maxage=60")], {}),
    "§3: Expires": ([DATE, f"Expires: {at(60)}"], {}),
    "§3: a heuristic lifetime": ([DATE, MODIFIED], {}),
    "§3: a HEAD": ([FRESH], {"method": "HEAD"}),
    "§3: must be asked each time, but can be": ([ETAG], {}),
    "§3: expired, but can be asked": ([cc("max-age=0"), ETAG], {}),
    "§3: expired, but has Last-Modified": ([DATE, cc("max-age=0"), MODIFIED], {}),
    "§5.2.2.4: no-cache with a validator": ([cc("no-cache"), ETAG], {}),
    "§5.2.2.4: no-cache of some fields": ([cc('no-cache="a", max-age=60')], {}),
    "§5.2.2.7: private of some fields": ([cc('private="a", max-age=60')], {}),
    "§3.5: Authorization and public": ([cc("public, max-age=60")], {"request": BASIC}),
    "§3.5: Authorization and must-revalidate": (
        [cc("must-revalidate, max-age=60")], {"request": BASIC}),
    "§3.5: Authorization and s-maxage": ([cc("s-maxage=60")], {"request": BASIC}),
    "§3.5: Authorization and a targeted public": (
        ["CDN-Cache-Control: public, max-age=60", cc("private")], {"request": BASIC}),
    "§3.5: Proxy-Authorization and public": ([cc("public, max-age=60")], {"request": PROXY_BASIC}),
    "a trusted header and public": (
        [cc("public, max-age=60")], {"request": USER, "terms": TRUSTING}),
    "a trusted header and s-maxage": ([cc("s-maxage=60")], {"request": USER, "terms": TRUSTING}),
    "a trusted header that it varies by": (
        [FRESH, "Vary: X-Plan, X-User"], {"request": USER, "terms": TRUSTING}),
    "no trusted header in this request": ([DATE], {"terms": TRUSTING}),
    "§4.1: Vary": ([FRESH, "Vary: Accept"], {}),
    "§5.2.2.3: must-understand lifts no-store": (
        [cc("max-age=60, no-store, must-understand")], {}),
    "§5.4: Pragma in a response": ([FRESH, "Pragma: no-cache"], {}),
    "§7.3: withheld Set-Cookie": ([cc('private="Set-Cookie", max-age=60'), "Set-Cookie: a=b"], {}),
    "set-cookie by the policy": (
        [FRESH, "Set-Cookie: a=b"], {"terms": CacheTerms(store_set_cookie=True)}),
    "RFC 5861: expired, but may be stale": ([cc("max-age=0, stale-while-revalidate=9")], {}),
    "RFC 5861: expired, but may replace an error": ([cc("max-age=0, stale-if-error=9")], {}),
    "expired, but the policy lets it be stale": ([cc("max-age=0")], {"terms": LENIENT}),
    "RFC 9213: before no-store": (["CDN-Cache-Control: max-age=60", cc("no-store")], {}),
    "a cookie and an explicit lifetime": ([FRESH], {"request": COOKIE}),
    "a cookie and no-cache": ([cc("no-cache"), ETAG], {"request": COOKIE}),
    "a cookie of the key": ([DATE], {"request": COOKIE, "terms": CacheTerms(
        default_ttl=SECOND, keyed_cookies=frozenset({"sid"}))}),
    "all cookies in the key": ([DATE], {"request": COOKIE, "terms": CacheTerms(
        default_ttl=SECOND, keyed_headers=frozenset({"cookie"}))}),
    "default_ttl": ([DATE], {"terms": POLICY}),
    "ttl_by_status": ([DATE], {"status": 500, "terms": CacheTerms(ttl_by_status=((500, 9),))}),
    "the policy counts from receipt, not from Age": ([DATE, "Age: 999"], {"terms": POLICY}),
    "request max-age is no word on storing": ([FRESH], {"request": [cc("max-age=0")]}),
    "Range ignored by the origin": ([FRESH], {"request": ["Range: bytes=0-1"]}),
}  # fmt: skip

# rule: (response lines, further arguments, reason, hit_for_miss)
REFUSED = {
    "§3: POST": ([FRESH], {"method": "POST"}, "method", False),
    "§3: OPTIONS": ([FRESH], {"method": "OPTIONS"}, "method", False),
    "§3: an unknown method": ([FRESH], {"method": "get"}, "method", False),
    "GET with a body": ([FRESH], {"has_body_in_request": True}, "request-body", False),
    "§5.2.1.5: request no-store": (
        [FRESH], {"request": [cc("no-store")]}, "request-no-store", False),
    "§5.2.2.5: no-store": ([cc("no-store, max-age=60")], {}, "no-store", True),
    "§5.2.2.7: private": ([cc("private, max-age=60")], {}, "private", True),
    "§5.2.2.7: private of both kinds": (
        [cc('private="a", private, max-age=60')], {}, "private", True),
    "§5.2.2.3: must-understand and a strange status": (
        [cc("max-age=60, must-understand")], {"status": 299}, "not-understood", True),
    "§5.2.2.3: must-understand does not lift private": (
        [cc("private, max-age=60, must-understand, no-store")], {}, "private", True),
    "RFC 9213: no-store before max-age": (
        ["CDN-Cache-Control: no-store", FRESH, DATE, f"Expires: {at(60)}"], {}, "no-store", True),
    "RFC 9213: private before max-age": (
        ["CDN-Cache-Control: private", FRESH], {}, "private", True),
    "RFC 9213: a broken field falls back": (
        ['CDN-Cache-Control: max-age="60"', cc("no-store")], {}, "no-store", True),
    "RFC 9213: no fallback to max-age": (["CDN-Cache-Control: none", FRESH], {}, "no-freshness",
        True),
    "§4.1: Vary: *": ([FRESH, "Vary: *"], {}, "vary", True),
    "§4.1: * among others": ([FRESH, "Vary: *, Accept"], {}, "vary", True),
    "§4.1: * on a second line": ([FRESH, "Vary: Accept", "Vary: , *"], {}, "vary", True),
    "§3.5: Authorization": ([FRESH], {"request": BASIC}, "authorization", False),
    "§3.5: Authorization and proxy-revalidate": (
        [cc("max-age=60, proxy-revalidate")], {"request": BASIC}, "authorization", False),
    "§3.5: Authorization and the policy": (
        [DATE], {"request": BASIC, "terms": POLICY}, "authorization", False),
    "§3.5: Authorization in the key": ([FRESH], {"request": BASIC, "terms": CacheTerms(
        keyed_headers=frozenset({"authorization"}))}, "authorization", False),
    "§3.5: a plain public does not count beside a targeted field": (
        ["CDN-Cache-Control: max-age=60", cc("public")], {"request": BASIC}, "authorization",
        False),
    "§3.5: Proxy-Authorization": ([FRESH], {"request": PROXY_BASIC}, "authorization", False),
    "a trusted header": (
        [FRESH], {"request": USER, "terms": TRUSTING}, "authorization", False),
    "a trusted header and the policy": (
        [DATE], {"request": USER, "terms": TRUSTING}, "authorization", False),
    "a trusted header beside one that it varies by": (
        [FRESH, "Vary: X-Plan"], {"request": [*USER, "X-Plan: gold"], "terms": TRUSTING},
        "authorization", False),
    "Set-Cookie": ([FRESH, "Set-Cookie: a=b"], {}, "set-cookie", True),
    "Set-Cookie under another withheld field": (
        [cc('private="a", max-age=60'), "Set-Cookie: a=b"], {}, "set-cookie", True),
    "§3: no freshness, no validator": ([DATE], {}, "no-freshness", True),
    "§3: no freshness, though the policy lets it be stale": (
        [DATE], {"terms": LENIENT}, "no-freshness", True),
    "§3: a status that is not cacheable by itself": (
        [DATE, MODIFIED, ETAG], {"status": 302}, "no-freshness", True),
    "§5.2.2.4: no-cache that cannot be asked": ([cc("no-cache, max-age=60")], {}, "no-cache", True),
    "older than its lifetime": ([FRESH, "Age: 60"], {}, "expired", True),
    "expired on the way": ([cc("max-age=1")], {"took": SECOND}, "expired", True),
    "expired, and must be asked, but cannot": (
        [cc("max-age=0, must-revalidate, stale-if-error=9")], {}, "expired", True),
    "a broken Expires": ([DATE, "Expires: 0"], {}, "expired", True),
    "a field that breaks off": ([cc('max-age=60, x="')], {}, "no-store", True),
    "a cookie and the policy's freshness": (
        [DATE], {"request": COOKIE, "terms": POLICY}, "cookie", False),
    "a cookie and a heuristic lifetime": ([DATE, MODIFIED], {"request": COOKIE}, "cookie", False),
    "a cookie and a validator": ([ETAG], {"request": COOKIE}, "cookie", False),
    "a cookie beside one of the key": ([DATE], {"request": ["Cookie: a=1; sid=2"], "terms":
        CacheTerms(default_ttl=SECOND, keyed_cookies=frozenset({"a"}))}, "cookie", False),
    "a cookie, but there is no freshness anyway": (
        [DATE], {"request": COOKIE}, "no-freshness", True),
    "ttl does not lift no-store": (
        [cc("no-store")], {"terms": CacheTerms(ttl=SECOND)}, "no-store", True),
    "ttl does not lift private": (
        [cc("private")], {"terms": CacheTerms(ttl=SECOND)}, "private", True),
    "ttl does not lift Vary": ([FRESH, "Vary: *"], {"terms": CacheTerms(ttl=SECOND)}, "vary", True),
    "ttl does not lift Set-Cookie": (
        [FRESH, "Set-Cookie: a=b"], {"terms": CacheTerms(ttl=SECOND)}, "set-cookie", True),
    "an error says little of the next answer": (
        [cc("no-store")], {"status": 503}, "no-store", False),
    "nor does a refused request": ([cc("private")], {"status": 401}, "private", False),
    "nor does a bad one": ([cc("no-store")], {"status": 400}, "no-store", False),
    "nor does one of the server": ([cc("no-store")], {"status": 501}, "no-store", False),
    "a 404 does": ([cc("no-store")], {"status": 404}, "no-store", True),
}  # fmt: skip

FINAL = [200, 203, 204, 299, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 410, 499, 500, 502,
         503, 504, 599]  # fmt: skip


@pytest.mark.parametrize(("lines", "more"), STORED.values(), ids=STORED)
def test_stored(lines, more):
    assert isinstance(judged(*lines, **more), Stored)


@pytest.mark.parametrize(("lines", "more", "reason", "lasting"), REFUSED.values(), ids=REFUSED)
def test_refused(lines, more, reason, lasting):
    assert judged(*lines, **more) == NotStored(reason, lasting)


@pytest.mark.parametrize("status", FINAL)
def test_any_final_status_with_a_lifetime_is_stored(status):
    found = judged(FRESH, status=status)
    assert isinstance(found, Stored)
    assert (found.status, found.lifetime) == (status, 60 * SECOND)


@pytest.mark.parametrize(
    "status",
    [100, 101, 103, 199, 206, 304, 407, 412, 416, 417, 421, 426, 428, 429, 431, 511],
)
def test_what_answers_one_request_only_is_never_stored(status):
    """RFC 6585 §3–§6; parts, conditions and interim answers; whatever the policy says."""
    terms = CacheTerms(ttl=SECOND, ttl_by_status=((status, SECOND),))
    assert judged(FRESH, status=status, terms=terms) == NotStored("status", False)


# RFC 9110 §15, without what is never stored and 305, 306, which are of the past.
KNOWN = {*range(200, 206), *range(300, 304), 307, 308, *range(400, 418), 422, *range(500, 506)}
KNOWN -= {407, 412, 416, 417}


def test_must_understand():
    words = cc("max-age=60, no-store, must-understand")
    assert {n for n in range(200, 600) if isinstance(judged(words, status=n), Stored)} == KNOWN


def names(found):
    return [name for name, _ in found.lines]


def test_fields_that_are_stored():
    kept = ["Server: x", "X-Unknown: 1", "X-Unknown: 2", "Cache-Control: max-age=60", DATE,
            "CDN-Cache-Control: max-age=50", "Content-Encoding: gzip", "Content-Location: /a",
            'ETag: "a"', "Cache-Status: other; hit", "WWW-Authenticate: Basic", "Vary: A",
            "Repr-Digest: sha-256=:AA==:", "X-Odd: \xe9\xff"]  # fmt: skip
    assert judged(*kept).lines == fields(*kept).lines


def test_fields_that_are_not_stored():
    """§3.1, and what is made anew for each answer."""
    dropped = ["Connection: a", "Keep-Alive: timeout=5", "Proxy-Connection: x", "TE: trailers",
               "Transfer-Encoding: chunked", "Upgrade: h2c", "Trailer: x", "Proxy-Authenticate: a",
               "Proxy-Authentication-Info: a", "Proxy-Authorization: a", "Age: 3",
               "Content-Length: 5", "RateLimit: x", "RateLimit-Policy: x", "RateLimit-Limit: 1",
               "X-RateLimit-Remaining: 1", "x-ratelimit-reset: 1", "X-Request-Id: 1"]  # fmt: skip
    assert names(judged(FRESH, DATE, *dropped)) == ["Cache-Control", "Date"]


def test_withheld_fields_are_not_stored():
    found = judged(
        DATE, cc('private="a", max-age=60'), cc('no-cache="B, c"'), "A: 1", "a: 2", "b: 3", "C: 4"
    )
    assert names(found) == ["Date", "Cache-Control", "Cache-Control"]
    assert not found.no_cache


def test_set_cookie_is_never_stored():
    terms = CacheTerms(store_set_cookie=True)
    found = judged(DATE, FRESH, "Set-Cookie: a=b", "set-cookie2: c", terms=terms)
    assert names(found) == ["Date", "Cache-Control"]


@pytest.mark.parametrize("line", [[], ["Date: yesterday"], [DATE, DATE]])
def test_without_a_date_it_gets_the_time_of_receipt(line):
    """RFC 9110 §6.6.1."""
    found = judged(FRESH, *line)
    assert fields(DATE).lines[0] in found.lines
    assert len([1 for name, _ in found.lines if name == "Date"]) == 1
    assert (found.date, found.cost) == (NOW, 0)


def test_a_valid_date_is_not_touched():
    line = "Date: Wednesday, 31-Dec-25 23:59:50 GMT"
    found = judged(line, FRESH)
    assert found.lines == fields(line, FRESH).lines
    assert found.date == NOW - 10 * SECOND


def test_what_a_record_says():
    found = judged(
        f"Date: {at(-3)}",
        'ETag: W/"a"',
        MODIFIED,
        "Age: 5",
        "Vary: B, a",
        cc("max-age=60, immutable, stale-while-revalidate=7, stale-if-error=8"),
        request=["A:  1 ,2", "C: 3"],
        took=2 * SECOND,
        length=11,
    )
    assert found.vary == (("a", "1,2"), ("b", None))
    assert (found.requested, found.received) == (NOW - 2 * SECOND, NOW)
    assert (found.date, found.cost, found.length) == (NOW - 3 * SECOND, 2 * SECOND, 11)
    assert (found.initial_age, found.lifetime) == (7 * SECOND, 60 * SECOND)
    assert (found.stale_while_revalidate, found.stale_if_error) == (7 * SECOND, 8 * SECOND)
    assert (found.etag, found.last_modified) == ('W/"a"', NOW - 1000 * SECOND)
    assert found.immutable
    assert not any([found.no_cache, found.must_revalidate, found.authorized])


def test_vary_reads_the_request_as_it_went_upstream():
    found = judged(FRESH, "Vary: A", request=["A: client"], seen=fields("A: gateway"))
    assert found.vary == (("a", "gateway"),)


# rule: (directives, must_revalidate)
STRICT = {
    "max-age=60": False,
    "max-age=60, must-revalidate": True,
    "max-age=60, proxy-revalidate": True,
    "s-maxage=60": True,
    "s-maxage=x": True,
}


@pytest.mark.parametrize(("directives", "strict"), STRICT.items())
def test_strictness(directives, strict):
    found = judged(cc(directives), ETAG, terms=LENIENT)
    assert found.must_revalidate is strict
    # §4.2.4: RFC 5861, and the policy's part of it, yields.
    windows = (found.stale_while_revalidate, found.stale_if_error)
    assert windows == ((0, 0) if strict else (5 * SECOND, 9 * SECOND))


def test_ttl_does_not_lift_a_word_on_staleness():
    found = judged(cc("s-maxage=60"), terms=CacheTerms(ttl=5 * SECOND, stale_if_error=SECOND))
    assert found.must_revalidate
    assert (found.lifetime, found.stale_if_error) == (5 * SECOND, 0)


def test_the_policys_staleness_stands_only_where_the_origin_says_nothing():
    found = judged(cc("max-age=60, stale-if-error=0, stale-while-revalidate=1"), terms=LENIENT)
    assert (found.stale_while_revalidate, found.stale_if_error) == (SECOND, 0)


def test_no_cache_yields_to_nothing():
    found = judged(cc("no-cache, max-age=60, stale-if-error=9"), ETAG, terms=LENIENT)
    assert found.no_cache
    assert (found.stale_while_revalidate, found.stale_if_error) == (0, 0)


def test_what_never_was_fresh_is_not_served_behind_a_refresh():
    found = judged(ETAG, DATE, terms=LENIENT)
    assert (found.lifetime, found.stale_while_revalidate) == (0, 0)
    assert found.stale_if_error == 9 * SECOND


# rule: (ETag lines, what is sent back)
ETAGS = {
    "strong": (['ETag: "a"'], '"a"'),
    "weak": (['ETag: W/"a"'], 'W/"a"'),
    "empty": (['ETag: ""'], '""'),
    "obs-text": (['ETag: "\xe4"'], '"\xe4"'),
    "a comma within": (['ETag: "a,b"'], '"a,b"'),
    "without quotes": (["ETag: abc"], "abc"),
    "a star would match anything": (["ETag: *"], None),
    "a list": (['ETag: "a", "b"'], None),
    "two lines": (['ETag: "a"', 'ETag: "b"'], None),
    "small w": (['ETag: w/"a"'], None),
    "an open quote": (['ETag: "a'], None),
    "nothing": (["ETag:"], None),
    "withheld": (['ETag: "a"', cc('private="etag"')], None),
}


@pytest.mark.parametrize(("lines", "etag"), ETAGS.values(), ids=ETAGS)
def test_which_entity_tags_can_be_asked_about(lines, etag):
    assert judged(FRESH, *lines).etag == etag


# rule: (Cookie lines, keyed, unkeyed)
COOKIES = {
    "none": ([], set(), False),
    "an empty field": (["Cookie:"], set(), False),
    "separators only": (["Cookie: ; ;"], set(), False),
    "one": (["Cookie: a=1"], set(), True),
    "keyed": (["Cookie: a=1"], {"a"}, False),
    "keyed, case counts": (["Cookie: A=1"], {"a"}, True),
    "one of two": (["Cookie: a=1; b=2"], {"a"}, True),
    "on another line": (["Cookie: a=1", "Cookie: b=2"], {"a"}, True),
    "both": (["Cookie: a=1;b=2"], {"a", "b"}, False),
    "without a value": (["Cookie: a"], {"a"}, False),
    "without a name": (["Cookie: =x"], {"a"}, True),
}


@pytest.mark.parametrize(("lines", "keyed", "unkeyed"), COOKIES.values(), ids=COOKIES)
def test_unkeyed_cookies(lines, keyed, unkeyed):
    assert has_unkeyed_cookie(fields(*lines), CacheTerms(keyed_cookies=frozenset(keyed))) is unkeyed


def test_a_record_remembers_what_its_request_had():
    found = judged(cc("s-maxage=60"), request=BASIC + COOKIE)
    assert (found.authorized, found.unkeyed_cookie) == (True, True)


def test_refusals_by_the_request_never_last():
    assert not not_stored("authorization", 200).hit_for_miss
    assert not not_stored("cookie", 200).hit_for_miss
    assert not_stored("vary", 200).hit_for_miss


NAMES = ["Cache-Control", "CDN-Cache-Control", "Vary", "Set-Cookie", "ETag", "Date", "Age", "X"]
VALUES = st.sampled_from(
    ["max-age=60", "no-store", "private", 'private="x"', "public", "*", "X", '"a"', at(0), "7",
     "no-cache", "s-maxage=9", "must-understand", 'x="']
) | st.text(st.characters(max_codepoint=255), max_size=12)  # fmt: skip
LINES = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=6)
ASKED = st.lists(
    st.sampled_from([("Authorization", "x"), ("Cookie", "a=1"), ("Cache-Control", "no-store")])
)


@given(LINES, ASKED, st.integers(100, 599), st.sampled_from(["GET", "HEAD", "POST"]), st.booleans())
def test_no_response_raises_and_no_prohibition_is_overlooked(lines, asked, status, method, lenient):
    terms = CacheTerms(ttl=SECOND, stale_if_error=SECOND, store_set_cookie=lenient)
    response, request = Fields(lines), Fields(asked)
    found = judge(method, request, status, "", response, terms, NOW, NOW)
    if isinstance(found, NotStored):
        return
    words = [v for n, v in lines if n == "Cache-Control"]
    assert method != "POST"
    assert ("Cache-Control", "no-store") not in asked
    assert "cdn-cache-control" in response or "private" not in words
    assert "cdn-cache-control" in response or "no-store" not in words or "must-understand" in words
    assert "*" not in [v for n, v in lines if n == "Vary"]
    assert not {"set-cookie", "age"} & set(Fields(found.lines).index)
    assert lenient or "set-cookie" not in response
    assert found.lifetime >= 0
    assert found.stale_if_error == 0 or not (found.no_cache or found.must_revalidate)
