"""The flow, top to bottom: who, where, may they, have we seen it, do we have it, is it up, ask,
answer.

A request comes in; we know who (identity) and where (route); may they (limits); have we seen it
(idempotency); do we have it (cache); is it up (breaker); ask (upstream); answer (response). A stage
returns None to go on, or the Reply that ends the flow. A stage that needs no I/O never suspends:
the 429 of a memory limit, and what is cached in memory, are what `begin` returns. A plain hit comes
before idempotency is asked: a route that has both has none.
"""

from collections.abc import Awaitable

from proxy.core.message import Reply
from proxy.exchange import Exchange, Refusal
from proxy.stages import cache, idempotency, identity, limits, response, route, upstream
from proxy.store.ports import LimitStore


class Flow:
    """The sentence, bound to the store that counts, to what is recorded and to what is cached."""

    __slots__ = ("_caching", "_limits", "_replaying")

    def __init__(
        self, limit_store: LimitStore, replaying: idempotency.Replaying, caching: cache.Caching
    ) -> None:
        self._limits = limit_store
        self._replaying = replaying
        self._caching = caching

    async def answer(self, ex: Exchange) -> Reply:
        """The request's Reply; never raises for what a client, an upstream or a store did."""
        answer = self.begin(ex)
        return answer if isinstance(answer, Reply) else await answer

    def begin(self, ex: Exchange) -> Reply | Awaitable[Reply]:
        """`answer`, as far as nothing has to be waited for; then an awaitable of the rest."""
        reply = self.place(ex) if ex.route is None else None
        if reply is None:
            verdict = limits.admit(ex, self._limits)
            if verdict is None:
                reply = cache.hit(ex, self._caching)
                if reply is None:
                    return self._go_on(ex)
            elif isinstance(verdict, Reply):
                reply = verdict
            else:
                return self._wait(ex, verdict)
        return response.finish(ex, reply)

    @staticmethod
    def refuses(refusal: Refusal) -> bool:
        """Whether the answer to a request that was refused is the same once more; counted, if so.
        As far as limits go: routes and response fields are those of the memo that has it."""
        return limits.refuses(refusal)

    @staticmethod
    def place(ex: Exchange) -> Reply | None:
        """Who and where; the Reply of what has no place here."""
        return identity.resolve(ex) or route.find(ex)

    async def _wait(self, ex: Exchange, verdict: Awaitable[Reply | None]) -> Reply:
        refusal = await verdict
        if refusal is not None:
            return response.finish(ex, refusal)
        reply = cache.hit(ex, self._caching)
        return await self._go_on(ex) if reply is None else response.finish(ex, reply)

    async def _go_on(self, ex: Exchange) -> Reply:
        """From where something has to be waited for."""
        return response.finish(ex, await idempotency.through(ex, self._fetch, self._replaying))

    def _fetch(self, ex: Exchange) -> Awaitable[Reply]:
        """From the cache or the upstream."""
        return cache.through(ex, upstream.ask, self._charge, self._caching)

    def _charge(self, ex: Exchange) -> Awaitable[Reply | None]:
        """May they, once more: what only those are asked that go upstream."""
        return limits.admit_miss(ex, self._limits)
