"""Records: what is written is read, and what cannot be read is nothing."""

import typing
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_kit import stored

from proxy.core.cache.record import Stored
from proxy.store.ports import Kept, Mark
from proxy.store.redis import cache_codec as codec
from proxy.store.redis.cache_names import NO_BODY, CacheNames, mark_id, new_body, variant_id

WIRE = st.text(st.characters(max_codepoint=255), max_size=20)
NUMBERS = st.integers(-(2**62), 2**62)
PAIRS = st.lists(st.tuples(WIRE, st.none() | WIRE), max_size=3).map(tuple)
TAGS = st.lists(WIRE, max_size=5).map(tuple)
OF_ITS_OWN = {
    "method": st.sampled_from(["GET", "HEAD"]),
    "lines": st.lists(st.tuples(WIRE, WIRE), max_size=5),
    "vary": PAIRS,
    "tags": TAGS,
    # Whose types are unions: compiled, a class does not say of what.
    **dict.fromkeys(("length", "last_modified"), st.none() | NUMBERS),
    "etag": st.none() | WIRE,
}
BY_TYPE = {
    int: NUMBERS,
    bool: st.booleans(),
    str: WIRE,
}
NAMES = [field.name for field in fields(Stored)]
HINTS = typing.get_type_hints(Stored)
ANSWERS = st.builds(
    Stored,
    **{name: OF_ITS_OWN[name] if name in OF_ITS_OWN else BY_TYPE[HINTS[name]] for name in NAMES},
)


def entry(record: bytes, *, body: bytes = NO_BODY, variant: bool = True) -> codec.Entry:
    return codec.Entry(variant, 0, body, b"", record)


@settings(max_examples=150, deadline=None)
@given(ANSWERS, WIRE, NUMBERS, TAGS, st.binary(max_size=50), st.booleans())
def test_an_answer_comes_back_as_it_was(answer, target, began, hidden, body, apart):
    """Every field, whatever Stored comes to have."""
    if not apart and answer.method == "GET":
        answer.length = len(body)
    place = b"12345678" if apart else b""
    kept = Kept(answer, target, began, None if apart else body, place, hidden)
    record = codec.write_variant(kept, b"" if apart else body)
    assert codec.read_variant(entry(record, body=kept.place or NO_BODY)) == kept


@settings(max_examples=50, deadline=None)
@given(PAIRS, WIRE, NUMBERS)
def test_a_mark_comes_back_as_it_was(vary, kind, until):
    mark = Mark(vary, kind, until)
    assert codec.read_mark(entry(codec.write_mark(mark))) == mark


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_record_that_was_damaged_is_none(data):
    record = bytearray(codec.write_variant(Kept(stored(), "/", 1, b"hello"), b"hello"))
    if data.draw(st.booleans()):
        record[data.draw(st.integers(0, len(record) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        del record[data.draw(st.integers(0, len(record) - 1)) :]
    assert codec.read_variant(entry(bytes(record))) is None
    assert codec.read_mark(entry(bytes(record))) is None


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100))
def test_any_bytes_can_be_looked_at(text):
    for one in codec.entries(text):
        assert codec.read_variant(one) is None
        assert codec.read_mark(one) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\x05\0\0\0",
        b"\xff\xff\xff\xff{}",
        b"\x02\0\0\0{}",
        b"\x02\0\0\0[]",
        b"\x07\0\0\0[1,2,3]",
        b'\x08\0\0\0["/",1,[',
    ],
)
def test_what_is_sound_but_no_answer_is_none(text):
    assert codec.read_variant(entry(codec._sealed(text))) is None


@pytest.mark.parametrize("text", [b"", b"{}", b"[1,2,3]", b"[[1],2,3]", b"[[],2]", b"\xff"])
def test_what_is_sound_but_no_mark_is_none(text):
    assert codec.read_mark(entry(codec._sealed(text))) is None


def test_another_form_is_none(monkeypatch):
    record = codec.write_variant(Kept(stored(), "/", 1, b"hello"), b"hello")
    monkeypatch.setattr(codec, "FORM", codec.FORM ^ 1)
    assert codec.read_variant(entry(record)) is None


def test_a_body_of_another_length_is_none():
    record = codec.write_variant(Kept(stored(4), "/", 1, b"hello"), b"hello")
    assert codec.read_variant(entry(record)) is None


def test_names_tell_apart():
    key, other = bytes(16), bytes(15) + b"\1"
    vary = (("a", "b"),)
    answers = [stored(), stored(method="HEAD"), stored(vary=vary), stored(vary=(("a", None),))]
    names = {variant_id(k, answer) for answer in answers for k in (key, other)}
    names |= {
        mark_id(k, v, kind) for k in (key, other) for v in ((), vary) for kind in ("", "cookie")
    }
    assert len(names) == 16
    assert {len(name) for name in names} == {16}
    assert len(new_body()) == 8 != NO_BODY
    assert new_body() != new_body()


def test_a_key_s_names_are_in_one_slot():
    names = CacheNames("a")
    tags = {
        name.partition(b"{")[2].partition(b"}")[0]
        for name in (names.entries(bytes(16)), names.bodies(bytes(16)), names.lease(bytes(16)))
    }
    assert tags == {b"A" * 22}
    with pytest.raises(ValueError, match="braces"):
        CacheNames("a{b}")
