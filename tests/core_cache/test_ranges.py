"""Ranges of a stored 200: what is a part, what the whole, what cannot be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests_kit import NOW, stored

from proxy.core.cache import ranges
from proxy.core.cache.ranges import MAX_RANGES, Part, Selection, Unsatisfiable, Whole
from proxy.core.dates import imf_fixdate
from proxy.core.fields import Fields, Lines

WHOLE = Whole()
NONE = Unsatisfiable()


@pytest.mark.parametrize(
    ("rule", "value", "length", "answer"),
    [
        ("the first bytes", "bytes=0-3", 10, Part(0, 4)),
        ("one byte", "bytes=4-4", 10, Part(4, 5)),
        ("open to the end", "bytes=4-", 10, Part(4, 10)),
        ("all of it is still a part", "bytes=0-", 10, Part(0, 10)),
        ("an end behind the end", "bytes=4-99", 10, Part(4, 10)),
        ("the last bytes", "bytes=-3", 10, Part(7, 10)),
        ("a suffix longer than the body", "bytes=-99", 10, Part(0, 10)),
        ("the last byte", "bytes=9-", 10, Part(9, 10)),
        ("behind the end", "bytes=10-", 10, NONE),
        ("a suffix of nothing", "bytes=-0", 10, NONE),
        ("several behind the end", "bytes=10-, 20-30, -0", 10, NONE),
        ("leading zeros", "bytes=0002-03", 10, Part(2, 4)),
        ("huge numbers", f"bytes=2-{'9' * 5000}", 10, Part(2, 10)),
        ("huge beginnings", f"bytes={'9' * 5000}-", 10, NONE),
        ("huge suffixes", f"bytes=-{'9' * 5000}", 10, Part(0, 10)),
        ("the unit has no case", "BYTES=0-1", 10, Part(0, 2)),
        ("another unit", "lines=0-1", 10, WHOLE),
        ("no unit", "0-1", 10, WHOLE),
        ("space before the =", "bytes =0-1", 10, WHOLE),
        ("backwards", "bytes=4-3", 10, WHOLE),
        ("backwards behind the end", "bytes=20-10", 10, WHOLE),
        ("a dash alone", "bytes=-", 10, WHOLE),
        ("nothing", "bytes=", 10, WHOLE),
        ("only empty members", "bytes= , ", 10, WHOLE),
        ("not digits", "bytes=a-b", 10, WHOLE),
        ("other digits", "bytes=\xb2-\xb3", 10, WHOLE),
        ("a sign", "bytes=+1-2", 10, WHOLE),
        ("two dashes", "bytes=1--2", 10, WHOLE),
        ("space within", "bytes=1 - 2", 10, WHOLE),
        ("one invalid spoils all", "bytes=0-1, 4-3", 10, WHOLE),
        ("empty members say nothing", "bytes=,0-1, ", 10, Part(0, 2)),
        ("adjacent ranges are one", "bytes=0-1,2-3", 10, Part(0, 4)),
        ("overlapping ranges are one", "bytes=2-6, 0-3", 10, Part(0, 7)),
        ("a range within another", "bytes=0-8,2-3", 10, Part(0, 9)),
        ("one of two is satisfiable", "bytes=20-30, 2-3", 10, Part(2, 4)),
        ("a gap needs a multipart", "bytes=0-1,3-4", 10, WHOLE),
        ("both ends", "bytes=0-0,-1", 10, WHOLE),
        ("as many as are read", "bytes=" + ",".join(["0-1"] * MAX_RANGES), 10, Part(0, 2)),
        ("one more", "bytes=" + ",".join(["0-1"] * (MAX_RANGES + 1)), 10, WHOLE),
        ("two lines, joined", "bytes=0-1, bytes=2-3", 10, WHOLE),
        ("an empty body", "bytes=0-", 0, WHOLE),
        ("a suffix of an empty body", "bytes=-5", 0, WHOLE),
    ],
)
def test_range_tables(rule: str, value: str, length: int, answer: Selection) -> None:
    assert ranges.parse(value, length) == answer, rule


MODIFIED = NOW - 60_000
DATE = imf_fixdate(MODIFIED // 1000)
LATER = imf_fixdate(MODIFIED // 1000 + 1)
TAGGED = {"etag": '"a"', "last_modified": MODIFIED}


@pytest.mark.parametrize(
    ("rule", "condition", "facts", "holds"),
    [
        ("the same strong tag", '"a"', TAGGED, True),
        ("another tag", '"b"', TAGGED, False),
        ("a weak tag is never strong", 'W/"a"', {"etag": 'W/"a"'}, False),
        ("a weak one stored", '"a"', {"etag": 'W/"a"'}, False),
        ("a weak one asked", 'W/"a"', TAGGED, False),
        ("a list is no If-Range", '"a", "b"', TAGGED, False),
        ("no tag is stored", '"a"', {}, False),
        ("tags are opaque", '"a\xff,b"', {"etag": '"a\xff,b"'}, True),
        ("exactly Last-Modified", DATE, TAGGED, True),
        ("later is not exact", LATER, TAGGED, False),
        ("no Last-Modified", DATE, {"etag": '"a"'}, False),
        ("Date alone is no validator", imf_fixdate(NOW // 1000), {}, False),
        ("a second older is strong", DATE, {**TAGGED, "date": MODIFIED + 1000}, True),
        ("of the same second is weak", DATE, {**TAGGED, "date": MODIFIED + 999}, False),
        ("no date at all", "yesterday", TAGGED, False),
        ("empty", "", TAGGED, False),
    ],
)
def test_if_range(rule: str, condition: str, facts: dict[str, object], holds: bool) -> None:
    request = Fields([("Range", "bytes=1-2"), ("If-Range", condition)])
    answer = ranges.select("GET", request, stored(**facts), NOW)
    assert answer == (Part(1, 3) if holds else WHOLE), rule


@pytest.mark.parametrize(
    ("rule", "method", "facts"),
    [
        ("HEAD has no ranges", "HEAD", {}),
        ("of a 200 alone", "GET", {"status": 404}),
        ("the length must be known", "GET", {"method": "HEAD", "length": None}),
    ],
)
def test_where_range_is_ignored(rule: str, method: str, facts: dict[str, object]) -> None:
    request = Fields([("Range", "bytes=99-")])
    assert ranges.select(method, request, stored(**facts), NOW) == WHOLE, rule
    assert ranges.select("GET", request, stored(), NOW) == NONE


def test_if_range_needs_a_range() -> None:
    assert ranges.select("GET", Fields([("If-Range", '"a"')]), stored(etag='"a"'), NOW) == WHOLE


def test_lines_of_a_part() -> None:
    lines: Lines = [
        ("ETag", '"a"'), ("content-digest", "sha-256=:x:"), ("Repr-Digest", "sha-256=:y:"),
        ("Content-Type", "text/plain"),
    ]  # fmt: skip
    assert ranges.part_lines(lines, Part(2, 5), 10) == [
        ("ETag", '"a"'), ("Repr-Digest", "sha-256=:y:"), ("Content-Type", "text/plain"),
        ("Content-Range", "bytes 2-4/10"),
    ]  # fmt: skip
    assert ranges.unsatisfiable_lines(10) == [("Content-Range", "bytes */10")]


numbers = st.integers(0, 12).map(str)
specs = st.one_of(
    st.tuples(numbers, numbers).map("-".join), numbers.map("{}-".format), numbers.map("-{}".format)
)


@given(st.lists(specs, min_size=1, max_size=4), st.integers(1, 12))
def test_ranges_against_a_slow_model(texts: list[str], length: int) -> None:
    """Marks every byte that is asked for and looks at what has been marked."""
    wanted = [False] * length
    valid = True
    for text in texts:
        first, last = text.split("-")
        if first and last and int(last) < int(first):
            valid = False
        for place in range(length):
            if first:
                wanted[place] |= int(first) <= place and (not last or place <= int(last))
            else:
                wanted[place] |= place >= length - int(last)
    if not valid:
        expected: Selection = WHOLE
    elif True not in wanted:
        expected = NONE
    else:
        start = wanted.index(True)
        stop = length - wanted[::-1].index(True)
        expected = Part(start, stop) if all(wanted[start:stop]) else WHOLE
    assert ranges.parse("bytes=" + ",".join(texts), length) == expected


@given(st.text(alphabet="bytes=0123456789-, \t\xb2", max_size=30), st.integers(0, 20))
def test_any_range_can_be_read(value: str, length: int) -> None:
    for text in (value, "bytes=" + value):
        found = ranges.parse(text, length)
        if isinstance(found, Part):
            assert 0 <= found.start < found.stop <= length
