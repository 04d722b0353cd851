"""`sluicegate check`: what it prints, strict and as JSON, and how its file is named."""

import json
from pathlib import Path

import pytest
from yaml_kit import APP, ROUTES, errors, warnings, write

from proxy.cli import main
from proxy.policy.check import check

ROOT = Path(__file__).resolve().parents[2]
NO_ROUTES = "routes: warning: no routes: every request is answered 404"


def test_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(ROOT / "config" / "demo.yaml") == 0
    there = "3 routes, 1 upstream, 2 limits, 1 cache, 0 breakers, 0 retries, 0 idempotency policies"
    assert capsys.readouterr().out == f"{ROOT}/config/demo.yaml: ok ({there})\n"


def test_warnings_are_printed_and_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "gateway.yaml", "policies: []\n")
    assert check(path) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{path}:1:1: {NO_ROUTES}",
        (
            f"{path}: ok (0 routes, 0 upstreams, 0 limits, 0 caches, 0 breakers, 0 retries, "
            "0 idempotency policies)"
        ),
    ]


def test_strict_takes_warnings_as_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "gateway.yaml", "policies: []\n")
    assert check(path, strict=True) == 2
    assert capsys.readouterr().out.splitlines() == [
        f"{path}:1:1: {NO_ROUTES}",
        f"{path}: not ok: 1 warning, which --strict takes as errors",
    ]
    assert check(ROOT / "config" / "demo.yaml", strict=True) == 0


