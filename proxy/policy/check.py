"""`sluicegate check`: every error and warning of a configuration, on stdout."""

import json
from collections.abc import Sequence
from pathlib import Path

from proxy.policy.draft import Draft
from proxy.policy.load import load
from proxy.policy.problem import ConfigError, Problem


def check(path: Path, *, strict: bool = False, as_json: bool = False) -> int:
    """Prints what is wrong; 2 where there are errors, or under `strict` warnings, else 0."""
    draft: Draft | None = None
    problems: Sequence[Problem]
    try:
        loaded = load(path)
    except ConfigError as failed:
        problems = failed.problems
    else:
        problems, draft = loaded.warnings, loaded.draft
    if as_json:
        print(json.dumps([_document(problem) for problem in problems], indent=2))
    else:
        for problem in problems:
            print(problem)
        if draft is not None:
            print(_summary(path, draft, len(problems), strict))
    return 2 if draft is None or (strict and problems) else 0


def _document(problem: Problem) -> dict[str, object]:
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.col,
        "key": problem.path,
        "message": problem.message,
        "severity": "warning" if problem.warning else "error",
    }


def _summary(path: Path, draft: Draft, warnings: int, strict: bool) -> str:
    if strict and warnings:
        return f"{path}: not ok: {_count(warnings, 'warning')}, which --strict takes as errors"
    parts = (
        _count(len(draft.routes), "route"),
        _count(len(draft.upstreams), "upstream"),
        _count(len(draft.limits), "limit"),
        _count(len(draft.caches), "cache"),
        _count(len(draft.breakers), "breaker"),
        _count(len(draft.retries), "retry", "retries"),
        _count(len(draft.idempotency), "idempotency policy", "idempotency policies"),
    )
    return f"{path}: ok ({', '.join(parts)})"


def _count(number: int, noun: str, several: str = "") -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {several or noun + 's'}"
