"""`/breakers`: every circuit, and opening or closing one by hand."""

from typing import Any, Final

from proxy.admin.answers import Refusal
from proxy.core.breaker import Order, State
from proxy.policy.problem import suggest
from proxy.policy.snapshot import Snapshot

STATES: Final[dict[str, Order | None]] = {
    "open": State.OPEN,
    "closed": State.CLOSED,
    "auto": None,
}
"""What a circuit can be told: to be so until it is told otherwise, or to decide again."""


def find(snapshot: Snapshot, upstream: str) -> str:
    """The upstream's name. Raises Refusal 404 where it has no breaker."""
    known = {name: there for name, there in snapshot.upstreams.items() if there.breaker}
    if upstream not in known:
        if upstream in snapshot.upstreams:
            raise Refusal(404, "this upstream has no breaker")
        raise Refusal(404, f"there is no upstream of this name{suggest(upstream, known)}")
    return upstream


def read_state(document: Any) -> str:
    """One of STATES, of `{"state": …}`. Raises Refusal 422."""
    if not isinstance(document, dict) or set(document) != {"state"}:
        raise Refusal(422, 'the body must be {"state": "open"}, "closed" or "auto"')
    state = document["state"]
    if not isinstance(state, str) or state not in STATES:
        hint = suggest(state, STATES) if isinstance(state, str) else ""
        raise Refusal(422, f"state must be open, closed or auto{hint}")
    return state
