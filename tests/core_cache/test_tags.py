"""Tags: where they come from, what they may be, and what clients see of them."""

from collections.abc import Sequence

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.cache import tags
from proxy.core.cache.tags import MAX_TAG, MAX_TAGS, MAX_TOTAL, TagTemplate
from proxy.core.cache.urls import group_tag
from proxy.core.fields import Fields, Lines


def of(*lines: tuple[str, str]) -> tuple[str, ...] | None:
    return tags.of(Fields(lines))


@pytest.mark.parametrize(
    ("rule", "lines", "found"),
    [
        ("no tags", [], ()),
        ("Surrogate-Key is parted by spaces", [("Surrogate-Key", " a  b\tc ")], ("a", "b", "c")),
        ("a comma is a key's character", [("Surrogate-Key", "a,b c")], ("a,b", "c")),
        ("Cache-Tag is parted by commas", [("Cache-Tag", "a, b c ,d")], ("a", "b c", "d")),
        ("lines count one by one", [("Surrogate-Key", "a"), ("surrogate-key", "b")], ("a", "b")),
        ("lines of Cache-Tag too", [("Cache-Tag", "a"), ("CACHE-TAG", "b")], ("a", "b")),
        ("the empty tag does not exist", [("Surrogate-Key", ""), ("Cache-Tag", ", ,")], ()),
        ("Cache-Groups is a List of Strings", [("Cache-Groups", '"a", "b c";x')], ("a", "b c")),
        ("its lines are one list", [("Cache-Groups", '"a"'), ("Cache-Groups", '"b"')], ("a", "b")),
        ("escapes are read", [("Cache-Groups", '"a\\"\\\\"')], ('a"\\',)),
        ("a token spoils the whole field", [("Cache-Groups", '"a", b')], ()),
        ("so does a number", [("Cache-Groups", '"a", 1')], ()),
        ("so does an inner list", [("Cache-Groups", '("a" "b")')], ()),
        ("so does a display string", [("Cache-Groups", '%"a"')], ()),
        ("so does a broken list", [("Cache-Groups", '"a",')], ()),
        ("so does an open string", [("Cache-Groups", '"a')], ()),
        ("an empty group does not exist", [("Cache-Groups", '"", "a"')], ("a",)),
        ("a name means the same everywhere",
         [("Surrogate-Key", "a b"), ("Cache-Tag", "b"), ("Cache-Groups", '"a"')], ("a", "b")),
        ("tags have case", [("Surrogate-Key", "a A")], ("a", "A")),
        ("bytes are kept", [("Surrogate-Key", "\xc3\xa9")], ("\xc3\xa9",)),
    ],
)  # fmt: skip
def test_of_the_origin(rule: str, lines: Sequence[tuple[str, str]], found: tuple[str, ...]) -> None:
    assert of(*lines) == found, rule


@pytest.mark.parametrize(
    ("rule", "line", "fits"),
    [
        ("as many as may be", " ".join(f"t{n}" for n in range(MAX_TAGS)), True),
        ("one more", " ".join(f"t{n}" for n in range(MAX_TAGS + 1)), False),
        ("repeats do not count", " ".join(["t"] * 999), True),
        ("as long as may be", "t" * MAX_TAG, True),
        ("one longer", "t" * (MAX_TAG + 1), False),
        ("as much as may be", " ".join(f"{n:02d}" + "t" * 1022 for n in range(16)), True),
        ("more in all", " ".join(f"{n:02d}" + "t" * 1022 for n in range(17)), False),
    ],
)
def test_what_cannot_carry_all_its_tags_is_not_stored(rule: str, line: str, fits: bool) -> None:
    assert MAX_TOTAL == 16 * 1024
    assert (of(("Surrogate-Key", line)) is not None) is fits, rule


def test_rfc_9875_asks_for_no_more_than_the_caps_allow() -> None:
    names = [f"{n:032d}" for n in range(128)]
    assert of(("Cache-Groups", ", ".join(f'"{name}"' for name in names))) == tuple(names)


