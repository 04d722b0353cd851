"""What a record is found by: Idempotency-Key lines, fingerprints, names; and which answers are
recorded."""

from itertools import combinations

import pytest
from http_sf import parse
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.idempotency import (
    LONGEST_KEY,
    SELDOM_FINAL,
    BadKey,
    Kept,
    fingerprint,
    read_key,
    record_id,
    replayable_lines,
)

VISIBLE = [chr(code) for code in range(0x21, 0x7F)]
ALLOWED = [sign for sign in VISIBLE if sign not in '",;\\']


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ("a", "a"),
        ('"a"', "a"),
        ("  a\t", "a"),
        (' "a" ', "a"),
        ("A", "A"),
        ("?1", "?1"),
        (":YQ==:", ":YQ==:"),
        ("12", "12"),
        ("a" * 255, "a" * 255),
        ('"' + "a" * 255 + '"', "a" * 255),
        ("".join(ALLOWED), "".join(ALLOWED)),
    ],
)
def test_a_key(line: str, key: str) -> None:
    assert read_key([line]) == key


def test_no_line_is_no_key() -> None:
    assert read_key([]) is None


@pytest.mark.parametrize(
    ("rule", "lines"),
    [
        ("empty", [""]),
        ("empty", ["  "]),
        ("empty string", ['""']),
        ("one quote", ['"']),
        ("not closed", ['"a']),
        ("not opened", ['a"']),
        ("escaped quote", [r'"a\"b"']),
        ("escaped backslash", [r'"a\\b"']),
        ("bare backslash", [r"a\b"]),
        ("space", ["a b"]),
        ("space in a string", ['"a b"']),
        ("space around the text in a string", ['" a"']),
        ("comma", ["a,b"]),
        ("two members", ['"a", "b"']),
        ("parameter", ['"a";b=1']),
        ("parameter of a bare one", ["a;b"]),
        ("too long", ["a" * 256]),
        ("too long in a string", ['"' + "a" * 256 + '"']),
        ("obs-text", ["\xe9"]),
        ("DEL", ["a\x7f"]),
        ("control", ["a\x01"]),
        ("newline at the end", ["a\n"]),
        ("quotes twice", ['""a""']),
        ("two lines", ["a", "a"]),
        ("two lines, one empty", ["", "a"]),
    ],
)
def test_no_key(rule: str, lines: list[str]) -> None:
    with pytest.raises(BadKey, match="Idempotency-Key"):
        read_key(lines)


@given(st.text(st.sampled_from([*VISIBLE, " ", "\xe9", "\t"]), max_size=12))
@example('"a"')
def test_both_spellings_are_one_key_or_none(text: str) -> None:
    """What stands in quotes is what RFC 9651 reads there, and reads the same bare."""

    def read(line: str) -> str | None:
        try:
            return read_key([line])
        except BadKey:
            return None

    quoted = read(f'"{text}"')
    allowed = 0 < len(text) <= LONGEST_KEY and all(sign in ALLOWED for sign in text)
    assert (quoted == text) is allowed
    assert quoted in (text, None)
    if allowed:
        assert read(text) == text
        assert parse(f'"{text}"'.encode(), tltype="item")[0] == text


def test_fingerprints_tell_requests_apart() -> None:
    requests = [
        ("POST", "/a", b""), ("POST", "/a", b"x"), ("POST", "/ax", b""), ("PATCH", "/a", b""),
        ("POST", "/", b"a"), ("POS", "T/a", b""), ("POST", "/a?", b""), ("POST", "", b"/a"),
        ("POST", "/1", b"0"), ("POST", "/10", b""), ("POST", "/a", b"\x00"), ("", "POST/a", b""),
    ]  # fmt: skip
    for one, other in combinations(requests, 2):
        assert fingerprint(*one) != fingerprint(*other)
    assert fingerprint("POST", "/\xe9", b"x") == fingerprint("POST", "/\xe9", b"x")
    assert len(fingerprint("POST", "/a", b"")) == 32


def test_names_tell_records_apart() -> None:
    scope, other = bytes(16), b"\x01" + bytes(15)
    names = [
        record_id("a", "h", scope, "k"), record_id("b", "h", scope, "k"),
        record_id("a", "h", other, "k"), record_id("a", "h", scope, "l"),
        record_id("a", "i", scope, "k"), record_id("ah", "", scope, "k"),
        record_id("", "ah", scope, "k"), record_id("ak", "h", scope, ""),
        record_id("", "h", scope, "ak"), record_id("a", "h", scope + b"k", ""),
        record_id("a", "", b"h" + scope, "k"),
    ]  # fmt: skip
    assert len(set(names)) == len(names)
    assert record_id("a", "h", scope, "k") == names[0]
    assert all(len(name) == 16 for name in names)


@pytest.mark.parametrize(
    ("texts", "kept", "left"),
    [
        (["2xx", "3xx", "4xx", "500"], [200, 204, 299, 302, 400, 404, 422, 500], [501, 503]),
        (["2xx", "3xx", "4xx", "500"], [], sorted(SELDOM_FINAL)),
        (["5xx"], [500, 501, 505], [502, 503, 504, 200]),
        (["4xx", "429"], [429, 400], [425, 401]),
        (["503"], [503], [502, 500]),
        ([], [], [200]),
    ],
)
def test_statuses_that_are_recorded(texts: list[str], kept: list[int], left: list[int]) -> None:
    statuses = Kept(texts)
    assert [status for status in kept if status not in statuses] == []
    assert [status for status in left if status in statuses] == []


def test_what_each_answer_has_of_its_own_is_not_replayed() -> None:
    own = ["Date", "VIA", "X-Request-Id", "RateLimit", "RateLimit-Policy", "X-RateLimit-Limit"]
    others = [("Content-Type", "a/b"), ("Set-Cookie", "a"), ("Set-Cookie", "b"), ("ETag", '"1"')]
    assert replayable_lines([(name, "x") for name in own]) == []
    assert replayable_lines([others[0], ("date", "x"), *others[1:]]) == others
