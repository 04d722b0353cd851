"""Snapshots and exchanges for the stages' tests, made without YAML and without sockets."""

from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from proxy.core.fields import Fields, Lines
from proxy.core.matching import PathPattern, RouteMatch, RouteTable
from proxy.core.message import Outgoing, Reply, UpstreamError
from proxy.core.store_urls import MEMORY
from proxy.exchange import Exchange
from proxy.metrics import Metrics
from proxy.policy.snapshot import (
    AdminPlan,
    Destination,
    Endpoint,
    HeaderEdits,
    Listen,
    LogPlan,
    RoutePlan,
    ServerPlan,
    Snapshot,
    StorePlan,
    UpstreamPlan,
    UpstreamTls,
)

MATCHES = {
    "users": RouteMatch(PathPattern.parse("/users/{id}"), frozenset({"GET"})),
    "upload": RouteMatch(PathPattern.parse("/users/{id}"), frozenset({"POST"})),
    "any": RouteMatch(PathPattern.parse("/any/{rest:path}")),
    "beta": RouteMatch(PathPattern.parse("/beta"), headers=(("X-Beta", "1"),)),
}


class Nowhere:
    """An upstream that no test gets as far as asking."""

    name = "origin"

    async def send(self, request: Outgoing) -> Reply:
        raise UpstreamError("no_endpoint", "nowhere", sent=False)


def server_plan(trusted: Sequence[str] = (), **settings: Any) -> ServerPlan:
    given: dict[str, Any] = {
        "listen": Listen("127.0.0.1", 0),
        "tls": None,
        "workers": 1,
        "health_path": None,
        "trusted_proxies": tuple(ip_network(text) for text in trusted),
        "trust_unix": False,
        "client_ip_header": "x-forwarded-for",
        "trusted_headers": frozenset(),
        "max_header_bytes": 32768,
        "max_headers": 100,
        "max_target_bytes": 8192,
        "max_body_bytes": 1 << 20,
        "body_buffer": 1 << 26,
        "header_timeout": 10.0,
        "body_timeout": 30.0,
        "idle_timeout": 75.0,
        "max_connections": 100,
        "drain_delay": 0.0,
        "drain_timeout": 20.0,
        "ratelimit_headers": "standard",
    }
    return ServerPlan(**(given | settings))


def route_plan(name: str, edits: HeaderEdits | None = None, upstream: str = "nowhere") -> RoutePlan:
    metrics = Metrics()
    plan = UpstreamPlan(
        name=upstream,
        endpoints=(Endpoint("http", "localhost", 1, ""),),
        balance="round_robin",
        connect_timeout=1.0,
        response_timeout=10.0,
        read_timeout=30.0,
        deadline=30.0,
        idle_timeout=4.0,
        max_connections=1,
        queue=0,
        queue_timeout=1.0,
        dns_refresh=30.0,
        tunnel_idle_timeout=3600.0,
        tls=UpstreamTls(),
        host_header="preserve",
    )
    there = Destination(plan, Nowhere(), metrics.upstream(plan.name))
    return RoutePlan(name, there, (), None, None, edits, metrics.route(name))


def snapshot(
    server: ServerPlan | None = None, matches: dict[str, RouteMatch] | None = None
) -> Snapshot:
    chosen = MATCHES if matches is None else matches
    routes = {name: route_plan(name) for name in chosen}
    return Snapshot(
        hash="0",
        content="",
        files=(Path("gateway.yaml"),),
        server=server or server_plan(),
        log=LogPlan("info", "plain", "off"),
        admin=AdminPlan(Listen("127.0.0.1", 0), None, frozenset(), None),
        store=StorePlan(MEMORY),
        upstreams={},
        limits={},
        routes=routes,
        table=RouteTable([(match, routes[name]) for name, match in chosen.items()]),
    )


def exchange(
    method: str = "GET",
    target: str = "/users/7",
    lines: Lines | None = None,
    *,
    plan: Snapshot | None = None,
    peer: str = "192.0.2.1",
    authority: str = "a.example",
) -> Exchange:
    fields = Fields(lines or [])
    return Exchange(
        plan or snapshot(),
        method,
        target,
        11,
        fields,
        authority=authority,
        scheme="http",
        peer=peer,
    )
