"""Answer: the last touches on a reply, whoever made it.

Rules:
- A route's response_headers apply to every answer of the route. On the gateway's own answers its
  own fields win, so no edit makes a 429 cacheable or hides its Retry-After.
- RateLimit fields come after the edits: what an upstream said of its own limits is kept (or
  removed by an edit), ours is appended. The legacy X-RateLimit fields can hold one value, ours.
- X-Request-Id is on every answer; Via says that an upstream's answer passed through here.
"""

from proxy.core.fields import Lines, read_written, written
from proxy.core.headers import PSEUDONYM, apply_edits
from proxy.core.message import Reply
from proxy.exchange import Exchange
from proxy.policy.snapshot import HeaderEdits

_VIA = ("Via", f"1.1 {PSEUDONYM}")
_VIA_TEXT = written([_VIA])


def finish(ex: Exchange, reply: Reply) -> Reply:
    """The same reply with `head` replaced by what to send (framing and Date aside)."""
    route = ex.route
    edits = None if route is None else route.response_headers
    head = reply.head
    if isinstance(head, str) and edits is None:
        via = _VIA_TEXT if reply.origin else ""
        reply.head = f"{head}{via}X-Request-Id: {ex.request_id}\r\n{ex.admission}"
        return reply
    lines = reply.fields
    if reply.origin:
        lines = [line for line in lines if line[0].lower() != "x-request-id"]
        lines.append(_VIA)
    else:
        lines = list(lines)
    lines.append(("X-Request-Id", ex.request_id))
    if edits is not None:
        lines = _edited(lines, edits, reply)
    if ex.admission:
        lines = _with_admission(lines, read_written(ex.admission))
    reply.fields = lines
    return reply


def _edited(lines: Lines, edits: HeaderEdits, reply: Reply) -> Lines:
    if reply.origin:
        return apply_edits(lines, edits.remove, edits.set)
    own = {name.lower() for name, _ in reply.fields}
    replace = [line for line in edits.set if line[0].lower() not in own]
    return apply_edits(lines, edits.remove - own, replace)


def _with_admission(lines: Lines, admission: Lines) -> Lines:
    single = {low for name, _ in admission if (low := name.lower()).startswith("x-ratelimit-")}
    if single:
        lines = [line for line in lines if line[0].lower() not in single]
    return lines + admission
