"""A fetch that requests wait for together, and read from as it streams.

Rules:
- One flight for each thing that requests could share (`FlightId`). Its first request leads: what
  cannot be shared is for that one. The fetch runs beside it, so that it may leave.
- At the head it is decided: storable answers are read by everybody from the flight's buffer; for
  anything else all others are released at once, to ask for themselves.
- Requests that have begun to read when a body outgrows `max_object` are paced with the slowest of
  them, within what is buffered; nobody else can begin, and nothing is stored.
- After `lock_timeout` those that wait stop waiting for this flight: one of them leads the next.
  What comes late is shared all the same.
- A flight that nobody waits for or reads is given up, unless its answer is being stored or other
  processes wait for it, which is only asked then.
- Over the fleet it is fetched under a lease: whoever does not get it waits, and finds the answer in
  the shared tier, is told what came of it, or goes on itself where the holder gave it up or died.
- Interim answers (103) are the leader's alone, and end with its waiting.
"""

import asyncio
import logging
from typing import Literal

from proxy.buffer import Buffer, BufferReader
from proxy.core.cache.record import Stored
from proxy.core.cache.reuse import ERROR_STATUSES
from proxy.core.cache.storing import NotStored
from proxy.core.fields import Fields, Lines
from proxy.core.message import Reply, StreamCut
from proxy.stages.cache.answers import copy_of
from proxy.stages.cache.caching import FlightId
from proxy.stages.cache.fetch import Failed, Fetch, Outcome, Revalidated, Storable
from proxy.stages.cache.look import Look
from proxy.stages.cache.sharing import consult
from proxy.stages.cache.tier import Lease, Tier, lease_id, shareable
from proxy.stages.cache.told import LOOK, Told, read, told
from proxy.store.memory.cache import Held
from proxy.store.ports import Mark

log = logging.getLogger(__name__)

Word = Literal["", "open", "alone", "again"]
"""To those who wait: nothing yet; the answer is to be shared; ask for yourself; begin anew."""


