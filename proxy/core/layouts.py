"""What the names of a head's fields tell, whatever their values: worked out once, then remembered.

An upstream says the same names in the same order in one answer after the other, as a client does in
its requests. So which lines frame the body, and which are taken off, need not be found out line by
line each time: the names, as they came, lead to it.

Rules:
- What is remembered is worked out from the names alone; to remember or not makes no difference.
- Memory is bounded: names that nobody will say again push out others, and nothing more.
"""

from collections.abc import Callable, Collection
from typing import Final, TypeVar

Names = tuple[str, ...]
"""The fields' names as received, one per line, in the lines' order."""

REMEMBERED: Final = 256
LONGEST: Final = 2048
"""Characters of names beyond which a head is an oddity that is not worth remembering."""
MOST_NAMES: Final = 128
"""As many lines."""

_L = TypeVar("_L")


class Layouts(dict[Names, _L]):
    """By the names of a head, what `work_out` makes of them: to be read by `layouts[names]`."""

    def __init__(self, work_out: Callable[[Names], _L]) -> None:
        super().__init__()
        self._work_out = work_out

    def __missing__(self, names: Names) -> _L:
        layout = self._work_out(names)
        if len(names) <= MOST_NAMES and sum(map(len, names)) <= LONGEST:
            if len(self) >= REMEMBERED:
                del self[next(iter(self))]
            self[names] = layout
        return layout


def form(names: Names, drop: Collection[str]) -> str:
    """How to write the lines: `form(names, drop) % values` is their text (`fields.written`) without
    those that `drop` names (lower case). `values`: a tuple, of all of the lines."""
    return "".join(
        "%.0s" if name.lower() in drop else f"{name.replace('%', '%%')}: %s\r\n" for name in names
    )
