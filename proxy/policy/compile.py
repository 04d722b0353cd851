"""Loaded YAML → one Snapshot: names resolved, patterns compiled, counters bound.

Nothing here can fail for what the YAML says: `policy.load` has refused that. Live parts (the
upstreams with their pools, the counters) come from a `Live`, which keeps them over reloads.
"""

import json
from dataclasses import asdict, is_dataclass, replace
from hashlib import sha256
from pathlib import Path
from random import random
from typing import Any, Protocol

from proxy.core.breaker import Breaker, BreakerTerms
from proxy.core.cache.keys import CacheKeyRule, space
from proxy.core.cache.record import SECOND, CacheTerms
from proxy.core.cache.tags import TagTemplate
from proxy.core.health import HealthTerms
from proxy.core.idempotency import Kept
from proxy.core.idempotency import Terms as IdempotencyTerms
from proxy.core.keys import KeyTemplate
from proxy.core.matching import PathPattern, Rewrite, RouteMatch, RouteTable
from proxy.core.message import Upstream
from proxy.core.retries import Budget
from proxy.core.store_urls import StoreUrl
from proxy.metrics import Metrics
from proxy.policy.draft import Draft
from proxy.policy.limiting import limit_plans
from proxy.policy.load import Loaded, load
from proxy.policy.models.caches import CacheSection
from proxy.policy.models.idempotency import IdempotencySection
from proxy.policy.models.leaves import Section
from proxy.policy.models.routes import HeaderEditsSection, RouteSection
from proxy.policy.models.store import StoreTlsSection
from proxy.policy.models.upstreams import UpstreamSection, UpstreamTlsSection
from proxy.policy.resilience import destinations
from proxy.policy.snapshot import (
    AdminPlan,
    CachePlan,
    HeaderEdits,
    IdempotencyPlan,
    LogPlan,
    RoutePlan,
    ServerPlan,
    ServerTls,
    Snapshot,
    StorePlan,
    StoreTls,
    UpstreamPlan,
    UpstreamTls,
)


class Live(Protocol):
    """What outlives a snapshot. Who keeps nothing inherits how breakers and budgets are made."""

    metrics: Metrics

    def upstream(self, plan: UpstreamPlan) -> Upstream:
        """The upstream for these settings: the one in use where they did not change."""

    def breaker(self, plan: UpstreamPlan, policy: str, terms: BreakerTerms) -> Breaker:
        """The upstream's circuit, with its state where neither the terms nor the endpoints
        changed. `policy` is the name of its terms."""
        return Breaker(terms, random)

    def budget(self, upstream: str, share: float) -> Budget:
        """The upstream's budget of retries."""
        return Budget(share)


def load_snapshot(path: Path, live: Live) -> tuple[Snapshot, list[str]]:
    """Loads and compiles; the warnings as they print. Raises ConfigError. Reads files."""
    loaded = load(path)
    return compile_snapshot(loaded, live), [str(warning) for warning in loaded.warnings]


def compile_snapshot(loaded: Loaded, live: Live) -> Snapshot:
    """The snapshot of a configuration without errors."""
    draft = loaded.draft
    upstream_plans = {
        name: _upstream(draft, name, part.section) for name, part in draft.upstreams.items()
    }
    store = _store(draft)
    limits = limit_plans(draft, store, live)
    trusted = _trusted_headers(draft)
    caches = {
        name: _cache(name, part.section, trusted, live) for name, part in draft.caches.items()
    }
    policies = {
        name: _idempotency(name, part.section, live) for name, part in draft.idempotency.items()
    }
    there = destinations(draft, upstream_plans, live)
    routes: dict[str, RoutePlan] = {}
    matches: list[tuple[RouteMatch, RoutePlan]] = []
    for part in draft.routes:
        route = part.section
        upstream = upstream_plans[route.upstream]
        plan = RoutePlan(
            name=route.name,
            upstream=there[route.upstream],
            limits=tuple(limits[name] for name in route.limits),
            rewrite=_rewrite(route),
            request_headers=_edits(route.request_headers),
            response_headers=_edits(route.response_headers),
            tally=live.metrics.route(route.name),
            **_caching(draft, route, caches, upstream),
            invalidate=tuple(map(TagTemplate.parse, route.invalidate)),
            invalidate_on=frozenset(status for some in route.invalidate_on for status in some),
            idempotency=None if route.idempotency is None else policies[route.idempotency],
        )
        routes[route.name] = plan
        matches.append((route.match.compile(), plan))
    return Snapshot(
        hash=config_hash(draft),
        files=draft.sources.files,
        content=draft.sources.digest,
        server=_server(draft),
        log=_log(draft),
        admin=_admin(draft),
        store=store,
        upstreams=there,
        limits=limits,
        routes=routes,
        table=RouteTable(matches),
        caches=caches,
        idempotency=policies,
    )


