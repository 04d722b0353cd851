"""Breakers, retries, hash keys and health checks in the YAML: defaults, circles, captures of
several routes, and what is only warned of."""

from pathlib import Path

import pytest
from yaml_kit import errors, loaded, warnings, write

from proxy.policy.compile import config_hash
from proxy.policy.models.breakers import FallbackSection

TWO = 'endpoints: ["http://a", "http://b"]'
ROUTE = 'name: all, match: {path: "/{user}"}, upstream: app'


def gateway(app: str = "", *, route: str = "", more: str = "", store: str = "{}") -> str:
    """A gateway file with this upstream app, of two endpoints, and this route to it."""
    return (
        f"policies: [policies.yaml]\nstore: {store}\nupstreams:\n"
        f"  app: {{{TWO}{app and ', ' + app}}}\n{more}"
        f"routes: [{{{ROUTE}{route and ', ' + route}}}]\n"
    )


def test_the_defaults_of_breakers_and_retries_are_those_of_the_contract(tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", "breakers: {default: {}}\nretries: {default: {}}\n")
    check = "health_check: {path: /healthz}"
    found = loaded(tmp_path, gateway(f"breaker: default, retry: default, {check}"))
    assert found.warnings == []
    breaker = found.draft.breakers["default"].section
    assert (breaker.consecutive_failures, breaker.failure_rate, breaker.slow_rate) == (5, 0, 0)
    assert (breaker.slow_after, breaker.minimum_requests, breaker.window) == (2, 20, 10)
    assert (breaker.open_for, breaker.open_max, breaker.half_open_requests) == (30, 300, 2)
    assert breaker.failure_statuses == [range(500, 501), range(502, 505)]
    assert (breaker.shared, breaker.fallback) == (False, "none")
    retry = found.draft.retries["default"].section
    assert (retry.attempts, retry.backoff, retry.backoff_max) == (3, 0.05, 1)
    assert (retry.budget, retry.on) == (0.2, ["connect_error", "reset", "502", "503", "504"])
    assert retry.methods == ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"]
    app = found.draft.upstreams["app"].section
    assert (app.breaker, app.retry, app.hash_key) == ("default", "default", None)
    assert app.health_check is not None
    assert (app.health_check.path, app.health_check.interval) == ("/healthz", 5)
    health = app.health_check
    assert (health.timeout, health.unhealthy_after, health.healthy_after) == (1, 3, 2)


def test_an_upstream_has_none_of_them_unless_it_says_so(tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", "")
    app = loaded(tmp_path, gateway()).draft.upstreams["app"].section
    assert (app.breaker, app.retry, app.health_check, app.hash_key) == (None, None, None, None)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("none", "none"),
        ("stale", "stale"),
        ("{status: 200}", FallbackSection(status=200)),
        (
            "{headers: {Content-Type: text/plain}, body: 1.10}",
            FallbackSection(status=503, headers={"Content-Type": "text/plain"}, body="1.10"),
        ),
        ("{upstream: spare}", FallbackSection(upstream="spare")),
        ("", "none"),
        ("${INSTEAD:-stale}", "stale"),
    ],
)
def test_the_forms_of_a_fallback(written: str, meant: object, tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", f"breakers:\n  x:\n    fallback: {written}\n")
    spare = f"  spare: {{{TWO}}}\n"
    draft = loaded(tmp_path, gateway("breaker: x", more=spare)).draft
    assert draft.breakers["x"].section.fallback == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("[503]", [range(503, 504)]),
        ('["503"]', [range(503, 504)]),
        ("[500-599, 429]", [range(500, 600), range(429, 430)]),
        ("[]", []),
    ],
)
def test_the_forms_of_failure_statuses(written: str, meant: list[range], tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", f"breakers: {{x: {{failure_statuses: {written}}}}}\n")
    draft = loaded(tmp_path, gateway("breaker: x")).draft
    assert draft.breakers["x"].section.failure_statuses == meant


def test_a_health_check_may_ask_with_a_query(tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", "")
    draft = loaded(tmp_path, gateway('health_check: {path: "/up?deep=1&x=%20"}')).draft
    health = draft.upstreams["app"].section.health_check
    assert health is not None
    assert health.path == "/up?deep=1&x=%20"


def test_replicas_tell_each_other_through_redis(tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", "breakers: {x: {shared: true}}\n")
    found = loaded(tmp_path, gateway("breaker: x", store="{url: 'redis://h'}"))
    assert found.warnings == []


@pytest.mark.parametrize(
    ("breaker", "retry", "same"),
    [
        ('{window: 10s, failure_statuses: [500, "502-504"]}', "{on: [reset, 503]}", True),
        ('{failure_statuses: [500, "502-503"]}', "{on: [reset, 503]}", False),
        ("{fallback: {body: later}}", "{on: [reset, 503]}", False),
        ("{}", "{on: [reset, 502]}", False),
    ],
)
def test_the_hash_is_of_breakers_and_retries_too(
    breaker: str, retry: str, same: bool, tmp_path: Path
) -> None:
    def hash_of(breaker: str, retry: str) -> str:
        write(tmp_path, "policies.yaml", f"breakers: {{x: {breaker}}}\nretries: {{y: {retry}}}\n")
        return config_hash(loaded(tmp_path, gateway("breaker: x, retry: y")).draft)

    assert (hash_of(breaker, retry) == hash_of("{}", "{on: [reset, 503]}")) is same


# Fallbacks to other upstreams

CHAIN = """\
breakers:
  first: {fallback: {upstream: b}}
  second: {fallback: {upstream: c}}
  third: {fallback: {upstream: %s}}
"""
THREE = f"  b: {{{TWO}, breaker: second}}\n  c: {{{TWO}, breaker: third}}\n"


def test_a_circle_of_fallbacks_is_named_whole_and_once(tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", CHAIN % "app")
    assert errors(tmp_path, gateway("breaker: first", more=THREE)) == [
        (
            "policies.yaml:2:32: breakers.first.fallback.upstream: "
            "leads back to where it came from: app → b → c → app"
        )
    ]


def test_a_circle_is_named_without_the_way_into_it(tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", CHAIN % "b")
    assert errors(tmp_path, gateway("breaker: first", more=THREE)) == [
        (
            "policies.yaml:3:33: breakers.second.fallback.upstream: "
            "leads back to where it came from: b → c → b"
        )
    ]


def test_upstreams_that_share_a_breaker_may_share_its_fallback(tmp_path: Path) -> None:
    """A fallback in use is no upstream without use, and no circle."""
    write(tmp_path, "policies.yaml", "breakers: {x: {fallback: {upstream: spare}}}\n")
    more = f"  other: {{{TWO}, breaker: x}}\n  spare: {{{TWO}}}\n"
    assert warnings(tmp_path, gateway("breaker: x", more=more)) == [
        "gateway.yaml:5:3: upstreams.other: warning: no route uses this upstream"
    ]


def test_the_fallback_of_an_upstream_without_use_has_none_either(tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", "breakers: {x: {fallback: {upstream: spare}}}\n")
    more = f"  other: {{{TWO}, breaker: x}}\n  spare: {{{TWO}}}\n"
    assert [line.split(": ")[1] for line in warnings(tmp_path, gateway(more=more))] == [
        "upstreams.other",
        "upstreams.spare",
    ]


def test_a_key_of_captures_is_for_routes_that_have_them_also_by_a_fallback(tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", "breakers: {x: {fallback: {upstream: spare}}}\n")
    spare = f"  spare: {{{TWO}, balance: hash, hash_key: [path.id, 'path.user|ip']}}\n"
    assert errors(tmp_path, gateway("breaker: x", more=spare)) == [
        (
            "gateway.yaml:6:58: routes[0].upstream: "
            "spare hashes by path.id, but {id} is not in match.path"
        )
    ]


def test_a_name_that_an_unread_file_may_have_is_not_called_unknown(tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", "breakers: {x: [}\n")
    assert len(errors(tmp_path, gateway("breaker: x, retry: y"))) == 1


# Warnings


@pytest.mark.parametrize(
    ("breaker", "warning"),
    [
        (
            "{consecutive_failures: 0}",
            (
                "2:3: breakers.x: warning: "
                "never opens: consecutive_failures, failure_rate and slow_rate are all 0"
            ),
        ),
        ("{consecutive_failures: 0, failure_rate: 50%}", None),
        ("{consecutive_failures: 0, slow_rate: 50%}", None),
        (
            "{failure_rate: 50%, slow_after: 1s}",
            "2:38: breakers.x.slow_after: warning: has no use while slow_rate is 0%",
        ),
        ("{slow_rate: 50%, slow_after: 1s, window: 5s, minimum_requests: 5}", None),
        (
            "{window: 5s}",
            "2:15: breakers.x.window: warning: has no use while failure_rate and slow_rate are 0%",
        ),
        (
            "{minimum_requests: 5}",
            (
                "2:25: breakers.x.minimum_requests: warning: "
                "has no use while failure_rate and slow_rate are 0%"
            ),
        ),
        ("{failure_rate: 50%, window: 5s, minimum_requests: 5}", None),
        (
            "{failure_statuses: [100, 503]}",
            (
                "2:26: breakers.x.failure_statuses[0]: warning: "
                "is the status of no final answer: those begin at 200"
            ),
        ),
        ("{failure_statuses: [100-599]}", None),
    ],
)
def test_warnings_of_breakers(breaker: str, warning: str | None, tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", f"breakers:\n  x: {breaker}\n")
    said = [] if warning is None else [f"policies.yaml:{warning}"]
    assert warnings(tmp_path, gateway("breaker: x")) == said


@pytest.mark.parametrize(
    ("retry", "warning"),
    [
        (
            "{attempts: 1}",
            (
                "2:17: retries.x.attempts: warning: "
                "never sends anything again: it counts the first try"
            ),
        ),
        (
            "{on: [404]}",
            (
                "2:12: retries.x.on[0]: warning: "
                "404 blames the request: the same one would get the same answer"
            ),
        ),
        ("{on: [408, 425, 429, 500, timeout]}", None),
        (
            "{methods: [GET, POST]}",
            (
                "2:22: retries.x.methods[1]: warning: "
                "POST is sent again only where no byte of it was sent, listed or not"
            ),
        ),
        (
            "{methods: [PATCH]}",
            (
                "2:17: retries.x.methods[0]: warning: "
                "PATCH is sent again only where no byte of it was sent, listed or not"
            ),
        ),
        ("{methods: [SEARCH, PROPFIND]}", None),
        ("{methods: []}", None),
        (
            "{methods: [], on: [reset]}",
            (
                "2:16: retries.x.methods: warning: "
                "is empty: then only a connect_error is tried again, and on does not name it"
            ),
        ),
    ],
)
def test_warnings_of_retries(retry: str, warning: str | None, tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", f"retries:\n  x: {retry}\n")
    said = [] if warning is None else [f"policies.yaml:{warning}"]
    assert warnings(tmp_path, gateway("retry: x")) == said


def test_policies_that_no_upstream_uses(tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", "breakers:\n  x: {}\nretries:\n  y: {}\n")
    assert warnings(tmp_path, gateway()) == [
        "policies.yaml:2:3: breakers.x: warning: no upstream uses this breaker",
        "policies.yaml:4:3: retries.y: warning: no upstream uses this retry",
    ]


@pytest.mark.parametrize(
    ("route", "told"), [("", True), ("cache: pages", False)], ids=["without", "with a cache"]
)
def test_stale_answers_need_a_cache(route: str, told: bool, tmp_path: Path) -> None:
    caches = "caches: {pages: {}}\n" if route else ""
    write(tmp_path, "policies.yaml", "breakers: {x: {fallback: stale}}\n" + caches)
    message = (
        "gateway.yaml:4:55: upstreams.app.breaker: warning: "
        "x falls back to stale answers, but no route to this upstream has a cache"
    )
    assert warnings(tmp_path, gateway("breaker: x", route=route)) == ([message] if told else [])


@pytest.mark.parametrize(("deadline", "told"), [("1s", True), ("2s", True), ("3s", False)], ids=str)
def test_waits_that_do_not_fit_the_deadline(deadline: str, told: bool, tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", "retries: {x: {backoff: 2s, backoff_max: 4s}}\n")
    app = f"retry: x, connect_timeout: 1s, deadline: {deadline}"
    message = (
        "gateway.yaml:4:53: upstreams.app.retry: warning: "
        f"waits of up to 2s do not fit into the deadline of {deadline}"
    )
    assert warnings(tmp_path, gateway(app)) == ([message] if told else [])


@pytest.mark.parametrize(
    ("app", "warning"),
    [
        (
            "endpoints: ['http://a'], balance: hash, hash_key: [ip]",
            "4:43: upstreams.app.balance: warning: has no use: there is one endpoint",
        ),
        (
            f"{TWO}, balance: hash, hash_key: [global]",
            (
                "4:71: upstreams.app.hash_key: warning: "
                "is the same for every request: one endpoint gets them all"
            ),
        ),
    ],
)
def test_warnings_of_hashing(app: str, warning: str, tmp_path: Path) -> None:
    write(tmp_path, "policies.yaml", "")
    text = gateway().replace(TWO, app)
    assert warnings(tmp_path, text) == [f"gateway.yaml:{warning}"]