@pytest.mark.parametrize(
    ("rule", "template", "captures", "tag"),
    [
        ("plain text", "users", {}, "users"),
        ("a capture", "user:{path.id}", {"id": "7"}, "user:7"),
        ("captures are decoded once", "user:{path.id}", {"id": "%37%252F"}, "user:7%2F"),
        ("a broken escape is text", "user:{path.id}", {"id": "%zz%"}, "user:%zz%"),
        ("several", "{path.a}-{path.b}{path.a}", {"a": "1", "b": "2"}, "1-21"),
        ("YAML's UTF-8 is the wire's", "caf\u00e9:{path.id}", {"id": "%C3%A9"},
         "caf\xc3\xa9:\xc3\xa9"),
    ],
)  # fmt: skip
def test_templates(rule: str, template: str, captures: dict[str, str], tag: str) -> None:
    parsed = TagTemplate.parse(template)
    assert parsed.fill(captures) == tag, rule
    assert parsed.captures == captures.keys()
    assert tags.of(Fields(), [parsed], captures) == (tag,)
    assert tags.filled([parsed, parsed], captures) == (tag,)


def test_an_empty_capture_alone_is_no_tag() -> None:
    parsed = TagTemplate.parse("{path.rest}")
    assert tags.of(Fields(), [parsed], {"rest": ""}) == ()
    assert tags.filled([parsed], {"rest": ""}) == ()


def test_a_capture_too_long_to_be_a_tag_is_not_stored() -> None:
    assert tags.of(Fields(), [TagTemplate.parse("u:{path.id}")], {"id": "x" * MAX_TAG}) is None


def test_the_policy_comes_first_and_repeats_go() -> None:
    response = Fields([("Surrogate-Key", "a users")])
    assert tags.of(response, [TagTemplate.parse("users")], {}) == ("users", "a")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "must not be empty"),
        ("a\0", "NUL"),
        ("x" * (MAX_TAG + 1), "at most 1024 bytes"),
        ("user:{id}", "brace"),
        ("user:{path.}", "brace"),
        ("user:{path.id", "brace"),
        ("user:}", "brace"),
        ("{header:X}", "brace"),
    ],
)
def test_what_is_no_template(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        TagTemplate.parse(text)


def test_an_operators_text_is_wire_text() -> None:
    assert tags.from_text("caf\u00e9") == "caf\xc3\xa9"
    assert tags.from_text("user:a b ") == "user:a b "
    with pytest.raises(ValueError, match="NUL"):
        tags.from_text("\0path:0")


def test_groups_have_an_origin() -> None:
    response = Fields([("Cache-Groups", '"a"'), ("Surrogate-Key", "b")])
    found = tags.of(response, origin="https://h.test")
    assert found == ("b", "a", group_tag("https://h.test", "a"))
    assert group_tag("https://h.test", "a") != group_tag("https://i.test", "a")
    assert group_tag("https://h.test", "a") != group_tag("https://h.testa", "")


def test_hidden_tags_do_not_count_against_the_caps() -> None:
    line = ", ".join(f'"{n}"' for n in range(MAX_TAGS))
    found = tags.of(Fields([("Cache-Groups", line)]), origin="http://h")
    assert found is not None
    assert len(found) == 2 * MAX_TAGS


def test_what_clients_see() -> None:
    lines: Lines = [
        ("Surrogate-Key", "a"), ("ETag", '"1"'), ("cache-tag", "b"), ("Surrogate-Control", "x"),
        ("Cache-Groups", '"c"'), ("Cache-Group-Invalidation", '"d"'),
    ]  # fmt: skip
    assert [name for name, _ in tags.without_tags(lines)] == [
        "ETag", "Cache-Groups", "Cache-Group-Invalidation",
    ]  # fmt: skip


wire = st.text(alphabet='ab \t,"\\();=?%:*0\x80\xff', max_size=30)


@given(st.lists(st.tuples(st.sampled_from(["Surrogate-Key", "Cache-Tag", "Cache-Groups"]), wire)))
def test_any_answer_can_be_read(lines: Lines) -> None:
    found = tags.of(Fields(lines))
    assert found is not None
    assert "" not in found
    assert len(set(found)) == len(found)


@given(
    st.lists(st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E)), max_size=5)
)
def test_groups_read_what_a_serialiser_wrote(names: list[str]) -> None:
    value = http_sf.ser([(name, {}) for name in names]) if names else ""
    expected = tuple(dict.fromkeys(name for name in names if name))
    assert tags.groups(Fields([("Cache-Groups", value)])) == expected
