"""Paths as data: splitting, patterns with captures, and the rewriting of what is forwarded.

Rules:
- Matching reads the raw path segment by segment, with percent-encoded unreserved characters
  decoded (RFC 3986 §6.2.2.2); %2F, // and a trailing slash stay what they are.
- Captures are the raw segments, as received: what is forwarded is what was sent.
- What an origin could read as another path than we did is refused.
"""

import re
from collections.abc import Sequence

_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_CAPTURE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([a-z]+))?\}")


def split_path(raw_path: str) -> tuple[str, ...]:
    """The raw segments after the leading "/": "/a/b/" is ("a", "b", "").

    Raises ValueError (a sentence for the 400) for what an origin could read as another path: a
    backslash, a NUL, or a dot segment, also percent-encoded, with a ;parameter, or cut out by %2F.
    A broken escape such as "/a%" is not refused: it is matched and forwarded as it stands.
    """
    if raw_path[:1] != "/":
        raise ValueError("The path must begin with a slash.")
    if "%" in raw_path or "/." in raw_path or "\\" in raw_path:
        _refuse_ambiguous(raw_path.lower())
    return tuple(raw_path[1:].split("/"))


def _refuse_ambiguous(path: str) -> None:
    if "\\" in path or "%5c" in path:
        raise ValueError("The path holds a backslash.")
    if "%00" in path:
        raise ValueError("The path holds a NUL.")
    if _has_dot_segment(path):
        raise ValueError("The path holds a dot segment.")


def _has_dot_segment(path: str) -> bool:
    # One pass, as an origin would decode; what decoding yields cannot form a new escape.
    plain = path.lower().replace("%2e", ".").replace("%3b", ";").replace("%2f", "/")
    return any(part.partition(";")[0] in (".", "..") for part in plain.split("/"))


def _decode(escape: re.Match[str]) -> str:
    char = chr(int(escape.group()[1:], 16))
    # Hex digits are case-insensitive (RFC 3986 §6.2.2.1): "%c3" and "%C3" are the same byte.
    return char if char in _UNRESERVED else escape.group().upper()


def plain_segment(segment: str) -> str:
    """The segment as matching sees it: escapes of unreserved characters decoded, once."""
    return _ESCAPE.sub(_decode, segment) if "%" in segment else segment


class PathPattern:
    """A path with captures: `{name}` one non-empty segment, `{name:int}` digits, `{name:path}`
    the remainder (last only, may be empty).

    `names` maps the captures, in order, to their kind: "segment", "int" or "path".
    `parts` are the segments: a literal's plain text, or a (name, kind) pair.
    """

    __slots__ = ("_places", "_rest", "names", "parts", "text")

    def __init__(self, text: str, parts: tuple[str | tuple[str, str], ...]) -> None:
        self.text = text
        self.parts = parts
        self.names: dict[str, str] = dict(part for part in parts if not isinstance(part, str))
        places = [(part, place) for place, part in enumerate(parts) if not isinstance(part, str)]
        self._places = tuple((name, place) for (name, kind), place in places if kind != "path")
        self._rest = next(((name, place) for (name, kind), place in places if kind == "path"), None)

    @classmethod
    def parse(cls, text: str) -> "PathPattern":
        """Reads a pattern. Raises ValueError, a sentence, where it could not mean anything."""
        _require_path(text)
        if "*" in text:
            raise ValueError(f'"*" is no wildcard here: write {_without_stars(text)}')
        segments = text[1:].split("/")
        parts: list[str | tuple[str, str]] = []
        seen: set[str] = set()
        for position, segment in enumerate(segments):
            if "{" not in segment and "}" not in segment:
                parts.append(plain_segment(_percent_encode(segment)))
                continue
            name, kind = _parse_capture(segment)
            if name in seen:
                raise ValueError(f"the capture {{{name}}} appears twice")
            if kind == "path" and position != len(segments) - 1:
                raise ValueError(f"{{{name}:path}} takes the remainder, so it must come last")
            seen.add(name)
            parts.append((name, kind))
        return cls(text, tuple(parts))

    def captures(self, segments: Sequence[str]) -> dict[str, str]:
        """The captures of raw segments that this pattern is known to match."""
        found: dict[str, str] = {}
        for name, place in self._places:
            found[name] = segments[place]
        if self._rest is not None:
            name, place = self._rest
            found[name] = "/".join(segments[place:])
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PathPattern) and other.parts == self.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    def __repr__(self) -> str:
        return f"PathPattern({self.text!r})"


