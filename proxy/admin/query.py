"""Queries that name a key by its parts: one item per part, in the key's order."""

from typing import Final, NamedTuple
from urllib.parse import parse_qsl

from proxy.admin.answers import Refusal
from proxy.policy.problem import listing, suggest

_MOST_ITEMS: Final = 100


class Named(NamedTuple):
    """A query, read: the values of the parts (None is absent), and those of the other items."""

    values: list[str | None]
    others: dict[str, list[str]]


def read_parts(query: str, part: str, *others: str) -> Named:
    """Reads a raw query (latin-1 wire text): `part=VALUE`, or `absent` for a part that the request
    did not have, and `other=VALUE`. Values are percent-encoded bytes. Raises Refusal 422."""
    values: list[str | None] = []
    found: dict[str, list[str]] = {other: [] for other in others}
    try:
        items = parse_qsl(
            query, keep_blank_values=True, encoding="latin-1", max_num_fields=_MOST_ITEMS
        )
    except ValueError:
        raise Refusal(422, f"the query has more than {_MOST_ITEMS} items") from None
    for name, value in items:
        if name == part:
            values.append(value)
        elif name == "absent":
            if value:
                raise Refusal(422, f"absent takes no value: it stands for one part of the {part}")
            values.append(None)
        elif name in found:
            found[name].append(value)
        else:
            known = (part, "absent", *others)
            raise Refusal(422, f"the query takes {listing(known, 'and')}{suggest(name, known)}")
    return Named(values, found)
