"""Loading: every error in one pass, files found and named, warnings, defaults, TLS files."""

from pathlib import Path

import pytest
import trustme
from yaml_kit import APP, ROUTES, errors, loaded, warnings, write

from proxy.core.store_urls import MEMORY
from proxy.policy.load import load
from proxy.policy.problem import ConfigError, dotted, suggest


def test_every_error_of_every_file_in_one_pass(tmp_path: Path) -> None:
    write(
        tmp_path,
        "policies/a.yaml",
        "limits:\n  one: {rate: 1/s, kee: [ip], key: [ip]}\n  two: {rate: 5, key: []}\n",
    )
    write(tmp_path, "policies/b.yaml", "limits:\n  one: {rate: 2/s, key: [ip]\n")
    write(tmp_path, "policies/c.yaml", "limits:\n  two: {rate: 1/x, key: [ip]}\nrouts: 1\n")
    text = (
        "policies: policies\n"
        "server: {listen: 80, workers: 2, max_headers: '${NONE}'}\n"
        "admin: {listen: 0.0.0.0:9090, lisen: x}\n"
        "upstreams:\n"
        "  app: {endpoints: [localhost, 'http://a?b'], deadline: 1}\n"
        "routes:\n"
        "  - {name: a, match: {path: x, methods: [get, TRACE]}, upstream: ap, nope: 1}\n"
        "  - {name: a, match: {path: /x}, upstream: app, strip_prefix: /y, rewrite: '{id}'}\n"
    )
    assert [line.partition(": ")[0] for line in errors(tmp_path, text)] == [
        "gateway.yaml:2:18",  # listen
        "gateway.yaml:2:31",  # workers
        "gateway.yaml:2:47",  # the variable, and not also max_headers
        "gateway.yaml:3:8",  # the token is missing
        "gateway.yaml:3:31",  # lisen
        "gateway.yaml:5:21",  # the first endpoint
        "gateway.yaml:5:32",  # the second one
        "gateway.yaml:5:57",  # deadline
        "gateway.yaml:7:29",  # path
        "gateway.yaml:7:42",  # get
        "gateway.yaml:7:47",  # TRACE
        "gateway.yaml:7:66",  # upstream
        "gateway.yaml:7:70",  # nope
        "gateway.yaml:8:12",  # the name again
        "gateway.yaml:8:63",  # strip_prefix
        "gateway.yaml:8:76",  # rewrite
        "policies/a.yaml:2:20",
        "policies/a.yaml:3:15",
        "policies/a.yaml:3:23",
        "policies/b.yaml:3:1",
        "policies/c.yaml:2:3",  # two is defined already
        "policies/c.yaml:2:15",
        "policies/c.yaml:3:1",
    ]


def test_a_policy_file_that_cannot_be_read_hides_no_limit(tmp_path: Path) -> None:
    """A limit that may stand in an unreadable file is not called unknown."""
    write(tmp_path, "p.yaml", "limits: {x: [}\n")
    routes = ROUTES.replace("upstream: app", "upstream: app, limits: [x]")
    assert len(errors(tmp_path, f"policies: [p.yaml]\n{APP}{routes}")) == 1


def test_a_missing_gateway_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path / "none.yaml", {})
    path = tmp_path / "none.yaml"
    assert str(raised.value) == f"{path}:1:1: cannot be read: No such file or directory"
    assert raised.value.sources.files == (path,)


