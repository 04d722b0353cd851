"""Limits of the YAML → their plans."""

import json
from typing import TYPE_CHECKING

from proxy.core.keys import KeyTemplate, WhenRule
from proxy.core.limits.decision import Quota
from proxy.core.ratelimit import policy_item
from proxy.core.units import rate_text
from proxy.policy.draft import Draft
from proxy.policy.limit_plans import LimitPlan, LimitVariant
from proxy.policy.models.limits import LimitSection, OverrideSection
from proxy.policy.models.store import OnFailure
from proxy.policy.snapshot import StorePlan
from proxy.policy.terms import Terms, terms_of

if TYPE_CHECKING:
    from proxy.policy.compile import Live


def limit_plans(draft: Draft, store: StorePlan, live: "Live") -> dict[str, LimitPlan]:
    """Every limit by name."""
    refundable = _refundable(draft, store)
    return {
        name: _limit(name, part.section, store, live, name in refundable)
        for name, part in draft.limits.items()
    }


def _refundable(draft: Draft, store: StorePlan) -> set[str]:
    """The limits that some route charges before it asks others, which may refuse: those beside a
    limit with `charge: miss`; in a cluster, those beside a limit with another key, whose slot is
    another one."""
    found: set[str] = set()
    for part in draft.routes:
        route = part.section
        sections = {name: draft.limits[name].section for name in route.limits}
        answers = route.cache is not None or route.idempotency is not None
        late = {name for name, limit in sections.items() if limit.charge == "miss" and answers}
        first = sections.keys() - late
        if late:
            found |= first
        if store.url.kind == "cluster":
            for together in (first, late):
                if len({tuple(sections[name].key) for name in together}) > 1:
                    found |= together
    return found


def _limit(
    name: str, limit: LimitSection, store: StorePlan, live: "Live", refundable: bool
) -> LimitPlan:
    base = terms_of(limit)
    assert base is not None
    on_failure = limit.on_store_failure or store.on_failure

    def variant(terms: Terms, override: OverrideSection | None) -> LimitVariant:
        return _variant(name, limit, terms, override, on_failure, refundable)

    overrides = []
    for override in limit.overrides:
        terms = terms_of(limit, override)
        chosen = None if terms is None else variant(terms, override)
        overrides.append((WhenRule.parse(override.when), chosen))
    return LimitPlan(
        name=name,
        algorithm=limit.algorithm,
        key=KeyTemplate.parse(limit.key),
        charge=limit.charge,
        base=variant(base, None),
        overrides=tuple(overrides),
        tally=live.metrics.limit(name),
    )


def _variant(
    name: str,
    limit: LimitSection,
    terms: Terms,
    override: OverrideSection | None,
    on_failure: OnFailure,
    refundable: bool,
) -> LimitVariant:
    params = terms.compile(refundable)
    quota = terms.algorithm.quota(params)
    condition = {key: sorted(values) for key, values in override.when.items()} if override else None
    period = "month" if terms.rate.monthly else terms.rate.period
    # An override is known by its condition, not its place: moving it keeps its state.
    space = json.dumps(
        [name, condition, limit.algorithm, limit.key, period], sort_keys=True, ensure_ascii=True
    )
    fixed = isinstance(terms.cost, int)
    return LimitVariant(
        limit=name,
        space=space,
        algorithm=terms.algorithm,
        params=params,
        capacity=terms.algorithm.capacity(params),
        quota=quota.q,
        window=quota.w,
        policy_item=policy_item(name, quota),
        cost=terms.cost if isinstance(terms.cost, int) else None,
        cost_header=None if fixed else str(terms.cost),
        shadow=terms.mode == "shadow",
        on_failure=on_failure,
        refundable=refundable,
        rate=rate_text(terms.rate),
        burst=_burst(terms, quota),
    )


def _burst(terms: Terms, quota: Quota) -> int | None:
    """The burst that holds, written or by default, as the quota has it."""
    match terms.algorithm.name:
        case "token_bucket":
            return quota.q
        case "leaky_bucket":
            return quota.q - 1  # beside those that wait, one leaves at once
    return None
