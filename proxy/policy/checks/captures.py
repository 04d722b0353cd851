"""Keys that read captures, against the paths of the routes that they are read on."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from proxy.core.keys import KeyTemplate
from proxy.policy.draft import Part
from proxy.policy.models.routes import RouteSection
from proxy.policy.problem import suggest

_KINDS: Final = {"limits": "limit", "upstreams": "upstream", "idempotency": "policy"}


def needed(key: Iterable[str]) -> set[str]:
    """Captures that a key has no fallback for."""
    found: set[str] = set()
    for item in key:
        choices = item.split("|")
        if all(choice.startswith("path.") for choice in choices):
            found |= {choice[5:] for choice in choices}
    return found


def refuse_missing(
    route: Part[RouteSection], captures: set[str], says: str, *loc: str | int
) -> None:
    """Notes captures that the route's path does not have. `says` is who wants them: "x needs"."""
    captured = route.section.match.path.names
    for capture in sorted(captures - captured.keys()):
        message = f"{says} path.{capture}, but {{{capture}}} is not in match.path"
        route.error(message + suggest(capture, captured), *loc)


def refuse_dead_fallbacks(
    part: Part[Any],
    name: str,
    key: Sequence[str],
    wanted: set[str],
    routes: Sequence[Part[RouteSection]],
) -> None:
    """`path.id|ip` may meet routes without {id}, but a capture that no route has is a slip.

    `name` is the key's own in `part`; `wanted` are captures that are refused on the routes.
    """
    if not routes:
        return
    captured = {capture for route in routes for capture in route.section.match.path.names}
    kind = _KINDS[str(part.loc[0])]
    for index, item in enumerate(key):
        for capture in sorted(KeyTemplate.parse([item]).captures - captured - wanted):
            message = f"no route that uses this {kind} captures {{{capture}}}"
            part.error(message + suggest(capture, captured), name, index)