def _server(draft: Draft) -> ServerPlan:
    server = draft.server.section
    settings = {name: getattr(server, name) for name in type(server).model_fields}
    networks = tuple(peer for peer in server.trusted_proxies if peer != "unix")
    tls = None
    if server.tls is not None:
        tls = ServerTls(draft.resolve(server.tls.cert), draft.resolve(server.tls.key))
    settings |= {
        "tls": tls,
        "trusted_proxies": networks,
        "trust_unix": "unix" in server.trusted_proxies,
        "trusted_headers": _trusted_headers(draft),
    }
    return ServerPlan(**settings)


def _log(draft: Draft) -> LogPlan:
    log = draft.log.section
    salt = None if log.key_salt is None else log.key_salt.encode()
    return LogPlan(log.level, log.format, log.access, salt)


def _admin(draft: Draft) -> AdminPlan:
    admin = draft.admin.section
    return AdminPlan(admin.listen, admin.token, frozenset(admin.hosts), admin.probes)


def _store(draft: Draft) -> StorePlan:
    store = draft.store.section
    tls = StoreTls()
    if store.tls is not None:
        tls = StoreTls(*_tls_files(draft, store.tls), store.tls.verify)
    cache = store.cache
    return StorePlan(
        *(store.url, store.prefix, store.timeout, store.on_failure, tls),
        *(cache.memory, cache.url, cache.blind, store.idempotency.url),
    )


def _upstream(draft: Draft, name: str, upstream: UpstreamSection) -> UpstreamPlan:
    settings = {
        key: getattr(upstream, key)
        for key in type(upstream).model_fields
        if key not in ("breaker", "retry", "health_check", "hash_key")
    }
    check = upstream.health_check
    settings |= {
        "name": name,
        "health": None
        if check is None
        else HealthTerms(**{key: getattr(check, key) for key in type(check).model_fields}),
        "endpoints": tuple(replace(e.url, weight=e.weight) for e in upstream.endpoints),
        "tls": _upstream_tls(draft, upstream.tls or UpstreamTlsSection()),
    }
    return UpstreamPlan(**settings)


def _upstream_tls(draft: Draft, tls: UpstreamTlsSection) -> UpstreamTls:
    return UpstreamTls(*_tls_files(draft, tls), tls.server_name, tls.verify)


def _tls_files(
    draft: Draft, tls: UpstreamTlsSection | StoreTlsSection
) -> tuple[Path | None, Path | None, Path | None]:
    ca, cert, key = (
        None if path is None else draft.resolve(path) for path in (tls.ca, tls.cert, tls.key)
    )
    return ca, cert, key


def _caching(
    draft: Draft, route: RouteSection, caches: dict[str, CachePlan], upstream: UpstreamPlan
) -> dict[str, Any]:
    """What a RoutePlan says of its cache."""
    if route.cache is None:
        return {}
    timeout = draft.caches[route.cache].section.lock_timeout
    return {
        "cache": caches[route.cache],
        "cache_space": space(route.cache, route.name),
        # Whoever fetches has failed by then, or answered.
        "lock_timeout": upstream.response_timeout + 1 if timeout is None else timeout,
    }


def _trusted_headers(draft: Draft) -> frozenset[str]:
    return frozenset(name.lower() for name in draft.server.section.trusted_headers)


