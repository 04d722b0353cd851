"""What nearly every route's limits are, and what of them is the same for every request."""

from typing import TYPE_CHECKING

from proxy.core.ratelimit import policies

if TYPE_CHECKING:
    from proxy.policy.snapshot import LimitPlan


class UsualLimits:
    """Limits that hold as they stand for every request (no override, no cost that is stated, none
    in shadow), with what is the same each time."""

    __slots__ = ("asked", "policies", "tallies", "variants")

    def __init__(self, plans: tuple["LimitPlan", ...]) -> None:
        self.variants = tuple([plan.base for plan in plans])
        self.asked = tuple([(plan.base, plan.key.digest, plan.base.cost or 0) for plan in plans])
        self.tallies = tuple([plan.tally for plan in plans])
        self.policies = policies(self.variants)
        """RateLimit-Policy, as a line."""

    @classmethod
    def of(cls, plans: tuple["LimitPlan", ...]) -> "UsualLimits | None":
        """None where one of them is not usual, or there is none."""
        for plan in plans:
            if plan.overrides or plan.base.cost is None or plan.base.shadow:
                return None
        return cls(plans) if plans else None
