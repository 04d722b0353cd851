"""Field lines as text, and back."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.fields import Lines, read_written, written
from proxy.core.message import Reply

NAMES = st.text("!#$%&'*+-.^_`|~09AZaz", min_size=1, max_size=8)
VALUES = st.text(st.characters(max_codepoint=0xFF, exclude_characters="\r\n\0"), max_size=12).map(
    str.strip
)
LINES = st.lists(st.tuples(NAMES, VALUES), max_size=6)


def test_what_is_written() -> None:
    assert written([("A", "1"), ("a", ""), ("B", "x: y")]) == "A: 1\r\na: \r\nB: x: y\r\n"
    assert written([]) == ""


@given(LINES)
def test_it_reads_as_it_was(lines: Lines) -> None:
    assert read_written(written(lines)) == lines


@given(LINES, LINES)
def test_a_reply_gives_its_text_as_lines(lines: Lines, more: Lines) -> None:
    reply = Reply(200, written(lines))
    assert reply.fields == lines
    reply.fields += more
    assert reply.head == reply.fields == lines + more
