"""`store`: where limits count, and answers and records are kept; what they do in trouble."""

import re
from typing import Annotated, Literal

from proxy.core.store_urls import StoreUrl, read_store_url
from proxy.policy.models.leaves import (
    Boolean,
    Choice,
    Duration,
    FilePath,
    Section,
    Size,
    Timeout,
    absent,
    default,
    text,
)

OnFailure = Literal["local", "allow", "deny"]


def _prefix(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", value):
        raise ValueError(
            f'must be 1 to 64 letters, digits and "._:-", not "{value}": Redis keys begin with it'
        )
    return value


Url = Annotated[
    StoreUrl,
    text(
        "a URL",
        read_store_url,
        type="string",
        pattern="^(memory://|rediss?(\\+sentinel|\\+cluster)?://.+|unix://.+)$",
    ),
]


class StoreTlsSection(Section):
    """How the gateway speaks TLS with a rediss:// store."""

    ca: FilePath | None = None
    """A PEM file with the authorities to trust; the system's where left out."""
    cert: FilePath | None = None
    """A PEM file with the gateway's own certificate."""
    key: FilePath | None = None
    """A PEM file with the private key of cert."""
    verify: Boolean = True
    """Whether the store must prove who it is."""


class StoreCacheSection(Section):
    """Where answers are kept."""

    memory: Size = default("64MiB")
    """The most that each process keeps of them in memory."""
    url: Url | None = None
    """Another server for them; store.url where left out. memory:// shares none."""
    blind: Duration = default("10s")
    """How long a process answers from its memory while it cannot hear of purges."""


class StoreIdempotencySection(Section):
    """Where the records of idempotent requests are."""

    url: Url | None = None
    """Another server for them; store.url where left out. memory:// shares none."""


class StoreSection(Section):
    """Where limits count, answers are kept and idempotent requests recorded."""

    url: Url = default("memory://")
    """memory:// counts within this process; redis://, rediss://, unix://, redis+sentinel:// and
    redis+cluster:// share the counts."""
    prefix: Annotated[str, text("text", _prefix, type="string")] = default("sg")
    """What the names of all keys in Redis begin with."""
    timeout: Timeout = default("50ms")
    """How long an answer may take before limits go their own way."""
    on_failure: Annotated[OnFailure, Choice()] = default("local")
    """What limits do without the store: local counts in this process, allow lets through, deny
    answers 503."""
    tls: StoreTlsSection | None = None
    """TLS towards a rediss:// store."""
    cache: StoreCacheSection = absent(StoreCacheSection)
    """Where answers are kept."""
    idempotency: StoreIdempotencySection = absent(StoreIdempotencySection)
    """Where the records of idempotent requests are."""
