"""Lists: no item twice, and none that is empty where that would mean everything."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from proxy.policy.draft import Part


def refuse_repeats(
    part: Part[Any],
    loc: tuple[str | int, ...],
    items: Iterable[str],
    fold: Callable[[str], str] = str,
) -> None:
    """Notes items that stand in a list before."""
    first: dict[str, int] = {}
    for index, item in enumerate(items):
        if fold(item) in first:
            part.error(f'is "{item}" again', *loc, index)
        first.setdefault(fold(item), index)


def refuse_overlaps(
    part: Part[Any], loc: tuple[str | int, ...], listed: Iterable[Iterable[int]]
) -> None:
    """Notes statuses that stand in a list before, by themselves or within a range."""
    seen: set[int] = set()
    for index, statuses in enumerate(listed):
        if again := seen.intersection(statuses):
            part.error(f"names {min(again)} again", *loc, index)
        seen.update(statuses)


def refuse_respellings(part: Part[Any], loc: tuple[str | int, ...], names: Iterable[str]) -> None:
    """Notes header names of a map that differ only in case."""
    first: dict[str, str] = {}
    for name in names:
        if name.lower() in first:
            part.error(f"is the same header as {first[name.lower()]}", *loc, name)
        first.setdefault(name.lower(), name)


def refuse_empty(part: Part[Any], loc: tuple[str | int, ...], items: Sequence[Any] | None) -> None:
    """Notes a condition without values: it would hold for everything, or for nothing."""
    if items is not None and not items:
        part.error("is empty: leave it out, or name at least one", *loc)
