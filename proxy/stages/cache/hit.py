"""A plain hit: what nearly every request is that the cache can answer, and nothing besides.

Plain is a request without a body, an upgrade, a condition, a Range or a directive, for which one
fresh answer is stored, which no purge has touched, on a key whose purges are all heard of. Where
anything is else, even for a moment, this says nothing at all, and a `Look` sees to it from the
beginning; what it says is what a Look would (a test compares them).
"""

from typing import Final

from proxy.core.cache import cache_status, reuse, vary
from proxy.core.cache.keys import primary
from proxy.core.cache.seen import Seen
from proxy.core.message import Reply
from proxy.exchange import Exchange
from proxy.policy.snapshot import RoutePlan
from proxy.stages.cache.caching import Caching
from proxy.store.memory.cache import Held, Shelf
from proxy.store.memory.purges import VALID

_UNUSUAL: Final = frozenset(
    {
        "cache-control", "if-match", "if-modified-since", "if-none-match", "if-unmodified-since",
        "pragma", "range",
    }
)  # fmt: skip
"""Request fields that ask a cache for something."""

_HIT: Final = f"{cache_status.NAME}: {cache_status.HIT}"


def hit(ex: Exchange, caching: Caching) -> Reply | None:
    """The stored answer to a plain GET or HEAD; None where there is more to be looked at."""
    route = ex.route
    assert route is not None
    plan = route.cache
    if plan is None:
        return None
    memo = ex.memo
    key = None if memo is None else memo.plain_key
    if key is None:
        key = primary(plan.key, route.cache_space, ex) if _is_plain(ex, route) else b""
        if memo is not None:
            memo.plain_key = key
    if not key:
        return None
    shelf = caching.memory.get(key)
    if not shelf:
        return None
    held: Held | None = shelf[0]
    if len(shelf) > 1 or shelf[0].stored.vary:
        held = _matching(shelf, ex)
    now, purges = caching.clock(), caching.purges
    if (
        held is None
        or now >= held.fresh_until
        or (purges.since is not None and now >= purges.since)
        or purges.state(held) != VALID
    ):
        return None
    stored = held.stored
    age = now - held.born if now > held.born else 0
    left = stored.lifetime - age
    if reuse.may_be_early(stored, left, plan.early_refresh):
        return None
    tally = plan.tally
    tally.hit += 1
    tally.last["hit"] = ("fresh", now)
    head = f"{held.head}Age: {age // 1000}\r\n{_HIT}{left // 1000}\r\n"
    return Reply(stored.status, head, held.body, stored.length, stored.reason, True)


def _is_plain(ex: Exchange, route: RoutePlan) -> bool:
    return (
        ex.method in ("GET", "HEAD")
        and route.idempotency is None  # whether it asks for a claim is another stage's to say
        and ex.body is None
        and ex.upgrade is None
        and _UNUSUAL.isdisjoint(ex.fields.index)
    )


def _matching(shelf: Shelf, ex: Exchange) -> Held | None:
    """The one answer that matches what it varies by; None where several do, or none."""
    seen = Seen(ex)
    matching = [one for one in shelf if vary.matches(one.stored.vary, seen)]
    return matching[0] if len(matching) == 1 else None
