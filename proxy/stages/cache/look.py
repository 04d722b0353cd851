"""One request as the cache sees it: what it is filed under, and what memory has for it.

A look never suspends: a hit comes out of the coroutine's first step.
"""

import math
import random
from collections.abc import Awaitable, Callable

from proxy.core.cache import cache_status, reuse, vary
from proxy.core.cache.cache_status import Forwarding
from proxy.core.cache.directives import read_request
from proxy.core.cache.keys import primary
from proxy.core.cache.record import Stored
from proxy.core.cache.reuse import Trouble, Verdict
from proxy.core.cache.seen import Seen
from proxy.core.message import Reply
from proxy.core.problems import problem
from proxy.exchange import Exchange
from proxy.policy.snapshot import CachePlan
from proxy.stages.cache.answers import held_reply
from proxy.stages.cache.caching import Caching, FlightId
from proxy.store.memory.cache import Held
from proxy.store.memory.purges import SOFT, VOID

Ask = Callable[[Exchange], Awaitable[Reply]]
Charge = Callable[[Exchange], Awaitable[Reply | None]]


class Look:
    """One GET or HEAD of a route with a cache."""

    __slots__ = (
        "ask", "caching", "charge", "directives", "early", "ex", "held", "key", "marked", "names",
        "now", "plan", "seen", "verdict", "why",
    )  # fmt: skip

    def __init__(
        self, ex: Exchange, plan: CachePlan, caching: Caching, ask: Ask, charge: Charge
    ) -> None:
        assert ex.route is not None
        self.ex = ex
        self.plan = plan
        self.caching = caching
        self.ask = ask
        self.charge = charge
        self.seen = Seen(ex)
        self.key = primary(plan.key, ex.route.cache_space, ex, self.seen)
        self.directives = read_request(ex.fields)
        self.now = 0
        self.held: Held | None = None
        """The stored answer that the request selects, usable or not."""
        self.verdict: Verdict | None = None
        """What `held` is good for; None without one."""
        self.marked = False
        self.early = False
        """Whether to refresh a fresh answer before its time."""
        self.why: Forwarding = "uri-miss"
        """Why the upstream is asked, if it is."""
        self.names: tuple[str, ...] = ()
        """The fields that this resource is known to vary by, where nothing is selected."""
        self.find()

    def find(self) -> None:
        """Looks into memory, now."""
        caching = self.caching
        self.now = caching.clock()
        shelf = caching.memory.get(self.key)
        if not shelf:
            self.held = self.verdict = None
            return
        held = self._select(shelf, self.ex.method)
        if held is None:
            self.held = self.verdict = None
            shelf = caching.memory.get(self.key)  # without what is void
            if shelf:
                self.varies_by({name for one in shelf for name, _ in one.stored.vary})
            return
        self.use(held)

    def use(self, held: Held) -> None:
        """Selects a stored answer, and judges it."""
        caching, now = self.caching, self.now
        if caching.purges.state(held) == SOFT:
            held = caching.soften(self.key, held, now)
        self.held = held
        stored = held.stored
        since = caching.purges.since
        if since is not None and now >= since:
            self.verdict = reuse.Validate("stale")  # it may have been purged, unheard
        else:
            self.verdict = verdict = reuse.decide(stored, self.directives, now)
            if isinstance(verdict, reuse.Fresh):
                self.early = self._is_early(held, stored.lifetime - verdict.age)
                return
        self.why = "request" if self.verdict == reuse.Validate("request") else "stale"

    def varies_by(self, names: set[str]) -> None:
        """Nothing is selected, but there are other variants, by these fields."""
        self.names = tuple(sorted(names))
        self.why = "vary-miss" if names else "miss"

    def has_newer_than(self, stored: Stored) -> bool:
        """Whether what is selected is as new as another that could be, or newer."""
        return self.held is not None and self.held.stored.received >= stored.received

    def stored_get(self) -> Held | None:
        """The answer that this request would select if it were a GET."""
        return self._select(self.caching.memory.get(self.key), "GET")

    def _select(self, shelf: tuple[Held, ...], method: str) -> Held | None:
        state = self.caching.purges.state
        if len(shelf) == 1:
            one = shelf[0]
            if state(one) != VOID:
                stored = one.stored
                # GET answers both; HEAD's own answers HEAD alone.
                fits = stored.method == "GET" or method == "HEAD"
                if fits and (not stored.vary or vary.matches(stored.vary, self.seen)):
                    return one
                return None
        usable = [one for one in shelf if state(one) != VOID]
        for one in shelf:
            if one not in usable:
                self.caching.drop(self.key, one)
        chosen = vary.select([one.stored for one in usable], self.seen, method)
        return next((one for one in usable if one.stored is chosen), None)

    def _is_early(self, held: Held, left: int) -> bool:
        stored, beta = held.stored, self.plan.early_refresh
        if not reuse.may_be_early(stored, left, beta):
            return False
        return reuse.early(stored, self.now, beta, -math.log(1.0 - random.random()))

    # What a request gets of what is stored.

    @property
    def usable(self) -> bool:
        """Whether what is selected may be used without asking."""
        return self.held is not None and not isinstance(self.verdict, reuse.Validate)

    @property
    def must_ask(self) -> bool:
        """Whether the client wants the upstream asked, whatever is stored."""
        return self.verdict == reuse.Validate("request") or self.directives.no_cache

    def served(self) -> Reply | None:
        """The stored answer, where it may be used without asking."""
        held, verdict = self.held, self.verdict
        if held is None or isinstance(verdict, reuse.Validate | None):
            return None
        tally = self.plan.tally
        if isinstance(verdict, reuse.Fresh):
            tally.count("hit", "fresh", self.now)
        else:
            reason = "stale-while-revalidate" if verdict.refresh else "max-stale"
            tally.count("stale", reason, self.now)
        member = cache_status.hit(held.stored.lifetime - verdict.age)
        return held_reply(self.ex, held, verdict.age, member, self.now)

    @property
    def wants_refresh(self) -> bool:
        """Whether what was served should be fetched anew behind the client's back."""
        return self.early or (isinstance(self.verdict, reuse.Stale) and self.verdict.refresh)

    def stand_in(self, trouble: Trouble, status: int | None) -> Reply | None:
        """The stored answer, where it may stand in for one that the upstream failed to give."""
        held = self.held
        if held is None:
            return None
        now = self.caching.clock()
        if not reuse.on_error(held.stored, self.directives, now, trouble):
            return None
        detail = "stale-if-error" if trouble == "error" else "disconnected"
        self.plan.tally.count("stale", detail, now)
        member = cache_status.forwarded(
            self.why, status=status, ttl=held.stored.left(now), detail=detail
        )
        return held_reply(self.ex, held, held.stored.age(now), member, now)

    def in_trouble(self, failed: Reply, trouble: Trouble) -> Reply:
        """What the client gets where the upstream failed: a stored answer in its place, or this
        failure; 504 where a stored one must not be used without asking (RFC 9111 §5.2.2.2)."""
        reply = self.stand_in(trouble, failed.status if failed.origin else None)
        if reply is not None:
            failed.let_go()
            return reply
        self.plan.tally.count("miss", trouble, self.now)
        # A 503 says more than that: when to come again.
        silent = trouble == "disconnected" and failed.status != 503
        if silent and self.held is not None and self.held.stored.must_revalidate:
            return problem(
                "not-validated", "What is stored must be validated, and the upstream is not there."
            )
        return failed

    # Waiting together.

    def flight_id(self) -> FlightId:
        """What requests must share to wait for one fetch."""
        if self.held is not None:
            return self.key, self.held.stored.vary
        return self.key, vary.values(self.names, self.seen)

    def is_marked(self) -> bool:
        """Whether nobody should wait for this answer, as it was not storable a moment ago."""
        caching, ex = self.caching, self.ex
        self.marked = caching.marks.cover(self.key, ex.fields, self.seen, self.plan.terms, self.now)
        return self.marked
