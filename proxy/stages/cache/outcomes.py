"""What a request gets of a fetch, its own or one that it has waited for."""

from proxy.buffer import BufferReader, Recorder
from proxy.core.cache import conditionals, reuse
from proxy.core.cache.cache_status import forwarded
from proxy.core.cache.record import Stored
from proxy.core.fields import Fields, Lines
from proxy.core.message import Reply
from proxy.stages.cache.answers import copy_of, held_reply, shape, with_member
from proxy.stages.cache.fetch import Failed, Fetch, Outcome, Revalidated, Storable
from proxy.stages.cache.flight import Flight
from proxy.stages.cache.look import Look
from proxy.store.memory.cache import shown_lines


def settled(look: Look, fetch: Fetch, outcome: Outcome, collapsed: bool | None) -> Reply:
    """For a request that has fetched for itself."""
    if isinstance(outcome, Failed):
        return look.in_trouble(outcome.reply, outcome.trouble)
    if isinstance(outcome, Revalidated):
        return revalidated(look, outcome)
    if not isinstance(outcome, Storable):
        return handed(look, outcome.reply, collapsed)
    reply, stored = outcome
    _count_miss(look)
    if reply.stream is None:
        fetch.keep(stored, reply.body)
    else:
        reply.stream = Recorder(
            reply.stream, look.plan.max_object, lambda body: fetch.keep(stored, body)
        )
    reply.fields = _shown(look, reply)
    return _told(look, reply, reply.status, stored=True, collapsed=collapsed)


def revalidated(look: Look, outcome: Revalidated) -> Reply:
    """For the request whose validation has shown that what is stored holds."""
    now = look.caching.clock()
    look.plan.tally.count("revalidated", look.why, now)
    held = outcome.held
    member = forwarded(look.why, status=304)
    reply = held_reply(look.ex, held, held.stored.age(now), member, now)
    reply.fields += outcome.own
    return reply


def handed(look: Look, reply: Reply, collapsed: bool | None = None) -> Reply:
    """For a request whose answer is its own alone. A condition of its that was not sent on, or
    that the upstream did not look at, is answered here."""
    _count_miss(look)
    asked, reply.fields = reply.status, _shown(look, reply)
    if asked == 200 and _unchanged(look, reply):
        reply.let_go()
        reply = Reply(304, conditionals.not_modified_lines(reply.fields), origin=True)
    return _told(look, reply, asked, collapsed=collapsed)


def led(look: Look, flight: Flight, storable: Storable) -> Reply:
    """For the request that led the flight, of an answer that is being stored."""
    reply, stored = storable
    _count_miss(look)
    given = _of_flight(look, flight, stored, _shown(look, reply), flight.first)
    return _told(look, given, stored.status, stored=True)


def joined(look: Look, flight: Flight, stored: Stored) -> Reply | None:
    """For one that has waited; None where it may not have the answer, or comes too late to begin
    reading it."""
    now = look.caching.clock()
    verdict = reuse.decide(stored, look.directives, now)
    if isinstance(verdict, reuse.Validate):
        return None
    stream = None
    if flight.held is None:
        stream = flight.reader()
        if stream is None:
            return None
    look.plan.tally.count("collapsed", look.why, now)
    lines = shown_lines(stored.lines, expose_tags=look.plan.expose_tags)
    reply = _of_flight(look, flight, stored, lines, stream)
    reply.fields = [*reply.fields, ("Age", str(verdict.age // 1000))]
    return _told(look, reply, stored.status, collapsed=True)


def spared(look: Look, flight: Flight) -> Reply | None:
    """For one that has waited for a failure: what is stored in its place, or the failure itself
    where there was no answer. None: it asks for itself."""
    if flight.failure is not None:
        return look.in_trouble(copy_of(flight.failure), flight.failure.trouble)
    if flight.error is not None:
        return look.stand_in("error", flight.error)
    return None


def _of_flight(
    look: Look, flight: Flight, stored: Stored, lines: Lines, stream: BufferReader | None
) -> Reply:
    ex = look.ex
    status, lines, start, stop, empty = shape(ex, stored, lines, look.caching.clock())
    reply = Reply(status, lines, origin=True)
    if status == stored.status:
        reply.reason, reply.length = stored.reason, stored.length
    elif stop is not None:
        reply.length = stop - start
    held = flight.held
    if empty or held is not None:
        if stream is not None:
            stream.close()
        if not empty and held is not None:
            reply.body = held.body[start:stop]
    else:
        assert stream is not None
        reply.stream = stream.cut(start, stop)
    return reply


def _shown(look: Look, reply: Reply) -> Lines:
    return shown_lines(reply.fields, expose_tags=look.plan.expose_tags)


def _told(
    look: Look, reply: Reply, asked: int, *, stored: bool = False, collapsed: bool | None = None
) -> Reply:
    """The reply with our Cache-Status. `asked` is the status that the upstream gave: it is told
    where the request's condition or Range has made another of it (RFC 9211 §2.3)."""
    status = None if reply.status == asked else asked
    member = forwarded(look.why, status=status, stored=stored, collapsed=collapsed)
    return with_member(reply, reply.fields, member)


def _count_miss(look: Look) -> None:
    if look.marked:
        look.plan.tally.count("bypass", "hit-for-miss", look.now)
    else:
        look.plan.tally.count("miss", look.why, look.now)


def _unchanged(look: Look, reply: Reply) -> bool:
    """Whether the client has what this 200 brings."""
    index = look.ex.fields.index
    tags = index.get("if-none-match")
    fields = Fields(reply.fields).index
    if tags is not None:
        etag = fields.get("etag")
        return etag is not None and conditionals.lists(tags, etag)
    since = index.get("if-modified-since")
    return since is not None and since == fields.get("last-modified")
