"""What idempotent replay asks of a store. Every store passes the same conformance suite.

Records are named by 16 bytes (`core.idempotency.record_id`), owners by a token of their own. What
each call means is `core.idempotency`'s; the store's clock decides. All of them raise StoreError
where there is no answer to rely on; what may have been claimed then is let go behind the caller's
back.
"""

from typing import Protocol

from proxy.core.idempotency import Answer, State, Terms, Verdict


class IdempotencyStore(Protocol):
    """Where records are."""

    async def claim(self, record: bytes, token: bytes, fingerprint: bytes, terms: Terms) -> Verdict:
        """What there is, or the record for the caller: in one round trip, a recorded answer with
        it."""

    async def sent(self, record: bytes, token: bytes, terms: Terms, replicas: int = 0) -> bool:
        """Marks it as sent. False, and nothing may be sent: it is not ours any more, or fewer than
        `replicas` of the store's replicas have it."""

    async def renew(self, record: bytes, token: bytes, terms: Terms) -> bool:
        """Holds it for another lease; False where it is lost."""

    async def settle(
        self,
        record: bytes,
        token: bytes,
        fingerprint: bytes,
        outcome: State,
        answer: Answer | None,
        terms: Terms,
    ) -> bool:
        """Says what came of what was sent, and wakes who waits: RECORDED with the answer, TOO_LARGE
        or UNKNOWN; also where there is no record any more. False where it was not ours to say."""

    async def release(self, record: bytes, token: bytes) -> bool:
        """Lets go of it, and wakes who waits."""

    async def free(self, record: bytes) -> bool:
        """Removes it, whoever's it is; whether there was one."""

    async def news(self, record: bytes, seconds: float) -> None:
        """Returns when something was settled, let go or freed here, at most after `seconds`. It may
        return for nothing, and news may be missed: ask again in any case."""

    def status(self) -> dict[str, object]:
        """`kind`, `healthy`, and what an operator wants to know."""

    async def close(self) -> None:
        """Lets go of everything."""