def test_the_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    draft = loaded(tmp_path, f"policies: []\n{APP}{ROUTES}").draft
    server, admin = draft.server.section, draft.admin.section
    assert str(server.listen) == "127.0.0.1:8080"
    assert (server.workers, server.max_headers, server.max_connections) == (1, 100, 10000)
    assert (server.max_header_bytes, server.max_target_bytes) == (32 * 1024, 8 * 1024)
    assert server.max_body_bytes == 100 * 1024 * 1024
    assert server.body_buffer == 64 * 1024 * 1024
    assert (server.header_timeout, server.body_timeout, server.idle_timeout) == (10, 30, 75)
    assert (server.drain_delay, server.drain_timeout) == (0, 20)
    assert (server.client_ip_header, server.ratelimit_headers) == ("x-forwarded-for", "standard")
    assert (server.tls, server.health_path, server.trusted_proxies) == (None, None, [])
    assert (str(admin.listen), admin.token, admin.probes) == ("127.0.0.1:9090", None, None)
    log = draft.log.section
    assert (log.level, log.format, log.access) == ("info", "plain", "off")
    store = draft.store.section
    assert (store.url, store.prefix, store.timeout) == (MEMORY, "sg", 0.05)
    assert (store.on_failure, store.tls) == ("local", None)
    kept = store.cache
    assert (kept.memory, kept.url, kept.blind) == (64 * 2**20, None, 10)
    app = draft.upstreams["app"].section
    assert (app.balance, app.host_header) == ("round_robin", "preserve")
    assert (app.connect_timeout, app.response_timeout, app.read_timeout) == (1, 10, 30)
    assert (app.deadline, app.idle_timeout, app.dns_refresh) == (30, 4, 30)
    assert (app.max_connections, app.queue, app.queue_timeout) == (256, 100, 1)


def test_text_is_taken_as_written(tmp_path: Path) -> None:
    """A plain number or boolean where text is wanted is not read and written again."""
    text = (
        "policies: []\nadmin: {token: 0012345}\n" + APP + "routes:\n"
        "  - {name: 404, match: {path: /a, headers: {X-Beta: 1.10}}, upstream: app}\n"
    )
    draft = loaded(tmp_path, text).draft
    assert draft.admin.section.token == "0012345"
    assert draft.routes[0].section.name == "404"
    assert draft.routes[0].section.match.headers == {"X-Beta": "1.10"}


def test_a_bad_token_is_not_printed(tmp_path: Path) -> None:
    text = f"policies: []\nadmin: {{token: 'my s3cret'}}\n{APP}{ROUTES}"
    assert "s3cret" not in "".join(errors(tmp_path, text))
    text = f"policies: []\nupstreams: {{app: {{endpoints: ['u:s3cret@app:80']}}}}\n{ROUTES}"
    assert "s3cret" not in "".join(errors(tmp_path, text))


# Policy files


def test_policies_are_found_beside_the_gateway_files_folder_by_default(tmp_path: Path) -> None:
    write(tmp_path, "policies/b.yml", "limits: {b: {rate: 1/s, key: [ip]}}\n")
    write(tmp_path, "policies/a.yaml", "limits: {a: {rate: 1/s, key: [ip]}}\n")
    write(tmp_path, "policies/.hidden.yaml", "not: read\n")
    write(tmp_path, "policies/notes.txt", "not: read\n")
    path = write(tmp_path, "config/gateway.yaml", APP + ROUTES)
    draft = load(path, {}).draft
    assert list(draft.limits) == ["a", "b"]
    assert [file.name for file in draft.sources.files] == ["gateway.yaml", "a.yaml", "b.yml"]


def test_no_default_folder_is_no_error(tmp_path: Path) -> None:
    assert loaded(tmp_path / "x", APP + ROUTES).draft.limits == {}


def test_the_gateway_file_may_lie_in_the_policies_folder(tmp_path: Path) -> None:
    write(tmp_path, "limits.yaml", "limits: {a: {rate: 1/s, key: [ip]}}\n")
    assert list(loaded(tmp_path, f"policies: .\n{APP}{ROUTES}").draft.limits) == ["a"]


def test_a_list_of_files_and_folders(tmp_path: Path) -> None:
    write(tmp_path, "one.yaml", "limits: {a: {rate: 1/s, key: [ip]}}\n")
    write(tmp_path, "more/two.yaml", "limits: {b: {rate: 1/s, key: [ip]}}\n")
    text = f"policies: [one.yaml, more]\n{APP}{ROUTES}"
    assert list(loaded(tmp_path, text).draft.limits) == ["a", "b"]
    text = f"policies: [one.yaml, more, ./one.yaml]\n{APP}{ROUTES}"
    assert errors(tmp_path, text) == [
        f"gateway.yaml:1:28: policies[2]: names {tmp_path}/one.yaml again"
    ]


