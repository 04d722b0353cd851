"""Header fields as the wire gave them: every line in its order, and an index by lower-case name.

Text is latin-1, which maps bytes to characters one to one, so a value leaves the gateway with
exactly the bytes it came with (RFC 9110 §5.5 leaves obs-text opaque).
"""

from collections.abc import Iterable, Iterator

Lines = list[tuple[str, str]]
"""(name as received, value without surrounding whitespace), one entry per field line."""


def written(lines: Lines) -> str:
    """Field lines as a message's head has them: "Name: value", each with its CRLF."""
    return "".join([f"{name}: {value}\r\n" for name, value in lines])


def read_written(text: str) -> Lines:
    """The lines of which `written` has made this text."""
    parts = [line.partition(": ") for line in text.split("\r\n")[:-1]]
    return [(name, value) for name, _, value in parts]


class Fields:
    """The field lines of one message.

    `lines` keeps order, spelling and repetition. `index` maps each lower-case name to its value,
    repeated lines joined with ", " (RFC 9110 §5.3) or, for Cookie, with "; " (RFC 6265 §5.4).
    """

    __slots__ = ("index", "lines")

    def __init__(self, lines: Iterable[tuple[str, str]] = ()) -> None:
        self.lines: Lines = list(lines)
        index: dict[str, str] = {}
        for name, value in self.lines:
            low = name.lower()
            if low in index:
                index[low] += ("; " if low == "cookie" else ", ") + value
            else:
                index[low] = value
        self.index = index

    @classmethod
    def indexed(cls, lines: Lines, index: dict[str, str]) -> "Fields":
        """From lines, none of them repeated, whose index is at hand. Both are kept, not copied."""
        fields = Fields()
        fields.lines = lines
        fields.index = index
        return fields

    def joined(self, name: str, value: str) -> "Fields":
        """These and one more, of a name (lower case) that is not among them."""
        return Fields.indexed([*self.lines, (name, value)], {**self.index, name: value})

    def get(self, name: str) -> str | None:
        """The value of the field called `name` (lower case), repeated lines joined, or None."""
        return self.index.get(name)

    def all(self, name: str) -> list[str]:
        """Every line's value of the field called `name` (lower case), in order."""
        return [value for key, value in self.lines if key.lower() == name]

    def repeats(self, name: str) -> bool:
        """Whether the field called `name` (lower case) has several lines."""
        return len(self.all(name)) > 1

    def __contains__(self, name: str) -> bool:
        return name in self.index

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.lines)

    def __len__(self) -> int:
        return len(self.lines)
