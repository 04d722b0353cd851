"""One frozen Snapshot: everything that the request path needs, resolved when the YAML is loaded.

A request reads the snapshot once, so a reload never splits it. All durations are seconds as
float, all sizes bytes, unless a name or type says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

from proxy.core.addresses import AddressSet
from proxy.core.breaker import Breaker
from proxy.core.cache.keys import CacheKeyRule
from proxy.core.cache.record import CacheTerms
from proxy.core.cache.tags import TagTemplate
from proxy.core.health import HealthTerms
from proxy.core.idempotency import Kept
from proxy.core.idempotency import Terms as IdempotencyTerms
from proxy.core.keys import KeyTemplate
from proxy.core.matching import Rewrite, RouteTable
from proxy.core.message import Upstream
from proxy.core.retries import Budget, RetryTerms
from proxy.core.store_urls import StoreUrl
from proxy.metrics import CacheTally, IdempotencyTally, RouteTally, UpstreamTally
from proxy.policy.limit_plans import LimitPlan, UsualLimits

Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Listen:
    """Where a listener binds: TCP `host`:`port`, or a unix socket at `path`."""

    host: str = ""
    port: int = 0
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class ServerTls:
    cert: Path
    key: Path


@dataclass(frozen=True)
class ServerPlan:
    listen: Listen
    tls: ServerTls | None
    workers: int
    health_path: str | None
    trusted_proxies: tuple[Network, ...]
    trust_unix: bool
    client_ip_header: Literal["x-forwarded-for", "forwarded"]
    trusted_headers: frozenset[str]
    """Lower case."""
    max_header_bytes: int
    max_headers: int
    max_target_bytes: int
    max_body_bytes: int
    body_buffer: int
    header_timeout: float
    body_timeout: float
    idle_timeout: float
    max_connections: int
    drain_delay: float
    drain_timeout: float
    ratelimit_headers: Literal["standard", "legacy", "both", "off"]
    peers: AddressSet = field(init=False, repr=False, compare=False)
    """`trusted_proxies` and `trust_unix` as a question: `peers.holds(peer)`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "peers", AddressSet(self.trusted_proxies, unix=self.trust_unix))


@dataclass(frozen=True)
class LogPlan:
    level: str
    format: Literal["plain", "json"]
    access: Literal["off", "json"]
    key_salt: bytes | None = field(default=None, repr=False)
    """By what keys are hashed where they are shown; None: the store has it."""


@dataclass(frozen=True)
class AdminPlan:
    listen: Listen
    token: str | None = field(repr=False)
    hosts: frozenset[str]
    probes: Listen | None


@dataclass(frozen=True)
class Endpoint:
    """One address of an upstream. `path` is put in front of every target ("" for none)."""

    scheme: Literal["http", "https"]
    host: str
    """A name or address; for a unix socket the Host to send ("localhost")."""
    port: int
    path: str
    weight: int = 1
    socket: str | None = None
    """The unix socket's path for http+unix endpoints, else None."""

    @property
    def authority(self) -> str:
        """The Host for host_header: upstream (default ports left out)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default or self.socket else f"{host}:{self.port}"

    def __str__(self) -> str:
        """As the YAML has it, its weight aside."""
        if self.socket is not None:
            return f"http+unix://{self.socket}"
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True)
class UpstreamTls:
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None
    verify: bool = True


@dataclass(frozen=True)
class UpstreamPlan:
    name: str
    endpoints: tuple[Endpoint, ...]
    balance: Literal["round_robin", "least_requests", "hash"]
    connect_timeout: float
    response_timeout: float
    read_timeout: float
    deadline: float
    idle_timeout: float
    max_connections: int
    queue: int
    queue_timeout: float
    dns_refresh: float
    tunnel_idle_timeout: float
    tls: UpstreamTls
    host_header: Literal["preserve", "upstream"]
    health: HealthTerms | None = None


@dataclass(frozen=True)
class StaticAnswer:
    """An answer that stands in the YAML."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class Fallback:
    """What is answered while a circuit is open: what is stored, however stale; this `answer`;
    what the `other` upstream says. Else 503."""

    stale: bool = False
    answer: StaticAnswer | None = None
    other: "Destination | None" = None


@dataclass(frozen=True)
class Retrying:
    """When to try again, and the live budget for it."""

    terms: RetryTerms
    budget: Budget


@dataclass(frozen=True)
class Destination:
    """An upstream as a route sees it: the live parts, kept over reloads while their settings do
    not change, and what stands around them."""

    plan: UpstreamPlan
    upstream: Upstream
    tally: UpstreamTally
    affinity: KeyTemplate | None = None
    """balance: hash: what an endpoint is chosen by."""
    policy: str | None = None
    """The breaker policy's name."""
    breaker: Breaker | None = None
    fallback: Fallback = Fallback()
    retry: Retrying | None = None

    @property
    def name(self) -> str:
        return self.plan.name


