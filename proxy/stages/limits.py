"""May they: asks every limit of the route in one call, and answers 429 where one denies.

Rules:
- A route without limits costs one `if`. An override of `unlimited` takes its limit out.
- The store answers all or nothing; this stage only picks variants, keys and costs, and counts.
- Limits with `charge: miss` are asked just before the request goes upstream, if it does. Where they
  refuse, what the others were charged is given back.
- RateLimit-Policy names every enforced limit of the route on every answer, also those that were not
  asked; not those whose store is in trouble and that say `allow`.
- A shadow limit never blocks: not even a cost, or a repeated header in its key, that an enforced
  limit would answer with 400.
- The wait of a leaky_bucket comes after the slot is taken and before anything else is done.
- Keys are never logged: they may be credentials.
- A request that comes again while its refusal stands is refused without the store (`refuses`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Sequence

from proxy.core.keys import RepeatedHeader
from proxy.core.limits.decision import NOT_ASKED, Decision
from proxy.core.message import Reply
from proxy.core.problems import problem
from proxy.core.ratelimit import (
    ratelimit_fields,
    standing,
    temporarily_reduced,
    tightest,
    too_many_requests,
)
from proxy.exchange import Exchange, Refusal
from proxy.policy.limit_plans import LimitPlan, LimitVariant, UsualLimits
from proxy.store.charge import Charge
from proxy.store.memory.limits import Denial, MemoryLimits
from proxy.store.ports import LimitStore, Unavailable

log = logging.getLogger("proxy.limits")

_DIGITS = frozenset("0123456789")
_LONGEST_COST = 15


class CostError(Exception):
    """A trusted cost header that cannot be charged; the sentence is for the caller."""


Verdict = Reply | Awaitable[Reply | None] | None
"""None to go on, else the 429 (or the 400 of a bad cost, the 503 of a store in trouble); an
awaitable of it where the store, or a leaky_bucket, makes the request wait."""


def admit(ex: Exchange, store: LimitStore) -> Verdict:
    """Charges the limits that every request of the route is charged."""
    route = ex.route
    if route is None:
        return None
    plans = route.first_limits
    usual = route.usual_limits
    if not plans:
        if usual is not None and ex.snapshot.server.ratelimit_headers == "standard":
            ex.admission = usual.policies
        elif route.miss_limits:
            _announce(ex)
        return None
    if usual is None or ex.snapshot.server.ratelimit_headers != "standard":
        return _charge(ex, plans, store)
    # What nearly every request is. The rest of this module says the same, and more.
    memo = ex.memo
    keys = None if memo is None else memo.limit_keys
    if keys is None:
        try:
            keys = [digest(ex) for digest in usual.digests]
        except RepeatedHeader as repeated:
            _announce(ex)
            return problem("bad-request", str(repeated))
        if memo is not None:
            memo.limit_keys = keys
    charges = [
        Charge(variant, keys[place], variant.cost or 0, False)
        for place, variant in enumerate(usual.variants)
    ]
    if not isinstance(store, MemoryLimits):
        return _asked(ex, plans, charges, store, usual)
    decisions = store.decide(charges)
    verdict = _usually(ex, usual, plans, charges, decisions)
    if ex.denied and memo is not None:
        denial = store.denial(charges, decisions)
        memo.refusal = None if denial is None else _refusal(ex, denial, usual, decisions)
    return verdict


def _refusal(
    ex: Exchange, denial: Denial, usual: UsualLimits, decisions: Sequence[Decision]
) -> Refusal:
    tallies = list(zip(usual.tallies, decisions, strict=True))
    return Refusal(
        denial,
        ex.denied,
        [tally for tally, decision in tallies if not decision.allowed],
        [tally for tally, decision in tallies if decision.allowed],
    )


def refuses(refusal: Refusal) -> bool:
    """Whether a request that was refused still is, and is told the same. Counts it, if so."""
    if not refusal.denial.stands():
        return False
    for tally in refusal.denied:
        tally.denied += 1
    for tally in refusal.allowed:
        tally.allowed += 1
    return True


def _usually(
    ex: Exchange,
    usual: UsualLimits,
    plans: Sequence[LimitPlan],
    charges: list[Charge],
    decisions: Sequence[Decision | None],
) -> Verdict:
    """As `_decided`, and short where all of them let the request through at once."""
    said = ex.said
    for place, decision in enumerate(decisions):
        if decision is None or decision.delay or not decision.allowed:
            said.clear()
            return _decided(ex, plans, charges, decisions)
        said.append((usual.variants[place], decision))
    for tally in usual.tallies:
        tally.allowed += 1
    limit, decision = tightest(said)
    ex.admission = f"{usual.policies}{standing(limit, decision)}"
    ex.charges = charges
    return None


async def admit_miss(ex: Exchange, store: LimitStore) -> Reply | None:
    """Charges the limits that only what goes upstream is charged. None to go on, else the 429;
    then `admit` has charged nothing."""
    route = ex.route
    if route is None or not route.miss_limits:
        return None
    before = ex.charges
    refusal = await _awaited(_charge(ex, route.miss_limits, store))
    if refusal is not None and before:
        await store.give_back(before)
    return refusal


def _charge(ex: Exchange, plans: Sequence[LimitPlan], store: LimitStore) -> Verdict:
    charges: list[Charge] = []
    asked: list[LimitPlan] = []
    for plan in plans:
        variant = choose(plan, ex) if plan.overrides else plan.base
        if variant is None:
            continue
        try:
            amount = cost(variant, ex)
            key = plan.key.digest(ex)
        except (CostError, RepeatedHeader) as error:
            if not variant.shadow:
                _announce(ex)
                return problem("bad-request", str(error))
            _shadow_denied(ex, plan)
            continue
        charges.append(Charge(variant, key, amount, variant.shadow))
        asked.append(plan)
    if not charges:
        _announce(ex)
        return None
    if isinstance(store, MemoryLimits):
        return _decided(ex, asked, charges, store.decide(charges))
    return _asked(ex, asked, charges, store)


async def _asked(
    ex: Exchange,
    asked: Sequence[LimitPlan],
    charges: list[Charge],
    store: LimitStore,
    usual: UsualLimits | None = None,
) -> Reply | None:
    try:
        decisions = await store.admit(charges)
    except Unavailable as trouble:
        _announce(ex)
        return temporarily_reduced(trouble.limit)
    if usual is None:
        return await _awaited(_decided(ex, asked, charges, decisions))
    verdict = _usually(ex, usual, asked, charges, decisions)
    return None if verdict is None else await _awaited(verdict)


def _decided(
    ex: Exchange,
    asked: Sequence[LimitPlan],
    charges: list[Charge],
    decisions: Sequence[Decision | None],
) -> Verdict:
    delay = _count(ex, asked, charges, decisions)
    if ex.denied:
        return too_many_requests(
            [
                (charge.variant, decision)
                for charge, decision in zip(charges, decisions, strict=True)
                if decision is not None and not (decision.allowed or charge.shadow)
            ]
        )
    ex.charges = charges
    return _delayed(delay) if delay else None


async def _delayed(microseconds: int) -> None:
    await asyncio.sleep(microseconds / 1_000_000)


async def _awaited(verdict: Verdict) -> Reply | None:
    return verdict if verdict is None or isinstance(verdict, Reply) else await verdict


def choose(plan: LimitPlan, ex: Exchange) -> LimitVariant | None:
    """The limit as it holds for this request: the first override that matches, or the limit
    itself; None where it is unlimited."""
    place = matching_override(plan, ex)
    return plan.base if place is None else plan.overrides[place][1]


def matching_override(plan: LimitPlan, ex: Exchange) -> int | None:
    """The place of the first override that matches."""
    for place, (rule, _) in enumerate(plan.overrides):
        if rule.matches(ex):
            return place
    return None


def cost(variant: LimitVariant, ex: Exchange) -> int:
    """What the request is charged. Raises CostError."""
    return _stated_cost(variant, ex) if variant.cost is None else variant.cost


def _stated_cost(variant: LimitVariant, ex: Exchange) -> int:
    """The cost that a trusted header states; 1 without one. Raises CostError."""
    text = ex.fields.get(variant.cost_header or "") if ex.trusted else None
    if text is None:
        return 1
    if not text or len(text) > _LONGEST_COST or not _DIGITS.issuperset(text):
        raise CostError(f"The cost in {variant.cost_header} is not a whole number.")
    cost = int(text)
    if cost > variant.capacity:
        raise CostError(
            f"The cost in {variant.cost_header} is above {variant.capacity}, "
            f"the most that the limit {variant.limit} can ever admit."
        )
    return cost


def _count(
    ex: Exchange,
    asked: Sequence[LimitPlan],
    charges: list[Charge],
    decisions: Sequence[Decision | None],
) -> int:
    """Counts and logs what each limit said, sets the answer's fields and the names of those that
    denied, and returns the longest delay in microseconds."""
    delay = 0
    said = ex.said
    route = ex.route
    assert route is not None
    # Those of a miss are asked last.
    not_asked = [] if asked[0].charge == "miss" else _enforced(ex, route.miss_limits)
    for plan, charge, decision in zip(asked, charges, decisions, strict=True):
        if decision is None:  # let through uncounted: nothing is known of it, nothing is said
            plan.tally.allowed += 1
            not_asked = []
            continue
        if charge.shadow:
            if not decision.allowed:
                _shadow_denied(ex, plan)
            elif decision is not NOT_ASKED:
                plan.tally.allowed += 1
            continue
        if decision is NOT_ASKED:
            pass
        elif decision.allowed:
            plan.tally.allowed += 1
            delay = max(delay, decision.delay)
        else:
            plan.tally.denied += 1
            ex.denied += (plan.name,)
        said.append((charge.variant, decision))
    ex.admission = ratelimit_fields(said, ex.snapshot.server.ratelimit_headers, not_asked)
    return delay


def _enforced(ex: Exchange, plans: Sequence[LimitPlan]) -> list[LimitVariant]:
    """Those of these limits that hold for this request and may refuse it."""
    chosen = [choose(plan, ex) if plan.overrides else plan.base for plan in plans]
    return [variant for variant in chosen if variant is not None and not variant.shadow]


def _announce(ex: Exchange) -> None:
    """Names the enforced limits of the route, where none has decided before."""
    route = ex.route
    if route is not None and not ex.admission:
        limits = _enforced(ex, (*route.first_limits, *route.miss_limits))
        ex.admission = ratelimit_fields((), ex.snapshot.server.ratelimit_headers, limits)


def _shadow_denied(ex: Exchange, plan: LimitPlan) -> None:
    plan.tally.shadow_denied += 1
    ex.shadow_denied += (plan.name,)
    log.info("shadow_denied: the limit %s would have refused a request", plan.name)
