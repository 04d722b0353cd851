"""What passes the cache by: requests that it cannot answer, and what the unsafe ones change.

Rules:
- After a 2xx or 3xx answer to an unsafe or unknown method what is stored for its URL is void, and
  so are the URLs of Location and Content-Location, the groups that Cache-Group-Invalidation names
  and the tags of the route's `invalidate`; whatever route stored them, and whether or not this
  route has a cache. What is being fetched at that moment is void too.
- It is void before the client sees the answer: who has written reads what was written.
"""

from proxy.core.cache import invalidation, tags
from proxy.core.cache.cache_status import Forwarding, forwarded
from proxy.core.fields import Fields
from proxy.core.message import Reply
from proxy.exchange import Exchange
from proxy.stages.cache.answers import let_go, with_member
from proxy.stages.cache.caching import Caching
from proxy.stages.cache.look import Ask, Charge
from proxy.store.memory.cache import shown_lines
from proxy.store.ports import Purge


async def pass_by(
    ex: Exchange, ask: Ask, charge: Charge, caching: Caching, why: Forwarding
) -> Reply:
    """The upstream's answer, and what follows from it for what is stored."""
    assert ex.route is not None
    plan = ex.route.cache
    if plan is not None:
        plan.tally.count("bypass", _reason(ex), caching.clock())
        refusal = await charge(ex)
        if refusal is not None:
            return refusal
    reply = await ask(ex)
    if not reply.origin:
        return reply
    if ex.snapshot.caches and invalidation.invalidates(ex.method, reply.status):
        try:
            await invalidate(ex, reply, caching)
        except BaseException:  # the client left meanwhile
            let_go(reply)
            raise
    if plan is not None:
        lines = shown_lines(reply.fields, expose_tags=plan.expose_tags)
        reply = with_member(reply, lines, forwarded(why))
    return reply


def _reason(ex: Exchange) -> str:
    """Why the cache is not looked into, for an operator."""
    if ex.method not in ("GET", "HEAD"):
        return "method"
    if ex.body is not None:
        return "request-body"
    return "condition" if ex.upgrade is None else "upgrade"


async def invalidate(ex: Exchange, reply: Reply, caching: Caching) -> None:
    """Makes void what this answer to an unsafe request says has changed."""
    assert ex.route is not None
    found = invalidation.targets(ex, reply.status, Fields(reply.fields))
    names = found.tags(ex.snapshot.cache_rules)
    names += tags.filled(ex.route.invalidate, ex.captures)
    await caching.invalidate(Purge(tuple(dict.fromkeys(names))))
