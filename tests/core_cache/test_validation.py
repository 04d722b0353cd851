"""What is asked and what a 304 or a HEAD changes (RFC 9111 §3.2, §4.3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_kit import DATE, NOW, SECOND, at, entry, fields, judged

from proxy.core.cache.directives import PLAIN
from proxy.core.cache.record import CacheTerms, Stored
from proxy.core.cache.reuse import Fresh, Stale, Validate, decide
from proxy.core.cache.storing import NotStored
from proxy.core.cache.validation import (
    Freshened,
    Outdated,
    answers,
    conditions,
    freshen,
    head_update,
    outdated,
)
from proxy.core.fields import Fields

LATER = NOW + 100 * SECOND
LATER_DATE = f"Date: {at(100)}"
MODIFIED = f"Last-Modified: {at(-1000)}"
SAME = 'ETag: "a"'
KEPT = [DATE, "Cache-Control: max-age=60", 'ETag: "a"', "X-Kept: 1", "X-Two: 1", "X-Two: 2"]


def cc(text):
    return f"Cache-Control: {text}"


def after(kept, *lines, terms=None, request=(), took=0):
    """What a 304 that came at LATER makes of a stored answer."""
    client = fields(*request)
    return freshen(
        kept, fields(*lines), LATER - took, LATER, terms or CacheTerms(), request=client,
        seen=client,
    )  # fmt: skip


def head(kept, *lines, request=(), status=200, length=None):
    """What the answer to a HEAD, at LATER, makes of a stored GET."""
    client = fields(*request)
    return head_update(
        kept, fields(*lines), LATER, LATER, CacheTerms(), request=client, seen=client,
        status=status, length=length,
    )  # fmt: skip


def index(stored):
    return Fields(stored.lines).index


# rule: (entry, lines that are sent)
CONDITIONS = {
    "§4.3.1: an ETag": ({"etag": '"a"'}, ['If-None-Match: "a"']),
    "§4.3.1: a weak one": ({"etag": 'W/"a"'}, ['If-None-Match: W/"a"']),
    "§4.3.1: a date": ({"last_modified": NOW}, [f"If-Modified-Since: {at(0)}"]),
    "§4.3.1: both": (
        {"etag": '"a"', "last_modified": NOW},
        ['If-None-Match: "a"', f"If-Modified-Since: {at(0)}"]),
    "no validator": ({}, []),
}  # fmt: skip


@pytest.mark.parametrize(("kept", "lines"), CONDITIONS.values(), ids=CONDITIONS)
def test_conditions(kept, lines):
    assert conditions(entry(**kept)) == fields(*lines).lines


STRONG = {"etag": '"a"', "last_modified": NOW}
WEAK = {"etag": 'W/"a"', "last_modified": NOW}
DATED = {"last_modified": NOW}

# rule: (entry, the 304's lines, whether it is this entry's)
ANSWERS = {
    "§4.3.4: the same strong ETag": (STRONG, ['ETag: "a"'], True),
    "§4.3.4: another strong ETag": (STRONG, ['ETag: "b"'], False),
    "§4.3.4: another strong ETag, though the date is the same": (
        STRONG, ['ETag: "b"', f"Last-Modified: {at(0)}"], False),
    "§4.3.4: a strong ETag for a weak one": (WEAK, ['ETag: "a"'], False),
    "§4.3.4: the same weak ETag": (WEAK, ['ETag: W/"a"'], True),
    "§4.3.4: another weak ETag": (WEAK, ['ETag: W/"b"'], False),
    "§4.3.4: a weak ETag that compression made of a strong one": (
        STRONG, ['ETag: W/"a"'], True),
    "§4.3.4: the ETag decides, not the date": (
        STRONG, ['ETag: "a"', f"Last-Modified: {at(5)}"], True),
    "§4.3.4: a date alone": (DATED, [f"Last-Modified: {at(0)}"], True),
    "§4.3.4: another date": (DATED, [f"Last-Modified: {at(1)}"], False),
    "§4.3.4: another date beside a stored ETag": (STRONG, [f"Last-Modified: {at(1)}"], False),
    "§4.3.4: a broken date": (DATED, ["Last-Modified: now"], False),
    "§4.3.4: a strong ETag that nobody has": ({}, ['ETag: "a"'], False),
    "§4.3.4: a new ETag for the same date": (
        DATED, ['ETag: "a"', f"Last-Modified: {at(0)}"], True),
    "§4.3.4: a new weak ETag for another date": (
        DATED, ['ETag: W/"a"', f"Last-Modified: {at(1)}"], False),
    "§4.3.4: no validator answers what was asked": (STRONG, [], True),
    "§4.3.4: also where there was none": ({}, [], True),
    "a date beside an ETag that was asked about": (
        {"etag": '"a"'}, [f"Last-Modified: {at(1)}"], True),
    "case of W/": ({"etag": "w-1"}, ['ETag: w/"a"'], False),
}  # fmt: skip


@pytest.mark.parametrize(("kept", "lines", "fits"), ANSWERS.values(), ids=ANSWERS)
def test_which_entry_a_304_is_for(kept, lines, fits):
    assert answers(entry(**kept), fields(*lines)) is fits


def test_fields_are_replaced_and_others_stay():
    """§3.2."""
    found = after(
        judged(*KEPT),
        LATER_DATE, cc("max-age=3600"), 'ETag: "a"', "x-two: 3", "X-New: 4", "X-New: 5",
        "Content-Type: text/html", "Content-Encoding: br", "Content-Foo: x", "Expires: 0",
    )  # fmt: skip
    assert found.refused is None
    assert index(found.stored) == {
        "x-kept": "1", "date": at(100), "cache-control": "max-age=3600", "etag": '"a"',
        "x-two": "3", "x-new": "4, 5", "content-type": "text/html", "content-encoding": "br",
        "content-foo": "x", "expires": "0",
    }  # fmt: skip


def test_fields_that_a_304_does_not_replace():
    """§3.2: what speaks of the body; what is never stored."""
    kept = judged(*KEPT, "Content-Range: bytes 0-4/5", length=5)
    found = after(
        kept, "Content-Length: 0", "Content-Range: bytes 1-2/3", "Age: 9", "Connection: X-Kept",
        "Set-Cookie: a=b", "X-RateLimit-Limit: 1", "Proxy-Authenticate: x",
    )  # fmt: skip
    assert set(index(found.stored)) == {
        "date", "cache-control", "etag", "x-kept", "x-two", "content-range"
    }  # fmt: skip
    assert index(found.stored)["content-range"] == "bytes 0-4/5"
    assert found.stored.length == 5


def test_times_begin_anew():
    """§4.2.3."""
    kept = judged(*KEPT, "Age: 50")
    found = after(kept, LATER_DATE, cc("max-age=30"), "Age: 7", took=2 * SECOND).stored
    assert (found.requested, found.received) == (LATER - 2 * SECOND, LATER)
    assert (found.date, found.initial_age, found.lifetime) == (LATER, 9 * SECOND, 30 * SECOND)
    assert found.cost == 2 * SECOND
    assert decide(kept, PLAIN, LATER) == Validate("stale")
    assert decide(found, PLAIN, LATER) == Fresh(9 * SECOND)


def test_an_age_is_not_inherited():
    found = after(judged(*KEPT, "Age: 50")).stored
    assert (found.initial_age, found.cost) == (0, 0)


def test_without_a_date_the_304_has_the_time_of_receipt():
    found = after(judged(*KEPT), 'ETag: "a"').stored
    assert index(found)["date"] == at(100)
    assert found.date == LATER


def test_a_stored_expires_counts_from_the_new_date():
    kept = judged(DATE, f"Expires: {at(130)}", 'ETag: "a"')
    assert after(kept, LATER_DATE).stored.lifetime == 30 * SECOND


def test_everything_parsed_is_read_again():
    kept = judged(*KEPT, MODIFIED)
    found = after(
        kept,
        LATER_DATE,
        'ETag: W/"b"',
        f"Last-Modified: {at(50)}",
        cc("max-age=5, immutable, stale-while-revalidate=6, stale-if-error=7"),
    ).stored
    assert (found.etag, found.last_modified) == ('W/"b"', NOW + 50 * SECOND)
    assert (found.lifetime, found.stale_while_revalidate) == (5 * SECOND, 6 * SECOND)
    assert (found.stale_if_error, found.immutable) == (7 * SECOND, True)
    assert kept.etag == '"a"'  # the old record is as it was: others may hold it


def test_what_belongs_to_the_body_stays():
    kept = judged(*KEPT, status=404, length=9, method="HEAD")
    kept.tags = ("t",)
    found = after(kept, LATER_DATE).stored
    assert (found.method, found.status, found.length) == ("HEAD", 404, 9)
    assert found.tags == ("t",)


def test_the_policy_counts_for_a_304_too():
    kept = judged(DATE, 'ETag: "a"', terms=CacheTerms(ttl=5 * SECOND))
    found = after(kept, LATER_DATE, "Age: 3", terms=CacheTerms(ttl=8 * SECOND)).stored
    assert found.left(LATER) == 8 * SECOND


# rule: (stored lines, request lines, the 304's lines, reason)
REFUSED = {
    "§3: no-store now": (KEPT, [], [cc("no-store")], "no-store"),
    "§3: private now": (KEPT, [], [cc("private, max-age=9")], "private"),
    "§4.1: Vary: * now": (KEPT, [], ["Vary: *"], "vary"),
    "§3.5: public taken back": (
        [DATE, cc("public, max-age=60")], ["Authorization: x"], [cc("max-age=60")],
        "authorization"),
    "the origin's word on a cookie's answer taken back": (
        [DATE, cc("no-cache"), MODIFIED], ["Cookie: a=1"], [cc("public")], "cookie"),
    "no use any longer": ([DATE, cc("max-age=60")], [], [cc("max-age=0")], "expired"),
}  # fmt: skip


@pytest.mark.parametrize(("kept", "request_", "lines", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_304_can_take_the_leave_back(kept, request_, lines, reason):
    stored = judged(*kept, request=request_)
    assert isinstance(stored, Stored)
    found = after(stored, LATER_DATE, *lines)
    assert isinstance(found.refused, NotStored)
    assert (found.refused.reason, found.drop) == (reason, True)
    # It still answers the request that asked, with the fields of the 304.
    assert lines[0].partition(": ")[2] in index(found.stored).values()


POLICY = CacheTerms(default_ttl=60 * SECOND)
COOKIE = ["Cookie: a=1"]
BASIC = ["Authorization: x"]

# rule: (stored lines, the request that asks again, the 304's lines, reason or None where stored)
ONE_USERS = {
    "§3.5: Authorization": (KEPT, BASIC, [], "authorization"),
    "§3.5: Authorization and public": (KEPT, BASIC, [cc("public, max-age=9")], None),
    "§3.5: Authorization and public before": (
        [DATE, cc("public, max-age=60"), SAME],
        BASIC,
        [],
        None,
    ),
    "a cookie and an explicit lifetime": (KEPT, COOKIE, [], None),
    "a cookie and the policy's": ([DATE, SAME], COOKIE, [], "cookie"),
    "a cookie and no-cache": ([DATE, SAME, cc("no-cache")], COOKIE, [], None),
    "neither": ([DATE, SAME], [], [], None),
}


@pytest.mark.parametrize(("kept", "asks", "lines", "reason"), ONE_USERS.values(), ids=ONE_USERS)
def test_a_304_for_one_user_changes_nothing_for_others(kept, asks, lines, reason):
    stored = judged(*kept, terms=POLICY)
    found = after(stored, LATER_DATE, *lines, "X-User: b", request=asks, terms=POLICY)
    assert found.refused == (None if reason is None else NotStored(reason, False))
    assert not found.drop
    assert index(found.stored)["x-user"] == "b"  # it is an answer to its own client


TRUSTING = CacheTerms(trusted_headers=frozenset({"x-user"}))


def test_a_304_for_whom_a_trusted_peer_names_changes_nothing_for_others():
    found = after(judged(*KEPT), LATER_DATE, request=["X-User: 7"], terms=TRUSTING)
    assert (found.refused, found.drop) == (NotStored("authorization", False), False)
    varied = judged(*KEPT, "Vary: X-User", request=["X-User: 7"], terms=TRUSTING)
    assert after(varied, LATER_DATE, request=["X-User: 7"], terms=TRUSTING).refused is None


def test_a_304_that_takes_a_trusted_header_out_of_vary_makes_it_nobodys():
    varied = judged(*KEPT, "Vary: X-User", request=["X-User: 7"], terms=TRUSTING)
    assert isinstance(varied, Stored)
    found = after(varied, LATER_DATE, "Vary: Accept", terms=TRUSTING)
    assert (found.refused, found.drop) == (NotStored("authorization", False), True)
    allowed = after(varied, LATER_DATE, "Vary: Accept", cc("s-maxage=9"), terms=TRUSTING)
    assert (allowed.refused, allowed.stored.authorized) == (None, True)


def test_a_304_leaves_an_allowed_answer_to_a_credential_stored():
    kept = judged(DATE, cc("public, max-age=60"), request=["Authorization: x"])
    assert after(kept, LATER_DATE).refused is None


def test_a_304_may_change_vary():
    kept = judged(*KEPT, "Vary: A", request=["A: 1", "B: 2"])
    assert kept.vary == (("a", "1"),)
    found = after(kept, LATER_DATE, "Vary: b, a", request=["A: 1", "B: 2"])
    assert found.stored.vary == (("a", "1"), ("b", "2"))
    assert after(kept, LATER_DATE, "Vary: A").stored.vary == (("a", "1"),)


def test_lines_of_the_304_for_its_own_client():
    found = after(
        judged(*KEPT), LATER_DATE, "Set-Cookie: a=b", "Set-Cookie: c=d", 'RateLimit: "x";r=1',
        "X-RateLimit-Limit: 3", cc('private="X-Mine", max-age=60'), "X-Mine: 1", "X-All: 2",
        "Age: 4", "Content-Length: 0",
    )  # fmt: skip
    assert [name for name, _ in found.own] == [
        "Set-Cookie", "Set-Cookie", "RateLimit", "X-RateLimit-Limit", "X-Mine"
    ]  # fmt: skip
    assert not {"set-cookie", "x-mine", "ratelimit"} & set(index(found.stored))
    assert index(found.stored)["x-all"] == "2"


# rule: (stored lines, its length, status, HEAD's lines, HEAD's length, outcome)
HEADS = {
    "§4.3.5: the same ETag": (KEPT, 5, 200, [SAME], None, Freshened),
    "§4.3.5: the same ETag and length": (KEPT, 5, 200, [SAME], 5, Freshened),
    "§4.3.5: the same length": (KEPT, 5, 200, [], 5, Freshened),
    "§4.3.5: the same date": ([*KEPT, MODIFIED], 5, 200, [MODIFIED], None, Freshened),
    "§4.3.5: the same ETag, of a kind that cannot be asked about": (
        [DATE, cc("max-age=60"), "X-Kept: 1", 'ETag: w/"a"'], 5, 200, ['ETag: w/"a"'], None,
        Freshened),
    "§4.3.5: another ETag": (KEPT, 5, 200, ['ETag: "b"'], 5, Outdated),
    "§4.3.5: an ETag that the stored one lacks": (
        [DATE, cc("max-age=60")], 5, 200, [SAME], 5, Outdated),
    "§4.3.5: another date": ([*KEPT, MODIFIED], 5, 200, [SAME, f"Last-Modified: {at(5)}"], 5,
        Outdated),
    "§4.3.5: another length": (KEPT, 5, 200, [SAME], 6, Outdated),
    "nothing to compare": (KEPT, 5, 200, [cc("max-age=1000")], None, None),
    "a length, but none is known": (KEPT, None, 200, [], 5, None),
    "§4.3.5: only a 200": (KEPT, 5, 410, [SAME], 5, None),
    "§4.3.5: nor a 304": (KEPT, 5, 304, [SAME], None, None),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kept", "length", "status", "lines", "shown", "outcome"), HEADS.values(), ids=HEADS
)
def test_what_a_head_says_of_a_stored_get(kept, length, status, lines, shown, outcome):
    stored = judged(*kept, length=length)
    found = head(stored, LATER_DATE, *lines, status=status, length=shown)
    assert type(found) is (type(None) if outcome is None else outcome)
    if isinstance(found, Freshened):
        assert found.stored.received == LATER
        assert found.stored.length == length
        assert index(found.stored)["x-kept"] == "1"


@pytest.mark.parametrize("changes", [{"method": "HEAD"}, {"status": 404}])
def test_a_head_says_nothing_of_other_entries(changes):
    assert head(entry(etag='"a"', **changes), SAME, length=5) is None


@pytest.mark.parametrize("lines", [[SAME], ['ETag: "b"']])
def test_a_head_for_one_user_says_nothing_of_the_shared_answer(lines):
    assert head(judged(*KEPT), *lines, request=["Authorization: x"]) is None


def test_outdated_is_stale_at_once():
    terms = CacheTerms(stale_while_revalidate=99 * SECOND, stale_if_error=99 * SECOND)
    kept = judged(*KEPT, terms=terms)
    now = NOW + 10 * SECOND
    assert isinstance(decide(kept, PLAIN, now), Fresh)
    found = outdated(kept, now)
    assert decide(found, PLAIN, now) == Validate("stale")
    assert found.stale_if_error == 99 * SECOND
    late = NOW + 100 * SECOND
    assert isinstance(decide(kept, PLAIN, late), Stale)
    assert outdated(kept, late).lifetime == kept.lifetime


NAMES = ["Cache-Control", "Vary", "Set-Cookie", "ETag", "Date", "Age", "X", "Content-Length"]
VALUES = st.sampled_from(
    ["max-age=60", "no-store", 'private="x"', "*", "X", '"a"', 'W/"a"', at(0), "7"]
) | st.text(st.characters(max_codepoint=255), max_size=12)  # fmt: skip
LINES = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=6).map(Fields)


@given(LINES, LINES)
def test_no_304_raises_and_each_is_merged_by_the_rule(first, second):
    kept = judged(*(f"{n}: {v}" for n, v in first))
    if not isinstance(kept, Stored):
        return
    answers(kept, second)
    found = freshen(kept, second, LATER, LATER, CacheTerms(), request=Fields(), seen=Fields())
    before, new, merged = Fields(kept.lines).index, second.index, index(found.stored)
    assert merged["date"]
    for name in ("etag", "vary", "x"):
        if name in new and name in merged:
            assert merged[name] == new[name]
        elif name not in new:
            assert merged.get(name) in (before.get(name), None)
    assert not {"set-cookie", "age", "content-length"} & set(merged)
