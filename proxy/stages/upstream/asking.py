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
from proxy.core.message import BodyError, Outgoing, Reply, UpstreamError
from proxy.core.problems import body_problem
from proxy.core.retries import Failure, Stop, decide, retry_after
from proxy.exchange import Exchange
from proxy.policy.snapshot import Destination
from proxy.stages.upstream.answers import failure, refusal
from proxy.stages.upstream.circuit import attempt
from proxy.stages.upstream.outgoing import KeptBody, outgoing

log = logging.getLogger(__name__)

_LEAST_WAIT: Final = 0.001
"""Seconds: whoever read the body for the last attempt has let go of it by then."""


async def ask(ex: Exchange) -> Reply:
    """The upstream's answer, or what stands for it.

    Raises BodyError(499) where the client left while its body was being read.
    """
    assert ex.route is not None
    there = ex.route.upstream
    body = ex.body
    try:
        while True:
            request = outgoing(ex, there)
            request.body = body
            retry = there.retry
            said = await (attempt(there, request) if retry is None else _attempts(there, request))
            if not isinstance(said, Refused):
                break
            if there.fallback.other is None:
                return refusal(said, there.fallback)
            there = there.fallback.other
            body = request.body  # what has been read of it is kept there
    except UpstreamError as failed:
        log.warning("upstream %s: %s: %s", there.name, failed.reason, failed.detail)
        return failure(failed)
    except BodyError as failed:
        return body_problem(failed)
    return said


async def _attempts(there: Destination, request: Outgoing) -> Reply | Refused:
    """The first answer that is worth passing on. Raises as `attempt` does."""
    retry = there.retry
    assert retry is not None
    kept: KeptBody | None = None
    method = request.method
    if request.body is not None and retry.terms.sends_again(method):
        kept = request.body = KeptBody(request.body)
    began = monotonic()
    number = 1
    while True:
        said: Reply | Refused | UpstreamError
        try:
            said = await attempt(there, request)
        except UpstreamError as failed:
            said = failed
        if isinstance(said, Refused):
            return said
        if number == 1:
            retry.budget.request(monotonic())  # one that was refused did not burden the upstream
        if isinstance(said, Reply) and str(said.status) not in retry.terms.on:
            return said
        verdict = decide(
            retry.terms,
            method,
            number,
            what := _failure(said),
            replayable=request.body is None or (kept is not None and kept.replayable),
            time_left=there.plan.deadline - (monotonic() - began),
            random=random.random(),
        )
        if isinstance(verdict, Stop) or not retry.budget.spend(monotonic()):
            if isinstance(said, UpstreamError):
                raise said
            return said
        if isinstance(said, Reply):
            said.let_go()
        retries = there.tally.retries
        retries[what.reason] = retries.get(what.reason, 0) + 1
        log.debug("upstream %s: %s: attempt %d follows", there.name, what.reason, number + 1)
        await asyncio.sleep(max(_LEAST_WAIT, verdict.seconds))
        number += 1
        request.patience = there.plan.deadline - (monotonic() - began)
        if kept is not None:
            kept.rewind()


def _failure(said: Reply | UpstreamError) -> Failure:
    """What became of a try that failed."""
    if isinstance(said, UpstreamError):
        return Failure(said.reason, said.sent)
    asked = Fields(said.fields).get("retry-after")
    return Failure(str(said.status), True, retry_after(asked, time.time()))