# Variables


def test_variables_give_numbers_where_numbers_are_wanted(tmp_path: Path) -> None:
    text = f"policies: []\nserver:\n  max_headers: ${{MOST:-50}}\n{APP}{ROUTES}"
    assert loaded(tmp_path, text).draft.server.section.max_headers == 50
    assert loaded(tmp_path, text, MOST="60").draft.server.section.max_headers == 60
    assert errors(tmp_path, text, MOST="many") == [
        'gateway.yaml:3:16: server.max_headers: must be a whole number, not "${MOST:-50}"'
    ]


@pytest.mark.parametrize(
    ("key", "held", "message"),
    [
        ("health_path: ${X}", "ready", 'must be a plain path such as /-/ready, not "${X}"'),
        (
            "ratelimit_headers: ${X}",
            "standards",
            'must be standard, legacy, both or off, not "${X}"',
        ),
        ("ratelimit_headers: ${X}", "legac", 'must be standard, legacy, both or off, not "${X}"'),
        ("max_headers: ${X}", "number", 'must be a whole number, not "${X}"'),
        ("max_headers: '${X}'", "1234", 'must be a whole number, not "${X}"; take the quotes away'),
    ],
)
def test_no_message_is_changed_by_a_word_that_a_variable_holds(
    key: str, held: str, message: str, tmp_path: Path
) -> None:
    (error,) = errors(tmp_path, f"policies: []\nserver:\n  {key}\n{APP}{ROUTES}", X=held)
    assert message in error


def test_a_boolean_in_quotes_from_a_variable(tmp_path: Path) -> None:
    text = f'policies: []\nstore: {{tls: {{verify: "${{X}}"}}}}\n{APP}{ROUTES}'
    (error,) = errors(tmp_path, text, X="true")
    assert error.endswith('must be true or false, not "${X}"; take the quotes away')


def test_an_open_admin_port_takes_its_token_from_the_environment(tmp_path: Path) -> None:
    text = f"admin:\n  listen: 0.0.0.0:9090\n  token: ${{ADMIN_TOKEN:-}}\n{APP}{ROUTES}"
    assert loaded(tmp_path / "x", text, ADMIN_TOKEN="s3cret").draft.admin.section.token == "s3cret"
    assert errors(tmp_path / "x", text) == [
        (
            "gateway.yaml:3:10: admin.token: is empty, "
            "but 0.0.0.0:9090 can be reached from other machines"
        )
    ]


# Warnings

ROUTE = "  - {name: %s, match: %s, upstream: app}\n"


def pair(first: str, second: str) -> str:
    return f"policies: []\n{APP}routes:\n{ROUTE % ('a', first)}{ROUTE % ('b', second)}"


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            f"policies: []\n{APP}",
            "gateway.yaml:2:13: upstreams.app: warning: no route uses this upstream",
        ),
        (
            "policies: []\n",
            "gateway.yaml:1:1: routes: warning: no routes: every request is answered 404",
        ),
        (
            f"policies: []\nserver: {{trusted_headers: [X-Plan]}}\n{APP}{ROUTES}",
            (
                "gateway.yaml:2:27: server.trusted_headers: warning: "
                "has nobody to believe while trusted_proxies is empty"
            ),
        ),
        (
            f"policies: []\nserver: {{client_ip_header: Forwarded}}\n{APP}{ROUTES}",
            (
                "gateway.yaml:2:28: server.client_ip_header: warning: "
                "has nobody to believe while trusted_proxies is empty"
            ),
        ),
        (
            f"policies: []\nserver: {{trusted_proxies: [0.0.0.0/0]}}\n{APP}{ROUTES}",
            (
                "gateway.yaml:2:28: server.trusted_proxies[0]: warning: "
                "believes everyone: any client can name any address as its own"
            ),
        ),
        (
            f"policies: []\nlog: {{key_salt: s3cret}}\n{APP}{ROUTES}",
            (
                "gateway.yaml:2:17: log.key_salt: warning: "
                "is short: whoever guesses it can find out keys; take 16 characters"
            ),
        ),
        (
            "policies: []\nupstreams: {app: {endpoints: ['https://a'], tls: {verify: false}}}\n"
            + ROUTES,
            (
                "gateway.yaml:2:59: upstreams.app.tls.verify: warning: "
                "trusts whoever answers: anyone on the way can read along"
            ),
        ),
        (
            f"policies: []\n{APP}{ROUTES}".replace('9001"]', '9001"], connect_timeout: 31s'),
            (
                "gateway.yaml:2:74: upstreams.app.connect_timeout: warning: "
                "is longer than the deadline of 30s, which ends first"
            ),
        ),
        (
            pair('{path: "/{rest:path}"}', "{path: /x}"),
            (
                "gateway.yaml:5:22: routes[1].match: warning: "
                "never reached: routes[0] takes all its requests"
            ),
        ),
    ],
)
def test_warnings(text: str, warning: str, tmp_path: Path) -> None:
    assert warning in warnings(tmp_path, text)


