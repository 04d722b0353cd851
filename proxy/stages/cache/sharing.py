"""What other processes have for a request, taken into memory."""

from proxy.core.cache import vary
from proxy.stages.cache.look import Look
from proxy.store.memory.cache import Held, shown_lines
from proxy.store.memory.purges import VOID


def may_be_shared(look: Look) -> bool:
    """Whether it is worth asking the shared tier for what memory does not answer."""
    if look.must_ask or look.is_marked():
        return False
    flight = look.caching.flights.get(look.flight_id())
    return flight is None or flight.gone


async def consult(look: Look, *, anew: bool = False) -> None:
    """Finds again what there is for the request, here or in the shared tier. Fails never."""
    caching = look.caching
    tier = caching.tier
    assert tier is not None
    looked = await tier.look(look.key, anew=anew)
    look.find()
    if looked is None:
        return
    caching.purges.reached(looked.number)
    for mark in looked.marks:
        caching.learn(look.key, mark)
    found = vary.select([one.stored for one in looked.variants], look.seen, look.ex.method)
    if found is None:
        if look.held is None and looked.variants:
            look.varies_by({name for one in looked.variants for name, _ in one.stored.vary})
        return
    if look.has_newer_than(found):
        return
    kept = next(one for one in looked.variants if one.stored is found)
    body = kept.body
    if body is None:
        body = await tier.body(look.key, kept)
        look.find()
        if body is None or look.has_newer_than(found):
            return
    lines = shown_lines(found.lines, expose_tags=look.plan.expose_tags)
    tags = caching.purges.tagged(kept.tags)
    held = Held(found, body, tags, kept.target, kept.began, lines)
    held.place = kept.place
    if caching.purges.state(held) != VOID:
        caching.adopt(look.key, held)
        look.use(held)
