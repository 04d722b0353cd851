"""Limits as the request path needs them."""

from dataclasses import dataclass, field
from typing import Any, Literal

from proxy.core.keys import KeyTemplate, WhenRule
from proxy.core.limits.decision import Algorithm
from proxy.core.ratelimit import policies, sf_string
from proxy.metrics import LimitTally


@dataclass(frozen=True)
class LimitVariant:
    """A limit, or one override of it: what is counted, where, and how.

    `space` names the state: limit, override, algorithm, key and period. A reload that changes
    none of these keeps counting.
    """

    limit: str
    space: str
    algorithm: Algorithm
    params: Any
    """The algorithm's compiled parameters (`Algorithm.compile`)."""
    capacity: int
    quota: int
    """RateLimit-Policy's q."""
    window: int | None
    """RateLimit-Policy's w in seconds, or None where it is left out."""
    policy_item: str
    """`"NAME";q=Q;w=W`, ready to send."""
    cost: int | None
    """A fixed cost, or None: `cost_header` says."""
    cost_header: str | None
    """A trusted header's name, lower case."""
    shadow: bool
    on_failure: Literal["local", "allow", "deny"] = "local"
    """What becomes of this limit while the shared store is in trouble."""
    refundable: bool = False
    """Whether its charges may be given back, so that a denial may end before its time."""
    rate: str = ""
    """As the YAML has it: 100/s."""
    burst: int | None = None
    """As it holds; None where the algorithm has none."""
    sf_name: str = field(init=False, repr=False, compare=False)
    """The limit's name as an RFC 9651 String."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sf_name", sf_string(self.limit))


@dataclass(frozen=True)
class LimitPlan:
    name: str
    algorithm: str
    key: KeyTemplate
    charge: Literal["request", "miss"]
    base: LimitVariant
    overrides: tuple[tuple[WhenRule, LimitVariant | None], ...]
    """The first whose rule matches; None is `unlimited`."""
    tally: LimitTally


class UsualLimits:
    """Limits that hold as they stand for every request (no override, no cost that is stated, none
    in shadow), with what is the same each time. `late` are those that only a miss is charged."""

    __slots__ = ("digests", "policies", "tallies", "variants")

    def __init__(self, plans: tuple[LimitPlan, ...], late: tuple[LimitPlan, ...]) -> None:
        self.variants = tuple([plan.base for plan in plans])
        self.digests = tuple([plan.key.digest for plan in plans])
        self.tallies = tuple([plan.tally for plan in plans])
        enforced = [plan.base for plan in late if not plan.base.shadow]
        self.policies = policies([*self.variants, *enforced])
        """RateLimit-Policy, as a line."""

    @classmethod
    def of(
        cls, plans: tuple[LimitPlan, ...], late: tuple[LimitPlan, ...] = ()
    ) -> "UsualLimits | None":
        """None where one of them is not usual, or there is none."""
        for plan in plans:
            if plan.overrides or plan.base.cost is None or plan.base.shadow:
                return None
        for plan in late:
            if plan.overrides:
                return None
        return cls(plans, late) if plans or late else None
