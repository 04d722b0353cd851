"""`idempotency` of the policy files: which requests are executed once, and what a repeat gets."""

import re
from typing import Annotated, Literal

from proxy.core.cache.invalidation import SAFE
from proxy.policy.models.leaves import (
    Boolean,
    Choice,
    Count,
    Section,
    Size,
    Timeout,
    default,
    items,
    text,
)
from proxy.policy.models.limits import KeyPart
from proxy.policy.models.routes import method

_KEPT = re.compile("[2-5](xx|[0-9]{2})")


def _unsafe(value: str) -> str:
    if value in SAFE:
        raise ValueError(f"{value} changes nothing: it may be repeated without a key")
    return method(value)


def _kept(value: str) -> str:
    if not _KEPT.fullmatch(value):
        hint = f"; write {value.lower()}" if _KEPT.fullmatch(value.lower()) else ""
        raise ValueError(
            f'must be a status from 200 to 599 or a class of them, 2xx to 5xx, not "{value}"{hint}'
        )
    return value


Unsafe = Annotated[
    str,
    text(
        "a method",
        _unsafe,
        type="string",
        pattern="^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}$",
        **{"not": {"enum": ["CONNECT", *sorted(SAFE)]}},
    ),
]
KeptStatus = Annotated[
    str,
    text(
        "a status or a class such as 2xx",
        _kept,
        anyOf=[
            {"type": "integer", "minimum": 200, "maximum": 599},
            {"type": "string", "pattern": f"^{_KEPT.pattern}$"},
        ],
    ),
]


class IdempotencySection(Section):
    """A named policy. Routes that name it share its records: a key means one request on all of
    them."""

    methods: list[Unsafe] = items(["POST", "PATCH"], least=1)
    """Methods whose Idempotency-Key is heeded."""
    required: Boolean = False
    """Whether a request without a key is refused; else it goes through as it is."""
    ttl: Timeout = default("24h")
    """How long a key is remembered, from the end of its request."""
    scope: list[KeyPart] = items(least=1)
    """Whose keys they are, in the parts of a limit's key, such as ["header:X-Api-Key"]."""
    in_flight: Annotated[Literal["conflict", "wait"], Choice()] = default("conflict")
    """What a repeat gets while the first is under way: conflict (409), or the answer it waits
    for (wait)."""
    wait_timeout: Timeout = default("30s")
    """How long it waits at most; then it is 409 too."""
    store: list[KeptStatus] = items(["2xx", "3xx", "4xx", 500], least=1)
    """Statuses that are recorded; others free the key. 401, 408, 425, 429, 502, 503 and 504 only
    where named exactly."""
    on_unknown: Annotated[Literal["hold", "release"], Choice()] = default("hold")
    """What a repeat gets where nobody knows what became of the first: hold (409), or release
    (it is executed again)."""
    on_store_failure: Annotated[Literal["deny", "allow"], Choice()] = default("deny")
    """What becomes of requests with a key without the store: deny answers 503, allow lets them
    through unprotected."""
    replicas: Count = 0
    """How many of the store's replicas must have a claim before anything is sent."""
    max_body: Size = default("1MiB")
    """The largest request body with a key, and the largest answer that is recorded."""