class Flight:
    """One shared fetch. `background`: nobody leads it, nobody is charged for it."""

    def __init__(self, look: Look, validates: Held | None, *, background: bool = False) -> None:
        assert look.ex.route is not None
        self.id: FlightId = look.flight_id()
        self.fetch = Fetch(look, validates)
        self.word: Word = ""
        self.outcome: Outcome | None = None
        """What came of it; None while it is asked, and where it was refused or broke."""
        self.failure: Reply | None = None
        """Where there was no answer: what all who waited get, each a copy."""
        self.error: int | None = None
        """The status of an answer that what is stored may stand in for."""
        self.refusal: Reply | None = None
        """The 429 of a limit that only what goes upstream is charged."""
        self.waiting = 0
        """Requests that wait for the head, the leader among them."""
        self.held: Held | None = None
        """The answer, once it is complete and stored."""
        self.elsewhere = False
        """Whether nothing was fetched here, as another process has the answer, or says what came
        of asking for it."""
        self._lease: Lease | None = None
        self._parting = False
        """Whether other processes are being asked for: nobody is left here."""
        self._look = look
        self._caching = look.caching
        self._background = background
        self._led = not background
        self._decided = asyncio.Event()
        self._called = asyncio.Event()
        self._buffer = Buffer(look.plan.max_object, self._abandon)
        self.first: BufferReader | None = None
        """The leader's own reader, there from the beginning."""
        caching = look.caching
        caching.flights[self.id] = self
        self._timer = asyncio.get_running_loop().call_later(
            look.ex.route.lock_timeout, self._overdue
        )
        self._task = caching.start(self._run())

    # Those who wait.

    async def decided(self) -> None:
        """The leader waits for the head. Whoever is cancelled here has left."""
        self.waiting += 1
        left = True
        try:
            await self._decided.wait()
            left = False
        finally:
            self.waiting -= 1
            if left:
                self._leader_left()

    async def called(self) -> Word:
        """The others wait for the head too, but not beyond the lock's time."""
        self.waiting += 1
        try:
            await self._called.wait()
        finally:
            self.waiting -= 1
            self._abandon()
        return self.word or "again"

    @property
    def gone(self) -> bool:
        """Whether a purge since it began makes it useless to who comes now."""
        return self._caching.purges.reaches(self.fetch.purgeable)

    @property
    def answer(self) -> Stored:
        """The answer that is shared, complete or on its way."""
        if self.held is not None:
            return self.held.stored
        assert isinstance(self.outcome, Storable)
        return self.outcome.stored

    def reader(self) -> BufferReader | None:
        """The body as it comes, from the beginning; None where it is too late to begin."""
        return self._buffer.reader()

    # The fetch.

    async def _run(self) -> None:
        try:
            await self._fly()
        except Exception:
            log.exception("a fetch for the cache failed inside the gateway")
        finally:
            self._buffer.end(cut=True)
            self._decide(self.word or "again")
            self._leave_register()
            self._let_go_lease(told(self.outcome))

    async def _fly(self) -> None:
        look = self._look
        if self._caching.tier is not None:
            if not await self._is_my_turn(self._caching.tier):
                return
            self.fetch = Fetch(look, look.held)  # it begins now
        if not self._background:
            self.refusal = await look.charge(look.ex)
            if self.refusal is not None:
                return
        outcome = self.outcome = await self.fetch.ask(self._inform if self._led else None)
        if isinstance(outcome, Storable):
            await self._share(outcome)
        elif isinstance(outcome, Revalidated):
            self.held = outcome.held
            self._decide("open" if outcome.kept else "alone")
        else:
            if isinstance(outcome, Failed):
                if outcome.reply.origin:
                    self.error = outcome.reply.status
                else:
                    self.failure = copy_of(outcome.reply)
            self._decide("alone")
            if not self._led:
                outcome.reply.let_go()

    async def _is_my_turn(self, tier: Tier) -> bool:
        """Whether to fetch: by the fleet's lease, or as there is no use in waiting for it. Else
        another process has fetched meanwhile, or will."""
        look, caching, before = self._look, self._caching, self._look.held
        assert look.ex.route is not None
        now = asyncio.get_running_loop().time
        deadline = now() + look.ex.route.lock_timeout
        given_up = 0
        while not caching.marks.apart(look.key, caching.clock()):
            ident = lease_id(*look.flight_id())
            lease = self._lease = await tier.lease(look.key, ident)
            said = None
            if lease is None:
                if self._background:
                    return False
                said = await tier.released(ident, max(0.0, deadline - now()))
            elif lease.token is None:
                return True
            await consult(look, anew=True)
            if look.usable and not (self._background and look.held is before):
                self.elsewhere = True
                return False
            if look.is_marked():
                self.elsewhere = True
                self._decide("alone")
                return False
            if said is not None and ident == lease_id(*look.flight_id()):
                if (other := read(said)) is not None:
                    self._take_over(other)
                    return False
                given_up += 1  # nothing there: its client left, or it was purged meanwhile
            if lease is not None or given_up > 1 or now() >= deadline:
                return True
        return True

    def _take_over(self, other: Told) -> None:
        """What came of another process's fetch is as good as if it were this one's."""
        self.elsewhere = True
        if other.failure is not None:
            self.failure = other.failure
        elif other.status in ERROR_STATUSES:
            self.error = other.status
        self._decide("alone")

    def _let_go_lease(self, said: bytes = LOOK) -> None:
        lease, self._lease = self._lease, None
        if lease is not None and self._caching.tier is not None:
            self._caching.tier.let_go(lease, said)

    async def _share(self, storable: Storable) -> None:
        reply, stored = storable
        buffer = self._buffer
        if self._lease is not None and not shareable(stored.vary):
            until = self._caching.clock() + self._look.plan.hit_for_miss
            self._caching.mark(self._look.key, Mark((), "apart", until))
            self._let_go_lease()
        if reply.stream is None:
            self.held = self.fetch.keep(stored, reply.body)
            self._decide("open")
            return
        if self._led:
            self.first = buffer.reader()
        if self._caching.flights.get(self.id) is not self:
            self._come_back()
        self._decide("open")
        try:
            while piece := await reply.stream.read():
                buffer.add(piece)
                if buffer.outgrown:
                    self._outgrow(Fields(reply.fields))
                    if not await buffer.paced():
                        return
            if not buffer.outgrown:
                self.held = self.fetch.keep(stored, buffer.whole())
            buffer.end()
        except StreamCut:
            return
        finally:
            reply.stream.close()

    def _inform(self, status: int, lines: Lines) -> None:
        if self._led and self._look.ex.inform is not None:
            self._look.ex.inform(status, lines)

    def _decide(self, word: Word) -> None:
        self.word = word
        self._timer.cancel()
        self._decided.set()
        self._called.set()

    def _overdue(self) -> None:
        self._leave_register()
        self._called.set()

    def _come_back(self) -> None:
        """Late, but here: those who wait for the flight that took this one's place are better off
        with this one."""
        if self.gone:
            return
        newer = self._caching.flights.get(self.id)
        self._caching.flights[self.id] = self
        if newer is not None:
            newer._called.set()

    def _outgrow(self, fields: Fields) -> None:
        if self._caching.flights.get(self.id) is self:
            self._leave_register()
            self.fetch.refuse(NotStored("too-large", True), fields)
            self._let_go_lease()

    def _leave_register(self) -> None:
        if self._caching.flights.get(self.id) is self:
            del self._caching.flights[self.id]

    def _leader_left(self) -> None:
        self._led = False
        if self.first is not None:
            self.first.close()
            self.first = None
        if self.outcome is not None and not isinstance(self.outcome, Storable | Revalidated):
            self.outcome.reply.let_go()
        self._abandon()

    def _abandon(self) -> None:
        """Gives up what nobody is there for."""
        if self._background or self.waiting or self._buffer.readers:
            return
        if self.word == "" and self._lease is not None and self._caching.tier is not None:
            if not self._parting:
                self._parting = True
                self._caching.start(self._part(self._caching.tier, self._lease))
        elif self.word == "" or self._buffer.outgrown:
            self._give_up()

    async def _part(self, tier: Tier, lease: Lease) -> None:
        """Nobody is left here: goes on for those who wait elsewhere, if there are any."""
        try:
            self._background = await tier.awaited(lease)
        finally:
            self._parting = False
        if not (self._background or self.waiting or self.word):
            self._give_up()

    def _give_up(self) -> None:
        self._leave_register()
        self._task.cancel()
