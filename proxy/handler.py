"""The flow, top to bottom: who, where, may they, have we seen it, do we have it, is it up, ask,
answer.

A request comes in; we know who (identity) and where (route); may they (limits); have we seen it
(idempotency); do we have it (cache); is it up (breaker); ask (upstream); answer (response). A stage
returns None to go on, or the Reply that ends the flow. A stage that needs no I/O never suspends:
the 429 of a memory limit, and what is cached in memory, come out of one `coro.send(None)`. A plain
hit comes before idempotency is asked: a route that has both has none.
"""

from collections.abc import Awaitable

from proxy.core.message import Reply
from proxy.exchange import Exchange
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
        reply = identity.resolve(ex) or route.find(ex)
        if reply is None:
            verdict = limits.admit(ex, self._limits)
            reply = verdict if verdict is None or isinstance(verdict, Reply) else await verdict
        if reply is None:
            reply = cache.hit(ex, self._caching) or await idempotency.through(
                ex, self._fetch, self._replaying
            )
        return response.finish(ex, reply)

    def _fetch(self, ex: Exchange) -> Awaitable[Reply]:
        """From the cache or the upstream."""
        return cache.through(ex, upstream.ask, self._charge, self._caching)

    def _charge(self, ex: Exchange) -> Awaitable[Reply | None]:
        """May they, once more: what only those are asked that go upstream."""
        return limits.admit_miss(ex, self._limits)
