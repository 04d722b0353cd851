"""Why no route takes a request: the routes that come nearest, and what of each of them fails.

What headers say may be a credential, so of those only the name is told.
"""

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any, Final

from proxy.admin.stored import text
from proxy.core.matching import RouteMatch, split_path
from proxy.core.paths import PathPattern, plain_segment
from proxy.exchange import Exchange

_MOST: Final = 3


def nearest(ex: Exchange) -> list[dict[str, Any]]:
    """`[{route, path, failed: [{part, …}]}]`, the nearest first: those whose path matches, else
    those that agree in the most segments. The path of the request is one that can be split."""
    segments = split_path(ex.path)
    found = []
    for match, route in ex.snapshot.table.routes:
        place = first_mismatch(match.path, segments)
        failed = [] if place is None else [_segment(match.path, segments, place)]
        failed += _others(match, ex)
        said = {"route": route.name, "path": match.path.text, "failed": failed}
        found.append((_distance(match.path, segments, place), len(failed), said))
    found.sort(key=lambda one: one[:2])  # stable: of equals, the first in order
    there = [said for distance, _, said in found if distance == _HERE]
    return (there or [said for _, _, said in found])[:_MOST]


def first_mismatch(path: PathPattern, segments: Sequence[str]) -> int | None:
    """The place of the first segment at which a path leaves the pattern; None where it matches."""
    for place, part in enumerate(path.parts):
        if place == len(segments):
            return place
        segment = plain_segment(segments[place])
        if isinstance(part, str):
            if segment != part:
                return place
        elif part[1] == "path":
            return None
        elif not segment or (part[1] == "int" and not (segment.isascii() and segment.isdigit())):
            return place
    return None if len(path.parts) == len(segments) else len(path.parts)


def accepts_host(match: RouteMatch, host: str) -> bool:
    """Whether the route takes requests for this host."""
    return not match.hosts or any(
        host == wanted or (wanted[0] == "*" and host.endswith(wanted[1:]) and host != wanted[1:])
        for wanted in match.hosts
    )


_HERE: Final = (0, 0.0)


def _distance(path: PathPattern, segments: Sequence[str], place: int | None) -> tuple[int, float]:
    """Smaller is nearer; `_HERE` where the path matches."""
    if place is None:
        return _HERE
    wanted = path.parts[place] if place < len(path.parts) else ""
    got = segments[place] if place < len(segments) else ""
    likeness = SequenceMatcher(None, wanted, got).ratio() if isinstance(wanted, str) else 0.0
    return len(path.parts) + len(segments) - 2 * place, -likeness


def _segment(path: PathPattern, segments: Sequence[str], place: int) -> dict[str, Any]:
    """`got` is None where the request's path has ended, `wanted` where the route's has."""
    wanted = path.text[1:].split("/")[place] if place < len(path.parts) else None
    got = text(segments[place]) if place < len(segments) else None
    return {"part": "segment", "number": place + 1, "wanted": wanted, "got": got}


def _others(match: RouteMatch, ex: Exchange) -> list[dict[str, Any]]:
    failed: list[dict[str, Any]] = []
    if not accepts_host(match, ex.host):
        failed.append({"part": "host", "wanted": list(match.hosts), "got": text(ex.host)})
    for name, value in match.headers:
        got = ex.fields.get(name)
        if got != value:
            failed.append({"part": "header", "name": name, "got": got is not None})
    if match.methods is not None and ex.method not in match.methods:
        failed.append({"part": "method", "wanted": sorted(match.methods), "got": ex.method})
    return failed


def line(near: dict[str, Any]) -> str:
    """One of them for a person."""
    return f"{near['route']} ({near['path']}): {'; '.join(map(_reason, near['failed']))}"


def _reason(failed: dict[str, Any]) -> str:
    match failed["part"]:
        case "segment":
            number, wanted, got = failed["number"], failed["wanted"], failed["got"]
            if got is None:
                return f"segment {number} is missing, which is to be {wanted}"
            if wanted is None:
                return f'segment {number} ("{got}") is one too many'
            return f'segment {number} is "{got}", not {wanted}'
        case "header":
            other = "has another value" if failed["got"] else "is missing"
            return f"header {failed['name']} {other}"
        case part:
            return f"{part} {failed['got']} is not {' or '.join(failed['wanted'])}"