@dataclass(frozen=True)
class StoreTls:
    """TLS towards the store; `ca` None is the system's authorities."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True


@dataclass(frozen=True)
class StorePlan:
    """Where limits count, and how long an answer may take."""

    url: StoreUrl
    prefix: str = "sg"
    timeout: float = 0.05
    on_failure: Literal["local", "allow", "deny"] = "local"
    tls: StoreTls = StoreTls()
    cache_memory: int = 64 * 1024 * 1024
    """Bytes of stored answers in each process."""
    cache_url: StoreUrl | None = None
    """Another server for stored answers, or memory://; None is `url`."""
    cache_blind: float = 10.0
    """How long a process answers from memory while it may miss purges."""
    idempotency_url: StoreUrl | None = None
    """Another server for the records of idempotent requests, or memory://; None is `url`."""

    @property
    def cache_at(self) -> StoreUrl:
        """Where stored answers are shared, if they are (not memory://)."""
        return self.url if self.cache_url is None else self.cache_url

    @property
    def idempotency_at(self) -> StoreUrl:
        """Where the records of idempotent requests are."""
        return self.url if self.idempotency_url is None else self.idempotency_url


@dataclass(frozen=True)
class CachePlan:
    """A cache policy. Times in core.cache.record are ms."""

    name: str
    terms: CacheTerms
    key: CacheKeyRule
    tags: tuple[TagTemplate, ...]
    expose_tags: bool
    max_object: int
    max_waiters: int
    hit_for_miss: int
    """ms."""
    early_refresh: float
    """XFetch's beta; 0 is off."""
    tally: CacheTally


@dataclass(frozen=True)
class IdempotencyPlan:
    """An idempotency policy."""

    name: str
    methods: frozenset[str]
    required: bool
    """Whether a request without a key is refused."""
    terms: IdempotencyTerms
    scope: KeyTemplate
    """Within what a key means one request."""
    waits: bool
    """Whether a request waits for the one that is under way with its key."""
    wait_timeout: float
    kept: Kept
    """The statuses that are recorded."""
    denies: bool
    """Whether a request is refused while the store gives no answer."""
    replicas: int
    """How many of the store's replicas must have a claim before anything is sent."""
    max_body: int
    """Of a request with a key, and of an answer that is recorded."""
    tally: IdempotencyTally


@dataclass(frozen=True)
class HeaderEdits:
    """`remove` (lower case) goes first, then `set` replaces or adds."""

    set: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    remove: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.set or self.remove)


@dataclass(frozen=True)
class RoutePlan:
    name: str
    upstream: Destination
    limits: tuple[LimitPlan, ...]
    rewrite: Rewrite | None
    """strip_prefix or rewrite, compiled; None forwards the raw path."""
    request_headers: HeaderEdits | None
    response_headers: HeaderEdits | None
    tally: RouteTally
    cache: CachePlan | None = None
    cache_space: str = ""
    """`core.cache.keys.space(cache, route)`: what this route files under is its own."""
    lock_timeout: float = 0.0
    """Seconds that requests wait for another one's fetch."""
    invalidate: tuple[TagTemplate, ...] = ()
    """Tags to purge after the answer to an unsafe method."""
    invalidate_on: frozenset[int] = frozenset(range(200, 300))
    """Statuses after which they are."""
    idempotency: IdempotencyPlan | None = None
    first_limits: tuple[LimitPlan, ...] = field(init=False, repr=False, compare=False)
    """Those charged before anything else is done."""
    usual_limits: UsualLimits | None = field(init=False, repr=False, compare=False)
    """The same, where all of them are usual."""
    miss_limits: tuple[LimitPlan, ...] = field(init=False, repr=False, compare=False)
    """Those charged just before a request goes upstream: none where nothing else could answer."""

    def __post_init__(self) -> None:
        answers = self.cache is not None or self.idempotency is not None
        late = {plan.name for plan in self.limits if plan.charge == "miss" and answers}
        first = tuple([plan for plan in self.limits if plan.name not in late])
        on_miss = tuple([plan for plan in self.limits if plan.name in late])
        object.__setattr__(self, "first_limits", first)
        object.__setattr__(self, "usual_limits", UsualLimits.of(first, on_miss))
        object.__setattr__(self, "miss_limits", on_miss)


@dataclass(frozen=True)
class Snapshot:
    """The whole configuration, ready for the request path."""

    hash: str
    """Hex digest of the effective configuration."""
    files: tuple[Path, ...]
    """Every file that was read: the gateway file, policy files, TLS files."""
    content: str
    """Hex digest of what stood in the files when they were read: what the reloader compares."""
    server: ServerPlan
    log: LogPlan
    admin: AdminPlan
    store: StorePlan
    upstreams: Mapping[str, Destination]
    limits: Mapping[str, LimitPlan]
    routes: Mapping[str, RoutePlan]
    """In matching order."""
    table: RouteTable["RoutePlan"]
    caches: Mapping[str, CachePlan] = field(default_factory=dict)
    idempotency: Mapping[str, IdempotencyPlan] = field(default_factory=dict)
    cache_rules: tuple[CacheKeyRule, ...] = field(init=False, repr=False, compare=False)
    """The key rules of all caches, each once: the ways in which a URL can be filed."""

    def __post_init__(self) -> None:
        rules = {plan.key.text: plan.key for plan in self.caches.values()}
        object.__setattr__(self, "cache_rules", tuple(rules.values()))
