"""`/limits/NAME`: how one key of a limit stands, and forgetting it.

The query has one item per part of the limit's key, in the key's order: `key=VALUE`, or `absent`
for a part that the request did not have. Values are percent-encoded bytes, as in any query.
`override=N` (from 1, in the order of the YAML) asks for the state of that override; which one a
request falls under may depend on more than its key, so nothing else can tell.
"""

import re
from typing import Final, NamedTuple

from proxy.admin.answers import Refusal
from proxy.admin.query import read_parts
from proxy.policy.limit_plans import LimitPlan, LimitVariant
from proxy.policy.problem import suggest
from proxy.policy.snapshot import Snapshot
from proxy.store.charge import Charge
from proxy.store.ports import LimitStore

_NUMBER: Final = re.compile(r"[0-9]{1,9}")  # int() refuses thousands of digits, and takes its time


class Asked(NamedTuple):
    """A query, read: the values of the key's parts (None is absent), and the override's number."""

    values: list[str | None]
    override: int | None


def read_query(query: str) -> Asked:
    """Reads a raw query (latin-1 wire text). Raises Refusal 422."""
    values, others = read_parts(query, "key", "override")
    numbers = others["override"]
    override: int | None = None
    if numbers:
        if len(numbers) > 1 or not _NUMBER.fullmatch(numbers[0]):
            raise Refusal(422, "override is one number, from 1")
        override = int(numbers[0])
    return Asked(values, override)


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


async def show(plan: LimitPlan, asked: Asked, store: LimitStore) -> dict[str, object]:
    """How the key stands now; nothing is charged. `retry_after_s` is for one request of the
    limit's own cost (1 where a header says it)."""
    key = digest(plan, asked.values)
    variant = plan.base if asked.override is None else _override(plan, asked.override)
    cost = 1 if variant.cost is None else variant.cost
    stands = await store.peek(Charge(variant, key, 0, variant.shadow))
    would = await store.peek(Charge(variant, key, cost, variant.shadow))
    document: dict[str, object] = {
        "limit": plan.name,
        "key": key.hex(),
        "algorithm": variant.algorithm.name,
        "remaining": stands.remaining,
        "reset_s": _seconds(stands.reset),
        "retry_after_s": _seconds(would.retry_after),
    }
    if asked.override is not None:
        document["override"] = asked.override
    return document


async def reset(plan: LimitPlan, asked: Asked, store: LimitStore) -> None:
    """Forgets the key, under the limit itself and every override."""
    if asked.override is not None:
        raise Refusal(422, "DELETE resets the limit and all its overrides; leave override out")
    key = digest(plan, asked.values)
    for variant in (plan.base, *(variant for _, variant in plan.overrides)):
        if variant is not None:
            await store.reset(variant.space, key)


def _override(plan: LimitPlan, number: int) -> LimitVariant:
    count = len(plan.overrides)
    if not 1 <= number <= count:
        raise Refusal(422, f"the limit has {count} overrides, numbered from 1")
    variant = plan.overrides[number - 1][1]
    if variant is None:
        raise Refusal(422, f"override {number} is unlimited: nothing is counted under it")
    return variant


def _seconds(microseconds: int) -> float:
    """In seconds, rounded up to a millisecond: whoever waits as long has waited enough."""
    return -(-microseconds // 1000) / 1000