def test_invalidating_without_a_cache(tmp_path: Path) -> None:
    routes = ROUTES.replace("upstream: app", "upstream: app, invalidate: [users]")
    assert warnings(tmp_path, f"policies: []\n{APP}{routes}") == [
        "gateway.yaml:3:80: routes[0].invalidate: warning: has no use: no cache is defined"
    ]


@pytest.mark.parametrize(
    ("keys", "methods", "told"),
    [
        ("", "", True),
        (", cache: pages", "", False),
        (", cache: pages", ", methods: [POST]", True),
        (", idempotency: once", ", methods: [POST]", False),
    ],
    ids=["without", "with a cache", "with a cache for nothing", "with replays"],
)
def test_charging_misses_without_a_cache(
    keys: str, methods: str, told: bool, tmp_path: Path
) -> None:
    policies = "limits: {x: {rate: 1/s, key: [ip], charge: miss}}\ncaches: {pages: {}}\n"
    policies += "idempotency: {once: {scope: ['header:X-Key']}}\n"
    write(tmp_path, "x.yaml", policies)
    routes = ROUTES.replace("upstream: app", f"upstream: app, limits: [x]{keys}")
    routes = routes.replace('path}"', f'path}}"{methods}')
    message = (
        "x.yaml:1:44: limits.x.charge: warning: "
        "counts every request: none of this limit's routes can answer without its upstream; "
        "give one a cache, or leave charge out"
    )
    assert (message in warnings(tmp_path, f"policies: [x.yaml]\n{APP}{routes}")) is told


def test_warnings_of_limits(tmp_path: Path) -> None:
    write(
        tmp_path,
        "limits.yaml",
        "limits:\n"
        "  plan: {rate: 1/s, key: [ip], overrides: [{when: {'header:X-Plan': a}, rate: 2/s}]}\n"
        "  idle: {rate: 1/s, key: [ip]}\n",
    )
    routes = ROUTES.replace("upstream: app", "upstream: app, limits: [plan]")
    assert warnings(tmp_path, f"policies: [limits.yaml]\n{APP}{routes}") == [
        (
            'limits.yaml:2:69: limits.plan.overrides[0].when["header:X-Plan"]: warning: '
            "any client can send X-Plan: it is not in server.trusted_headers"
        ),
        "limits.yaml:3:3: limits.idle: warning: no route uses this limit",
    ]


def test_the_defaults_of_a_cache_are_those_of_the_contract(tmp_path: Path) -> None:
    write(tmp_path, "caches.yaml", "caches: {pages: {}}\n")
    routes = ROUTES.replace("upstream: app", "upstream: app, cache: pages")
    found = loaded(tmp_path, f"policies: [caches.yaml]\n{APP}{routes}")
    assert found.warnings == []
    cache = found.draft.caches["pages"].section
    assert (cache.default_ttl, cache.ttl, cache.ttl_by_status) == (0, None, {})
    assert (cache.stale_while_revalidate, cache.stale_if_error) == (0, 0)
    assert (cache.tags, cache.expose_tags, cache.store_set_cookie) == ([], False, False)
    assert (cache.key.query.exclude, cache.key.headers, cache.key.cookies) == ([], [], [])
    assert (cache.max_object, cache.lock_timeout, cache.max_waiters) == (2**20, None, 1000)
    assert (cache.hit_for_miss, cache.early_refresh) == (10, 1.0)
    route = found.draft.routes[0].section
    assert (route.cache, route.invalidate) == ("pages", [])


