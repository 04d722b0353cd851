"""Is it up: what the breaker hears of an attempt that was made under its permit.

Rules:
- The verdict is given at the head. A body that breaks off later adds one failure.
- What says nothing about the upstream is neutral: the client left or its body failed, the
  upstream gave up on a client that was slow, by an error too, this gateway had no connection or no
  endpoint for it.
- A probe whose client is slow to send its body gives its place to others meanwhile: clients that
  never finish must not keep a healthy upstream from proving itself. It goes on where a place is
  free by then, and is refused as any other where none is. So does one whose client
  waits for a 100 (Expect): that is its client's choice, and an upstream may leave it out.
- An upgraded connection and an event stream are never slow.
"""

from time import monotonic
from typing import Final

from proxy.core.breaker import Breaker, Permit, Refused
from proxy.core.message import (
    BodyError,
    Outgoing,
    Reply,
    ReplyStream,
    RequestBody,
    SlowClientReply,
    StreamCut,
    UpstreamError,
)

_NEUTRAL: Final = frozenset(
    ("client_slow", "queue_full", "queue_timeout", "no_socket", "no_endpoint")
)


def answered(breaker: Breaker, permit: Permit, reply: Reply) -> None:
    """The head of an answer came. Where its body is still to come, that is watched."""
    now = monotonic()
    terms = breaker.terms
    if reply.status in terms.failure_statuses:
        # Nor is its body watched: that it breaks off would be the same failure once more.
        if isinstance(reply, SlowClientReply):
            breaker.neutral(permit, now)
        else:
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
    if isinstance(error, UpstreamError) and error.reason not in _NEUTRAL:
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
            # Not where the request's own body failed beside its answer, or its client was slow.
            cause = cut.__cause__
            if not isinstance(cause, BodyError) and not (
                isinstance(cause, UpstreamError) and cause.reason in _NEUTRAL
            ):
                self._breaker.broke(self._permit, monotonic())
            raise

    def close(self) -> None:
        self._stream.close()


def yielding(
    request: Outgoing, breaker: Breaker | None, permit: Permit | None
) -> RequestBody | None:
    """The body to send: of a probe, one that gives the probe's place to others while its client is
    slow."""
    body = request.body
    if body is None or breaker is None or permit is None or not permit.probe:
        return body
    if request.expect_continue:
        breaker.pause(permit, monotonic())  # until the first piece is here
    return ProbeBody(body, breaker, permit)


class PlaceTaken(BodyError):
    """A probe may not go on: others have taken all places while its client was slow."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(503, refused.reason)
        self.refused = refused


class ProbeBody:
    """A probe's request body: while its client is slow, the probe holds no place. Implements
    `RequestBody`; `read` raises PlaceTaken, too."""

    __slots__ = ("_body", "_breaker", "_permit", "length")

    def __init__(self, body: RequestBody, breaker: Breaker, permit: Permit) -> None:
        self._body = body
        self._breaker = breaker
        self._permit = permit
        self.length = body.length

    async def read(self) -> bytes:
        breaker = self._breaker
        breaker.pause(self._permit, monotonic())
        piece = await self._body.read()
        now = monotonic()
        if not breaker.resume(self._permit, now):
            raise PlaceTaken(Refused(max(breaker.retry_in(now), 0.001), "its probes are out"))
        return piece

    def proceed(self) -> None:
        self._body.proceed()
