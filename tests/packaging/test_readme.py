"""The README tells the truth: its examples pass `check`, its key tables are the schema's keys, its
worked example is what the algorithms do."""

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.core.limits import ALGORITHMS
from proxy.core.limits.decision import Rate

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
# Of the same length, so that a comment in an example is no heading.
PROSE = re.sub("^```.*?^```", lambda it: "`" * len(it[0]), README, flags=re.MULTILINE | re.DOTALL)
SECOND = 1_000_000


def section(heading: str) -> str:
    """The text under a heading (given with its #s), up to the next of the same level or above."""
    level = heading.split(" ")[0]
    start = PROSE.index(f"\n{heading}\n") + len(heading) + 2
    end = re.search(rf"^#{{1,{len(level)}}} ", PROSE[start:], re.MULTILINE)
    return README[start : start + end.start()] if end else README[start:]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def tables(text: str) -> Iterator[list[list[str]]]:
    """Every table as rows of cells, the head first, the rule left out."""
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        rows = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in table.splitlines()
        ]
        yield [rows[0], *rows[2:]]


def sluicegate(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "proxy", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_first_policy_is_what_init_writes(tmp_path: Path) -> None:
    gateway, limits = blocks(section("## A first policy"), "yaml")
    sluicegate("init", tmp_path)
    assert yaml.safe_load(gateway) == yaml.safe_load((tmp_path / "gateway.yaml").read_text())
    assert yaml.safe_load(limits) == yaml.safe_load((tmp_path / "limits.yaml").read_text())
    assert len((gateway + limits).splitlines()) <= 12


def test_what_init_writes_passes_check(tmp_path: Path) -> None:
    sluicegate("init", tmp_path)
    sluicegate("check", "--strict", tmp_path / "gateway.yaml")


RECIPES = blocks(section("### Recipes"), "yaml")


@pytest.mark.parametrize(
    ("policies", "routes"),
    list(zip(RECIPES[::2], RECIPES[1::2], strict=True)),
    ids=["an API with tags", "somebody else's API", "per tenant"],
)
def test_recipes_pass_check_without_a_warning(policies: str, routes: str, tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text(policies)
    upstreams = 'policies: [policies.yaml]\nupstreams: {app: {endpoints: ["http://a"]}}\n'
    (tmp_path / "gateway.yaml").write_text(upstreams + routes)
    sluicegate("check", "--strict", tmp_path / "gateway.yaml")


def whole_recipes(heading: str) -> Iterator[dict[str, str]]:
    """Each recipe's files: its gateway.yaml ends it."""
    files: dict[str, str] = {}
    for block in blocks(section(heading), "yaml"):
        name = block.partition("\n")[0].removeprefix("# ")
        files[name] = block
        if name == "gateway.yaml":
            yield files
            files = {}
    assert not files


@pytest.mark.parametrize(
    "files",
    [
        *whole_recipes("### Recipes for upstreams"),
        *whole_recipes("### Recipes for payments"),
    ],
    ids=[
        "somebody else's API",
        "flaky",
        "canary",
        "sticky",
        "another region",
        "payments",
        "orders",
        "a provider",
    ],
)
def test_recipes_are_whole(files: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    sluicegate("check", "--strict", tmp_path / "gateway.yaml")


@pytest.mark.skipif(
    shutil.which("promtool") is None and not os.environ.get("CI"),
    reason="promtool (Debian: prometheus) is not here, and this is no CI run",
)
def test_the_alerts_are_promql_about_metrics_that_are_documented(tmp_path: Path) -> None:
    metrics = section("## Metrics")
    (text,) = blocks(metrics, "promql")
    alerts = re.split(r"\n(?! )", text.strip())
    rules = [{"alert": f"A{number}", "expr": expr} for number, expr in enumerate(alerts)]
    file = tmp_path / "alerts.yaml"
    file.write_text(json.dumps({"groups": [{"name": "readme", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in re.findall(r"sluicegate_\w+", text):
        assert f"| `{name.removesuffix('_count')}` |" in metrics


def test_the_example_of_policies_passes_check(tmp_path: Path) -> None:
    (limits,) = blocks(section("### limits"), "yaml")
    gateway, _ = blocks(section("## A first policy"), "yaml")
    (tmp_path / "limits.yaml").write_text(limits)
    gateway = gateway.replace("per-key, per-address", "per-key, signups, monthly").replace(
        "policies:", "server: {trusted_proxies: [10.0.0.0/8], trusted_headers: [X-Plan]}\npolicies:"
    )
    (tmp_path / "gateway.yaml").write_text(gateway)
    sluicegate("check", "--strict", tmp_path / "gateway.yaml")


def schema_keys(schema: dict[str, Any], node: dict[str, Any], path: str) -> Iterator[str]:
    """The dotted keys of a JSON Schema: `*` for any name in a map of maps, `[]` for list items."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    choices = [choice for choice in node.get("anyOf", []) if choice.get("type") != "null"]
    if len(choices) == 1:
        yield from schema_keys(schema, choices[0], path)
    elif "properties" in node:
        for name, inner in node["properties"].items():
            yield from schema_keys(schema, inner, f"{path}.{name}" if path else name)
    elif isinstance(inner := node.get("additionalProperties"), dict) and "$ref" in inner:
        yield from schema_keys(schema, inner, f"{path}.*")
    elif isinstance(inner := node.get("items"), dict) and "$ref" in inner:
        yield from schema_keys(schema, inner, f"{path}[]")
    else:
        yield path


def documented_keys(text: str, prefix: str) -> set[str]:
    """The keys in the first column of every table whose head begins with "key"."""
    keys: set[str] = set()
    for head, *rows in tables(text):
        if head[0] != "key":
            continue
        for row in rows:
            names = re.findall(r"`([^`]+)`", row[0])
            stem = names[0].rpartition(".")[0]
            keys |= {prefix + (stem + name if name.startswith(".") else name) for name in names}
    return keys


@pytest.mark.parametrize(
    ("file", "documented"),
    [
        (
            "gateway",
            documented_keys(section("### server"), "")
            | documented_keys(section("### log, admin, store, policies"), "")
            | documented_keys(section("### upstreams"), "upstreams.*.")
            | documented_keys(section("### routes"), "routes[]."),
        ),
        (
            "policies",
            documented_keys(section("### limits"), "limits.*.")
            | documented_keys(section("### caches"), "caches.*.")
            | documented_keys(section("### breakers"), "breakers.*.")
            | documented_keys(section("### retries"), "retries.*.")
            | documented_keys(section("### idempotency"), "idempotency.*."),
        ),
    ],
)
def test_every_key_is_documented_and_no_other(file: str, documented: set[str]) -> None:
    schema = json.loads(sluicegate("schema", file))
    assert set(schema_keys(schema, schema, "")) == documented


def test_the_commands_are_documented() -> None:
    said, there = section("## Operations"), sluicegate("--help")
    for command in ("run", "check", "schema", "explain", "init", "demo"):
        assert f"| `sluicegate {command}" in said
        assert command in there


def clock_rows() -> list[list[str]]:
    (table,) = [rows for rows in tables(section("## Which algorithm")) if rows[0][0] == "clock"]
    return table


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_the_worked_example_is_what_happens(name: str) -> None:
    head, *rows = clock_rows()
    algorithm = ALGORITHMS[name]
    params = algorithm.compile(Rate(6, 60 * SECOND), 2 if name == "leaky_bucket" else None)
    state = None
    for row in rows:
        clock = datetime.datetime.fromisoformat(f"2026-01-05T{row[0]}+00:00")
        now = int(clock.timestamp()) * SECOND
        passed = 0
        for _ in range(6):
            after, decision = algorithm.step(state, params, now, 1)
            if decision.allowed:
                state, passed = after, passed + 1
        assert (row[0], passed) == (row[0], int(row[head.index(name)]))
