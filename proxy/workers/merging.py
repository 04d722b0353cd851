"""What several workers say, as one: the status documents of the admin API."""

from collections.abc import Sequence
from typing import Any

_LABELS = ("name", "endpoint")
_ALARMS = ("blind", "degraded", "evicts", "owes")


def merged(said: Sequence[Any]) -> Any:
    """Numbers are summed (of seconds, `*_s`, the longest counts), truths must all be true (of
    alarms one is enough), maps and lists of named things go member by member; where anything else
    differs, the answer lists what there is."""
    first = said[0]
    if all(isinstance(one, bool) for one in said):
        return all(said)
    if all(isinstance(one, int | float) for one in said):
        return sum(said)
    if all(isinstance(one, dict) for one in said):
        keys = dict.fromkeys(key for one in said for key in one)
        return {
            key: _member(key, one)
            for key in keys
            if (one := [each[key] for each in said if key in each])
        }
    if all(isinstance(one, list) for one in said):
        named: dict[str, list[Any]] = {}
        for item in (item for one in said for item in one):
            named.setdefault(_label(item), []).append(item)
        return [merged(items) for items in named.values()]
    if all(one == first for one in said):
        return first
    return list(dict.fromkeys(map(str, said)))


def _member(key: str, said: list[Any]) -> Any:
    if key in _LABELS:
        return said[0]
    if key in _ALARMS:
        return any(said)
    return max(said) if key.endswith("_s") else merged(said)


def _label(item: Any) -> str:
    if isinstance(item, dict):
        return next((str(item[key]) for key in _LABELS if key in item), "")
    return str(item)
