"""`retries` of the policy files: what is sent again after a failure, how often and how soon."""

import re
from typing import Annotated

from proxy.policy.models.leaves import Duration, Section, Share, default, items, text, whole
from proxy.policy.models.routes import Method
from proxy.policy.problem import listing, suggest

REASONS = ("connect_error", "reset", "timeout")
"""What may go wrong before there is a status."""

_STATUS = re.compile("[45][0-9]{2}")


def _reason(value: str) -> str:
    if value not in REASONS and not _STATUS.fullmatch(value):
        forms = listing((*REASONS, "a status from 400 to 599"))
        raise ValueError(f'must be {forms}, not "{value}"{suggest(value, REASONS)}')
    return value


Reason = Annotated[
    str,
    text(
        "a reason",
        _reason,
        anyOf=[
            {"enum": list(REASONS)},
            {"type": "integer", "minimum": 400, "maximum": 599},
            {"type": "string", "pattern": "^[45][0-9]{2}$"},
        ],
    ),
]


class RetrySection(Section):
    """A named set of terms. Each upstream that names it has a budget of its own."""

    attempts: Annotated[int, whole(1, 10)] = 3
    """How often a request is tried in all."""
    backoff: Duration = default("50ms")
    """The longest wait before the second try; doubled with each further one."""
    backoff_max: Duration = default("1s")
    """The longest wait at all; an upstream's Retry-After beyond it is not waited for."""
    budget: Share = default("20%")
    """The share of the upstream's requests of the last 10 s that may be retries, beside 10."""
    on: list[Reason] = items(["connect_error", "reset", 502, 503, 504], least=1)
    """What is tried again after: connect_error, reset, timeout, and statuses."""
    methods: list[Method] = items(["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
    """Methods that may be sent twice. Others are tried again only where nothing was sent."""
