"""What explain tells of a route's limits: the terms that hold for the request, its key, and how the
limit stands for it."""

from typing import Any

from proxy.admin.limits import conditions, standing
from proxy.core.keys import RepeatedHeader, shown_key
from proxy.exchange import Exchange
from proxy.policy.limit_plans import LimitPlan, LimitVariant
from proxy.stages import limits
from proxy.store.ports import LimitStore, StoreError


async def explained(ex: Exchange, store: LimitStore | None, salt: bytes | None) -> list[Any]:
    """Each limit of the route, in order. Nothing is charged."""
    plans = ex.route.limits if ex.route is not None else ()
    return [await _limit(ex, plan, store, salt) for plan in plans]


async def _limit(
    ex: Exchange, plan: LimitPlan, store: LimitStore | None, salt: bytes | None
) -> dict[str, Any]:
    """`key` is None without a salt, and `allowed` and what follows it without a store (or while it
    gives no answer). `problem` is
    there where a request is 400 for it."""
    place = limits.matching_override(plan, ex)
    variant = plan.base if place is None else plan.overrides[place][1]
    said: dict[str, Any] = {
        "name": plan.name,
        "key": None,
        "by": [],
        "algorithm": plan.algorithm,
        "rate": "unlimited" if variant is None else variant.rate,
        "burst": None if variant is None else variant.burst,
        "override": None if place is None else conditions(plan.overrides[place][0]),
        "charge": plan.charge,
        "mode": "shadow" if variant is not None and variant.shadow else "enforce",
        "cost": None,
        "allowed": None,
        "remaining": None,
        "reset_s": None,
        "retry_after_s": None,
        "delay_s": None,
    }
    if variant is None:
        return said | {"allowed": True}
    try:
        key = plan.key.digest(ex)
    except RepeatedHeader as repeated:
        return said | {"allowed": False, "problem": str(repeated)}
    said["by"] = plan.key.sources(ex)
    said["key"] = None if salt is None else shown_key(salt, key)
    return said | await _standing(ex, variant, key, store)


async def _standing(
    ex: Exchange, variant: LimitVariant, key: bytes, store: LimitStore | None
) -> dict[str, Any]:
    """What depends on the request's cost, and on what was counted."""
    try:
        cost = limits.cost(variant, ex)
    except limits.CostError as error:
        stands = {} if store is None else await _figures(variant, key, 0, store)
        return {**stands, "allowed": False, "problem": str(error)}
    stands = {} if store is None else await _figures(variant, key, cost, store)
    return {"cost": cost, **stands}


async def _figures(
    variant: LimitVariant, key: bytes, cost: int, store: LimitStore
) -> dict[str, Any]:
    """Nothing while the store gives no answer: the rest is worth telling then, too."""
    try:
        return (await standing(variant, key, cost, store))._asdict()
    except StoreError:
        return {}


def line(limit: dict[str, Any]) -> str:
    """A limit for a person."""
    terms = f"{limit['name']}: {limit['algorithm']} {limit['rate']}"
    if limit["burst"] is not None:
        terms += f" burst {limit['burst']}"
    facts = [terms]
    if limit["by"]:
        facts.append(f"by {', '.join(limit['by'])}")
    if limit["key"] is not None:
        facts.append(f"key {limit['key']}")
    if limit["override"] is not None:
        when = ", ".join(f"{part} is {' or '.join(v)}" for part, v in limit["override"].items())
        facts.append(f"override where {when}")
    if limit["charge"] == "miss":
        facts.append("charged for a miss")
    if limit["mode"] == "shadow":
        facts.append("shadow")
    if limit["cost"] not in (None, 1):
        facts.append(f"cost {limit['cost']}")
    return "; ".join(facts + _answer(limit))


def _answer(limit: dict[str, Any]) -> list[str]:
    """What it would answer, as far as that is known."""
    if "problem" in limit:
        return [f"would be refused (400): {limit['problem']}"]
    if limit["remaining"] is None:
        return ["would pass"] if limit["allowed"] else []
    left = f"{limit['remaining']} left"
    if limit["reset_s"]:
        left += f", more in {limit['reset_s']:g} s"
    if limit["allowed"]:
        wait = f" after {limit['delay_s']:g} s" if limit["delay_s"] else ""
        return [f"would pass{wait}", left]
    after = max(1, -(-int(limit["retry_after_s"] * 1000) // 1000))
    return [f"would be refused (429), Retry-After {after}", left]
