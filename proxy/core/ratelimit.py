"""What an answer says of its limits: RateLimit fields, their legacy form, and the 429.

After draft-ietf-httpapi-ratelimit-headers-10: both fields are Lists of Strings with parameters
(RFC 9651). RateLimit-Policy names every enforced limit of the route, those among them that were not
asked; RateLimit speaks of the tightest of those that were, which the draft allows (§4).

Rules:
- Tightest: on admission the smallest share left; on denial, of those that denied, the longest wait.
- Times are seconds from now, rounded up: a client that waits them out is never early. Retry-After
  is never earlier than t (§6).
"""

from collections.abc import Sequence
from functools import lru_cache
from math import inf
from typing import Any, Literal, Protocol

from proxy.core.fields import written
from proxy.core.limits.decision import Decision, Quota
from proxy.core.message import Reply
from proxy.core.problems import QUOTA_EXCEEDED, REDUCED_CAPACITY, typed_problem

Style = Literal["standard", "legacy", "both", "off"]


class Limited(Protocol):
    """A limit as its headers need it: its name (as such, and as an RFC 9651 String),
    RateLimit-Policy's q, and its policy item."""

    @property
    def limit(self) -> str: ...
    @property
    def sf_name(self) -> str: ...
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


Said = tuple[Limited, Decision]
"""An enforced limit, and what it decided."""


def tightest(said: Sequence[Said]) -> Said:
    """What RateLimit speaks of: see the module; the first of equals, on admission the one that
    takes longest to give more."""
    best = said[0]
    least, longest = inf, -1
    for one in said:
        limit, decision = one
        # A denial is smaller than any share left.
        share, wait = -1.0, decision.retry_after
        if decision.allowed:
            share, wait = decision.remaining / limit.quota, decision.reset
        if share < least or (share == least and wait > longest):
            best, least, longest = one, share, wait
    return best


def policies(limits: Sequence[Limited]) -> str:
    """RateLimit-Policy, as a line."""
    return f"RateLimit-Policy: {', '.join([limit.policy_item for limit in limits])}\r\n"


def standing(limit: Limited, decision: Decision) -> str:
    """RateLimit, as a line: what is left of the limit, and the seconds until it is more."""
    reset = -(-decision.reset // 1_000_000)
    return f"RateLimit: {limit.sf_name};r={decision.remaining};t={reset}\r\n"


def ratelimit_fields(said: Sequence[Said], style: Style, not_asked: Sequence[Limited] = ()) -> str:
    """The answer's field lines for its enforced limits (none: no lines), as text: "Name: value",
    each with its CRLF. Limits that were `not_asked` have a policy, and nothing else is known."""
    if style == "off" or not (said or not_asked):
        return ""
    named = [limit for limit, _ in said]
    named.extend(not_asked)
    if not said:
        return "" if style == "legacy" else policies(named)
    limit, decision = tightest(said) if len(said) > 1 else said[0]
    standard = legacy = ""
    if style != "legacy":
        standard = policies(named) + standing(limit, decision)
    if style != "standard":
        legacy = (
            f"X-RateLimit-Limit: {limit.quota}\r\nX-RateLimit-Remaining: {decision.remaining}\r\n"
            f"X-RateLimit-Reset: {seconds(decision.reset)}\r\n"
        )
    return standard + legacy


def retry_after(decisions: Sequence[Decision]) -> int:
    """Seconds until the request could pass all of them; at least 1."""
    return max(1, seconds(max(decision.retry_after for decision in decisions)))


def too_many_requests(denials: Sequence[Said]) -> Reply:
    """The 429 for the limits that denied (all of them are given)."""
    names = tuple([limit.limit for limit, _ in denials])
    head, body = _refusal(names, retry_after([decision for _, decision in denials]))
    return Reply(429, head, body)


@lru_cache(maxsize=4096)
def _refusal(names: tuple[str, ...], wait: int) -> tuple[str, bytes]:
    """Head and body of a 429. A client that is refused asks again: made once, for many."""
    members: dict[str, Any] = {"violated-policies": list(names)}
    what = f"the limit {names[0]}" if len(names) == 1 else f"the limits {', '.join(names)}"
    reply = typed_problem(
        QUOTA_EXCEEDED,
        429,
        "Too Many Requests",
        f"The request exceeds {what}; it could pass in {wait} s.",
        fields=(("Retry-After", str(wait)),),
        **members,
    )
    return written(reply.fields), reply.body


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
