"""Is it up: one attempt under the breaker's permit, and what the breaker hears of it.

Rules:
- The verdict is given at the head. A body that breaks off later adds one failure.
- What says nothing about the upstream is neutral: the client left or its body failed, this
  gateway had no connection or no endpoint for it.
- An upgraded connection and an event stream are never slow.
"""

from time import monotonic
from typing import Final

from proxy.core.breaker import Breaker, Permit, Refused
from proxy.core.message import BodyError, Outgoing, Reply, ReplyStream, StreamCut, UpstreamError
from proxy.policy.snapshot import Destination

_OURS: Final = frozenset(("queue_full", "queue_timeout", "no_endpoint"))


async def attempt(there: Destination, request: Outgoing) -> Reply | Refused:
    """The upstream's answer, or the breaker's refusal. Raises UpstreamError, BodyError."""
    breaker = there.breaker
    if breaker is None:
        return await there.upstream.send(request)
    permit = breaker.admit(monotonic())
    if isinstance(permit, Refused):
        return permit
    try:
        reply = await there.upstream.send(request)
    except UpstreamError as error:
        if error.reason in _OURS:
            breaker.neutral(permit, monotonic())
        else:
            breaker.failed(permit, monotonic(), error.reason)
        raise
    except BaseException:
        breaker.neutral(permit, monotonic())
        raise
    if reply.status in breaker.terms.failure_statuses:
        breaker.failed(permit, monotonic(), f"status {reply.status}")
        return reply  # its body breaking off would be the same failure once more
    slow = reply.took > breaker.terms.slow_after
    took = None if slow and _takes_its_time(reply) else reply.took
    breaker.succeeded(permit, monotonic(), took)
    if reply.stream is not None:
        reply.stream = _Watched(reply.stream, breaker, permit)
    return reply


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
