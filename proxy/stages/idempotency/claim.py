"""A claim on a record: made known before anything is sent, held while the request is at work."""

import asyncio
import logging
from typing import Final

from proxy.core.idempotency import RENEW, Answer, State
from proxy.core.message import Reply
from proxy.core.problems import problem
from proxy.policy.snapshot import IdempotencyPlan
from proxy.store.idempotency import IdempotencyStore
from proxy.store.ports import StoreError

log = logging.getLogger(__name__)

_SETTLE_TRIES: Final = 20
_SETTLE_PAUSE: Final = 0.5
"""Seconds between tries to say what came of it: for a lease's time in all. Whoever asks meanwhile
finds it running, then unknown."""


class Withheld(Exception):
    """The request must not be sent: it could not be marked as sent. `reply` says so."""

    def __init__(self) -> None:
        super().__init__("not marked as sent")
        self.reply = unavailable()


class Claim:
    """One request's claim. Implements `core.message.Announced`."""

    __slots__ = ("_plan", "_record", "_renewing", "_sent", "_store", "_timer", "_token", "written")

    def __init__(
        self, store: IdempotencyStore, record: bytes, token: bytes, plan: IdempotencyPlan
    ) -> None:
        self.written = False
        self._store = store
        self._record = record
        self._token = token
        self._plan = plan
        self._sent = False
        self._renewing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._again()

    async def announce(self) -> None:
        """Marks it as sent. Raises Withheld where that is not certain."""
        if self._sent:
            return
        plan = self._plan
        try:
            sent = await self._store.sent(self._record, self._token, plan.terms, plan.replicas)
        except StoreError as error:
            if plan.denies:
                log.warning("idempotency %s: a request was not sent: %s", plan.name, error)
                raise Withheld from error
            plan.tally.unprotected += 1
            sent = True
        if not sent:
            log.warning("idempotency %s: a request was not sent: its claim was lost, or too few "
                        "replicas have it", plan.name)  # fmt: skip
            raise Withheld
        self._sent = True

    async def settle(self, outcome: State, answer: Answer | None = None) -> None:
        """Says what came of it; what the store does not take now is said again, beside whatever
        goes on. Never raises."""
        self.stop()
        if await self._settled(outcome, answer):
            return
        self._renewing = asyncio.get_running_loop().create_task(self._insist(outcome, answer))

    async def release(self) -> None:
        """Lets go of the record: nothing was sent, or its answer is not kept. Never raises."""
        self.stop()
        try:
            await self._store.release(self._record, self._token)
        except StoreError as error:
            log.info("idempotency %s: a claim ends by its lease: %s", self._plan.name, error)

    def stop(self) -> None:
        """Ends the renewals."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def owed(self) -> "asyncio.Task[None] | None":
        """What still has to be said, if the store did not take it at once."""
        return self._renewing

    async def _settled(self, outcome: State, answer: Answer | None) -> bool:
        """Whether the store has heard it."""
        try:
            ours = await self._store.settle(
                self._record, self._token, outcome, answer, self._plan.terms
            )
        except StoreError:
            return False
        if not ours:
            log.warning("idempotency %s: an answer was not recorded: the claim was lost to "
                        "somebody else", self._plan.name)  # fmt: skip
        return True

    async def _insist(self, outcome: State, answer: Answer | None) -> None:
        for _ in range(_SETTLE_TRIES):
            await asyncio.sleep(_SETTLE_PAUSE)
            if await self._settled(outcome, answer):
                return
        log.error("idempotency %s: what came of a request could not be recorded", self._plan.name)

    def _again(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(RENEW / 1000, self._renew)

    def _renew(self) -> None:
        self._renewing = asyncio.get_running_loop().create_task(self._hold())
        self._again()

    async def _hold(self) -> None:
        try:
            await self._store.renew(self._record, self._token, self._plan.terms)
        except StoreError as error:
            log.info("idempotency %s: a lease was not renewed: %s", self._plan.name, error)


def unavailable() -> Reply:
    """The answer where a request cannot be protected, and must be."""
    return problem(
        "idempotency-unavailable",
        "The record of idempotent requests cannot be reached; the request was not sent.",
        fields=(("Retry-After", "1"),),
    )
