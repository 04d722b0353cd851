"""Is it up: what the breaker hears of an attempt that was made under its permit.

Rules:
- The verdict is given at the head. A body that breaks off later adds one failure.
- What says nothing about the upstream is neutral: the client left or its body failed, this
  gateway had no connection or no endpoint for it.
- An upgraded connection and an event stream are never slow.
"""

from time import monotonic
from typing import Final

from proxy.core.breaker import Breaker, Permit
from proxy.core.message import BodyError, Reply, ReplyStream, StreamCut, UpstreamError

_OURS: Final = frozenset(("queue_full", "queue_timeout", "no_socket", "no_endpoint"))


def answered(breaker: Breaker, permit: Permit, reply: Reply) -> None:
    """The head of an answer came. Where its body is still to come, that is watched."""
    now = monotonic()
    terms = breaker.terms
    if reply.status in terms.failure_statuses:
        # Nor is its body watched: that it breaks off would be the same failure once more.
        breaker.failed(permit, now, f"status {reply.status}")
        return
    took: float | None = reply.took
    if reply.took > terms.slow_after and _takes_its_time(reply):
        took = None
    breaker.succeeded(permit, now, took)
    if reply.stream is not None:
        reply.stream = _Watched(reply.stream, breaker, permit)


def unanswered(breaker: Breaker, permit: Permit, error: BaseException) -> None:
    """Nothing came of it but this."""
    if isinstance(error, UpstreamError) and error.reason not in _OURS:
        breaker.failed(permit, monotonic(), error.reason)
    else:
        breaker.neutral(permit, monotonic())


def _takes_its_time(reply: Reply) -> bool:
    """Whether the time to the head says nothing about how fast the upstream is."""
    return reply.status == 101 or any(
        name.lower() == "content-type" and value.lower().startswith("text/event-stream")
        for name, value in reply.fields
    )


class _Watched:
    """A body whose breaking off the breaker hears of. Implements `ReplyStream`."""

    __slots__ = ("_breaker", "_permit", "_stream")

    def __init__(self, stream: ReplyStream, breaker: Breaker, permit: Permit) -> None:
        self._stream = stream
        self._breaker = breaker
        self._permit = permit

    async def read(self) -> bytes:
        try:
            return await self._stream.read()
        except StreamCut as cut:
            # Not where the request's own body failed beside its answer.
            if not isinstance(cut.__cause__, BodyError):
                self._breaker.broke(self._permit, monotonic())
            raise

    def close(self) -> None:
        self._stream.close()
