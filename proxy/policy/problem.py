"""What is wrong with a configuration: one Problem per error or warning, each with its place.

A problem prints as `FILE:LINE:COL: key.path: message`, 1-based, as compilers do, so that editors
can jump to it. Where a problem concerns the file as a whole the key path is left out.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from proxy.logs import one_line

if TYPE_CHECKING:
    from proxy.policy.sources import Sources

Loc = tuple[str | int, ...]
"""A place in the YAML: keys and list indexes from the root."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One error or warning."""

    file: str
    line: int
    col: int
    path: str
    message: str
    warning: bool = False

    def __str__(self) -> str:
        path = f"{self.path}: " if self.path else ""
        kind = "warning: " if self.warning else ""
        # One line each, whatever stands in the YAML: a message quotes it.
        return one_line(f"{self.file}:{self.line}:{self.col}: {path}{kind}{self.message}")


class ConfigError(Exception):
    """A configuration that cannot be used. `problems` holds every error and warning, in order.

    `sources` is what was read, so that a watcher knows what must change before it tries again.
    """

    def __init__(self, problems: list[Problem], sources: "Sources") -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
        self.sources = sources

    @property
    def errors(self) -> list[str]:
        """Why it cannot be used: the problems that are no warnings, as text."""
        return [str(problem) for problem in self.problems if not problem.warning]


def dotted(loc: Loc) -> str:
    """`("routes", 0, "match")` as `routes[0].match`; keys that are no plain words are quoted."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not _BARE_KEY.fullmatch(part):
            text += f'["{part}"]'
        else:
            text += f".{part}" if text else part
    return text


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean "limits"?` where something close is known, else ""."""
    by_folded = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), by_folded, n=1, cutoff=0.65)
    return f'; did you mean "{by_folded[close[0]]}"?' if close else ""


def listing(words: Iterable[str], joint: str = "or") -> str:
    """`a, b or c`."""
    *front, last = words
    return f"{', '.join(front)} {joint} {last}" if front else last