def _without_stars(text: str) -> str:
    """The pattern that the author most likely means, as other proxies write it with "*"."""
    *front, last = text[1:].split("/")
    taken = {capture[1] for capture in _CAPTURE.finditer(text)}
    written = [_unstarred(segment, taken) for segment in front]
    if last.endswith("*") and "*" not in (head := last.rstrip("*")) and "{" not in head:
        # "/api*" is nearly always meant as "/api/" and below.
        written += [head] if head else []
        written.append(_fresh("rest", taken, ":path"))
    else:
        written.append(_unstarred(last, taken))
    return "/" + "/".join(written)


def _unstarred(segment: str, taken: set[str]) -> str:
    return _fresh("name", taken) if "*" in segment else segment


def _fresh(name: str, taken: set[str], kind: str = "") -> str:
    """A capture of this name, or of one like it that is not taken; it is from now on."""
    number = 1
    fresh = name
    while fresh in taken:
        number += 1
        fresh = f"{name}{number}"
    taken.add(fresh)
    return f"{{{fresh}{kind}}}"


def _parse_capture(segment: str) -> tuple[str, str]:
    capture = _CAPTURE.fullmatch(segment)
    if capture is None:
        if _CAPTURE.search(segment):
            raise ValueError(f"a capture must fill its whole segment, not a part of {segment!r}")
        raise ValueError(f"{segment!r} is not a capture: {{name}}, {{name:int}} or {{name:path}}")
    name, kind = capture.group(1), capture.group(2) or "segment"
    if kind not in ("segment", "int", "path"):
        raise ValueError(f"{{{name}:{kind}}} has no such kind: int and path are the kinds")
    return name, kind


def _require_path(text: str) -> None:
    if not text.startswith("/"):
        raise ValueError("a path must begin with /")
    if bad := next((char for char in text if char in "?#\\" or char <= " " or char == "\x7f"), ""):
        raise ValueError(f"a path cannot hold {bad!r}")
    if _has_dot_segment(text):
        raise ValueError("a path cannot hold a dot segment: such requests are refused")


def _percent_encode(text: str) -> str:
    # YAML is UTF-8 and so is what clients escape: /café is asked for as /caf%C3%A9.
    return "".join(c if c < "\x80" else "".join(f"%{b:02X}" for b in c.encode()) for c in text)


class Rewrite:
    """How a route turns the raw path into the one it forwards. Made by `strip` or `template`."""

    __slots__ = ("_pieces", "_prefix", "text")

    def __init__(
        self, text: str, prefix: tuple[str, ...], pieces: tuple[str | tuple[str], ...]
    ) -> None:
        self.text = text
        self._prefix = prefix
        self._pieces = pieces

    @classmethod
    def strip(cls, prefix: str) -> "Rewrite":
        """Cuts these whole segments off the front. Raises ValueError, a sentence."""
        _require_path(prefix)
        if "{" in prefix or "}" in prefix:
            raise ValueError("strip_prefix takes no captures; rewrite does")
        segments = prefix.removesuffix("/")[1:].split("/")
        if segments == [""]:
            raise ValueError("/ is no prefix: there is nothing to cut")
        return cls(prefix, tuple(plain_segment(_percent_encode(s)) for s in segments), ())

    @classmethod
    def template(cls, text: str, pattern: PathPattern) -> "Rewrite":
        """A new path with `{name}` for the pattern's captures. Raises ValueError, a sentence."""
        pieces: list[str | tuple[str]] = []
        place = 0
        for capture in _CAPTURE.finditer(text):
            name, kind = capture.groups()
            if kind is not None:
                raise ValueError(f"rewrite names captures without a kind: write {{{name}}}")
            if name not in pattern.names:
                raise ValueError(f"the path {pattern.text} has no capture {{{name}}}")
            pieces += [_percent_encode(text[place : capture.start()]), (name,)]
            place = capture.end()
        pieces.append(_percent_encode(text[place:]))
        literal = "".join(piece for piece in pieces if isinstance(piece, str))
        if "{" in literal or "}" in literal:
            raise ValueError("rewrite holds a brace that belongs to no capture")
        # A capture may be empty, so the text must be a sound path with it and without it.
        _require_path(literal)
        _require_path(_CAPTURE.sub("x", text))
        return cls(text, (), tuple(pieces))

    def apply(self, raw_path: str, captures: dict[str, str]) -> str:
        """The path to forward; the query is the caller's. A path without the prefix stays."""
        if self._pieces:
            return "".join(p if isinstance(p, str) else captures[p[0]] for p in self._pieces)
        count = len(self._prefix)
        parts = raw_path.split("/", count + 1)
        if tuple(map(plain_segment, parts[1 : count + 1])) != self._prefix:
            return raw_path
        return "/" + (parts[count + 1] if len(parts) > count + 1 else "")
