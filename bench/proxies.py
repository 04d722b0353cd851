"""The proxies that bench/peers.py compares: how each is told to pass through with one limit.

Each counts requests per `X-Api-Key`, as far as it can, lets 100,000 at once and one a minute pass
(so keys stay known and nothing is refused), writes no access log, keeps connections on both sides
and has one worker or thread. What a product cannot do is said in `limit`.
"""

import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.tools import find


class Place(NamedTuple):
    """Where one proxy is started: its folder, its port, a second port, and what it may use."""

    folder: Path
    port: int
    admin: int
    origin: int
    redis: int


class Started(NamedTuple):
    """How to start it: the command, and the path that says that it is ready."""

    command: tuple[str | Path, ...]
    ready: str


class Proxy(NamedTuple):
    """One contestant."""

    name: str
    limit: str
    shared: bool
    """Whether the limit counts in Redis."""
    program: Callable[[], str | None]
    hint: str
    """Where to get it."""
    prepare: Callable[[Place, str], Started]
    """Writes the configuration for the program's path."""


def installed(name: str) -> str | None:
    """A program of this Python's environment, or of the PATH."""
    return shutil.which(name, path=sysconfig.get_path("scripts")) or find(name)


GATEWAY = """
server: {{listen: "127.0.0.1:{port}"}}
log: {{level: warning}}
admin: {{listen: "127.0.0.1:{admin}"}}
store: {{{store}}}
policies: [policies.yaml]
upstreams:
  origin: {{endpoints: ["http://127.0.0.1:{origin}"]{upstream}}}
routes:
  - name: api
    match: {{path: "/api/{{rest:path}}"}}
    upstream: origin
    limits: [per-key]
{route}
"""

LIMITS = """
limits:
  per-key: {algorithm: token_bucket, rate: 1/m, burst: 100000, key: ["header:X-Api-Key"]}
"""


def gateway(
    place: Place,
    program: str,
    *,
    store: str = 'url: "memory://"',
    upstream: str = "",
    route: str = "",
    more: str = "",
) -> Started:
    """Ours. `upstream` goes on its upstream (", key: value"), `route` on its only route, `more`
    into its policy file."""
    config = place.folder / "gateway.yaml"
    ports = {"port": place.port, "admin": place.admin, "origin": place.origin}
    config.write_text(GATEWAY.format(**ports, store=store, upstream=upstream, route=route))
    (place.folder / "policies.yaml").write_text(LIMITS + more)
    ready = f"http://127.0.0.1:{place.admin}/readyz"
    return Started((program, "-m", "proxy", "run", "-c", config), ready)


def gateway_redis(place: Place, program: str) -> Started:
    # Longer than the default: on a busy machine it should wait, not count by itself.
    store = f'url: "redis://127.0.0.1:{place.redis}/0", timeout: 1s'
    return gateway(place, program, store=store)


NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log warn; worker_processes 1;
events {{ worker_connections 4096; }}
http {{
    access_log off; server_tokens off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 100000000; keepalive_timeout 75s;
    limit_req_zone $http_x_api_key zone=keys:10m rate=1r/m;
    {http}
    upstream origin {{
        server 127.0.0.1:{origin};
        keepalive 256; keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            limit_req zone=keys {admits};
            {location}
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""


def nginx(
    place: Place,
    program: str,
    *,
    http: str = "",
    location: str = "",
    admits: str = "burst=100000 nodelay",
) -> Started:
    """`http` and `location` go into those blocks; `admits` is what the limit lets pass."""
    config = place.folder / "nginx.conf"
    ports = {"port": place.port, "origin": place.origin}
    blocks = {"http": http, "location": location, "admits": admits}
    config.write_text(NGINX.format(folder=place.folder, **ports, **blocks))
    command = (program, "-e", "stderr", "-p", place.folder, "-c", config)
    return Started(command, f"http://127.0.0.1:{place.port}/")


HAPROXY = """
global
    nbthread 1
    maxconn 4096
{sections}
defaults
    mode http
    timeout connect 1s
    timeout client 75s
    timeout server 30s
frontend api
    bind 127.0.0.1:{port} backlog 4096
    stick-table type string len 64 size 100k expire 10m store http_req_rate(1m)
    http-request track-sc0 hdr(x-api-key)
    http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 100000 }}
    {frontend}
    option forwardfor
    default_backend origin
backend origin
    server origin 127.0.0.1:{origin}
"""


def haproxy(place: Place, program: str, *, sections: str = "", frontend: str = "") -> Started:
    """`sections` stand beside the others, `frontend` goes into that one."""
    config = place.folder / "haproxy.cfg"
    ports = {"port": place.port, "origin": place.origin}
    config.write_text(HAPROXY.format(**ports, sections=sections, frontend=frontend))
    return Started((program, "-q", "-db", "-f", config), f"http://127.0.0.1:{place.port}/")


TRAEFIK = """
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
log: {{level: FATAL}}
entryPoints: {{web: {{address: "127.0.0.1:{port}"}}}}
providers: {{file: {{filename: "{folder}/dynamic.yaml", watch: false}}}}
"""

TRAEFIK_DYNAMIC = """
http:
  routers: {{api: {{rule: "PathPrefix(`/`)", service: origin, middlewares: [per-key]}}}}
  services: {{origin: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{origin}"}}]}}}}}}
  middlewares:
    per-key:
      rateLimit:
        average: 1
        period: 1m
        burst: 100000
        sourceCriterion: {{requestHeaderName: X-Api-Key}}
{redis}
"""

# A database apart from that of Sluicegate; all else as Traefik has it.
TRAEFIK_REDIS = """
        redis: {{endpoints: ["127.0.0.1:{redis}"], db: 1}}
"""


def _traefik(place: Place, program: str, redis: str) -> Started:
    config = place.folder / "traefik.yaml"
    config.write_text(TRAEFIK.format(folder=place.folder, port=place.port))
    (place.folder / "dynamic.yaml").write_text(
        TRAEFIK_DYNAMIC.format(origin=place.origin, redis=redis)
    )
    command = (program, f"--configFile={config}")
    return Started(command, f"http://127.0.0.1:{place.port}/api/users/1")


def traefik_memory(place: Place, program: str) -> Started:
    return _traefik(place, program, "")


def traefik_redis(place: Place, program: str) -> Started:
    return _traefik(place, program, TRAEFIK_REDIS.format(redis=place.redis))


CADDY = """
{{
    admin off
    persist_config off
    auto_https off
    storage file_system {folder}/storage
    log {{
        level ERROR
    }}
}}
http://127.0.0.1:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{origin} {{
        transport http {{
            keepalive_idle_conns_per_host 256
        }}
    }}
}}
"""


def caddy(place: Place, program: str) -> Started:
    config = place.folder / "Caddyfile"
    config.write_text(CADDY.format(folder=place.folder, port=place.port, origin=place.origin))
    command = (program, "run", "--adapter", "caddyfile", "--config", config)
    return Started(command, f"http://127.0.0.1:{place.port}/")


def _python() -> str:
    return sys.executable


PIP = "pip install {}-bin, or the dependency group bench"

PROXIES = (
    Proxy("Sluicegate", "token bucket", False, _python, "", gateway),
    Proxy(
        "nginx", "limit_req: leaky bucket", False,
        lambda: find("nginx"), "apt-get install nginx-light", nginx,
    ),
    Proxy(
        "HAProxy", "stick table: rate over a minute", False,
        lambda: find("haproxy"), "apt-get install haproxy", haproxy,
    ),
    Proxy(
        "Traefik", "token bucket", False,
        lambda: installed("traefik"), PIP.format("traefik"), traefik_memory,
    ),
    Proxy(
        "Caddy", "none: it has none without a plugin", False,
        lambda: installed("caddy"), PIP.format("caddy"), caddy,
    ),
    Proxy("Sluicegate", "token bucket", True, _python, "", gateway_redis),
    Proxy(
        "Traefik", "token bucket", True,
        lambda: installed("traefik"), PIP.format("traefik"), traefik_redis,
    ),
)  # fmt: skip
