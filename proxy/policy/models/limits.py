"""`limits` of the policy files: who is counted by what, and how much is allowed."""

from typing import Annotated, Any, Literal

from pydantic import Field

from proxy.core import units
from proxy.core.keys import KeyTemplate
from proxy.core.limits.decision import Rate
from proxy.policy.models.leaves import (
    Choice,
    Count,
    HeaderValue,
    Leaf,
    OneOrMany,
    Section,
    default,
    header_name,
    items,
    text,
    whole,
)
from proxy.policy.models.store import OnFailure
from proxy.policy.problem import suggest
from proxy.policy.scalars import Scalar

Unlimited = Literal["unlimited"]
Cost = int | str
"""A fixed cost, or the lower-case name of the header that says it."""

_RATE: dict[str, Any] = {
    "type": "string",
    "pattern": "^[0-9]{1,15}/([0-9]{1,15}(ms|s|m|h|d)|s|m|h|d|month)$",
}
_COST: dict[str, Any] = {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": "^header:[!#$%&'*+.^_`|~0-9A-Za-z-]+$"},
    ]
}
_PART = "(ip|header:.+|query:.+|cookie:.+|path\\..+|route|method|host|global)"


def _override_rate(value: str) -> Rate | Unlimited:
    if value == "unlimited":
        return "unlimited"
    if value.isalpha():
        raise ValueError(
            f'must be a rate such as 1000/s, or unlimited, not "{value}"'
            + suggest(value, ("unlimited",))
        )
    return units.rate(value)


def _base_rate(value: str) -> Rate:
    if value == "unlimited":
        raise ValueError("a limit needs a rate; unlimited is for overrides")
    return units.rate(value)


def _cost(scalar: Scalar) -> Cost:
    if scalar.text.startswith("header:"):
        return header_name(scalar.text.removeprefix("header:")).lower()
    if isinstance(scalar.value, str):
        raise ValueError(f'must be a whole number or header:NAME, not "{scalar.text}"')  # noqa: TRY004
    cost: int = whole(1).read(scalar)
    return cost


def _key_part(value: str) -> str:
    KeyTemplate.parse([value])
    return value


KeyPart = Annotated[
    str, text("a part", _key_part, type="string", pattern=f"^{_PART}(\\|{_PART})*$")
]
CostField = Annotated[Cost, Leaf("a whole number or header:NAME", _cost, **_COST)]
Mode = Literal["enforce", "shadow"]


class OverrideSection(Section):
    """Another rate, burst, cost or mode for some of the callers. The first that matches counts."""

    when: dict[str, Annotated[list[HeaderValue], OneOrMany()]]
    """What must hold, such as {"header:X-Plan": [gold]}."""
    rate: (
        Annotated[
            Rate | Unlimited,
            text(
                "a rate",
                _override_rate,
                anyOf=[_RATE, {"const": "unlimited"}],
            ),
        ]
        | None
    ) = None
    """Their rate, or unlimited."""
    burst: Count | None = None
    """Their burst."""
    cost: CostField | None = None
    """What one of their requests costs."""
    mode: Annotated[Mode, Choice()] | None = None
    """enforce or shadow."""


class LimitSection(Section):
    """A named limit. Routes that name it share its counters."""

    algorithm: Annotated[
        Literal["fixed_window", "sliding_window", "sliding_log", "token_bucket", "leaky_bucket"],
        Choice(),
    ] = default("token_bucket")
    """How it counts."""
    rate: Annotated[Rate, text("a rate", _base_rate, **_RATE)]
    """How much is allowed: 100/s, 60/m, 5/10s; fixed_window also 1000/month."""
    burst: Count | None = None
    """token_bucket: the bucket's size (default N); leaky_bucket: how many may wait (default 0)."""
    key: list[KeyPart] = items(least=1)
    """Who is counted, such as ["header:X-Api-Key|ip"]; ["global"] is everybody together."""
    cost: CostField = 1
    """What a request costs: a whole number, or header:NAME of a trusted header."""
    charge: Annotated[Literal["request", "miss"], Choice()] = default("request")
    """Whether every request is charged, or only those that go upstream (miss)."""
    mode: Annotated[Mode, Choice()] = default("enforce")
    """shadow counts and reports what it would refuse, and lets it pass."""
    on_store_failure: Annotated[OnFailure, Choice()] | None = None
    """What this limit does without the store; store.on_failure where left out."""
    overrides: list[OverrideSection] = Field(default_factory=list)
    """Other terms for some callers."""