def caching(
    policy: str, route: str = "cache: x", *, store: str = "{}", methods: str = "methods: [GET]"
) -> tuple[str, str]:
    """A policy file with this cache x, and a gateway file with this route."""
    routes = ROUTES.replace("upstream: app", f"upstream: app, {route}")
    routes = routes.replace('path}"', f'path}}", {methods}')
    gateway = f"policies: [caches.yaml]\nstore: {store}\n{APP}{routes}"
    return f"caches:\n  x: {policy}\n", gateway


@pytest.mark.parametrize(
    ("files", "warning"),
    [
        (
            caching("{}", "limits: []"),
            "caches.yaml:2:3: caches.x: warning: no route uses this cache",
        ),
        (
            caching("{ttl: 1m, default_ttl: 1s}"),
            (
                "caches.yaml:2:29: caches.x.default_ttl: warning: "
                "has no effect beside ttl, which stands for everything"
            ),
        ),
        (
            caching("{max_waiters: 0, lock_timeout: 1s}"),
            "caches.yaml:2:37: caches.x.lock_timeout: warning: has no use while max_waiters is 0",
        ),
        (
            caching("{max_object: 65MiB}"),
            (
                "caches.yaml:2:19: caches.x.max_object: warning: "
                "is more than the whole of store.cache.memory"
            ),
        ),
        (
            caching("{key: {headers: [X-Request-Id]}}"),
            (
                "caches.yaml:2:23: caches.x.key.headers[0]: warning: "
                "X-Request-Id is another in every request: nothing would ever be found"
            ),
        ),
        (
            caching("{key: {headers: [cookie], cookies: [theme]}}"),
            (
                "caches.yaml:2:41: caches.x.key.cookies: warning: "
                "has no effect beside the header Cookie, which is all of them"
            ),
        ),
        (
            caching("{}", store="{cache: {blind: 5s}}"),
            "gateway.yaml:2:24: store.cache.blind: warning: has no effect with memory://",
        ),
        (
            caching("{}", store="{url: redis://h, cache: {url: memory://, blind: 5s}}"),
            "gateway.yaml:2:56: store.cache.blind: warning: has no effect with memory://",
        ),
        (
            caching("{}", "cache: x", methods="methods: [POST, PUT]"),
            (
                "gateway.yaml:4:97: routes[0].cache: warning: "
                "has no use: match.methods has no GET, and nothing else is stored"
            ),
        ),
        (
            caching("{}", "cache: x, invalidate: [all]", methods="methods: [GET, SEARCH]"),
            (
                "gateway.yaml:4:114: routes[0].invalidate: warning: "
                "has no use: match.methods has only safe methods"
            ),
        ),
        (
            caching("{}", "cache: x, invalidate_on: [2xx, 303]"),
            (
                "gateway.yaml:4:109: routes[0].invalidate_on: warning: "
                "has no use: the route has no tags to invalidate"
            ),
        ),
    ],
)
def test_warnings_of_caches(files: tuple[str, str], warning: str, tmp_path: Path) -> None:
    policies, gateway = files
    write(tmp_path, "caches.yaml", policies)
    assert warning in warnings(tmp_path, gateway)


