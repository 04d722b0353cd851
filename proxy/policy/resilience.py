"""Upstreams with what stands around them: breakers, fallbacks, retries, and what they hash by."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from proxy.core.breaker import BreakerTerms
from proxy.core.keys import KeyTemplate
from proxy.core.retries import RetryTerms
from proxy.policy.draft import Draft
from proxy.policy.models.breakers import BreakerSection, FallbackSection
from proxy.policy.snapshot import Destination, Fallback, Retrying, StaticAnswer, UpstreamPlan

if TYPE_CHECKING:
    from proxy.policy.compile import Live

_PROBE_MARGIN: Final = 1.0
"""Seconds beyond the deadline after which a probe is given up: its timeout has come in by then."""


def destinations(
    draft: Draft, plans: Mapping[str, UpstreamPlan], live: "Live"
) -> dict[str, Destination]:
    """Every upstream by name. A fallback's upstream is made before those that fall back to it:
    the checks have refused circles."""
    made: dict[str, Destination] = {}

    def make(name: str) -> Destination:
        if name not in made:
            other = _other(draft, name)
            made[name] = _destination(
                draft, plans[name], live, None if other is None else make(other)
            )
        return made[name]

    return {name: make(name) for name in plans}


def _other(draft: Draft, name: str) -> str | None:
    """The upstream that this one falls back to."""
    breaker = draft.upstreams[name].section.breaker
    if breaker is None:
        return None
    fallback = draft.breakers[breaker].section.fallback
    return fallback.upstream if isinstance(fallback, FallbackSection) else None


def _destination(
    draft: Draft, plan: UpstreamPlan, live: "Live", other: Destination | None
) -> Destination:
    upstream = draft.upstreams[plan.name].section
    around: dict[str, Any] = {}
    if upstream.breaker is not None:
        section = draft.breakers[upstream.breaker].section
        around |= {
            "policy": upstream.breaker,
            "breaker": live.breaker(plan, upstream.breaker, _terms(section, plan.deadline)),
            "fallback": _fallback(section, other),
        }
    if upstream.retry is not None:
        retry = draft.retries[upstream.retry].section
        terms = RetryTerms(
            attempts=retry.attempts,
            backoff=retry.backoff,
            backoff_max=retry.backoff_max,
            budget=retry.budget,
            on=frozenset(retry.on),
            methods=frozenset(retry.methods),
        )
        around["retry"] = Retrying(terms, live.budget(plan.name, retry.budget))
    if upstream.balance == "hash" and upstream.hash_key is not None:
        around["affinity"] = KeyTemplate.parse(upstream.hash_key, joins=True)
    return Destination(
        plan=plan,
        upstream=live.upstream(plan),
        tally=live.metrics.upstream(plan.name),
        **around,
    )


def _terms(section: BreakerSection, deadline: float) -> BreakerTerms:
    settings = {
        name: getattr(section, name)
        for name in type(section).model_fields
        if name not in ("failure_statuses", "fallback")
    }
    statuses = (status for some in section.failure_statuses for status in some)
    return BreakerTerms(
        **settings, failure_statuses=frozenset(statuses), probe_timeout=deadline + _PROBE_MARGIN
    )


def _fallback(section: BreakerSection, other: Destination | None) -> Fallback:
    fallback = section.fallback
    if other is not None:
        return Fallback(other=other)
    if isinstance(fallback, FallbackSection):
        # YAML is UTF-8; on the wire a field value is its bytes, one character per byte.
        fields = tuple(
            (name, text.encode().decode("latin-1")) for name, text in fallback.headers.items()
        )
        return Fallback(answer=StaticAnswer(fallback.status, fields, fallback.body.encode()))
    return Fallback(stale=fallback == "stale")
