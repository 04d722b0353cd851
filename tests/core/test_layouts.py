"""What is remembered of the names of a head: the same as without remembering, and within bounds."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.fields import written
from proxy.core.layouts import LONGEST, REMEMBERED, Layouts, Names, form

NAMES = st.sampled_from(["A", "b", "B", "100%", "%s", "X-Long"])
LINES = st.lists(st.tuples(NAMES, st.text(st.characters(max_codepoint=0xFF), max_size=6)))


@given(LINES, st.sets(st.sampled_from(["a", "b", "%s"])))
def test_a_form_writes_the_lines_that_are_not_dropped(
    lines: list[tuple[str, str]], drop: set[str]
) -> None:
    names = tuple(name for name, _ in lines)
    text = form(names, drop) % tuple(value for _, value in lines)
    assert text == written([line for line in lines if line[0].lower() not in drop])


def counted() -> tuple[Layouts[int], list[Names]]:
    asked: list[Names] = []

    def work_out(names: Names) -> int:
        asked.append(names)
        return len(names)

    return Layouts(work_out), asked


def test_a_layout_is_worked_out_once() -> None:
    layouts, asked = counted()
    assert [layouts["A", "B"], layouts["A", "B"], layouts["B", "A"], layouts["a", "B"]] == [2] * 4
    assert asked == [("A", "B"), ("B", "A"), ("a", "B")]


def test_names_that_never_come_again_push_out_and_are_pushed_out() -> None:
    layouts, asked = counted()
    for number in range(3 * REMEMBERED):
        assert layouts[(f"X-{number}",)] == 1
    assert len(layouts) == REMEMBERED
    assert len(asked) == 3 * REMEMBERED
    assert layouts[("X-0",)] == 1
    assert len(asked) == 3 * REMEMBERED + 1


def test_a_long_head_is_not_kept() -> None:
    layouts, asked = counted()
    for names in (("A" * LONGEST,), ("A" * LONGEST, "B")) * 2:
        assert layouts[names] == len(names)
    assert len(asked) == 3
    assert list(layouts) == [("A" * LONGEST,)]
