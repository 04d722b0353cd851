"""The Lua scripts that Redis runs: read, their includes expanded, their headers held to.

Rules:
- `lua/NAME.lua` is an entry script; `--@include PART` on a line of its own stands for
  `lua/include/PART.lua`, once per script.
- An entry script opens with comment lines that say what it is for and name KEYS, ARGV, RETURNS and
  O(…). `-- KEYS 1+` is one key or more.
- The header is a contract: `Script.check` is asked before each call, so that a call that does not
  fit is an error here, not a nil in Redis.
"""

import re
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Final

from proxy.resources import shipped

_INCLUDE: Final = re.compile(r"^--@include (\w+)\n", re.MULTILINE)
_KEYS: Final = re.compile(r"^-- KEYS\s+(\d+)(\+?)(?:\s|$)", re.MULTILINE)
_ARGV: Final = re.compile(r"^-- ARGV\s+(\d+)(?:\s|$)", re.MULTILINE)


class ScriptError(Exception):
    """A script that cannot be used as it stands in lua/."""


class Script:
    """One script, ready for EVALSHA: `source` (bytes), and `sha`, its SHA-1 in hex."""

    __slots__ = ("_args", "_keys", "_more_keys", "name", "sha", "source")

    def __init__(self, name: str, text: str) -> None:
        header = "".join(_header(text))
        keys, args = _KEYS.search(header), _ARGV.search(header)
        if keys is None or args is None:
            raise ScriptError(f"{name}.lua does not say how many KEYS and ARGV it takes")
        for part in ("-- RETURNS ", "-- O("):
            if part not in header:
                raise ScriptError(f"the header of {name}.lua has no line that begins with {part!r}")
        self.name = name
        self.source = text.encode()
        self.sha = sha1(self.source, usedforsecurity=False).hexdigest()
        self._keys = int(keys[1])
        self._more_keys = bool(keys[2])
        self._args = int(args[1])

    def __repr__(self) -> str:
        return f"Script({self.name!r}, sha={self.sha})"

    def check(self, keys: int, args: int) -> None:
        """Raises ValueError unless the script takes so many keys and arguments. Every call goes
        through this before it is sent."""
        if keys != self._keys and (keys < self._keys or not self._more_keys):
            more = " or more" if self._more_keys else ""
            raise ValueError(f"{self.name}.lua takes {self._keys}{more} KEYS, not {keys}")
        if args != self._args:
            raise ValueError(f"{self.name}.lua takes {self._args} ARGV, not {args}")


def _header(text: str) -> list[str]:
    """The comment lines that a script opens with."""
    lines = []
    for line in text.splitlines(keepends=True):
        if not line.startswith("--"):
            break
        lines.append(line)
    return lines


def read_script(name: str, folder: Path) -> Script:
    """The script of `folder`/NAME.lua. Raises ScriptError, or OSError where a file is missing."""
    text = (folder / f"{name}.lua").read_text(encoding="utf-8")
    return Script(name, _expanded(text, folder, set()))


def _expanded(text: str, folder: Path, seen: set[str]) -> str:
    def part(match: re.Match[str]) -> str:
        name = match[1]
        if name in seen:
            return ""
        seen.add(name)
        path = folder / "include" / f"{name}.lua"
        if not path.is_file():
            raise ScriptError(f"--@include {name}: there is no {path.name} in lua/include/")
        return _expanded(path.read_text(encoding="utf-8"), folder, seen)

    return _INCLUDE.sub(part, text)


@cache
def script(name: str) -> Script:
    """A script that ships with Sluicegate. Reads files the first time."""
    return read_script(name, shipped("lua"))
