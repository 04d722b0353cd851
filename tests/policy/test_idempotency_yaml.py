"""Idempotency policies in the YAML: defaults, forms, and what is only warned of."""

from pathlib import Path

import pytest
from yaml_kit import errors, loaded, warnings, write

from proxy.policy.compile import config_hash

MEMORY = "is kept by memory://: its records are this process's own, and end with it"
POLICY = """\
idempotency:
  x: {scope: ["header:X-Api-Key"], %s}
"""


def gateway(
    *, route: str = "idempotency: x", match: str = "", app: str = "", store: str = ""
) -> str:
    """A gateway file with one route that names the policy x, on Redis."""
    return f"""\
policies: [policies.yaml]
store: {store or "{url: 'redis://h'}"}
upstreams: {{app: {{endpoints: ["http://a"], {app}}}}}
routes: [{{name: all, match: {{path: "/{{user}}", {match}}}, upstream: app, {route}}}]
"""


def test_the_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", POLICY % "")
    found = loaded(tmp_path, gateway())
    assert found.warnings == []
    assert found.draft.store.section.idempotency.url is None
    policy = found.draft.idempotency["x"].section
    assert (policy.methods, policy.required, policy.ttl) == (["POST", "PATCH"], False, 86_400)
    assert (policy.scope, policy.in_flight) == (["header:X-Api-Key"], "conflict")
    assert (policy.wait_timeout, policy.store) == (30, ["2xx", "3xx", "4xx", "500"])
    assert (policy.on_unknown, policy.on_store_failure) == ("hold", "deny")
    assert (policy.replicas, policy.max_body) == (0, 1024 * 1024)


