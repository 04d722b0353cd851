"""A claim on a record: made known before anything is sent, held while the request is at work."""

import asyncio
import logging
from time import monotonic
from typing import Final

from proxy.core.idempotency import Answer, State
from proxy.core.message import Reply
from proxy.core.problems import problem
from proxy.policy.snapshot import IdempotencyPlan
from proxy.store.idempotency import IdempotencyStore
from proxy.store.ports import StoreError

log = logging.getLogger(__name__)

_INSIST_FOR: Final = 300.0
_INSIST_EVERY: Final = 0.5
"""Seconds for which, and between, tries to say what came of a request: a server may take that long
to be back. Whoever asks before finds it running, then unknown. There are no more to be told than
were at work when the store went away, as nothing new is claimed then."""
MOST_UNTOLD: Final = 64 * 1024 * 1024
"""Bytes of answers that wait to be told. A store that takes claims but no large answers would have
them pile up: what is beyond is known as executed, without its answer."""


_NO_ANSWER: Final = "The store of idempotent requests gave no answer; the request was not sent."
_LOST: Final = (
    "The claim on this Idempotency-Key was lost, or too few replicas of the store have it; the "
    "request was not sent."
)


class Withheld(Exception):
    """The request must not be sent, or not once more: it could not be marked as sent. `reply` says
    why, where no attempt before was sent either."""

    def __init__(self, detail: str = _NO_ANSWER) -> None:
        super().__init__(detail)
        self.reply = unavailable(detail)


class Untold:
    """The answers of this process that the store has still to be told."""

    __slots__ = ("most", "size")

    def __init__(self, most: int = MOST_UNTOLD) -> None:
        self.size = 0
        """Bytes."""
        self.most = most


class Claim:
    """One request's claim. Implements `core.message.Announced`.

    Of what is said of its end, the first word counts. `owed` says it, if the store did not take it
    at once.
    """

    __slots__ = (
        "_ended",
        "_fingerprint",
        "_holding",
        "_plan",
        "_record",
        "_store",
        "_timer",
        "_token",
        "_unprotected",
        "_untold",
        "owed",
        "written",
    )

    def __init__(
        self,
        store: IdempotencyStore,
        record: bytes,
        token: bytes,
        fingerprint: bytes,
        plan: IdempotencyPlan,
        untold: Untold,
    ) -> None:
        self.written = False
        self.owed: asyncio.Task[None] | None = None
        self._store = store
        self._record = record
        self._token = token
        self._fingerprint = fingerprint
        self._plan = plan
        self._untold = untold
        self._unprotected = False
        self._ended = False
        self._holding: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._again()

    async def announce(self) -> None:
        """Marks it as sent; before each attempt, as the claim may have been lost since the last.
        Raises Withheld where that is not certain."""
        if self._unprotected:
            return
        plan = self._plan
        try:
            sent = await self._store.sent(self._record, self._token, plan.terms, plan.replicas)
        except StoreError as error:
            if plan.denies:
                log.warning("idempotency %s: a request was not sent: %s", plan.name, error)
                raise Withheld from error
            plan.tally.unprotected += 1
            self._unprotected = True
            return
        if not sent:
            log.warning("idempotency %s: a request was not sent: its claim was lost, or too few "
                        "replicas have it", plan.name)  # fmt: skip
            raise Withheld(_LOST)

    async def settle(self, outcome: State, answer: Answer | None = None) -> None:
        """Says what came of it; what the store does not take now is said again, beside whatever
        goes on. Never raises but for cancellation."""
        if self._ended:
            return
        self._ended = True
        self.stop()
        told = False
        try:
            told = await self._settled(outcome, answer)
        finally:
            if not told:
                insisting = self._insist(outcome, answer)
                self.owed = asyncio.get_running_loop().create_task(insisting)

    async def release(self) -> None:
        """Lets go of the record: nothing was sent, or its answer is not kept. What the store does
        not take now it is told later, by itself. Never raises but for cancellation."""
        if self._ended:
            return
        self._ended = True
        self.stop()
        try:
            await self._store.release(self._record, self._token)
        except StoreError as error:
            log.info("idempotency %s: a key is freed later: %s", self._plan.name, error)

    def stop(self) -> None:
        """Ends the renewals."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _settled(self, outcome: State, answer: Answer | None) -> bool:
        """Whether the store has heard it."""
        plan = self._plan
        try:
            ours = await self._store.settle(
                self._record, self._token, self._fingerprint, outcome, answer, plan.terms
            )
        except StoreError as error:
            log.info("idempotency %s: the store was not told: %s", plan.name, error)
            return False
        if not ours and not self._unprotected:
            log.warning("idempotency %s: what came of a request was not recorded: the claim was "
                        "lost", plan.name)  # fmt: skip
        return True

    async def _insist(self, outcome: State, answer: Answer | None) -> None:
        name, untold = self._plan.name, self._untold
        size = 0 if answer is None else len(answer.body)
        if untold.size + size > untold.most:
            log.error("idempotency %s: an answer is not kept: too many wait for the store", name)
            outcome, answer, size = State.TOO_LARGE, None, 0
        until = monotonic() + _INSIST_FOR
        untold.size += size
        try:
            while not await self._settled(outcome, answer):
                if monotonic() > until:
                    log.error("idempotency %s: what came of a request is not recorded", name)
                    return
                await asyncio.sleep(_INSIST_EVERY)
        finally:
            untold.size -= size

    def _again(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._plan.terms.renew / 1000, self._renew)

    def _renew(self) -> None:
        self._holding = asyncio.get_running_loop().create_task(self._hold())
        self._again()

    async def _hold(self) -> None:
        try:
            await self._store.renew(self._record, self._token, self._plan.terms)
        except StoreError as error:
            log.info("idempotency %s: a lease was not renewed: %s", self._plan.name, error)


def unavailable(detail: str = _NO_ANSWER) -> Reply:
    """The answer where a request cannot be protected, and must be."""
    return problem("idempotency-unavailable", detail, fields=(("Retry-After", "1"),))


def unknown() -> Reply:
    """The answer where a request was sent, and nobody can say what became of it."""
    return problem(
        "idempotency-unknown",
        "A request with this Idempotency-Key was sent, and it is not known what became of it.",
    )
