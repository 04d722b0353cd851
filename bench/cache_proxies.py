"""The proxies that bench/cache.py compares: how each is told to cache what the origin lets it, and
to have one limit per `X-Api-Key` that is asked before the cache.

The limits let 100,000 at once and one a minute pass, or as near to that as the product comes. No
access log, one worker, connections kept on both sides; what is stored stays in memory (nginx: in
files, which the page cache has, their descriptors kept open).
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.proxies import LIMITS, Place, Started
from bench.tools import find


class CachingProxy(NamedTuple):
    """One contestant."""

    name: str
    cache: str
    limit: str
    program: Callable[[], str | None]
    hint: str
    """Where to get it."""
    version: tuple[str, str] | None
    """The option that prints it, and the pattern that finds it."""
    prepare: Callable[[Place, str], Started]
    """Writes the configuration for the program's path."""


GATEWAY = """
server: {{listen: "127.0.0.1:{port}"}}
log: {{level: warning}}
admin: {{listen: "127.0.0.1:{admin}"}}
policies: [policies.yaml]
upstreams:
  origin: {{endpoints: ["http://127.0.0.1:{origin}"]}}
routes:
  - name: api
    match: {{path: "/api/{{rest:path}}"}}
    upstream: origin
    limits: [per-key]
    cache: answers
"""


def gateway(place: Place, program: str) -> Started:
    config = place.folder / "gateway.yaml"
    config.write_text(GATEWAY.format(port=place.port, admin=place.admin, origin=place.origin))
    (place.folder / "policies.yaml").write_text(f"{LIMITS}\ncaches: {{answers: {{}}}}\n")
    ready = f"http://127.0.0.1:{place.admin}/readyz"
    return Started((program, "-m", "proxy", "run", "-c", config), ready)


NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log warn; worker_processes 1;
events {{ worker_connections 4096; }}
http {{
    access_log off; server_tokens off; sendfile on; tcp_nopush on;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 100000000; keepalive_timeout 75s;
    limit_req_zone $http_x_api_key zone=keys:10m rate=1r/m;
    proxy_cache_path {folder}/cache levels=1:2 keys_zone=answers:10m inactive=1h use_temp_path=off;
    open_file_cache max=10000 inactive=1h; open_file_cache_valid 1h;
    upstream origin {{
        server 127.0.0.1:{origin};
        keepalive 256; keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            limit_req zone=keys burst=100000 nodelay;
            proxy_cache answers;
            proxy_cache_lock on;
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""


def nginx(place: Place, program: str) -> Started:
    config = place.folder / "nginx.conf"
    config.write_text(NGINX.format(folder=place.folder, port=place.port, origin=place.origin))
    command = (program, "-e", "stderr", "-p", place.folder, "-c", config)
    return Started(command, f"http://127.0.0.1:{place.port}/")


HAPROXY = """
global
    nbthread 1
    maxconn 4096
cache answers
    total-max-size 64
    max-object-size 1048576
    max-age 3600
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
    http-request cache-use answers
    http-response cache-store answers
    option forwardfor
    default_backend origin
backend origin
    server origin 127.0.0.1:{origin}
"""


def haproxy(place: Place, program: str) -> Started:
    config = place.folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=place.port, origin=place.origin))
    return Started((program, "-q", "-db", "-f", config), f"http://127.0.0.1:{place.port}/")


VARNISH = """
vcl 4.1;
import vsthrottle;
backend origin {{ .host = "127.0.0.1"; .port = "{origin}"; }}
sub vcl_recv {{
    if (req.http.X-Api-Key && vsthrottle.is_denied(req.http.X-Api-Key, 100000, 60s)) {{
        return (synth(429));
    }}
}}
"""


def varnish_with_throttle() -> str | None:
    """varnishd, where the module that limits is there, too."""
    program = find("varnishd")
    modules = Path("/usr/lib").glob("*/varnish/vmods/libvmod_vsthrottle.so")
    return program if any(modules) else None


def varnish(place: Place, program: str) -> Started:
    config = place.folder / "origin.vcl"
    config.write_text(VARNISH.format(origin=place.origin))
    # No jail: it would change to a user who cannot read this folder. A thread for each connection,
    # there from the beginning.
    options = ("-j", "none", "-n", place.folder / "work", "-s", "malloc,64m")
    threads = ("-p", "thread_pools=1", "-p", "thread_pool_min=200")
    listen = ("-a", f"127.0.0.1:{place.port}", "-f", config)
    quiet = ("sh", "-c", 'exec "$@" >"$0" 2>&1', place.folder / "log")
    command = (*quiet, program, "-F", *options, *threads, *listen)
    return Started(command, f"http://127.0.0.1:{place.port}/")


NUMBERS = r"(\d+\.\d+\.\d+)"

PROXIES = (
    CachingProxy(
        "Sluicegate", "memory", "token bucket", lambda: sys.executable, "", None, gateway
    ),
    CachingProxy(
        "nginx", "proxy_cache, open_file_cache", "limit_req: leaky bucket",
        lambda: find("nginx"), "apt-get install nginx-light", ("-v", NUMBERS), nginx,
    ),
    CachingProxy(
        "HAProxy", "cache: memory", "stick table: rate over a minute",
        lambda: find("haproxy"), "apt-get install haproxy", ("-v", NUMBERS), haproxy,
    ),
    CachingProxy(
        "Varnish", "malloc", "vsthrottle: token bucket",
        varnish_with_throttle, "apt-get install varnish varnish-modules",
        ("-V", f"varnish-{NUMBERS}"), varnish,
    ),
)  # fmt: skip


def version(proxy: CachingProxy, program: str) -> str:
    """What a program says of its version; "" where it is our own, or says nothing."""
    if proxy.version is None:
        return ""
    option, pattern = proxy.version
    told = subprocess.run([program, option], capture_output=True, text=True, check=False)
    found = re.search(pattern, told.stdout + told.stderr)
    return found[1] if found else ""