def test_a_route_has_none_unless_it_says_so(tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", POLICY % "")
    found = loaded(tmp_path, gateway(route=""))
    assert found.draft.routes[0].section.idempotency is None
    assert [str(w).removeprefix(f"{tmp_path}/") for w in found.warnings] == [
        "policies.yaml:2:3: idempotency.x: warning: no route uses this policy"
    ]


def test_every_key_is_read(tmp_path: Path) -> None:
    given = (
        "methods: [PUT, PURGE], required: true, ttl: 1h, in_flight: wait, wait_timeout: 250ms,"
        ' store: [2xx, 404, "409", 503], on_unknown: release, on_store_failure: allow,'
        " replicas: 2, max_body: 4KiB"
    )
    write(tmp_path, "policies.yaml", POLICY % given)
    found = loaded(tmp_path, gateway())
    assert found.warnings == []
    policy = found.draft.idempotency["x"].section
    assert (policy.methods, policy.required, policy.ttl) == (["PUT", "PURGE"], True, 3600)
    assert (policy.in_flight, policy.wait_timeout) == ("wait", 0.25)
    assert policy.store == ["2xx", "404", "409", "503"]
    assert (policy.on_unknown, policy.on_store_failure) == ("release", "allow")
    assert (policy.replicas, policy.max_body) == (2, 4096)


@pytest.mark.parametrize(
    ("policy", "same"),
    [
        ("ttl: 24h", True),
        ("store: [2xx, 3xx, 4xx, 500]", True),
        ("ttl: 25h", False),
        ("store: [2xx, 3xx, 4xx]", False),
        ("required: true", False),
    ],
)
def test_the_hash_is_of_idempotency_too(policy: str, same: bool, tmp_path: Path) -> None:
    def hash_of(policy: str) -> str:
        write(tmp_path, "policies.yaml", POLICY % policy)
        return config_hash(loaded(tmp_path, gateway()).draft)

    assert (hash_of(policy) == hash_of("")) is same


def test_a_name_that_an_unread_file_may_have_is_not_called_unknown(tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", "idempotency: {x: [}\n")
    assert len(errors(tmp_path, gateway(route="idempotency: y"))) == 1


@pytest.mark.parametrize("methods", ["[TRACE]", "[GET]", "[HEAD]", "[OPTIONS]", "[SEARCH]"])
def test_safe_methods_need_no_key(methods: str, tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", POLICY % f"methods: {methods}")
    (error,) = errors(tmp_path, gateway())
    assert "idempotency.x.methods[0]: " in error


def test_a_route_of_some_of_the_methods_is_fine(tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", POLICY % "")
    assert warnings(tmp_path, gateway(match="methods: [GET, PATCH]")) == []


# Warnings


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        ("[ip]", "is an address, not a caller: those behind one share their keys"),
        ("[ip, global]", "is an address, not a caller: those behind one share their keys"),
        ("[route, 'ip|host']", "is an address, not a caller: those behind one share their keys"),
        (
            "[global]",
            "is the same for everybody: whoever knows a key could be given another's answer",
        ),
        (
            "[route, method]",
            "is the same for everybody: whoever knows a key could be given another's answer",
        ),
        (
            "[global, 'header:Idempotency-Key']",  # those that guess a key have its scope with it
            "is the same for everybody: whoever knows a key could be given another's answer",
        ),
        (
            "['header:idempotency-KEY|ip']",
            "is an address, not a caller: those behind one share their keys",
        ),
        ("['header:X-Api-Key|ip']", None),
        ("[ip, 'cookie:session']", None),
        ("[path.user]", None),
    ],
)
def test_scopes_that_tell_no_callers_apart(scope: str, message: str | None, tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", f"idempotency:\n  x:\n    scope: {scope}\n")
    said = f"policies.yaml:3:12: idempotency.x.scope: warning: {message}"
    assert warnings(tmp_path, gateway()) == ([said] if message else [])


@pytest.mark.parametrize(
    ("policy", "warning"),
    [
        (
            "wait_timeout: 5s",
            "2:50: idempotency.x.wait_timeout: warning: has no use while in_flight is conflict",
        ),
        ("wait_timeout: 5s, in_flight: wait", None),
        ("store: [2xx, 204]", "2:49: idempotency.x.store[1]: warning: is part of 2xx already"),
        ("store: [204, 2xx]", "2:44: idempotency.x.store[0]: warning: is part of 2xx already"),
        ("store: [4xx, 429, 5xx, 503]", None),  # those have to be named
        (
            "max_body: 11MiB",
            (
                "2:46: idempotency.x.max_body: warning: "
                "is more than server.max_body_bytes: only answers can be that large"
            ),
        ),
        ("max_body: 10MiB", None),
    ],
)
def test_warnings_of_policies(policy: str, warning: str | None, tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", POLICY % policy)
    said = [] if warning is None else [f"policies.yaml:{warning}"]
    assert warnings(tmp_path, gateway() + "server: {max_body_bytes: 10MiB}\n") == said


@pytest.mark.parametrize(("ttl", "told"), [("29s", True), ("30s", False)])
def test_keys_that_are_forgotten_before_there_is_an_answer(
    ttl: str, told: bool, tmp_path: Path
) -> None:
    write(tmp_path, "policies.yaml", POLICY % f"ttl: {ttl}")
    said = (
        "gateway.yaml:4:78: routes[0].idempotency: warning: "
        "x forgets after 29s, but an answer may take 30s (deadline)"
    )
    assert warnings(tmp_path, gateway()) == ([said] if told else [])


# Where the records are


@pytest.mark.parametrize(
    ("store", "told"),
    [
        ("{url: 'memory://'}", True),
        ("{url: 'redis://h'}", False),
        ("{url: 'memory://', idempotency: {url: 'redis://h'}}", False),
        ("{url: 'redis://h', idempotency: {url: 'memory://'}}", True),
    ],
)
def test_memory_is_told_of(store: str, told: bool, tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", POLICY % "")
    said = f"policies.yaml:2:3: idempotency.x: warning: {MEMORY}"
    assert warnings(tmp_path, gateway(store=store)) == ([said] if told else [])


@pytest.mark.parametrize(
    ("url", "max_body", "told"),
    [
        ("memory://", "64MiB", True),
        ("memory://", "63MiB", False),
        ("redis://h", "64MiB", False),
    ],
)
def test_answers_that_memory_cannot_hold(
    url: str, max_body: str, told: bool, tmp_path: Path
) -> None:
    write(tmp_path, "policies.yaml", POLICY % f"max_body: {max_body}")
    said = [] if url != "memory://" else [f"policies.yaml:2:3: idempotency.x: warning: {MEMORY}"]
    if told:
        said.append(
            "policies.yaml:2:46: idempotency.x.max_body: warning: "
            "is more than memory:// can hold: it has 64MiB for all records together"
        )
    assert warnings(tmp_path, gateway(store=f"{{url: '{url}'}}")) == said


@pytest.mark.parametrize(
    ("store", "refused"),
    [
        ("{url: 'redis://h', idempotency: {url: 'memory://'}}", True),
        ("{idempotency: {url: 'redis+sentinel://h/m'}}", False),
    ],
)
def test_replicas_are_those_of_the_records_store(store: str, refused: bool, tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", POLICY % "replicas: 1")
    text = gateway(store=store)
    if refused:
        assert errors(tmp_path, text) == [
            (
                "policies.yaml:2:46: idempotency.x.replicas: "
                "needs a Redis store: memory:// has no replicas"
            )
        ]
    else:
        assert warnings(tmp_path, text) == []


def test_workers_may_have_memory_where_nothing_is_recorded(tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", "")
    store = "{url: 'redis://h', idempotency: {url: 'memory://'}}\nserver: {workers: 2}"
    assert warnings(tmp_path, gateway(route="", store=store)) == []


def test_workers_of_a_store_in_memory_are_refused_once(tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", POLICY % "")
    found = errors(tmp_path, gateway(store="{url: 'memory://'}\nserver: {workers: 2}"))
    assert [line.split(": ")[1] for line in found] == ["server.workers"]


def test_records_elsewhere_need_prefix_timeout_and_tls(tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", POLICY % "")
    store = (
        "{timeout: 1s, prefix: a, tls: {verify: true}, on_failure: deny, "
        "idempotency: {url: 'rediss://:s@h'}}"
    )
    found = loaded(tmp_path, gateway(store=store))
    assert [w.path for w in found.warnings] == ["store.on_failure"]
    assert str(found.draft.store.section.idempotency.url) == "rediss://h:6379"
