"""`/limits/NAME`: how one key stands under a limit and under each of its overrides, and forgetting
it.

The query has one item per part of the limit's key, in the key's order: `key=VALUE`, or `absent`
for a part that the request did not have. Values are percent-encoded bytes, as in any query. Which
override a request falls under may depend on more than its key, so all of them are shown.
"""

from typing import Any, NamedTuple

from proxy.admin.answers import Refusal
from proxy.admin.query import read_parts
from proxy.core.keys import WhenRule, shown_key
from proxy.policy.limit_plans import LimitPlan, LimitVariant
from proxy.policy.problem import suggest
from proxy.policy.snapshot import Snapshot
from proxy.store.charge import Charge
from proxy.store.ports import LimitStore


class Standing(NamedTuple):
    """How a key stands now, and what a request would be answered. Nothing is charged for it."""

    allowed: bool
    remaining: int
    reset_s: float
    """Until more is left."""
    retry_after_s: float
    """Until the request could pass."""
    delay_s: float
    """That an allowed request would wait (leaky_bucket)."""


async def standing(variant: LimitVariant, key: bytes, cost: int, store: LimitStore) -> Standing:
    """For a request of this cost. Raises StoreError."""
    now = await store.peek(Charge(variant, key, 0, variant.shadow))
    would = await store.peek(Charge(variant, key, cost, variant.shadow))
    return Standing(
        would.allowed,
        now.remaining,
        _seconds(now.reset),
        _seconds(would.retry_after),
        _seconds(would.delay),
    )


def read_values(query: str) -> list[str | None]:
    """The values of the key's parts (None is absent) in a raw query (latin-1 wire text). Raises
    Refusal 422."""
    return read_parts(query, "key").values


def find(snapshot: Snapshot, name: str) -> LimitPlan:
    """The limit of this name. Raises Refusal 404."""
    plan = snapshot.limits.get(name)
    if plan is None:
        raise Refusal(404, f"there is no limit of this name{suggest(name, snapshot.limits)}")
    return plan


def digest(plan: LimitPlan, values: list[str | None]) -> bytes:
    """The key's hash. Raises Refusal 422 where the number of values is wrong."""
    try:
        return plan.key.digest_values(values)
    except ValueError as error:
        raise Refusal(422, str(error), parts=list(plan.key.inputs)) from None


async def show(
    plan: LimitPlan, values: list[str | None], store: LimitStore, salt: bytes | None
) -> dict[str, Any]:
    """How the key stands now; nothing is charged. `retry_after_s` is for one request of the
    limit's own cost (1 where a header says it). The `key` is None without a salt; what is
    unlimited has no figures."""
    key = digest(plan, values)
    shown = None if salt is None else shown_key(salt, key)

    async def one(variant: LimitVariant | None) -> dict[str, Any]:
        stands = None
        if variant is not None:
            stands = await standing(
                variant, key, 1 if variant.cost is None else variant.cost, store
            )
        return {
            "limit": plan.name,
            "key": shown,
            "algorithm": plan.algorithm,
            "remaining": None if stands is None else stands.remaining,
            "reset_s": None if stands is None else stands.reset_s,
            "retry_after_s": None if stands is None else stands.retry_after_s,
        }

    overrides = [{"when": conditions(rule), **await one(over)} for rule, over in plan.overrides]
    return {**await one(plan.base), "overrides": overrides}


async def reset(plan: LimitPlan, values: list[str | None], store: LimitStore) -> None:
    """Forgets the key, under the limit itself and every override."""
    key = digest(plan, values)
    for variant in (plan.base, *(variant for _, variant in plan.overrides)):
        if variant is not None:
            await store.reset(variant.space, key)


def conditions(rule: WhenRule) -> dict[str, list[str]]:
    """An override's `when`, as the YAML may have it."""
    return {part: list(values) for part, values in rule.entries}


def _seconds(microseconds: int) -> float:
    """In seconds, rounded up to a millisecond: whoever waits as long has waited enough."""
    return -(-microseconds // 1000) / 1000
