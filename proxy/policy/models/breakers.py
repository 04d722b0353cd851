"""`breakers` of the policy files: when an upstream is spared, and what clients get meanwhile."""

import re
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from proxy.core import units
from proxy.policy.models.leaves import (
    DURATION,
    LEAF,
    Boolean,
    Count,
    HeaderName,
    HeaderValue,
    Leaf,
    Positive,
    Section,
    Share,
    Text,
    Timeout,
    default,
    items,
    text,
)
from proxy.policy.models.statuses import Statuses
from proxy.policy.problem import listing, suggest
from proxy.policy.scalars import Scalar

Word = Literal["none", "stale"]
_WORDS = ("none", "stale")

_ANSWER = re.compile("[2-5][0-9]{2}")
_LONGEST_WINDOW = 300


def _answer(value: str) -> int:
    if not _ANSWER.fullmatch(value):
        raise ValueError(f'must be a status from 200 to 599, such as 503, not "{value}"')
    return int(value)


def _window(value: str) -> int:
    seconds, rest = divmod(units.duration_us(value), units.MICROSECONDS["s"])
    if rest or not 1 <= seconds <= _LONGEST_WINDOW:
        raise ValueError(f"must be whole seconds, from 1s to {_LONGEST_WINDOW // 60}m, not {value}")
    return seconds


class _OrWord:
    """Annotation of a map that may also be one of the words, which stays what it is."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            self._read, handler.generate_schema(FallbackSection)
        )

    @staticmethod
    def _read(raw: object, read_map: core_schema.ValidatorFunctionWrapHandler) -> object:
        forms = listing((*_WORDS, "{status: …, headers: …, body: …}", "{upstream: …}"))
        if isinstance(raw, list):
            raise ValueError(f"must be {forms}, not a list")  # noqa: TRY004 pydantic's way
        if not isinstance(raw, Scalar | str):
            return read_map(raw)
        word = raw.text if isinstance(raw, Scalar) else raw
        if word not in _WORDS:
            raise ValueError(f'must be {forms}, not "{word}"{suggest(word, _WORDS)}')
        return word

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{LEAF: True, "enum": list(_WORDS)}, handler(schema["schema"])]}


AnswerStatus = Annotated[
    int,
    Leaf("a status", lambda s: _answer(s.text), type="integer", minimum=200, maximum=599),
]


class FallbackSection(Section):
    """What stands in for the upstream: an answer written here, or another upstream's."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    status: AnswerStatus = 503
    """The status of the answer."""
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    """The header of the answer, such as {Content-Type: text/plain}."""
    body: Annotated[str, text("text")] = ""
    """The body of the answer."""
    upstream: Text | None = None
    """The name of the upstream that is asked instead."""


Fallback = Word | FallbackSection


class BreakerSection(Section):
    """A named set of terms. Each upstream that names it has a circuit of its own."""

    consecutive_failures: Count = 5
    """How many failures in a row open the circuit; 0 is off."""
    failure_rate: Share = default("0%")
    """Which share of failures within the window opens it; 0% is off."""
    slow_rate: Share = default("0%")
    """Which share of slow answers within the window opens it; 0% is off."""
    slow_after: Timeout = default("2s")
    """From when on an answer is slow: the time to its head."""
    minimum_requests: Positive = 20
    """How many requests the window must hold before shares are judged."""
    window: Annotated[int, text("a duration such as 30s", _window, **DURATION)] = default("10s")
    """How far back shares look: whole seconds, from 1s to 5m."""
    open_for: Timeout = default("30s")
    """How long the circuit stays open at first; doubled after each failed probe."""
    open_max: Timeout = default("5m")
    """How long it stays open at most."""
    half_open_requests: Positive = 2
    """How many probes may be under way after that, and how many must succeed to close it."""
    failure_statuses: list[Statuses] = items([500, "502-504"])
    """Statuses that count as failures, such as [500, "502-504"]."""
    shared: Boolean = False
    """Whether replicas tell each other through the store that a circuit opened or closed."""
    fallback: Annotated[Fallback, _OrWord()] = default("none")
    """What clients get while it is open: none (503), stale, {status: …, headers: …, body: …} or
    {upstream: …}."""
