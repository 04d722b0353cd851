"""`caches` of the policy files: what is kept, for how long, under what key and which tags."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from proxy.core.cache.keys import CacheKeyRule
from proxy.core.cache.storing import UNSTORABLE
from proxy.core.cache.tags import TagTemplate
from proxy.policy.models.leaves import (
    LEAF,
    TOKEN,
    Boolean,
    Count,
    Duration,
    HeaderName,
    Leaf,
    Section,
    Size,
    Timeout,
    absent,
    default,
    items,
    text,
)
from proxy.policy.problem import listing, suggest
from proxy.policy.scalars import Scalar

_WORDS: dict[str, dict[str, list[str]]] = {"all": {"exclude": []}, "none": {"include": []}}
_STATUS = re.compile("[2-5][0-9]{2}")
_MOST_EAGER = 100.0


def _status(value: str) -> int:
    if not _STATUS.fullmatch(value):
        raise ValueError(f'must be a status from 200 to 599, such as 404, not "{value}"')
    status = int(value)
    if status in UNSTORABLE:
        raise ValueError(f"{status} is never stored: it answers one request only")
    return status


def _tag(value: str) -> str:
    TagTemplate.parse(value)
    return value


def _parameter(value: str) -> str:
    CacheKeyRule.parse(include=[value])
    return value


def _cookie(value: str) -> str:
    if not TOKEN.fullmatch(value):
        raise ValueError(f'is no cookie name: "{value}" (RFC 6265 §4.1.1)')
    return value


def _eagerness(scalar: Scalar) -> float:
    value = scalar.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f'must be a number such as 1.0, not "{scalar.text}"')  # noqa: TRY004
    if not 0 <= value <= _MOST_EAGER:
        raise ValueError(f"must be between 0 and {_MOST_EAGER:g}, not {scalar.text}")
    return float(value)


class _OneWord(BeforeValidator):
    """Annotation of a QuerySection that may also be `all` (all but nothing) or `none` (nothing
    but what is listed, which is nothing)."""

    def __init__(self) -> None:
        super().__init__(self._read)

    @staticmethod
    def _read(raw: object) -> object:
        forms = listing((*_WORDS, "{include: […]}", "{exclude: […]}"))
        if isinstance(raw, list):
            raise ValueError(f"must be {forms}, not a list")  # noqa: TRY004 pydantic's way
        if not isinstance(raw, Scalar | str):
            return raw
        word = raw.text if isinstance(raw, Scalar) else raw
        if word not in _WORDS:
            raise ValueError(f'must be {forms}, not "{word}"{suggest(word, _WORDS)}')
        return _WORDS[word]

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{LEAF: True, "enum": list(_WORDS)}, handler(schema)]}


Tag = Annotated[
    str,
    text(
        "a tag",
        _tag,
        type=["string", "number", "boolean"],
        pattern="^([^{}]|\\{path\\.[A-Za-z_][A-Za-z0-9_]*\\})+$",
    ),
]
Parameter = Annotated[
    str, text("a parameter", _parameter, type=["string", "number"], pattern="^[^*&=;#]+\\*?$")
]
CookieName = Annotated[
    str, text("a cookie name", _cookie, type="string", pattern="^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
]
Status = Annotated[int, text("a status", _status, type="string", pattern="^[2-5][0-9]{2}$")]


class QuerySection(Section):
    """Which parameters of the query are part of the key: `include` only these, or all but those
    of `exclude`. A * at the end of a name stands for any rest."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    include: list[Parameter] | None = items(None, least=1)
    """The parameters that count."""
    exclude: list[Parameter] | None = items(None, least=1)
    """The parameters that do not count, such as "utm_*"."""


class CacheKeySection(Section):
    """What tells answers apart, beside scheme, host and path, and what the origin's Vary names."""

    query: Annotated[QuerySection, _OneWord()] = default("all")
    """The query: all of it, none, {include: […]} or {exclude: […]}."""
    headers: list[HeaderName] = items([])
    """Request headers that are part of the key."""
    cookies: list[CookieName] = items([])
    """Cookies that are part of the key."""


class CacheSection(Section):
    """A named cache. Routes that name it share its rules, not its answers."""

    default_ttl: Duration = default("0s")
    """Where the origin gives neither explicit freshness nor Last-Modified."""
    ttl: Duration | None = None
    """Replaces the origin's freshness, never its prohibitions."""
    ttl_by_status: dict[Status, Duration] = Field(default_factory=dict)
    """Where the origin gives no explicit freshness, such as {404: 10s}."""
    stale_while_revalidate: Duration = default("0s")
    """How long a stale answer serves while it is fetched anew, where the origin says nothing."""
    stale_if_error: Duration = default("0s")
    """How long a stale answer stands in for errors, where the origin says nothing."""
    tags: list[Tag] = items([])
    """Tags of every answer, such as ["user:{path.id}"], beside those that the origin names."""
    expose_tags: Boolean = False
    """Whether clients see the origin's Surrogate-Key and Cache-Tag."""
    store_set_cookie: Boolean = False
    """Whether answers that set a cookie are stored, without the cookie."""
    key: CacheKeySection = absent(CacheKeySection)
    """What tells answers apart."""
    max_object: Size = default("1MiB")
    """The largest body that is stored."""
    lock_timeout: Timeout | None = None
    """How long requests wait for another one's fetch; the upstream's response_timeout and one
    second more where left out."""
    max_waiters: Count = 1000
    """The most requests that wait for one fetch."""
    hit_for_miss: Duration = default("10s")
    """How long nobody waits for what turned out not to be storable."""
    early_refresh: Annotated[
        float, Leaf("a number", _eagerness, type="number", minimum=0, maximum=_MOST_EAGER)
    ] = 1.0
    """How eagerly answers are fetched anew before they end (XFetch's beta); 0 is never."""
