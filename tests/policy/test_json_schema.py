"""The JSON Schema: an editor accepts the shipped files and flags the bad ones that it can."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from yaml_kit import BAD, is_policy_file

from proxy.policy.reader import Tree, read
from proxy.policy.scalars import Scalar
from proxy.policy.schema import schema, schema_document

ROOT = Path(__file__).resolve().parents[2]
VALIDATORS = {
    which: Draft202012Validator(schema_document(which)) for which in ("gateway", "policies")
}

# What an editor cannot know: other values, other files, and what a pattern cannot say.
BEYOND_A_SCHEMA = {
    "admin-token-bad",
    "admin-token-empty",
    "admin-token-missing",
    "breaker-defined-twice",
    "breaker-fallback-body-without",
    "breaker-fallback-both",
    "breaker-fallback-header-of-the-connection",
    "breaker-fallback-header-spelled-twice",
    "breaker-fallback-header-value",
    "breaker-fallback-loop",
    "breaker-fallback-upstream-unknown",
    "breaker-name-bad",
    "breaker-open-for-long",
    "breaker-open-max-short",
    "breaker-shared-in-memory",
    "breaker-slow-after-nothing",
    "breaker-status-backwards",
    "breaker-status-twice",
    "breaker-window-of-parts",
    "breaker-window-too-long",
    "cache-defined-twice",
    "cache-header-host",
    "cache-header-of-the-connection",
    "cache-header-twice",
    "cache-lock-timeout-of-nothing",
    "cache-max-object-of-nothing",
    "cache-name-bad",
    "cache-query-both",
    "cache-status-never-stored",
    "capture-missing",
    "cidr-bad",
    "cidr-host-bits",
    "duration-of-nothing",
    "endpoint-label-too-long",
    "endpoint-twice",
    "header-host",
    "header-of-the-connection",
    "header-removed-twice",
    "header-spelled-twice",
    "host-pattern-bad",
    "idempotency-defined-twice",
    "idempotency-max-body-of-nothing",
    "idempotency-max-body-over-buffer",
    "idempotency-method-lower-case",
    "idempotency-name-bad",
    "idempotency-replicas-in-memory",
    "idempotency-scope-fallback-capture",
    "idempotency-ttl-of-nothing",
    "idempotency-wait-timeout-of-nothing",
    "limit-burst-not-had",
    "limit-burst-of-nothing",
    "limit-cost-above-capacity",
    "limit-cost-header-untrusted",
    "limit-defined-twice",
    "limit-fallback-capture",
    "limit-inexact",
    "limit-log-too-long",
    "limit-month",
    "limit-name-bad",
    "limit-override-again",
    "limit-override-of-nothing",
    "limit-override-unlimited-burst",
    "limit-override-when-cidr",
    "limit-override-when-empty",
    "limit-override-when-part",
    "limit-rate-of-nothing",
    "listen-collision",
    "listen-ipv6-without-brackets",
    "listen-port-out-of-range",
    "match-header-value",
    "method-lower-case",
    "path-capture-kind",
    "path-capture-part-of-segment",
    "path-capture-twice",
    "path-rest-not-last",
    "policies-missing",
    "probes-collision",
    "retry-backoff-long",
    "retry-backoff-max-short",
    "retry-defined-twice",
    "retry-method-lower-case",
    "retry-name-bad",
    "rewrite-unknown-capture",
    "rewrite-with-strip-prefix",
    "route-cache-capture",
    "route-cache-unknown",
    "route-idempotency-capture",
    "route-idempotency-methods",
    "route-idempotency-unknown",
    "route-invalidate-capture",
    "route-invalidate-on-backwards",
    "route-invalidate-on-twice",
    "route-limit-unknown",
    "route-name-reserved",
    "route-name-twice",
    "store-prefix",
    "store-tls-half",
    "store-tls-plain",
    "store-url-cluster-db",
    "store-url-list",
    "store-url-master",
    "store-url-port",
    "store-url-user",
    "strip-prefix-not-there",
    "tls-file-missing",
    "tls-not-pem",
    "trusted-header-of-the-gateway",
    "upstream-breaker-unknown",
    "upstream-hash-key-capture",
    "upstream-hash-key-fallback-capture",
    "upstream-hash-key-missing",
    "upstream-hash-key-unused",
    "upstream-health-check-interval",
    "upstream-health-check-timeout",
    "upstream-name-bad",
    "upstream-retry-unknown",
    "upstream-tls-half-a-pair",
    "upstream-tls-unused",
    "upstream-unknown",
    "variable-bad-name",
    "variable-default-list",
    "variable-missing",
    "variable-unclosed",
    "workers-need-redis",
    "workers-need-redis-for-idempotency",
}


def as_editors_see_it(file: Path) -> Any:
    """The file as JSON values, variables not replaced; None where it is no YAML."""
    data = file.read_bytes().replace(b"${", b"$${")
    document = read(str(file), data, {})
    return None if document.broken else plain(document.tree)


def plain(tree: Tree) -> Any:
    if isinstance(tree, Scalar):
        return tree.value
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return [plain(item) for item in tree]


def flaws(which: str, document: Any) -> list[str]:
    return [error.message for error in VALIDATORS[which].iter_errors(document)]


@pytest.mark.parametrize("which", ["gateway", "policies"])
def test_the_schema_is_one(which: str) -> None:
    document = json.loads(schema(which))
    Draft202012Validator.check_schema(document)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "x-leaf" not in schema(which)


@pytest.mark.parametrize(
    ("file", "which"),
    [
        ("config/gateway.yaml", "gateway"),
        ("config/demo.yaml", "gateway"),
        ("config/demo-policies.yaml", "policies"),
        ("policies/limits.yaml", "policies"),
        ("policies/caches.yaml", "policies"),
    ],
)
def test_shipped_files_are_accepted(file: str, which: str) -> None:
    assert flaws(which, as_editors_see_it(ROOT / file)) == []


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_bad_files_are_flagged(file: Path) -> None:
    document = as_editors_see_it(file)
    if document is None:
        return  # no YAML: the editor says so without a schema
    which = "policies" if is_policy_file(file) else "gateway"
    assert bool(flaws(which, document)) is (file.stem not in BEYOND_A_SCHEMA)


@pytest.mark.parametrize(
    ("document", "sound"),
    [
        ({"server": {"max_headers": "${MOST}"}}, True),
        ({"server": {"max_headers": "${MOST:-100}"}}, True),
        ({"server": {"max_headers": "many"}}, False),
        ({"server": {"idle_timeout": "${IDLE:-75}s"}}, True),
        ({"server": {"listen": "127.0.0.1:${PORT}"}}, True),
        ({"log": {"level": "${LEVEL:-info}"}}, True),
        ({"server": None, "admin": {"token": None, "probes": None}}, True),  # left out
        ({"policies": "../policies"}, True),
        ({"policies": ["a.yaml", "b.yaml"]}, True),
        ({"policies": {"a": 1}}, False),
        (
            {"upstreams": {"a": {"endpoints": ["http://a", {"url": "https://b", "weight": 2}]}}},
            True,
        ),
        ({"upstreams": {"a": {"endpoints": [{"url": "https://b", "weight": "2"}]}}}, False),
        (
            {"upstreams": {"a": {"tls": {"verify": "${VERIFY:-true}"}, "endpoints": ["http://a"]}}},
            True,
        ),
    ],
)
def test_variables_and_nothing_may_stand_where_scalars_do(document: Any, sound: bool) -> None:
    assert (flaws("gateway", document) == []) is sound


@pytest.mark.parametrize(
    ("which", "document"),
    [
        ("policies", {"breakers": {"x": {}}, "retries": None}),
        ("policies", {"breakers": {"x": {"fallback": "none", "window": "1m"}}}),
        ("policies", {"breakers": {"x": {"fallback": "${INSTEAD:-stale}", "slow_rate": "100%"}}}),
        ("policies", {"breakers": {"x": {"fallback": {"upstream": "spare"}}}}),
        ("policies", {"breakers": {"x": {"fallback": {"status": 200, "headers": {"A": 1}}}}}),
        ("policies", {"breakers": {"x": {"failure_statuses": [500, "501", "502-504"]}}}),
        ("policies", {"breakers": {"x": {"failure_statuses": [], "failure_rate": "7.5%"}}}),
        ("policies", {"retries": {"x": {"on": ["timeout", 429, "503"], "methods": []}}}),
        ("policies", {"idempotency": {"x": {"scope": ["ip"]}}}),
        (
            "policies",
            {
                "idempotency": {
                    "x": {
                        "methods": ["POST", "PURGE"],
                        "required": "${STRICT:-true}",
                        "scope": ["header:X-Api-Key|ip", "path.user"],
                        "in_flight": "wait",
                        "store": ["2xx", 404, "409", "5xx"],
                        "replicas": 1,
                    }
                }
            },
        ),
        ("gateway", {"store": {"idempotency": {"url": "redis+sentinel://h/m"}}}),
        ("gateway", {"store": {"idempotency": {"url": None}}}),
        (
            "gateway",
            {
                "upstreams": {
                    "a": {
                        "endpoints": ["http://a", "http://b"],
                        "balance": "hash",
                        "hash_key": ["header:X-Api-Key|ip"],
                        "breaker": "x",
                        "retry": None,
                        "health_check": {"path": "/up?deep=1", "interval": "${EVERY:-5s}"},
                    }
                }
            },
        ),
    ],
)
def test_every_form_that_loads_is_accepted(which: str, document: Any) -> None:
    assert flaws(which, document) == []


def test_editors_are_told_what_keys_are_for() -> None:
    def sections(node: Any) -> list[dict[str, Any]]:
        found = [node] if isinstance(node, dict) and "properties" in node else []
        values = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        return found + [inner for value in values for inner in sections(value)]

    for which in VALIDATORS:
        for section in sections(schema_document(which)):
            for key, about in section["properties"].items():
                assert "description" in about or "$ref" in str(about), key