@pytest.mark.parametrize(
    ("first", "second", "shadowed"),
    [
        ("{path: /x}", "{path: /x}", True),
        ("{path: '/{a}'}", "{path: '/{b}'}", True),
        ("{path: '/{a}'}", "{path: '/{b:int}'}", True),
        ("{path: '/{a:int}'}", "{path: '/{b}'}", False),
        ("{path: '/{a:int}'}", "{path: /42}", True),
        ("{path: '/{a}'}", "{path: /}", False),  # a capture is never empty
        ("{path: '/x/{r:path}'}", "{path: /x}", False),  # matches /x/ and below, not /x
        ("{path: '/x/{r:path}'}", "{path: /x/}", True),
        ("{path: '/x/{r:path}'}", "{path: '/x/{a}/{r:path}'}", True),
        ("{path: '/x/{a}/{r:path}'}", "{path: '/x/{r:path}'}", False),
        ("{path: '/x/{a}'}", "{path: '/x/{r:path}'}", False),
        ("{path: /x, methods: [GET]}", "{path: /x}", False),
        ("{path: /x, methods: [GET]}", "{path: /x, methods: [HEAD]}", True),  # GET includes HEAD
        ("{path: /x}", "{path: /x, methods: [GET]}", True),
        ("{path: /x, hosts: [a.b]}", "{path: /x}", False),
        ("{path: /x, hosts: ['*.b']}", "{path: /x, hosts: [a.b, c.d.b]}", True),
        ("{path: /x, hosts: ['*.b']}", "{path: /x, hosts: [b]}", False),
        ("{path: /x, hosts: ['*.b']}", "{path: /x, hosts: ['*.a.b']}", True),
        ("{path: /x, headers: {A: '1'}}", "{path: /x}", False),
        ("{path: /x, headers: {A: '1'}}", "{path: /x, headers: {a: '1', B: '2'}}", True),
        ("{path: /x, headers: {A: '1'}}", "{path: /x, headers: {A: '2'}}", False),
    ],
)
def test_routes_that_are_never_reached(
    first: str, second: str, shadowed: bool, tmp_path: Path
) -> None:
    found = [line for line in warnings(tmp_path, pair(first, second)) if "never reached" in line]
    assert bool(found) is shadowed


@pytest.mark.parametrize(
    ("server", "admin", "collide"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("localhost:80", "127.0.0.1:80", True),
        ("127.0.0.2:80", "127.0.0.1:80", False),
        ("127.0.0.1:81", "127.0.0.1:80", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),  # any free port
        ("'[::]:80'", "127.0.0.1:80", False),  # bound for IPv6 only
        ("'[::]:80'", "'[::1]:80'", True),
        ("unix:/run/a.sock", "unix:/run/a.sock", True),
        ("unix:/run/a.sock", "unix:/run/b.sock", False),
    ],
)
def test_listeners_that_collide(server: str, admin: str, collide: bool, tmp_path: Path) -> None:
    text = f"policies: []\nserver: {{listen: {server}}}\nadmin: {{listen: {admin}}}\n{APP}{ROUTES}"
    if collide:
        assert "is taken by server.listen" in errors(tmp_path, text)[0]
    else:
        assert warnings(tmp_path, text) == []


# TLS files


