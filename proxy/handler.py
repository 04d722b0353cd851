"""The flow, top to bottom: who, where, may they, ask, answer.

A request comes in; we know who (identity) and where (route); may they (limits); ask (upstream);
answer (response). A stage returns None to go on, or the Reply that ends the flow. A stage that
needs no I/O never suspends: the 429 of a memory limit comes out of one `coro.send(None)`.
"""

from proxy.core.message import Reply
from proxy.exchange import Exchange
from proxy.stages import identity, limits, response, route, upstream
from proxy.store.ports import LimitStore


class Flow:
    """The sentence, bound to the store that counts."""

    __slots__ = ("_limits",)

    def __init__(self, limit_store: LimitStore) -> None:
        self._limits = limit_store

    async def answer(self, ex: Exchange) -> Reply:
        """The request's Reply; never raises for what a client, an upstream or a store did."""
        reply = identity.resolve(ex) or route.find(ex)
        if reply is None:
            reply = await limits.admit(ex, self._limits)
        if reply is None:
            reply = await upstream.ask(ex)
        return response.finish(ex, reply)
