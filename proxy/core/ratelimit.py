"""What an answer says of its limits: RateLimit fields, their legacy form, and the 429.

After draft-ietf-httpapi-ratelimit-headers-10: both fields are Lists of Strings with parameters
(RFC 9651). RateLimit-Policy names every enforced limit; RateLimit speaks of the tightest alone,
which the draft allows (§4).

Rules:
- Tightest: on admission the smallest share left; on denial, of those that denied, the longest wait.
- Times are seconds from now, rounded up: a client that waits them out is never early. Retry-After
  is never earlier than t (§6).
"""

from collections.abc import Sequence
from functools import lru_cache
from math import inf
from typing import Any, Literal, Protocol

from proxy.core.fields import Lines
from proxy.core.limits.decision import Decision, Quota
from proxy.core.message import Reply
from proxy.core.problems import QUOTA_EXCEEDED, REDUCED_CAPACITY, typed_problem

Style = Literal["standard", "legacy", "both", "off"]


class Limited(Protocol):
    """A limit as its headers need it: its name, RateLimit-Policy's q, and its policy item."""

    @property
    def limit(self) -> str: ...
    @property
    def quota(self) -> int: ...
    @property
    def policy_item(self) -> str: ...


def sf_string(text: str) -> str:
    """`text` as an RFC 9651 String. Raises ValueError where it is not printable ASCII."""
    if not all(" " <= char <= "~" for char in text):
        raise ValueError(f"{text!r} is not printable ASCII")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def policy_item(name: str, quota: Quota) -> str:
    """One member of RateLimit-Policy: `"NAME";q=Q;w=W`."""
    window = "" if quota.w is None else f";w={quota.w}"
    return f"{sf_string(name)};q={quota.q}{window}"


def seconds(microseconds: int) -> int:
    """Whole seconds, rounded up."""
    return -(-microseconds // 1_000_000)


def tightest(limits: Sequence[Limited], decisions: Sequence[Decision]) -> int:
    """The place of the limit that RateLimit speaks of: see the module; the first of equals, on
    admission the one that takes longest to give more."""
    best = 0
    least, longest = inf, -1
    for place, decision in enumerate(decisions):
        if decision.allowed:
            share, wait = decision.remaining / limits[place].quota, decision.reset
        else:  # smaller than any share left
            share, wait = -1.0, decision.retry_after
        if share < least or (share == least and wait > longest):
            best, least, longest = place, share, wait
    return best


def ratelimit_fields(
    limits: Sequence[Limited], decisions: Sequence[Decision], style: Style
) -> Lines:
    """The answer's field lines for its enforced limits and what each decided (none: no lines)."""
    if not limits or style == "off":
        return []
    place = tightest(limits, decisions) if len(limits) > 1 else 0
    limit = limits[place]
    decision = decisions[place]
    left = decision.remaining
    wait = seconds(decision.reset)
    lines: Lines = []
    if style != "legacy":
        policies = limits[0].policy_item
        for other in limits[1:]:
            policies = f"{policies}, {other.policy_item}"
        lines = [
            ("RateLimit-Policy", policies),
            ("RateLimit", f"{_name(limit.policy_item)};r={left};t={wait}"),
        ]
    if style != "standard":
        lines.append(("X-RateLimit-Limit", str(limit.quota)))
        lines.append(("X-RateLimit-Remaining", str(left)))
        lines.append(("X-RateLimit-Reset", str(wait)))
    return lines


@lru_cache(maxsize=1024)
def _name(item: str) -> str:
    """The name as a String, with which the item of a policy begins."""
    return item[: item.rindex(";q=")]


def retry_after(decisions: Sequence[Decision]) -> int:
    """Seconds until the request could pass all of them; at least 1."""
    return max(1, seconds(max(decision.retry_after for decision in decisions)))


def too_many_requests(limits: Sequence[Limited], decisions: Sequence[Decision]) -> Reply:
    """The 429 for the limits that denied (all of them are given) and what each decided."""
    names = [limit.limit for limit in limits]
    wait = retry_after(decisions)
    members: dict[str, Any] = {"violated-policies": names}
    what = f"the limit {names[0]}" if len(names) == 1 else f"the limits {', '.join(names)}"
    return typed_problem(
        QUOTA_EXCEEDED,
        429,
        "Too Many Requests",
        f"The request exceeds {what}; it could pass in {wait} s.",
        fields=(("Retry-After", str(wait)),),
        **members,
    )


def temporarily_reduced(limit: str) -> Reply:
    """The 503 for a limit whose store is in trouble and that says `on_store_failure: deny`."""
    members: dict[str, Any] = {"violated-policies": [limit]}
    return typed_problem(
        REDUCED_CAPACITY,
        503,
        "Service Unavailable",
        f"The limit {limit} cannot be counted at the moment.",
        fields=(("Retry-After", "1"),),
        **members,
    )