@pytest.fixture
def pems(tmp_path: Path) -> Path:
    authority = trustme.CA()
    for name in ("a", "b"):
        cert = authority.issue_cert("localhost")
        cert.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        cert.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    write(tmp_path, "locked.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nx\n")
    write(tmp_path, "broken.pem", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    return tmp_path


def test_tls_files_are_relative_to_the_gateway_file_and_watched(pems: Path) -> None:
    text = (
        "policies: []\nserver: {tls: {cert: a.pem, key: a.key}}\nupstreams:\n"
        "  app: {endpoints: ['https://a'], tls: {ca: ca.pem, cert: b.pem, key: b.key}}\n" + ROUTES
    )
    files = [file.name for file in loaded(pems, text).sources.files]
    assert files == ["gateway.yaml", "a.pem", "a.key", "b.pem", "b.key", "ca.pem"]


@pytest.mark.parametrize(
    ("cert", "key", "message"),
    [
        ("a.pem", "b.key", "server.tls.key: {0}/b.key does not belong to the certificate"),
        ("a.pem", "a.pem", "server.tls.key: {0}/a.pem holds no private key in PEM form"),
        ("a.key", "a.key", "server.tls.cert: {0}/a.key holds no certificate in PEM form"),
        ("a.pem", "locked.key", "server.tls.key: {0}/locked.key is encrypted; "),
        ("broken.pem", "a.key", "server.tls.cert: {0}/broken.pem and its key cannot be used: "),
        ("none.pem", "a.key", "server.tls.cert: {0}/none.pem cannot be read: No such file"),
        ("a.pem", "none.key", "server.tls.key: {0}/none.key cannot be read: No such file"),
    ],
)
def test_tls_files_that_cannot_be_used(cert: str, key: str, message: str, pems: Path) -> None:
    text = f"policies: []\nserver: {{tls: {{cert: {cert}, key: {key}}}}}\n{APP}{ROUTES}"
    (error,) = errors(pems, text)
    assert message.format(pems) in error


def test_an_authority_that_verifies_nothing(pems: Path) -> None:
    text = (
        "policies: []\nupstreams:\n"
        "  app: {endpoints: ['https://a'], tls: {ca: ca.pem, verify: false}}\n" + ROUTES
    )
    assert errors(pems, text) == [
        "gateway.yaml:3:45: upstreams.app.tls.ca: has no use: verify: false trusts any certificate"
    ]


# Words


@pytest.mark.parametrize(
    ("loc", "path"),
    [
        ((), ""),
        (("routes", 0, "match", "path"), "routes[0].match.path"),
        (("upstreams", "users", "endpoints", 1, "url"), "upstreams.users.endpoints[1].url"),
        (("limits", "v1.api"), 'limits["v1.api"]'),
        (("when", "header:X-Plan", 0), 'when["header:X-Plan"][0]'),
    ],
)
def test_key_paths(loc: tuple[str | int, ...], path: str) -> None:
    assert dotted(loc) == path


def test_suggestions() -> None:
    known = ("limits", "listen", "max_headers")
    assert suggest("limts", known) == '; did you mean "limits"?'
    assert suggest("LISTEN", known) == '; did you mean "listen"?'
    assert suggest("colour", known) == ""


REDIS = """\
policies: [limits.yaml]
server: {workers: 4}
store: {url: "$URL"}
upstreams: {app: {endpoints: ["http://127.0.0.1:9001"]}}
routes: [{name: all, match: {path: "/{id}"}, upstream: app, limits: [one, two, three]}]
"""
THREE = """\
limits:
  one: {rate: 1/s, key: [ip]}
  two: {rate: 1/s, key: [path.id], on_store_failure: deny}
  three: {rate: 2/m, key: [ip]}
"""


def test_several_workers_with_redis_are_fine(tmp_path: Path) -> None:
    (tmp_path / "limits.yaml").write_text(THREE)
    found = loaded(tmp_path, REDIS.replace("$URL", "redis://:secret@h/3"))
    assert found.warnings == []
    assert found.draft.server.section.workers == 4
    assert str(found.draft.store.section.url) == "redis://h:6379"


def test_a_cluster_notes_its_round_trips(tmp_path: Path) -> None:
    (tmp_path / "limits.yaml").write_text(THREE)
    found = loaded(tmp_path, REDIS.replace("$URL", "redis+cluster://a:1,b:2"))
    assert [(w.path, w.message) for w in found.warnings] == [
        (
            "routes[0].limits",
            "are asked in up to 2 round trips on a Redis Cluster: one and two have different keys",
        )
    ]


def test_cached_objects_elsewhere_need_prefix_and_timeout(tmp_path: Path) -> None:
    write(tmp_path, "limits.yaml", THREE)
    store = "{timeout: 1s, prefix: a, on_failure: deny, cache: {url: 'redis://:s@h', blind: 1s}}"
    text = REDIS.replace("{workers: 4}", "{}").replace('{url: "$URL"}', store)
    found = loaded(tmp_path, text)
    assert [w.path for w in found.warnings] == ["store.on_failure", "limits.two.on_store_failure"]
    assert str(found.draft.store.section.cache.url) == "redis://h:6379"


def test_what_memory_does_not_use_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "limits.yaml").write_text(THREE)
    text = REDIS.replace("{workers: 4}", "{}").replace("$URL", 'memory://", timeout: "1s')
    found = loaded(tmp_path, text)
    assert [(w.path, w.message) for w in found.warnings] == [
        ("store.timeout", "has no effect with memory://"),
        ("limits.two.on_store_failure", "has no effect with memory://"),
    ]
