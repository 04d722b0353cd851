"""What passes the cache by: requests that it cannot answer, and what the unsafe ones change.

Rules:
- After a 2xx or 3xx answer to an unsafe or unknown method what is stored for its URL is void, and
  so are the URLs of Location and Content-Location and the groups that Cache-Group-Invalidation
  names (RFC 9111 §4.4); after an answer of `invalidate_on` so are the tags of the route's
  `invalidate`; whatever route stored them, and whether or not this route has a cache. What is being
  fetched at that moment is void too.
- It is void before the client sees the answer: who has written reads what was written.
- Where an unsafe request was sent, and nobody knows what became of it (its client left, or the
  upstream closed, was too slow or answered no HTTP), it may have been executed: its URL and the
  route's tags are void. What was never sent changes nothing.
- A client that leaves does not take the invalidation along.
"""

import asyncio
from collections.abc import Awaitable

from proxy.core.cache import invalidation, tags
from proxy.core.cache.cache_status import Forwarding, forwarded
from proxy.core.fields import Fields
from proxy.core.message import Reply
from proxy.exchange import Exchange
from proxy.policy.snapshot import CachePlan
from proxy.stages.cache.answers import with_member
from proxy.stages.cache.caching import Caching
from proxy.stages.cache.look import Ask, Charge
from proxy.store.memory.cache import shown_lines
from proxy.store.ports import Purge


def pass_by(
    ex: Exchange, ask: Ask, charge: Charge, caching: Caching, why: Forwarding
) -> Awaitable[Reply]:
    """The upstream's answer, and what follows from it for what is stored."""
    assert ex.route is not None
    plan = ex.route.cache
    if plan is not None:
        return _noted(ex, plan, ask, charge, caching, why)
    if ex.route.miss_limits:
        return _charged(ex, ask, charge, caching)
    return _asked(ex, ask, caching)


async def _charged(ex: Exchange, ask: Ask, charge: Charge, caching: Caching) -> Reply:
    """The same, where the request has to be charged first: a replay would not have been."""
    return await charge(ex) or await _asked(ex, ask, caching)


async def _noted(
    ex: Exchange, plan: CachePlan, ask: Ask, charge: Charge, caching: Caching, why: Forwarding
) -> Reply:
    """The same, where the route has a cache: it counts, and says why it was not looked into."""
    plan.tally.count("bypass", _reason(ex), caching.clock())
    reply = await _charged(ex, ask, charge, caching)
    if not reply.origin:
        return reply
    lines = shown_lines(reply.fields, expose_tags=plan.expose_tags)
    return with_member(reply, lines, forwarded(why))


def _asked(ex: Exchange, ask: Ask, caching: Caching) -> Awaitable[Reply]:
    if ex.snapshot.caches and ex.method not in invalidation.SAFE:
        return _changing(ex, ask, caching)
    return ask(ex)


def _reason(ex: Exchange) -> str:
    """Why the cache is not looked into, for an operator."""
    if ex.method not in ("GET", "HEAD"):
        return "method"
    if ex.body is not None:
        return "request-body"
    return "condition" if ex.upgrade is None else "upgrade"


class _Sent:
    """Notes whether a request went out at all; an Announced that tells nobody."""

    __slots__ = ("written",)

    def __init__(self) -> None:
        self.written = False

    async def announce(self) -> None:
        return


async def _changing(ex: Exchange, ask: Ask, caching: Caching) -> Reply:
    """The upstream's answer to an unsafe request, once what it has changed is void."""
    claim = ex.claim
    sent = ex.claim = _Sent() if claim is None else claim
    try:
        reply = await ask(ex)
    except BaseException:  # the client left, mostly
        if sent.written:
            caching.start(caching.invalidate(_changed(ex, None)))
        raise
    finally:
        ex.claim = claim
    if not (reply.origin or sent.written):
        return reply
    purge = _changed(ex, reply if reply.origin else None)
    if not purge.tags:
        return reply
    try:
        if caching.tier is None:
            await caching.invalidate(purge)
        else:
            await asyncio.shield(caching.start(caching.invalidate(purge)))
    except BaseException:  # the client left meanwhile
        reply.let_go()
        raise
    return reply


def _changed(ex: Exchange, reply: Reply | None) -> Purge:
    """What an unsafe request has changed by its answer; None: nobody saw one."""
    route = ex.route
    assert route is not None
    status, fields = (200, []) if reply is None else (reply.status, reply.fields)
    names = invalidation.targets(ex, status, Fields(fields)).tags(ex.snapshot.cache_rules)
    if route.invalidate and (reply is None or status in route.invalidate_on):
        names += tags.filled(route.invalidate, ex.captures)
    return Purge(tuple(dict.fromkeys(names)))
