"""A limit's terms: what applies under the base, and under each override that inherits from it."""

from dataclasses import dataclass
from typing import Any, Literal

from proxy.core.limits import ALGORITHMS
from proxy.core.limits.decision import Algorithm, Rate
from proxy.policy.models.limits import Cost, LimitSection, OverrideSection


@dataclass(frozen=True, slots=True)
class Terms:
    """One limit, or one override of it, with everything inherited."""

    algorithm: Algorithm
    rate: Rate
    burst: int | None
    cost: Cost
    mode: Literal["enforce", "shadow"]

    def compile(self, refundable: bool = True) -> Any:
        """The algorithm's parameters. Raises ValueError, a sentence."""
        return self.algorithm.compile(self.rate, self.burst, refundable)


def terms_of(limit: LimitSection, override: OverrideSection | None = None) -> Terms | None:
    """What counts; None where the override is `unlimited`."""
    algorithm = ALGORITHMS[limit.algorithm]
    if override is None:
        return Terms(algorithm, limit.rate, limit.burst, limit.cost, limit.mode)
    if override.rate == "unlimited":
        return None
    return Terms(
        algorithm,
        limit.rate if override.rate is None else override.rate,
        limit.burst if override.burst is None else override.burst,
        limit.cost if override.cost is None else override.cost,
        limit.mode if override.mode is None else override.mode,
    )
