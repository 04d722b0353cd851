"""`sluicegate check`: every error and warning of a configuration, on stdout."""

from pathlib import Path

from proxy.policy.load import load
from proxy.policy.problem import ConfigError


def check(path: Path) -> int:
    """Prints what is wrong; 2 where there are errors, else 0."""
    try:
        loaded = load(path)
    except ConfigError as failed:
        for problem in failed.problems:
            print(problem)
        return 2
    for warning in loaded.warnings:
        print(warning)
    draft = loaded.draft
    parts = (
        _count(len(draft.routes), "route"),
        _count(len(draft.upstreams), "upstream"),
        _count(len(draft.limits), "limit"),
        _count(len(draft.caches), "cache"),
        _count(len(draft.breakers), "breaker"),
        _count(len(draft.retries), "retry", "retries"),
        _count(len(draft.idempotency), "idempotency policy", "idempotency policies"),
    )
    print(f"{path}: ok ({', '.join(parts)})")
    return 0


def _count(number: int, noun: str, several: str = "") -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {several or noun + 's'}"