def test_errors_and_warnings_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "policies: []\nserver: {trusted_proxies: [0.0.0.0/0], listn: 1}\nadmin: {listen: x}\n"
    path = write(tmp_path, "gateway.yaml", text)
    assert check(path) == 2
    assert [line.removeprefix(f"{path}:")[:5] for line in capsys.readouterr().out.splitlines()] == [
        "2:28:",
        "2:40:",
        "3:17:",
    ]


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "gateway.yaml", "policies: []\n")
    assert check(path, as_json=True) == 0
    problem = {
        "file": str(path),
        "line": 1,
        "column": 1,
        "key": "routes",
        "message": "no routes: every request is answered 404",
        "severity": "warning",
    }
    assert json.loads(capsys.readouterr().out) == [problem]
    assert check(path, strict=True, as_json=True) == 2
    assert json.loads(capsys.readouterr().out) == [problem]
    path.write_text("server: {listn: 1}\nb: {\n")
    assert check(path, as_json=True) == 2
    (syntax,) = json.loads(capsys.readouterr().out)
    assert (syntax["line"], syntax["column"], syntax["key"], syntax["severity"]) == (
        *(3, 1),
        "",
        "error",
    )
    assert check(ROOT / "config" / "demo.yaml", as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize("name", ["FILE", "-c FILE", "FILE -c FILE", "$SLUICEGATE_CONFIG"])
def test_the_file_is_named(
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write(tmp_path, "gateway.yaml", "policies: []\n")
    if name == "$SLUICEGATE_CONFIG":
        monkeypatch.setenv("SLUICEGATE_CONFIG", str(path))
        name = ""
    assert main(["check", *name.replace("FILE", str(path)).split()]) == 0
    assert capsys.readouterr().out.startswith(f"{path}:1:1: ")


@pytest.mark.parametrize("command", ["run", "check"])
def test_two_files_are_a_wrong_use(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main([command, "a.yaml", "-c", "b.yaml"])
    assert raised.value.code == 2
    assert "two gateway files are given: a.yaml, and -c b.yaml" in capsys.readouterr().err


def test_run_takes_the_file_as_an_argument(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().err.startswith(f"{tmp_path}/none.yaml:1:1: cannot be read")


# Limits that a client escapes


def limited(*limits: str, match: str = "", server: str = "{}") -> str:
    """A gateway whose route has these limits, each `PARTS` or `PARTS, more: keys`."""
    names = ", ".join(f"l{number}" for number in range(len(limits)))
    return (
        f"policies: [limits.yaml]\nserver: {server}\n{APP}routes:\n"
        f'  - {{name: all, match: {{path: "/{{id}}"{match}}}, upstream: app, limits: [{names}]}}\n'
    )


def policies(*limits: str) -> str:
    lines = [f"  l{n}: {{rate: 1/s, key: {key}}}\n" for n, key in enumerate(limits)]
    return "limits:\n" + "".join(lines)


TRUSTING = "{trusted_proxies: [10.0.0.0/8], trusted_headers: [X-User]}"
LISTED = ", or list the header in server.trusted_headers where a proxy sets it"


@pytest.mark.parametrize(
    ("limits", "sent"),
    [
        (['["header:X-Key"]'], "header X-Key"),
        (['["header:X-Key|ip"]'], "header X-Key"),  # who sends none is held, who sends one is not
        (['[ip, "header:X-Key"]'], "header X-Key"),  # every combination counts by itself
        (['["query:k"]'], "parameter k"),
        (['["cookie:s"]'], "cookie s"),
        (["[path.id]"], "{id} in the path"),
        (["[method]"], "method"),
        (["[host]"], "Host"),
        (['["header:X-Key"]', "[path.id]"], "header X-Key or {id} in the path"),
        (['["header:X-Key"]', "[ip], mode: shadow"], "header X-Key"),
        (['["header:X-User|header:X-Key"]'], "header X-Key"),
    ],
)
def test_a_route_without_a_limit_that_binds_everybody(
    limits: list[str], sent: str, tmp_path: Path
) -> None:
    write(tmp_path, "limits.yaml", policies(*limits))
    (warning,) = warnings(tmp_path, limited(*limits, server=TRUSTING))
    assert warning.partition(": warning: ")[2] == (
        f"do not bind a client that sends a new {sent} each time: add a limit with key: [ip]"
        + (LISTED if "header" in sent else "")
    )
    assert warning.startswith("gateway.yaml:5:")
    assert ": routes[0].limits: " in warning


@pytest.mark.parametrize(
    ("limits", "match"),
    [
        (["[ip]"], ""),
        (["[global]"], ""),
        (["[ip, route]"], ""),
        (['["header:x-user"]'], ""),  # set by a trusted proxy
        (['["header:X-Key|ip"]', "[ip]"], ""),
        (['["header:X-Key"]', "[global], charge: miss"], ", hosts: [a.example]"),
        (["[method]"], ", methods: [GET]"),
        (["[host]"], ", hosts: [a.example]"),
        (['["header:X-Key"], mode: shadow'], ""),  # refuses nobody, and is meant to
        ([], ""),
    ],
)
def test_a_limit_that_binds_everybody_is_enough(
    limits: list[str], match: str, tmp_path: Path
) -> None:
    write(tmp_path, "limits.yaml", policies(*limits))
    found = warnings(tmp_path, limited(*limits, match=match, server=TRUSTING))
    assert [line for line in found if "do not bind" in line] == []


def test_a_wildcard_host_is_open(tmp_path: Path) -> None:
    write(tmp_path, "limits.yaml", policies("[host]"))
    (warning,) = warnings(tmp_path, limited("[host]", match=', hosts: ["*.a.example"]'))
    assert "sends a new Host each time" in warning


# What a cache does not tell apart

POLICIES = """\
limits:
  per-key: {rate: 10/s, key: ["header:X-Api-Key|ip"]}
  per-plan: {rate: 1/s, key: [ip, "header:Host"],
             overrides: [{when: {"header:X-Plan": gold}, rate: 2/s}]}
  joined: {rate: 10/s, key: ["header:x-api-key+"]}
  tenant: {rate: 10/s, key: [ip, "header:X-Tenant"]}
  others: {rate: 10/s, key: [ip, "header:Authorization", "header:x-user", "header:Cookie"]}
idempotency:
  orders: {scope: ["header:X-Api-Key"]}
caches:
  pages: {CACHE}
"""


def shown(folder: Path, route: str, cache: str) -> list[str]:
    """What is warned of, where a route has a cache and more."""
    write(folder, "policies.yaml", POLICIES.replace("{CACHE}", cache))
    text = f"policies: [policies.yaml]\nserver: {TRUSTING}\n{APP}{ROUTES}"
    found = warnings(folder, text.replace("upstream: app", f"upstream: app, cache: pages, {route}"))
    start = "routes[0].cache: warning: "
    return [line.partition(start)[2] for line in found if start in line]


@pytest.mark.parametrize(
    ("route", "cache", "reads", "spans"),
    [
        ("limits: [per-key]", "{default_ttl: 1m}", "limit per-key tells", "default_ttl"),
        ("limits: [per-key]", "{ttl: 1m}", "limit per-key tells", "ttl"),
        ("limits: [per-key, joined]", "{ttl: 1m, default_ttl: 1m}",
         "limit per-key and limit joined tell", "default_ttl and ttl"),
        ("idempotency: orders", "{ttl: 1m}", "idempotency orders tells", "ttl"),
        ("limits: [per-key]", "{ttl: 1m, key: {headers: [X-Tenant]}}",
         "limit per-key tells", "ttl"),
    ],
)  # fmt: skip
def test_a_cache_that_does_not_tell_callers_apart(
    route: str, cache: str, reads: str, spans: str, tmp_path: Path
) -> None:
    (said,) = shown(tmp_path, route, cache)
    assert said == (
        f'"pages" does not key X-Api-Key, by which {reads} callers apart, and its {spans} has '
        "answers stored that the origin did not mark as cacheable: add X-Api-Key to key.headers "
        f'of "pages", or leave {spans} out'
    )


def test_each_header_that_a_cache_does_not_key_is_named(tmp_path: Path) -> None:
    found = shown(tmp_path, "limits: [per-key, tenant]", "{ttl: 1m}")
    assert [line.split(",")[0] for line in found] == [
        '"pages" does not key X-Api-Key', '"pages" does not key X-Tenant',
    ]  # fmt: skip


def test_what_an_override_reads_counts_and_host_is_in_every_key(tmp_path: Path) -> None:
    (said,) = shown(tmp_path, "limits: [per-plan]", "{ttl: 1m}")
    assert said.startswith('"pages" does not key X-Plan, by which limit per-plan tells callers')


@pytest.mark.parametrize(
    ("route", "cache"),
    [
        ("limits: [per-key]", "{}"),
        ("limits: [per-key]", "{default_ttl: 0s, ttl: 0s}"),
        ("limits: [per-key]", "{ttl: 1m, key: {headers: [x-api-key]}}"),
        ("limits: [others]", "{ttl: 1m}"),  # such answers need the origin's leave
    ],
)
def test_caches_that_need_no_mend(route: str, cache: str, tmp_path: Path) -> None:
    assert shown(tmp_path, route, cache) == []


# What is unused


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("limits: [per-key]", "limits: [per-kye]"),
        ("limits: [per-key]", "limit: [per-key]"),
        ("upstream: app", "upstream: ap"),
        ("routes:", "rutes:"),
        ("cache: pages", "cache: page"),
    ],
)
def test_nothing_is_unused_because_of_an_error(right: str, wrong: str, tmp_path: Path) -> None:
    """A misspelled name would make what it means look unused."""
    policy = "limits: {per-key: {rate: 1/s, key: [ip]}}\ncaches: {pages: {}}\n"
    write(tmp_path, "limits.yaml", policy)
    text = f"policies: [limits.yaml]\n{APP}{ROUTES}".replace(
        "upstream: app", "upstream: app, limits: [per-key], cache: pages"
    )
    assert warnings(tmp_path, text) == []
    path = write(tmp_path, "gateway.yaml", text.replace(right, wrong))
    assert len(errors(tmp_path, path.read_text())) == 1
    assert check(path) == 2


def test_only_the_error_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "limits.yaml", "limits: {per-key: {rate: 1/s, key: [ip]}}\n")
    routes = ROUTES.replace("upstream: app", "upstream: app, limits: [per-kye]")
    path = write(tmp_path, "gateway.yaml", f"policies: [limits.yaml]\n{APP}{routes}")
    assert check(path) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith('no limit is called "per-kye"; did you mean "per-key"?')
