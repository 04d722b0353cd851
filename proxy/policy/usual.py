"""What nearly every request is, and what of it is the same for every one."""

from typing import TYPE_CHECKING

from proxy.core.ratelimit import policies

if TYPE_CHECKING:
    from proxy.policy.snapshot import LimitPlan, Snapshot


class UsualLimits:
    """Limits that hold as they stand for every request (no override, no cost that is stated, none
    in shadow), with what is the same each time."""

    __slots__ = ("digests", "policies", "tallies", "variants")

    def __init__(self, plans: tuple["LimitPlan", ...]) -> None:
        self.variants = tuple([plan.base for plan in plans])
        self.digests = tuple([plan.key.digest for plan in plans])
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


def goes_by(snapshot: "Snapshot", name: str) -> bool:
    """Whether a request field (lower case) has a say in who sends a request, where it goes, or
    what it is counted and filed under."""
    return (
        name in snapshot.server.trusted_headers
        or name in snapshot.table.headers
        or any(name in plan.key.headers for plan in snapshot.limits.values())
        or any(name in plan.key.headers for plan in snapshot.caches.values())
    )
