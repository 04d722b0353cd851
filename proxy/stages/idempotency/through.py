"""The stage: the key, what is known of it, and what the client gets for that.

Rules:
- A request without a key, where none is required, streams on untouched.
- A key of nobody is refused: some part of the scope must be there, unless it counts everybody
  together (`global`).
- The body is read whole, up to `max_body`, before anything is asked: the fingerprint is of all of
  it, and what is executed is what was fingerprinted. Room for it is taken first, as much as its
  Content-Length says or, of a chunked one, as it may come to; where there is none, 503.
- A replay is answered like any request: its own Date, X-Request-Id, Via and RateLimit.
"""

import secrets
from collections.abc import Awaitable
from time import monotonic
from typing import Final

from proxy.buffer import BodyRoom, TakenRoom
from proxy.core import idempotency
from proxy.core.idempotency import (
    BadKey,
    Mine,
    Mismatch,
    Replay,
    Running,
    TooLarge,
    Unknown,
    fingerprint,
    read_key,
)
from proxy.core.keys import RepeatedHeader
from proxy.core.message import BodyError, Reply
from proxy.core.problems import body_problem, problem
from proxy.exchange import Exchange
from proxy.policy.snapshot import IdempotencyPlan
from proxy.stages.idempotency.claim import Claim, unavailable, unknown
from proxy.stages.idempotency.execution import Execution, Fetch, Replaying
from proxy.store.ports import StoreError

_FIELD: Final = "idempotency-key"
_LOOK_AGAIN: Final = 0.5
"""Seconds after which a request that waits asks again though it has heard nothing."""
_RETRY_SOON: Final = (("Retry-After", "1"),)


def through(ex: Exchange, fetch: Fetch, replaying: Replaying) -> Awaitable[Reply]:
    """The recorded answer, or what `fetch` gives, executed once."""
    assert ex.route is not None
    plan = ex.route.idempotency
    if plan is None or ex.method not in plan.methods:
        return fetch(ex)
    return _keyed(ex, plan, fetch, replaying)


async def _keyed(ex: Exchange, plan: IdempotencyPlan, fetch: Fetch, replaying: Replaying) -> Reply:
    """The same, where a key counts."""
    try:
        key = read_key(ex.fields.all(_FIELD))
    except BadKey as bad:
        plan.tally.missing += 1
        return problem("idempotency-malformed", str(bad))
    if key is None:
        if not plan.required:
            return await fetch(ex)
        plan.tally.missing += 1
        return problem("idempotency-missing", "The request needs an Idempotency-Key.")
    try:
        if plan.scope.is_absent(ex):
            plan.tally.missing += 1
            return _missing_scope(plan)
        record = record_of(ex, plan, key)
        room = _room(ex, plan.max_body, replaying.bodies)
    except RepeatedHeader as repeated:
        return problem("bad-request", str(repeated))
    except BodyError as failed:
        return body_problem(failed)
    if room is None and ex.body is not None:
        detail = "The gateway holds as many request bodies as it may."
        return problem("overloaded", detail, fields=_RETRY_SOON)
    try:
        body = await _whole(ex, plan.max_body)
        if room is not None:
            room.shrink(len(body))
        print_ = fingerprint(ex.method, ex.target, body)
        del body  # from here on it is the request's alone
        return await _claimed(ex, plan, record, print_, fetch, replaying, room)
    except BodyError as failed:
        return body_problem(failed)
    finally:
        if room is not None:
            room.give_back()


def record_of(ex: Exchange, plan: IdempotencyPlan, key: str) -> bytes:
    """What the request's record is filed under. Raises RepeatedHeader."""
    return idempotency.record_id(plan.name, ex.host, plan.scope.digest(ex), key)


async def _claimed(
    ex: Exchange,
    plan: IdempotencyPlan,
    record: bytes,
    print_: bytes,
    fetch: Fetch,
    replaying: Replaying,
    room: TakenRoom | None,
) -> Reply:
    """Claims the record, or answers by what is known; waits for it where the policy says so."""
    store, tally = replaying.store, plan.tally
    assert store is not None
    token = secrets.token_bytes(16)
    until = monotonic() + plan.wait_timeout if plan.waits else 0.0
    while True:
        try:
            verdict = await store.claim(record, token, print_, plan.terms)
        except StoreError:
            if plan.denies:
                return unavailable()
            tally.unprotected += 1
            return await fetch(ex)
        match verdict:
            case Running(left):
                seconds = min(until - monotonic(), left / 1000 + 0.001, _LOOK_AGAIN)
                if seconds > 0:
                    await store.news(record, seconds)
                    continue
                tally.conflict += 1
                return _conflict()
            case Mine():
                tally.new += 1
                claim = Claim(store, record, token, print_, plan, replaying.untold)
                ex.claim = claim
                execution = Execution(ex, plan, claim, fetch, replaying)
                replaying.start(execution, room)
                return await execution.answer()
            case Replay(answer):
                tally.replayed += 1
                lines = [*answer.lines, ("Idempotent-Replayed", "true")]
                return Reply(answer.status, lines, answer.body, origin=True, reason=answer.reason)
            case Mismatch():
                tally.mismatch += 1
                return _mismatch()
            case Unknown():
                tally.unknown += 1
                return unknown()
            case TooLarge():
                tally.too_large += 1
                return _too_large()


def _room(ex: Exchange, most: int, bodies: BodyRoom) -> TakenRoom | None:
    """The room for the request's body; None where it has none, and where there is not enough.
    Raises BodyError."""
    source = ex.body
    if source is None:
        return None
    length = source.length
    if length is None:
        return bodies.take(min(most, ex.snapshot.server.max_body_bytes))
    if length > most:
        raise _over(most)
    return bodies.take(length)


async def _whole(ex: Exchange, most: int) -> bytes:
    """The request's body, which is at hand from here on. Raises BodyError."""
    source = ex.body
    if source is None:
        return b""
    source.proceed()
    ex.expect_continue = False
    read = bytearray()  # not a list of pieces: one of a single byte would cost forty
    while piece := await source.read():
        read += piece
        if len(read) > most:
            raise _over(most)
    if source.length is not None and len(read) < source.length:
        raise BodyError(400, "The request body is not as long as announced.")
    body = bytes(read)
    ex.body = _AtHand(body)
    return body


def _over(most: int) -> BodyError:
    return BodyError(413, f"The request body is over {most} bytes, which is the most with a key.")


class _AtHand:
    """A body that has been read. Implements `RequestBody`."""

    __slots__ = ("_body", "length")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length: int | None = len(body)

    async def read(self) -> bytes:
        body, self._body = self._body, b""
        return body

    def proceed(self) -> None:
        """Its client has sent it."""


def _missing_scope(plan: IdempotencyPlan) -> Reply:
    # All callers that say nothing of who they are would share one scope, and each other's answers.
    parts = ", ".join(plan.scope.parts)
    return problem(
        "idempotency-missing-scope",
        f"A request with an Idempotency-Key must say whose it is, by at least one of: {parts}.",
    )


def _conflict() -> Reply:
    detail = "A request with this Idempotency-Key is being executed."
    return problem("idempotency-conflict", detail, fields=_RETRY_SOON)


def _mismatch() -> Reply:
    return problem(
        "idempotency-mismatch", "This Idempotency-Key has been used for another request."
    )


def _too_large() -> Reply:
    return problem(
        "idempotency-too-large",
        "The request with this Idempotency-Key was executed; its answer was too large to be kept.",
    )
