"""Every key with values that nobody expects: told with a place, never a crash."""

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.policy.load import load
from proxy.policy.problem import ConfigError

GATEWAY: dict[str, Any] = {
    "server": {
        "listen": "127.0.0.1:8080",
        "tls": {"cert": "none.pem", "key": "none.key"},
        "workers": 1,
        "health_path": "/ready",
        "trusted_proxies": ["10.0.0.0/8"],
        "client_ip_header": "Forwarded",
        "trusted_headers": ["X-Plan"],
        "max_body_bytes": "1MiB",
        "max_headers": 10,
        "idle_timeout": "1s",
        "drain_delay": "0s",
        "ratelimit_headers": "both",
    },
    "log": {"level": "debug", "access": "json"},
    "admin": {"listen": "127.0.0.1:1", "token": "t", "hosts": ["a.b"], "probes": "127.0.0.1:2"},
    "store": {"url": "memory://", "idempotency": {"url": "redis://h"}},
    "policies": ["limits.yaml"],
    "upstreams": {
        "app": {
            "endpoints": ["https://a:1/p", {"url": "http://b", "weight": 2}],
            "balance": "round_robin",
            "deadline": "1s",
            "queue": 1,
            "tls": {"ca": "none.pem", "server_name": "a", "verify": True},
        }
    },
    "routes": [
        {
            "name": "a",
            "match": {
                "path": "/a/{id}",
                "methods": ["GET"],
                "hosts": ["a.b"],
                "headers": {"A": "b"},
            },
            "upstream": "app",
            "strip_prefix": "/a",
            "rewrite": "/{id}",
            "limits": ["x"],
            "idempotency": "x",
            "request_headers": {"set": {"A": "b"}, "remove": ["C"]},
        }
    ],
}
LIMITS: dict[str, Any] = {
    "limits": {
        "x": {
            "algorithm": "token_bucket",
            "rate": "1/s",
            "burst": 2,
            "key": ["path.id|ip"],
            "cost": 1,
            "charge": "miss",
            "mode": "shadow",
            "overrides": [{"when": {"ip": ["10.0.0.0/8"]}, "rate": "2/s", "burst": 3, "cost": 1}],
        }
    },
    "idempotency": {
        "x": {
            "methods": ["POST"],
            "required": True,
            "ttl": "1h",
            "scope": ["path.id|ip"],
            "in_flight": "wait",
            "store": ["2xx", 404],
            "replicas": 1,
            "max_body": "1MiB",
        }
    },
}
ODD: list[Any] = [
    [], {}, "", "\0", "\n", "é", "${", "{", "/..", "//", "*", "a" * 3000, -1, 0, 10**30, 1e308,
    True, [[]], [{}], [""], {"a": "b"}, {"": ""}, {"a": {"b": []}}, "1/0s", "9999999/month", "::/0",
]  # fmt: skip


def places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    for key in (
        tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    ):
        found += places(tree[key], (*at, key))
    return found


def some(values: list[Any], at: tuple[Any, ...]) -> list[Any]:
    """Every fourth value, each place beginning with another: all of them would take too long."""
    return values[len(str(at)) % 4 :: 4]


def changed(tree: Any, at: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(tree))
    here = copy
    for key in at[:-1]:
        here = here[key]
    here[at[-1]] = value
    return copy


def try_to_load(folder: Path, gateway: Any, limits: Any) -> None:
    """JSON is YAML. Loads, or is told why not, each time with a place and a sentence."""
    (folder / "gateway.yaml").write_text(json.dumps(gateway, ensure_ascii=False))
    (folder / "limits.yaml").write_text(json.dumps(limits, ensure_ascii=False))
    try:
        load(folder / "gateway.yaml", {})
    except ConfigError as failed:
        for problem in failed.problems:
            assert problem.line >= 1
            assert problem.col >= 1
            assert problem.message


@pytest.mark.parametrize("at", places(GATEWAY), ids=str)
def test_odd_values_in_the_gateway_file(at: tuple[Any, ...], tmp_path: Path) -> None:
    for value in some(ODD, at):
        try_to_load(tmp_path, changed(GATEWAY, at, value), LIMITS)


@pytest.mark.parametrize("at", places(LIMITS), ids=str)
def test_odd_values_in_a_policy_file(at: tuple[Any, ...], tmp_path: Path) -> None:
    for value in some(ODD, at):
        try_to_load(tmp_path, GATEWAY, changed(LIMITS, at, value))
