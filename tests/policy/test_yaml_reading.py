"""YAML 1.2 core schema, variables, and places: what the reader makes of a text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.reader import Document, Tree, read
from proxy.policy.scalars import Scalar, type_plain

ENV = {
    "PORT": "8080",
    "EMPTY": "",
    "WORD": "on",
    "NESTED": "${PORT}",
    "COLON": "a: b",
    "PAD": " 7\n",
}


def document(text: str) -> Document:
    return read("f.yaml", text.encode(), ENV)


def plain(tree: Tree) -> object:
    """The tree with scalars as their typed values."""
    if isinstance(tree, Scalar):
        return tree.value
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return [plain(item) for item in tree]


def held(text: str) -> object:
    found = document(text)
    assert found.problems == []
    return plain(found.tree)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # YAML 1.2.2 §10.3.2, and what YAML 1.1 made of the same text
        ("true", True),
        ("false", False),
        ("True", "True"),
        ("yes", "yes"),  # 1.1: a boolean
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("0", 0),
        ("-17", -17),
        ("+12", 12),
        ("010", 10),  # 1.1: octal, 8
        ("0o17", 15),
        ("0x1F", 31),
        ("0b11", "0b11"),  # 1.1: binary
        ("1_000", "1_000"),  # 1.1: 1000
        ("12:30", "12:30"),  # 1.1: sexagesimal, 750
        ("190:20:30", "190:20:30"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", -math.inf),
        ("2026-01-01", "2026-01-01"),  # 1.1: a date
        ("0o8", "0o8"),
        ("=", "="),  # 1.1: a value key
        ("1.2.3", "1.2.3"),
        ("127.0.0.1:8080", "127.0.0.1:8080"),
    ],
)
def test_plain_scalars(text: str, value: object) -> None:
    found = held(f"a: {text}")
    assert found == {"a": value}
    assert type(found["a"]) is type(value)


def test_not_a_number() -> None:
    assert math.isnan(type_plain(".NaN"))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL", "# a comment"])
def test_an_empty_value_is_left_out(text: str) -> None:
    assert held(f"a: {text}\nb: 1") == {"b": 1}
    assert held(f"a:\n  - {text}\n  - 1") == {"a": [1]}


@pytest.mark.parametrize("text", ["'true'", '"8080"', "'null'", '""', "|-\n  12", ">-\n  12"])
def test_quoted_and_block_scalars_are_text(text: str) -> None:
    found = held(f"a: {text}")
    assert isinstance(found, dict)
    assert isinstance(found["a"], str)


def test_keys_are_taken_as_written() -> None:
    text = "404: a\non: b\n1.0: c\n0x10: d\ntrue: e\n'~': f\n"
    assert held(text) == dict(zip(("404", "on", "1.0", "0x10", "true", "~"), "abcdef", strict=True))


def test_anchors_and_aliases() -> None:
    assert held("a: &x {b: [1, 2]}\nc: *x\nd: [*x, *x]") == {
        "a": {"b": [1, 2]},
        "c": {"b": [1, 2]},
        "d": [{"b": [1, 2]}, {"b": [1, 2]}],
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${PORT}", 8080),  # typed again
        ('"${PORT}"', "8080"),  # quoted: stays text
        ("127.0.0.1:${PORT}", "127.0.0.1:8080"),
        ("${NONE:-80}", 80),
        ("${NONE:-}x", "x"),
        ("${EMPTY:-80}", 80),  # as in a shell, an empty variable takes the default
        ("${WORD}", "on"),
        ("$${PORT}", "${PORT}"),
        ("a$${PORT}${PORT}", "a${PORT}8080"),
        ("$5", "$5"),
        ("${NESTED}", "${PORT}"),  # what a variable holds is not searched again
        ("${COLON}", "a: b"),  # and never YAML
        ("${PAD}", 7),  # a plain scalar has no blanks around it
        ('"${PAD}"', " 7\n"),
        ("|-\n  x${PORT}", "x8080"),
    ],
)
def test_variables(text: str, value: object) -> None:
    assert held(f"a: {text}") == {"a": value}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{port: ${PORT}}", {"port": 8080}),
        ("{port: ${PORT}, on: ${NONE:-true}}", {"port": 8080, "on": True}),
        ("[${PORT}, ${NONE:-80}]", [8080, 80]),
        ("{a: {b: [${PORT}]}}", {"a": {"b": [8080]}}),
        ("[${NONE:-a, b: #c}]", ["a, b: #c"]),
        ("[http://${WORD}:${PORT}/x]", ["http://on:8080/x"]),
        ("{a: $${PORT}}", {"a": "${PORT}"}),
        ('["${PORT}"]', ["8080"]),
        ("{${PORT}: 1}", {"${PORT}": 1}),
        ("{a: ${NONE:-}, b: 1}", {"b": 1}),
        ("[&x ${PORT}, *x]", [8080, 8080]),
    ],
)
def test_variables_within_braces_and_brackets(text: str, value: object) -> None:
    assert held(f"a: {text}") == {"a": value}


def test_a_variable_moves_no_place() -> None:
    found = document("a: {b: ${PORT:-1, 2}, c: *x}\n")
    assert [(p.line, p.col) for p in found.problems] == [(1, 26)], "the syntax error alone"
    found = document("a: {b: ${PORT}, c: !x ${PORT}, c: 1}\nd: {e: ${NO}, f: g, f: h}\n")
    assert [(p.line, p.col) for p in found.problems] == [(1, 20), (1, 32), (2, 8), (2, 21)]


def test_what_hides_a_variable_may_stand_in_the_text_itself() -> None:
    taken = "".join(map(chr, range(0xF0000, 0xF0010)))
    assert held(f"a: [{taken}, ${{PORT}}]") == {"a": [taken, 8080]}


@pytest.mark.parametrize(
    "text", ["${NONE:-[a, b]}", "[${NONE:-[a]}]", "${NONE:-{a}}", "${PORT:-[]}"]
)
def test_a_default_that_looks_like_a_list_or_a_map_is_refused(text: str) -> None:
    (problem,) = document(f"a: {text}").problems
    assert problem.message == (
        "a variable is one value, never a list or a map: "
        "give each item a variable of its own, such as [${A:-a}, ${B:-b}]"
    )


def test_brackets_in_a_default_may_be_an_address() -> None:
    assert held("a: ${NONE:-[::1]}:${PORT}") == {"a": "[::1]:8080"}


@pytest.mark.parametrize("text", ["$PORT", "127.0.0.1:$PORT", '"$PORT"', "${NONE:-$PORT}"])
def test_a_name_without_braces_is_a_warning(text: str) -> None:
    (problem,) = document(f"a: {text}").problems
    assert problem.warning
    assert problem.message == "$PORT is taken as text; did you mean ${PORT}?"


@pytest.mark.parametrize("text", ["$5", "$port", "pa$WORD", "$$PORT", "$${PORT}", "US$", "a$"])
def test_a_dollar_that_names_nothing_is_text(text: str) -> None:
    assert document(f"a: {text}").problems == []


@pytest.mark.parametrize("text", ["${EMPTY}", "${NONE:-}", "${NONE:-null}"])
def test_a_variable_that_is_empty_leaves_the_value_out(text: str) -> None:
    assert held(f"a: {text}\nb: 1") == {"b": 1}


def test_a_variable_is_not_replaced_in_a_key() -> None:
    assert held('"${PORT}": 1') == {"${PORT}": 1}


def test_every_bad_variable_is_told() -> None:
    found = document("a: ${NO_1} ${NO_2}\nb: ${NO_3}")
    assert [(p.line, p.message.split()[3]) for p in found.problems] == [
        (1, "NO_1"),
        (1, "NO_2"),
        (2, "NO_3"),
    ]


def test_places_are_lines_and_columns_from_one() -> None:
    found = document("a:\n  - b: é\n  -\n  - {c: 1, 'd e': 2}\n")
    assert found.values["a", 0] == (2, 5)
    assert found.values["a", 0, "b"] == (2, 8)
    assert found.keys["a", 1, "c"] == (4, 6)  # the empty item took no index
    assert found.values["a", 1, "d e"] == (4, 19)


def test_a_byte_order_mark_is_no_content() -> None:
    assert plain(read("f", b"\xef\xbb\xbfa: 1", {}).tree) == {"a": 1}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "--- \n...\n"])
def test_an_empty_file_is_an_empty_map(text: str) -> None:
    assert held(text) == {}


def test_errors_do_not_stop_the_reading() -> None:
    found = document("a: !x 1\nb: 1\nb: 2\n<<: {}\n~: 3\n? [1]\n: 2\nc: ${NO}\n")
    assert [problem.line for problem in found.problems] == [1, 3, 4, 5, 6, 8]


def test_aliases_cannot_unfold_without_bound() -> None:
    lines = ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    found = document("\n".join(lines))
    assert [p.message for p in found.problems] == ["aliases unfold to more than 200,000 values"]


def test_deep_nesting_is_refused_before_it_is_built() -> None:
    found = document("a: " + "[" * 200_000 + "]" * 200_000)
    assert [str(p) for p in found.problems] == ["f.yaml:1:53: is nested more than 50 levels deep"]


def test_deep_nesting_is_refused_before_a_later_error() -> None:
    """PyYAML's own bound is reached by its scanner before ours is by the events."""
    found = document("a: " + "[" * 60 + "\n@")
    assert [str(p) for p in found.problems] == ["f.yaml:1:53: is nested more than 50 levels deep"]
    found = document("a: [[1, 2]\nb: 1\n")
    assert [p.message for p in found.problems] != ["is nested more than 50 levels deep"]


def test_a_scalar_does_not_print_what_it_holds() -> None:
    assert "secret" not in repr(Scalar("secret", "secret"))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_with_a_place(data: bytes) -> None:
    found = read("f", data, {})
    assert all(p.line >= 1 and p.col >= 1 and p.message for p in found.problems)


@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@#?, \n\t$~<", max_size=40))
def test_any_yaml_like_text_is_read_or_refused_with_a_place(text: str) -> None:
    found = document(text)
    assert all(p.line >= 1 and p.col >= 1 and p.message for p in found.problems)
