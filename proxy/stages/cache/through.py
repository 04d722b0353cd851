"""Do we have it: the cache's part of the flow.

A request that the cache can answer ends here without suspending. Any other goes upstream: alone,
where nobody else could use the answer, or together with those that ask the same.
"""

from collections.abc import Awaitable

from proxy.core.cache import conditionals, reuse, vary
from proxy.core.cache.storing import has_credentials, has_unkeyed_cookie
from proxy.core.message import Reply
from proxy.core.problems import problem
from proxy.exchange import Exchange
from proxy.policy.snapshot import CachePlan
from proxy.stages.cache.caching import Caching
from proxy.stages.cache.changes import pass_by
from proxy.stages.cache.fetch import Failed, Fetch, Revalidated, Storable
from proxy.stages.cache.flight import Flight
from proxy.stages.cache.look import Ask, Charge, Look
from proxy.stages.cache.outcomes import handed, joined, led, settled, spared
from proxy.stages.cache.sharing import consult, may_be_shared
from proxy.store.memory.cache import Held

_MISMATCHES = 3
"""How often a request joins a fetch whose answer turns out to vary by what it does not share."""


def through(ex: Exchange, ask: Ask, charge: Charge, caching: Caching) -> Awaitable[Reply]:
    """The answer from the cache, or the upstream's. `ask` goes upstream; `charge` is asked just
    before, and may refuse."""
    assert ex.route is not None
    plan = ex.route.cache
    if plan is None or ex.method not in ("GET", "HEAD"):
        return pass_by(ex, ask, charge, caching, "method")
    return _looked(ex, plan, ask, charge, caching)


async def _looked(
    ex: Exchange, plan: CachePlan, ask: Ask, charge: Charge, caching: Caching
) -> Reply:
    if ex.body is not None or ex.upgrade is not None or conditionals.must_forward(ex.fields):
        return await pass_by(ex, ask, charge, caching, "bypass")
    look = Look(ex, plan, caching, ask, charge)
    reply = look.served()
    if reply is not None:
        if look.wants_refresh:
            refresh(look)
        return reply
    if caching.tier is not None and may_be_shared(look):
        await consult(look)
        reply = look.served()
        if reply is not None:
            if look.wants_refresh:
                refresh(look)
            return reply
    if look.directives.only_if_cached:
        return problem("not-cached", "Nothing that is stored may answer this request.")
    return await (alone(look) if _nobody_else(look) else together(look))


def refresh(look: Look) -> None:
    """Fetches anew behind the client's back, unless that is being done."""
    flight = look.caching.flights.get(look.flight_id())
    if flight is None or flight.gone:
        Flight(look, look.held, background=True)


async def together(look: Look) -> Reply:
    """One fetch for all who ask the same at the same time."""
    mismatches = 0
    while mismatches < _MISMATCHES:
        flight = look.caching.flights.get(look.flight_id())
        if flight is None or flight.gone:
            return await lead(look)
        if look.directives.no_cache or flight.waiting > look.plan.max_waiters:
            break
        word = await flight.called()
        if word == "open" and not flight.gone:
            stored = flight.answer
            if vary.matches(stored.vary, look.seen):
                return joined(look, flight, stored) or await alone(look, collapsed=False)
            look.names = tuple([name for name, _ in stored.vary])
            mismatches += 1
            continue
        if word == "alone":
            if flight.elsewhere:
                look.find()  # there may be something to stand in
            return spared(look, flight) or await alone(look, collapsed=False)
        look.find()
        reply = look.served()
        if reply is not None:
            return reply
    return await alone(look, collapsed=False)


async def lead(look: Look) -> Reply:
    """The fetch that others may wait for, and its first request's answer."""
    flight = Flight(look, look.held)
    await flight.decided()
    outcome = flight.outcome
    if flight.refusal is not None:
        return look.stand_in("error", None) or flight.refusal
    if flight.elsewhere:
        return look.served() or spared(look, flight) or await alone(look)
    if outcome is None:
        return problem("internal", "The gateway failed to fetch this.")
    if isinstance(outcome, Storable):
        return led(look, flight, outcome)
    if isinstance(outcome, Failed | Revalidated):
        return settled(look, flight.fetch, outcome, None)
    if "range" in look.ex.fields.index and outcome.reply.status == 200:
        # All of it was asked for in vain: what is not stored is sent as it was asked for.
        outcome.reply.let_go()
        fetch = Fetch(look, None, alone=True)
        return settled(look, fetch, await fetch.ask(look.ex.inform), None)
    return handed(look, outcome.reply)


async def alone(look: Look, *, collapsed: bool | None = None) -> Reply:
    """A fetch for this request only. Its answer is stored all the same, if it may be."""
    refusal = await look.charge(look.ex)
    if refusal is not None:
        return look.stand_in("error", None) or refusal
    fetch = Fetch(look, look.held, alone=True)
    return settled(look, fetch, await fetch.ask(look.ex.inform), collapsed)


def _nobody_else(look: Look) -> bool:
    """Whether this request's answer would hardly be for others, or others' not for it."""
    ex = look.ex
    if ex.method == "HEAD" or look.directives.no_store:
        return True
    if look.held is not None and not (
        look.verdict == reuse.Validate("stale") and _lasting(look.held)
    ):
        return True
    terms = look.plan.terms
    if "range" in ex.fields.index and (
        has_credentials(ex.fields, terms) or has_unkeyed_cookie(ex.fields, terms)
    ):
        return True  # to be asked for as it is, rather than the whole of it in vain
    return look.is_marked()


def _lasting(held: Held) -> bool:
    """Whether an answer like this one can be used by who did not ask for it."""
    stored = held.stored
    if stored.no_cache:
        return False
    lasts = stored.lifetime > stored.initial_age or stored.stale_while_revalidate > 0
    return lasts or held.softened
