"""Clients' conditions against a stored 200, and the 304 that answers them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests_kit import NOW, stored

from proxy.core.cache import conditionals
from proxy.core.dates import imf_fixdate
from proxy.core.fields import Fields, Lines


@pytest.mark.parametrize(
    ("rule", "field", "etag", "match"),
    [
        ("the same", '"a"', '"a"', True),
        ("another", '"b"', '"a"', False),
        ("a weak one asked", 'W/"a"', '"a"', True),
        ("a weak one stored", '"a"', 'W/"a"', True),
        ("W/ has case", 'w/"a"', '"a"', False),
        ("the first of several", '"a", "b"', '"a"', True),
        ("the last of several", '"b" ,W/"c",\t"a"', '"a"', True),
        ("none of several", '"b", "c"', '"a"', False),
        ("empty members", ', ,"a",', '"a"', True),
        ("a comma is the tag's", '"a,b"', '"a,b"', True),
        ("not a part of a tag", '"x","a","y"', '"x","a"', False),
        ("not what stands between quotes", '"x"a"y"', '"a"', False),
        ("a backslash is the tag's", '"a\\"', '"a\\"', True),
        ("obs-text is opaque", '"\xe9\xff"', '"\xe9\xff"', True),
        ("other bytes", '"\xc3\xa9"', '"\xe9"', False),
        ("tags have case", '"A"', '"a"', False),
        ("an empty tag is a tag", '""', '""', True),
        ("quotes are not taken off", "a", '"a"', False),
        ("nor put on", '"a"', "a", False),
        ("an unquoted tag as it stands", "b, a", "a", True),
        ("an open quote as it stands", '"a', '"a', True),
        ("space within a tag", '"a b"', '"a b"', True),
        ("a star among others is no star", '"b", *', '"a"', False),
        ("nothing", "", '"a"', False),
        ("nothing is stored", "a, ", "", False),
    ],
)
def test_entity_tags(rule: str, field: str, etag: str, match: bool) -> None:
    assert conditionals.lists(field, etag) is match, rule
    request = Fields([("If-None-Match", field)])
    assert conditionals.client_has_it("GET", request, stored(etag=etag), NOW) is match, rule


MODIFIED = NOW - 60_000
BEFORE, SAME, AFTER = (imf_fixdate(MODIFIED // 1000 + step) for step in (-1, 0, 1))
DATED = {"last_modified": MODIFIED}
BOTH = {"last_modified": MODIFIED, "etag": '"a"'}
RFC850 = "Friday, 15-Jan-27 07:59:00 GMT"


@pytest.mark.parametrize(
    ("rule", "lines", "facts", "has_it"),
    [
        ("no condition", [], BOTH, False),
        ("a star matches what is there", [("If-None-Match", "*")], {}, True),
        ("no tag is stored", [("If-None-Match", '"a"')], DATED, False),
        ("not modified since", [("If-Modified-Since", SAME)], DATED, True),
        ("nor later", [("If-Modified-Since", AFTER)], DATED, True),
        ("modified since", [("If-Modified-Since", BEFORE)], DATED, False),
        ("an obsolete form", [("If-Modified-Since", RFC850)], DATED, True),
        ("no Last-Modified: Date", [("If-Modified-Since", imf_fixdate(NOW // 1000))], {}, True),
        ("made after that", [("If-Modified-Since", imf_fixdate(NOW // 1000 - 1))], {}, False),
        ("no date", [("If-Modified-Since", "0")], DATED, False),
        ("two dates", [("If-Modified-Since", AFTER), ("If-Modified-Since", AFTER)], DATED, False),
        ("the tag beats the date: other", [("If-None-Match", '"b"'), ("If-Modified-Since", AFTER)],
         BOTH, False),
        ("the tag beats the date: same", [("If-Modified-Since", BEFORE), ("If-None-Match", '"a"')],
         BOTH, True),
        ("even where it is nonsense", [("If-None-Match", ","), ("If-Modified-Since", AFTER)],
         BOTH, False),
        ("tags on two lines", [("If-None-Match", '"b"'), ("If-None-Match", '"a"')], BOTH, True),
    ],
)  # fmt: skip
def test_conditions(rule: str, lines: Lines, facts: dict[str, object], has_it: bool) -> None:
    for method in ("GET", "HEAD"):
        found = conditionals.client_has_it(method, Fields(lines), stored(**facts), NOW)
        assert found is has_it, rule


def test_only_a_200_and_only_for_get_and_head() -> None:
    request = Fields([("If-None-Match", "*")])
    assert not conditionals.client_has_it("GET", request, stored(status=404), NOW)
    assert not conditionals.client_has_it("POST", request, stored(), NOW)


@pytest.mark.parametrize(
    ("name", "forwarded"),
    [
        ("If-Match", True),
        ("If-Unmodified-Since", True),
        ("If-None-Match", False),
        ("If-Modified-Since", False),
        ("If-Range", False),
    ],
)
def test_what_the_origin_alone_may_judge(name: str, forwarded: bool) -> None:
    assert conditionals.must_forward(Fields([(name, "*")])) is forwarded


def test_lines_of_a_304() -> None:
    lines: Lines = [
        ("Content-Location", "/b"), ("Date", "d"), ("ETag", '"a"'), ("Vary", "x"),
        ("Cache-Control", "c"), ("Expires", "e"), ("Content-Type", "t"),
        ("content-encoding", "gzip"), ("Last-Modified", "m"),
        ("Content-Digest", "x"), ("Repr-Digest", "y"), ("X-Own", "z"),
        ("Access-Control-Allow-Origin", "*"), ("Content-Security-Policy", "p"),
    ]  # fmt: skip
    assert [name for name, _ in conditionals.not_modified_lines(lines)] == [
        "Content-Location", "Date", "ETag", "Vary", "Cache-Control", "Expires", "Repr-Digest",
        "X-Own", "Access-Control-Allow-Origin", "Content-Security-Policy",
    ]  # fmt: skip
    untagged: Lines = [("Last-Modified", "m"), ("Content-Type", "t")]
    assert conditionals.not_modified_lines(untagged) == [("Last-Modified", "m")]


tag_text = st.text(alphabet="a, W/\\\xff", max_size=4)
entity_tags = st.tuples(st.booleans(), tag_text).map(
    lambda made: ("W/" if made[0] else "") + f'"{made[1]}"'
)


@given(st.lists(entity_tags, max_size=4), entity_tags, st.sampled_from([",", ", ", " ,\t", ",,"]))
def test_lists_of_tags_against_the_tags(listed: list[str], etag: str, comma: str) -> None:
    expected = etag.removeprefix("W/") in [tag.removeprefix("W/") for tag in listed]
    assert conditionals.lists(comma.join(listed), etag) is expected


@given(st.text(alphabet='aW/", *\t\\\xff', max_size=20), st.text(alphabet='aW/"\xff', max_size=6))
def test_any_list_can_be_read(field: str, etag: str) -> None:
    if conditionals.lists(field, etag):
        assert etag.removeprefix("W/") in field
