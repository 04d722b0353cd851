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

from bench import proxies
from bench.proxies import Place, Started
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


def gateway(place: Place, program: str) -> Started:
    return proxies.gateway(
        place, program, route="    cache: answers", more="\ncaches: {answers: {}}\n"
    )


NGINX_CACHE = """
    sendfile on; tcp_nopush on;
    proxy_cache_path {folder}/cache levels=1:2 keys_zone=answers:10m inactive=1h use_temp_path=off;
    open_file_cache max=10000 inactive=1h; open_file_cache_valid 1h;
"""


def nginx(place: Place, program: str) -> Started:
    http = NGINX_CACHE.format(folder=place.folder)
    location = "proxy_cache answers; proxy_cache_lock on;"
    return proxies.nginx(place, program, http=http, location=location)


HAPROXY_CACHE = """
cache answers
    total-max-size 64
    max-object-size 1048576
    max-age 3600
"""
HAPROXY_USE = """
    http-request cache-use answers
    http-response cache-store answers
"""


def haproxy(place: Place, program: str) -> Started:
    return proxies.haproxy(place, program, sections=HAPROXY_CACHE, frontend=HAPROXY_USE)


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
