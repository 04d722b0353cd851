"""One question to the upstream on the cache's behalf, and what its answer means.

Rules:
- A fetch that others may get the answer of goes without the client's conditions and Range, and
  with our own where there is something to validate. One that is for its client alone, with nothing
  to validate, goes as the client sent it.
- What began before a purge is void: the last purge's number is noted before anything is sent.
"""

from collections.abc import Callable
from typing import NamedTuple

from proxy.core.cache import keys, reuse, storing, tags, validation, vary
from proxy.core.cache.record import Stored
from proxy.core.cache.seen import target_origin
from proxy.core.cache.storing import NotStored
from proxy.core.cache.urls import keyed_target
from proxy.core.fields import Fields, Lines
from proxy.core.message import Reply
from proxy.exchange import Exchange
from proxy.stages.cache.look import Look
from proxy.store.memory.cache import Held, shown_lines
from proxy.store.memory.purges import Purgeable
from proxy.store.ports import Mark

Inform = Callable[[int, Lines], None]

_NARROWING = validation.CONDITIONS | {"if-range", "range"}


class Failed(NamedTuple):
    """No answer, or one of the errors that a stored answer may stand in for."""

    reply: Reply
    trouble: reuse.Trouble


class Revalidated(NamedTuple):
    """304: what is stored holds. `own` are lines for the client whose request it was; `kept`:
    whether others may have it, too."""

    held: Held
    own: Lines
    kept: bool


class Storable(NamedTuple):
    """An answer to be stored as its body comes."""

    reply: Reply
    stored: Stored


class Unstorable(NamedTuple):
    """An answer for its client alone."""

    reply: Reply
    refused: NotStored


Outcome = Failed | Revalidated | Storable | Unstorable


