"""What is stored for a request and what a lookup of it would decide now, as an operator may see it:
figures, tags, reasons and the names of fields, never a field's value or a body.

It asks as a lookup does, memory first and then the shared tier, but changes nothing: nothing is
counted, fetched, or taken from one tier into the other.
"""

from dataclasses import dataclass
from typing import Any, Final

from proxy.core.cache import conditionals, reuse, vary
from proxy.core.cache.directives import RequestDirectives, read_request
from proxy.core.cache.keys import primary
from proxy.core.cache.record import Stored
from proxy.core.cache.seen import Seen
from proxy.exchange import Exchange
from proxy.stages.cache import Caching
from proxy.stages.cache.caching import softened
from proxy.store.memory.cache import Held
from proxy.store.memory.purges import SOFT, VOID

_PURGED: Final = {SOFT: "soft", VOID: "hard"}


@dataclass(slots=True)
class _Found:
    """A stored answer, where it is and what purges have made of it."""

    held: Held
    tier: str
    state: int
    stored: Stored
    """As a lookup sees it: what was purged softly is stale."""


async def looked_up(ex: Exchange, caching: Caching) -> dict[str, Any]:
    """`{stored, decision}` of a GET or HEAD that has a route with a cache. `stored` has every
    answer under its key, in each tier; `unanswered` names a tier that could not be asked."""
    assert ex.route is not None
    assert ex.route.cache is not None
    key, seen, now = _key(ex), Seen(ex), caching.clock()
    near = [_found(held, "memory", caching, now) for held in caching.memory.get(key)]
    far: list[_Found] = []
    unanswered = False
    if caching.tier is not None:
        looked = await caching.tier.look(key, anew=True)
        unanswered = looked is None
        for kept in () if looked is None else looked.variants:
            tags = caching.purges.tagged(kept.tags)
            held = Held(kept.stored, kept.body or b"", tags, kept.target, kept.began, [])
            far.append(_found(held, "redis", caching, now))
    chosen = _chosen(ex, seen, near, far, now)
    said: dict[str, Any] = {
        "stored": [_described(one, one is chosen, now) for one in (*near, *far)],
        "decision": _decision(ex, seen, caching, chosen, any(map(_usable, (*near, *far)))),
    }
    return said | {"unanswered": ["redis"]} if unanswered else said


def _key(ex: Exchange) -> bytes:
    assert ex.route is not None
    assert ex.route.cache is not None
    return primary(ex.route.cache.key, ex.route.cache_space, ex)


def _found(held: Held, tier: str, caching: Caching, now: int) -> _Found:
    state = caching.purges.state(held)
    stored = softened(held, now) if state == SOFT else held.stored
    if state != VOID and held.softened:
        state = SOFT
    return _Found(held, tier, state, stored)


def _usable(one: _Found) -> bool:
    return one.state != VOID


def _selected(ex: Exchange, seen: Seen, found: list[_Found]) -> _Found | None:
    usable = [one for one in found if _usable(one)]
    stored = vary.select([one.stored for one in usable], seen, ex.method)
    return next((one for one in usable if one.stored is stored), None)


def _chosen(
    ex: Exchange, seen: Seen, near: list[_Found], far: list[_Found], now: int
) -> _Found | None:
    """The one that a lookup takes: memory's where it serves, else the newer of both tiers'."""
    mine, theirs = _selected(ex, seen, near), _selected(ex, seen, far)
    if mine is None or theirs is None:
        return mine or theirs
    verdict = reuse.decide(mine.stored, read_request(ex.fields), now)
    serves = not isinstance(verdict, reuse.Validate)
    return mine if serves or mine.stored.received >= theirs.stored.received else theirs


def _described(one: _Found, selected: bool, now: int) -> dict[str, Any]:
    """`ttl_s` is the freshness left, negative once it is stale; the windows count from there."""
    stored = one.stored
    validators = ("etag", stored.etag), ("last-modified", stored.last_modified)
    return {
        "tier": one.tier,
        "selected": selected,
        "method": stored.method,
        "status": stored.status,
        "vary": [name for name, _ in stored.vary],
        "age_s": stored.age(now) // 1000,
        "lifetime_s": stored.lifetime // 1000,
        "ttl_s": stored.left(now) // 1000,
        "stale_while_revalidate_s": stored.stale_while_revalidate // 1000,
        "stale_if_error_s": stored.stale_if_error // 1000,
        "must_revalidate": stored.must_revalidate,
        "no_cache": stored.no_cache,
        "validators": [name for name, value in validators if value is not None],
        "purged": _PURGED.get(one.state),
        "bytes": one.held.size if one.tier == "memory" else stored.length,
        "tags": [text(tag) for tag in stored.tags if not tag.startswith("\0")],
    }


def _decision(
    ex: Exchange, seen: Seen, caching: Caching, found: _Found | None, others: bool
) -> dict[str, Any]:
    """`action`: serve, serve-stale, validate, fetch, bypass, or refuse (504, only-if-cached);
    `reason`: why; `tier`: of what is served or validated."""
    if conditionals.must_forward(ex.fields):
        return {"action": "bypass", "reason": "condition"}
    asked = read_request(ex.fields)
    if found is None:
        action, reason = "fetch", "vary-miss" if others else "uri-miss"
    else:
        action, reason = _judged(found.stored, found.state, asked, caching)
    if asked.only_if_cached and action in ("fetch", "validate"):
        action = "refuse"
    said: dict[str, Any] = {"action": action, "reason": reason}
    if found is not None and action != "fetch":
        said["tier"] = found.tier
    if action in ("fetch", "validate"):
        assert ex.route is not None
        assert ex.route.cache is not None
        terms, now = ex.route.cache.terms, caching.clock()
        said["hit_for_miss"] = caching.marks.cover(_key(ex), ex.fields, seen, terms, now)
    return said


def _judged(
    stored: Stored, state: int, asked: RequestDirectives, caching: Caching
) -> tuple[str, str]:
    now, since = caching.clock(), caching.purges.since
    asking = "fetch" if stored.etag is None and stored.last_modified is None else "validate"
    if since is not None and now >= since:
        return asking, "blind"
    verdict = reuse.decide(stored, asked, now)
    if isinstance(verdict, reuse.Fresh):
        return "serve", "fresh"
    if isinstance(verdict, reuse.Stale):
        return "serve-stale", "stale-while-revalidate" if verdict.refresh else "max-stale"
    return asking, "purged-soft" if verdict.why == "stale" and state == SOFT else verdict.why


def text(wire: str) -> str:
    """Wire text as an operator would write it."""
    return wire.encode("latin-1").decode("utf-8", "replace")
