"""The two kinds of file: what may stand at the top of each."""

from typing import Annotated

from pydantic import Field

from proxy.policy.models.breakers import BreakerSection
from proxy.policy.models.caches import CacheSection
from proxy.policy.models.idempotency import IdempotencySection
from proxy.policy.models.leaves import FilePath, OneOrMany, Section, absent
from proxy.policy.models.limits import LimitSection
from proxy.policy.models.retries import RetrySection
from proxy.policy.models.routes import RouteSection
from proxy.policy.models.server import AdminSection, LogSection, ServerSection
from proxy.policy.models.store import StoreSection
from proxy.policy.models.upstreams import UpstreamSection


class GatewayFile(Section):
    """The gateway file: listeners, upstreams and routes."""

    server: ServerSection = absent(ServerSection)
    """The data port."""
    log: LogSection = absent(LogSection)
    """Logging."""
    admin: AdminSection = absent(AdminSection)
    """The admin API."""
    store: StoreSection = absent(StoreSection)
    """Where limits count, answers are kept and idempotent requests recorded."""
    policies: Annotated[list[FilePath], OneOrMany()] = Field(
        default_factory=lambda: ["../policies"]
    )
    """A folder or a list of files with policies, relative to this file."""
    upstreams: dict[str, UpstreamSection] = Field(default_factory=dict)
    """Upstreams by name."""
    routes: list[RouteSection] = Field(default_factory=list)
    """Routes; the first that matches wins."""


class PolicyFile(Section):
    """A policy file: named limits, caches, breakers, retries and idempotency policies. A name of a
    kind is defined once over all files."""

    limits: dict[str, LimitSection] = Field(default_factory=dict)
    """Limits by name."""
    caches: dict[str, CacheSection] = Field(default_factory=dict)
    """Caches by name."""
    breakers: dict[str, BreakerSection] = Field(default_factory=dict)
    """Circuit breakers by name."""
    retries: dict[str, RetrySection] = Field(default_factory=dict)
    """Terms of retries by name."""
    idempotency: dict[str, IdempotencySection] = Field(default_factory=dict)
    """Idempotency policies by name."""