class Fetch:
    """One question. `validates`: the stored answer that it asks about; `alone`: it is for its
    client alone."""

    __slots__ = ("_alone", "_hidden", "look", "purgeable", "received", "requested", "validates")

    def __init__(self, look: Look, validates: Held | None, *, alone: bool = False) -> None:
        self.look = look
        self.validates = validates
        self._alone = alone
        self.requested = self.received = 0
        rule, ex, purges = look.plan.key, look.ex, look.caching.purges
        self._hidden = keys.implicit_tags(rule, ex)
        known = [tag for template in look.plan.tags if (tag := template.fill(ex.captures))]
        self.purgeable = Purgeable(
            purges.tagged((*self._hidden, *known)), keyed_target(rule, ex.target), purges.last
        )

    async def ask(self, inform: Inform | None) -> Outcome:
        """Asks the upstream; once more without conditions where its 304 is about something else.
        `inform` passes interim answers on."""
        reply = await self._send(inform)
        if reply.origin and reply.status == 304 and self.validates is not None:
            fields = Fields(reply.fields)
            if validation.answers(self.validates.stored, fields):
                return self._revalidated(self.validates, fields)
            reply.let_go()
            self.validates = None
            reply = await self._send(inform)
        return self._judge(reply)

    async def _send(self, inform: Inform | None) -> Reply:
        look = self.look
        self.requested = look.caching.clock()
        reply = await look.ask(self._request(inform))
        self.received = look.caching.clock()
        return reply

    def _request(self, inform: Inform | None) -> Exchange:
        ex = self.look.ex.copy()
        ex.inform = inform
        if self.validates is None and self._alone:
            return ex
        added = [] if self.validates is None else validation.conditions(self.validates.stored)
        if added or not _NARROWING.isdisjoint(ex.fields.index):
            kept = [line for line in ex.fields.lines if line[0].lower() not in _NARROWING]
            ex.fields = Fields(kept + added)
            ex.memo = None  # it knows of a request with other fields
        return ex

    def _revalidated(self, held: Held, fields: Fields) -> Outcome:
        look = self.look
        fresh, refused, drop, own = validation.freshen(
            held.stored,
            fields,
            self.requested,
            self.received,
            look.plan.terms,
            request=look.ex.fields,
            seen=look.seen,
        )
        tagged = self._tag(fresh, Fields(fresh.lines))
        new = self._held(fresh, held.body)
        new.place = held.place
        kept = refused is None and tagged
        if drop or not tagged or (kept and fresh.vary != held.stored.vary):
            look.caching.take_out(look.key, held)
        elif kept:
            look.caching.drop(look.key, held)
        return Revalidated(new, own, kept and self._keep(new))

    def _judge(self, reply: Reply) -> Outcome:
        look = self.look
        if not reply.origin:
            return Failed(reply, reply.trouble)
        if reply.status in reuse.ERROR_STATUSES and look.held is not None:
            now = look.caching.clock()
            if reuse.on_error(look.held.stored, look.directives, now, "error"):
                return Failed(reply, "error")
        ex = look.ex
        fields = Fields(reply.fields)
        judged = storing.judge(
            ex.method,
            ex.fields,
            reply.status,
            reply.reason,
            fields,
            look.plan.terms,
            self.requested,
            self.received,
            length=_length(reply, ex.method),
            seen=look.seen,
        )
        if isinstance(judged, Stored):
            if not self._tag(judged, fields):
                judged = NotStored("tags", True)
            elif ex.method == "GET" and (judged.length or 0) > look.plan.max_object:
                judged = NotStored("too-large", True)
        if ex.method == "HEAD" and (shows := self._shown(reply, fields)) is not None:
            # The stored GET answers the next HEAD.
            return Unstorable(reply, shows)
        if isinstance(judged, Stored):
            look.caching.marks.lift(look.key, ex.fields, look.seen, look.plan.terms)
            return Storable(reply, judged)
        self.refuse(judged, fields)
        return Unstorable(reply, judged)

    def _tag(self, stored: Stored, fields: Fields) -> bool:
        """Gives an answer its tags; False where it has more than can be carried."""
        ex = self.look.ex
        found = tags.of(fields, self.look.plan.tags, ex.captures, target_origin(ex))
        if found is None:
            return False
        stored.tags = found
        before = self.purgeable
        known = self.look.caching.purges.tagged((*self._hidden, *found))
        self.purgeable = Purgeable(known, before.target, before.began)
        return True

    def _shown(self, reply: Reply, fields: Fields) -> NotStored | None:
        """Does to the stored GET what a HEAD's answer says of it (RFC 9111 §4.3.5); why that
        answer need not be stored itself, if so."""
        look = self.look
        held = look.stored_get()
        if held is None:
            return None
        update = validation.head_update(
            held.stored,
            fields,
            self.requested,
            self.received,
            look.plan.terms,
            request=look.ex.fields,
            seen=look.seen,
            status=reply.status,
            length=reply.length,
        )
        if update is None:
            return None
        look.caching.take_out(look.key, held)
        if isinstance(update, validation.Freshened) and update.refused is not None:
            return None
        if self._tag(update.stored, Fields(update.stored.lines)):
            self._keep(self._held(update.stored, held.body))
        return NotStored("updated", False)

    def _held(self, stored: Stored, body: bytes) -> Held:
        plan, purgeable = self.look.plan, self.purgeable
        lines = shown_lines(stored.lines, expose_tags=plan.expose_tags)
        known = self.look.caching.purges.tagged((*self._hidden, *stored.tags))
        return Held(stored, body, known, purgeable.target, purgeable.began, lines)

    def keep(self, stored: Stored, body: bytes) -> Held:
        """Stores an answer that is complete; what was purged meanwhile is only returned."""
        if stored.method == "GET":
            stored.length = len(body)
        held = self._held(stored, body)
        self._keep(held)
        return held

    def _keep(self, held: Held) -> bool:
        return self.look.caching.keep(self.look.key, held, self._hidden)

    def refuse(self, refused: NotStored, fields: Fields) -> None:
        """Has nobody wait for what will not be stored, and drops what it has taken the place of."""
        look = self.look
        look.plan.tally.refuse(refused.reason, look.caching.clock())
        if look.ex.method == "HEAD" or not refused.marks:
            return
        kind = "" if refused.hit_for_miss else refused.reason
        varied = vary.values(vary.names(fields) or (), look.seen)
        until = look.caching.clock() + look.plan.hit_for_miss
        look.caching.mark(look.key, Mark(varied, kind, until))
        if refused.hit_for_miss and look.held is not None:
            look.caching.take_out(look.key, look.held)


def _length(reply: Reply, method: str) -> int | None:
    """What Content-Length says, or would if the body had not come whole."""
    if reply.stream is None and method != "HEAD":
        return len(reply.body)
    return reply.length
