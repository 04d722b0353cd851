"""What a process that lets go of a lease tells those who wait for it elsewhere.

Rules:
- Where there is something to find (an answer, a mark), nothing need be told: who is woken looks.
- A failure of the upstream is told as it is, so that nobody repeats it one process after another.
  One that is the holder's own (no connection free, its breaker) is not: another may be better off.
- An error that is an answer is nobody else's: whoever waits asks for itself.
"""

import json
from dataclasses import dataclass
from typing import Final

from proxy.core.message import Reply
from proxy.stages.cache.fetch import Failed, Outcome, Revalidated, Unstorable

LOOK: Final = b""
"""There may be something to find; else the lease passes on."""

_UPSTREAM_S: Final = frozenset({502, 504})
"""Failures that another process would see as well."""


@dataclass(frozen=True)
class Told:
    """What is not to be found by looking."""

    status: int
    """Of the answer that is nobody else's, or of the failure."""
    failure: Reply | None
    """What all get, where there was no answer."""


def told(outcome: Outcome | None) -> bytes:
    """What is said of a fetch that has come to this; None: it was given up."""
    match outcome:
        case Failed(reply) if not reply.origin:
            if reply.status not in _UPSTREAM_S:
                return LOOK
            lines = [part for line in reply.fields for part in line]
            return _written([reply.status, lines, reply.body.decode("latin-1")])
        case Failed(reply):
            return _written([reply.status])
        case Unstorable(reply, refused) if not refused.marks:
            return _written([reply.status])
        case Revalidated(_, _, kept) if not kept:
            return _written([304])
        case _:
            return LOOK


def read(text: bytes) -> Told | None:
    """None where one has to look, also where another release's words are not understood."""
    try:
        status, *failure = json.loads(text)
        if not failure:
            return Told(int(status), None)
        flat, body = failure
        parts = iter(flat)
        lines = [(str(name), str(value)) for name, value in zip(parts, parts, strict=True)]
        return Told(int(status), Reply(int(status), lines, body.encode("latin-1")))
    except (ValueError, TypeError, AttributeError):
        return None


def _written(document: list[object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
