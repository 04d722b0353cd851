"""Ask: the upstream, and once more where that can help and can do no harm.

Rules:
- Every attempt asks the breaker. An attempt that it refuses is answered by the fallback, which may
  be another upstream, with a breaker and retries of its own.
- A request goes out again only where `core.retries` allows it, within the upstream's deadline and
  its budget, to an endpoint that it has not been to if there is one.
"""

import asyncio
import logging
import random
import time
from time import monotonic
from typing import Final

from proxy.core.breaker import Refused
from proxy.core.fields import Fields
from proxy.core.message import BodyError, Outgoing, Reply, SlowClientReply, UpstreamError
from proxy.core.retries import Failure, Stop, decide, retry_after
from proxy.exchange import Exchange
from proxy.policy.snapshot import Destination, Retrying
from proxy.stages.upstream.answers import failure, refusal, unfinished
from proxy.stages.upstream.circuit import answered, unanswered, yielding
from proxy.stages.upstream.outgoing import KeptBody, outgoing

log = logging.getLogger(__name__)

_TEXTS: Final = tuple(map(str, range(1000)))
"""Statuses as retries name them."""
_LEAST_WAIT: Final = 0.001
"""Seconds: whoever read the body for the last attempt has let go of it by then."""


async def ask(ex: Exchange) -> Reply:
    """The upstream's answer, or what stands for it.

    Raises BodyError(499) where the client left while its body was being read.
    """
    assert ex.route is not None
    there = ex.route.upstream
    request = outgoing(ex, there)
    kept = None if request.body is None else _keeping(request, there)
    began = now = monotonic()
    number = 1
    while True:
        breaker, retry = there.breaker, there.retry
        permit = None if breaker is None else breaker.admit(now)
        if isinstance(permit, Refused):
            fallback = there.fallback
            if fallback.other is None:
                return refusal(permit, fallback)
            there = fallback.other
            body = request.body  # what has been read of it is kept there
            request = outgoing(ex, there)
            request.body = body
            kept = None if body is None else _keeping(request, there)
            began = now = monotonic()
            number = 1
            continue
        if number == 1 and retry is not None:
            retry.budget.request(now)  # one that was refused does not burden the upstream
        body = request.body
        request.body = yielding(request, breaker, permit)
        said: Reply | UpstreamError
        try:
            said = await there.upstream.send(request)
        except BaseException as error:
            if breaker is not None and permit is not None:
                unanswered(breaker, permit, error)
            if isinstance(error, BodyError):
                return unfinished(error, there.fallback)
            if not isinstance(error, UpstreamError):
                raise
            said = error
        else:
            if breaker is not None and permit is not None:
                answered(breaker, permit, said)
            if retry is None or _TEXTS[said.status] not in retry.terms.on:
                return said
        wait = None
        if retry is not None:
            wait = _wait(there, retry, request, kept, said, number, began)
        if wait is None:
            return said if isinstance(said, Reply) else _given_up(there, said)
        if isinstance(said, Reply):
            said.let_go()
        await asyncio.sleep(wait)
        number += 1
        request.body = body
        now = monotonic()
        request.patience = there.plan.deadline - (now - began)
        if kept is not None:
            kept.rewind()


def _keeping(request: Outgoing, there: Destination) -> KeptBody | None:
    """The request's body as one that can be sent again, where that may have to be."""
    retry = there.retry
    if request.body is None or retry is None or not retry.terms.sends_again(request.method):
        return None
    kept = request.body = KeptBody(request.body)
    return kept


def _given_up(there: Destination, failed: UpstreamError) -> Reply:
    level = logging.INFO if _by_slow_client(failed) else logging.WARNING
    log.log(level, "upstream %s: %s: %s", there.name, failed.reason, failed.detail)
    return failure(failed)


def _wait(
    there: Destination,
    retry: Retrying,
    request: Outgoing,
    kept: KeptBody | None,
    said: Reply | UpstreamError,
    number: int,
    began: float,
) -> float | None:
    """Seconds to the next attempt after the one of this `number`; None where there is none."""
    verdict = decide(
        retry.terms,
        request.method,
        number,
        what := _failure(said),
        replayable=request.body is None or (kept is not None and kept.replayable),
        time_left=there.plan.deadline - (monotonic() - began),
        random=random.random(),
    )
    if isinstance(verdict, Stop):
        return None
    if not _by_slow_client(said):  # whose retries must not use up those of others
        if not retry.budget.spend(monotonic()):
            return None
        retries = there.tally.retries
        retries[what.reason] = retries.get(what.reason, 0) + 1
    log.debug("upstream %s: %s: attempt %d follows", there.name, what.reason, number + 1)
    return max(_LEAST_WAIT, verdict.seconds)


def _by_slow_client(said: Reply | UpstreamError) -> bool:
    """Whether the upstream gave up, by an error or without a word, as the client kept it
    waiting."""
    if isinstance(said, UpstreamError):
        return said.reason == "client_slow"
    return isinstance(said, SlowClientReply)


def _failure(said: Reply | UpstreamError) -> Failure:
    """What became of a try that failed."""
    if isinstance(said, UpstreamError):
        return Failure("reset" if _by_slow_client(said) else said.reason, said.sent)
    asked = Fields(said.fields).get("retry-after")
    return Failure(str(said.status), True, retry_after(asked, time.time()))
