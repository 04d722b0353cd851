"""Statuses as lists of the YAML name them: one, a range, or a class."""

import re
from typing import Annotated

from proxy.policy.models.leaves import text

_RANGE = re.compile("([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?")
_CLASS = re.compile("[2-5]xx")


def _range(value: str) -> range:
    found = _RANGE.fullmatch(value)
    if found is None:
        raise ValueError(
            f'must be a status from 100 to 599 or a range such as 502-504, not "{value}"'
        )
    low, high = int(found[1]), int(found[2] or found[1])
    if low > high:
        raise ValueError(f'runs backwards: write "{high}-{low}"')
    return range(low, high + 1)


def _final(value: str) -> range:
    if _CLASS.fullmatch(value):
        low = int(value[0]) * 100
        return range(low, low + 100)
    if not _RANGE.fullmatch(value) or value.startswith("1"):
        hint = f"; write {value.lower()}" if _CLASS.fullmatch(value.lower()) else ""
        raise ValueError(
            "must be a status from 200 to 599, a class such as 2xx or a range such as 300-303, "
            f'not "{value}"{hint}'
        )
    return _range(value)


Statuses = Annotated[
    range,
    text(
        "a status or a range such as 502-504",
        _range,
        anyOf=[
            {"type": "integer", "minimum": 100, "maximum": 599},
            {"type": "string", "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$"},
        ],
    ),
]
FinalStatuses = Annotated[
    range,
    text(
        "a status, a class such as 2xx or a range such as 300-303",
        _final,
        anyOf=[
            {"type": "integer", "minimum": 200, "maximum": 599},
            {"type": "string", "pattern": "^([2-5]xx|[2-5][0-9]{2}(-[2-5][0-9]{2})?)$"},
        ],
    ),
]