def _cache(name: str, cache: CacheSection, trusted: frozenset[str], live: Live) -> CachePlan:
    key = cache.key
    # The words `all` and `none` are read as lists of nothing; the rule has a spelling for each.
    included, excluded = key.query.include, key.query.exclude
    rule = CacheKeyRule.parse(
        "none" if included == [] else "all",
        included or None,
        excluded or None,
        key.headers,
        key.cookies,
    )
    terms = CacheTerms(
        default_ttl=_ms(cache.default_ttl),
        ttl=None if cache.ttl is None else _ms(cache.ttl),
        ttl_by_status=tuple((status, _ms(ttl)) for status, ttl in cache.ttl_by_status.items()),
        stale_while_revalidate=_ms(cache.stale_while_revalidate),
        stale_if_error=_ms(cache.stale_if_error),
        store_set_cookie=cache.store_set_cookie,
        keyed_cookies=frozenset(rule.cookies),
        keyed_headers=frozenset(rule.headers),
        trusted_headers=trusted.difference(rule.headers),
    )
    return CachePlan(
        name=name,
        terms=terms,
        key=rule,
        tags=tuple(map(TagTemplate.parse, cache.tags)),
        expose_tags=cache.expose_tags,
        max_object=cache.max_object,
        max_waiters=cache.max_waiters,
        hit_for_miss=_ms(cache.hit_for_miss),
        early_refresh=cache.early_refresh,
        tally=live.metrics.cache(name),
    )


def _idempotency(name: str, policy: IdempotencySection, live: Live) -> IdempotencyPlan:
    return IdempotencyPlan(
        name=name,
        methods=frozenset(policy.methods),
        required=policy.required,
        terms=IdempotencyTerms(ttl=_ms(policy.ttl), release_unknown=policy.on_unknown == "release"),
        scope=KeyTemplate.parse(policy.scope),
        waits=policy.in_flight == "wait",
        wait_timeout=policy.wait_timeout,
        kept=Kept(policy.store),
        denies=policy.on_store_failure == "deny",
        replicas=policy.replicas,
        max_body=policy.max_body,
        tally=live.metrics.replay(name),
    )


def _ms(seconds: float) -> int:
    return round(seconds * SECOND)


def _rewrite(route: RouteSection) -> Rewrite | None:
    if route.rewrite is not None:
        return Rewrite.template(route.rewrite, route.match.path)
    return None if route.strip_prefix is None else Rewrite.strip(route.strip_prefix)


def _edits(edits: HeaderEditsSection | None) -> HeaderEdits | None:
    if edits is None or not (edits.set or edits.remove):
        return None
    # YAML is UTF-8; on the wire a field value is its bytes, one character per byte.
    values = tuple((name, text.encode().decode("latin-1")) for name, text in edits.set.items())
    return HeaderEdits(values, frozenset(name.lower() for name in edits.remove))


def config_hash(draft: Draft) -> str:
    """Hex digest of the effective configuration: defaults and variables filled in, wherever it
    was written. Without the admin token, the salt of keys and the store's password, which nobody
    should be able to try out on it."""
    effective = {
        "server": _plain(draft.server.section),
        "log": _plain(draft.log.section) | {"key_salt": None},
        "admin": _plain(draft.admin.section) | {"token": None},
        "store": _plain(draft.store.section),
        "upstreams": {name: _plain(part.section) for name, part in draft.upstreams.items()},
        "routes": [_plain(part.section) for part in draft.routes],
        "limits": {name: _plain(part.section) for name, part in draft.limits.items()},
        "caches": {name: _plain(part.section) for name, part in draft.caches.items()},
        "breakers": {name: _plain(part.section) for name, part in draft.breakers.items()},
        "retries": {name: _plain(part.section) for name, part in draft.retries.items()},
        "idempotency": {name: _plain(part.section) for name, part in draft.idempotency.items()},
    }
    return sha256(json.dumps(effective, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {str(key): _plain(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(held) for held in value]
    if isinstance(value, PathPattern):
        return value.text
    if isinstance(value, StoreUrl):
        return str(value)  # without its password
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)
