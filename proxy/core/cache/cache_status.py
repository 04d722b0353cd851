"""Cache-Status (RFC 9211): what this cache did with a request, told at the end of the list.

Rules:
- One member, ours, appended as a line of its own behind what caches nearer the origin said.
- `hit` or `fwd`, never both; fwd-status, stored and collapsed only beside `fwd` (§2.2–§2.6).
- `fwd` is the most specific reason: uri-miss (nothing for this URL), vary-miss (no variant that
  matches), miss (one of the two, not known which), request (there is a fresh answer, but the
  request's directives forbid it), stale, partial, method, bypass (configured not to be used).
- `ttl` is freshness left in whole seconds, rounded down: negative as soon as the answer is stale.
- Not on answers that the gateway makes itself (§2): whoever makes a problem adds no member.
"""

import re
from typing import Literal

from proxy.core.fields import Lines
from proxy.core.headers import PSEUDONYM
from proxy.core.ratelimit import sf_string

Forwarding = Literal[
    "bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"
]

NAME = "Cache-Status"
HIT = f"{PSEUDONYM}; hit; ttl="
"""The member of a hit, up to its number."""

_SF_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")


def hit(ttl: int, *, key: str | None = None, detail: str | None = None) -> str:
    """The member of an answer from the cache, nothing asked. `ttl` is `Stored.left`, in ms."""
    return f"{HIT}{ttl // 1000}{_rest(key, detail)}"


def forwarded(
    why: Forwarding,
    *,
    status: int | None = None,
    ttl: int | None = None,
    stored: bool = False,
    collapsed: bool | None = None,
    key: str | None = None,
    detail: str | None = None,
) -> str:
    """The member of an answer for which the upstream was asked.

    `status` is the upstream's where it is not the answer's (304 on a validation); `ttl` in ms;
    `stored`: this exchange put it into the cache; `collapsed`: the answer to another request's
    fetch (False: that was tried and failed). `key` tells how requests are filed: only for clients
    that may know (§6). `detail` is a word or a sentence of the operator's.
    """
    said = f"{PSEUDONYM}; fwd={why}"
    if status is not None:
        said += f"; fwd-status={status}"
    if ttl is not None:
        said += f"; ttl={ttl // 1000}"
    if stored:
        said += "; stored"
    if collapsed is not None:
        said += "; collapsed" if collapsed else "; collapsed=?0"
    return said + _rest(key, detail)


def _rest(key: str | None, detail: str | None) -> str:
    said = "" if key is None else f"; key={sf_string(key)}"
    if detail is not None:
        said += f"; detail={detail if _SF_TOKEN.fullmatch(detail) else sf_string(detail)}"
    return said


def add(lines: Lines, member: str) -> Lines:
    """The same lines with our member behind every other one."""
    return [*lines, (NAME, member)]
