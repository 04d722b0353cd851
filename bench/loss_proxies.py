"""The proxies that bench/endpoint_loss.py compares: two endpoints in turn, 1 s to connect, 1 s for
the head of an answer, and, where asked, the same active checks and retries.

Checks: GET /health every 500 ms, 500 ms for an answer, out after 2 failures in a row and in after
2 successes (Traefik knows no such counts: out and in at once). Retries: three tries in all, at
another endpoint, after a failed or broken connection, a timeout, 502, 503 and 504. What a product
does by default beyond that is left as it is.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench.proxies import PIP, Started, installed
from bench.tools import find


class Spot(NamedTuple):
    """Where one proxy is started: its folder, its port, a second port, and its two origins."""

    folder: Path
    port: int
    admin: int
    first: int
    second: int


class Means(NamedTuple):
    """What a proxy may do about a lost endpoint."""

    checks: bool
    retries: bool

    def __str__(self) -> str:
        named = [name for name, has in zip(("checks", "retries"), self, strict=True) if has]
        return " and ".join(named) or "neither"


class LosingProxy(NamedTuple):
    """One contestant."""

    name: str
    program: Callable[[], str | None]
    hint: str
    """Where to get it."""
    prepare: Callable[[Spot, str, Means], Started]
    """Writes the configuration for the program's path."""
    always: bool = True
    """Whether it takes part without retries too; else it would only be another one again."""


GATEWAY = """
server: {{listen: "127.0.0.1:{port}"}}
log: {{level: error}}
admin: {{listen: "127.0.0.1:{admin}"}}
policies: [policies.yaml]
upstreams:
  origin:
    endpoints: ["http://127.0.0.1:{first}", "http://127.0.0.1:{second}"]
    connect_timeout: 1s
    response_timeout: 1s
    {checks}
    {retries}
routes:
  - {{name: all, match: {{path: "/{{rest:path}}"}}, upstream: origin}}
"""
GATEWAY_CHECKS = (
    "health_check: {path: /health, interval: 500ms, timeout: 500ms, unhealthy_after: 2}"
)
GATEWAY_RETRIES = """
retries:
  thrice: {{budget: {budget}, on: [connect_error, reset, timeout, 502, 503, 504]}}
"""


def gateway(spot: Spot, program: str, means: Means, budget: str = "20%") -> Started:
    config = spot.folder / "gateway.yaml"
    checks = GATEWAY_CHECKS if means.checks else ""
    retries = "retry: thrice" if means.retries else ""
    config.write_text(GATEWAY.format(**spot._asdict(), checks=checks, retries=retries))
    policies = GATEWAY_RETRIES.format(budget=budget) if means.retries else "limits: {}\n"
    (spot.folder / "policies.yaml").write_text(policies)
    command = (program, "-m", "proxy", "run", "-c", config)
    return Started(command, f"http://127.0.0.1:{spot.admin}/readyz")


HAPROXY = """
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect 1s
    timeout client 75s
    timeout server 1s
frontend all
    bind 127.0.0.1:{port} backlog 4096
    default_backend origin
backend origin
    balance roundrobin
{retries}
{checks}
    server first 127.0.0.1:{first} {check}
    server second 127.0.0.1:{second} {check}
"""
HAPROXY_CHECKS = """
    timeout check 500ms
    option httpchk
    http-check send meth GET uri /health ver HTTP/1.1 hdr Host origin
"""
HAPROXY_RETRIES = """
    retries 2
    option redispatch 1
    retry-on conn-failure empty-response response-timeout 502 503 504
"""


def haproxy(spot: Spot, program: str, means: Means) -> Started:
    config = spot.folder / "haproxy.cfg"
    text = HAPROXY.format(
        **spot._asdict(),
        retries=HAPROXY_RETRIES if means.retries else "    retries 0",
        checks=HAPROXY_CHECKS if means.checks else "",
        check="check inter 500ms fall 2 rise 2" if means.checks else "",
    )
    config.write_text(text)
    # It says on standard error that a server is down.
    quiet = ("sh", "-c", 'exec "$@" 2>"$0"', spot.folder / "log")
    command = (*quiet, program, "-q", "-db", "-f", config)
    return Started(command, f"http://127.0.0.1:{spot.port}/")


TRAEFIK = """
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
log: {{level: FATAL}}
entryPoints: {{web: {{address: "127.0.0.1:{port}"}}}}
providers: {{file: {{filename: "{folder}/dynamic.yaml", watch: false}}}}
"""
TRAEFIK_DYNAMIC = """
http:
  routers: {{all: {{rule: "PathPrefix(`/`)", service: origin{use}}}}}
  serversTransports:
    patient: {{forwardingTimeouts: {{dialTimeout: 1s, responseHeaderTimeout: 1s}}}}
  services:
    origin:
      loadBalancer:
        serversTransport: patient
        servers: [{{url: "http://127.0.0.1:{first}"}}, {{url: "http://127.0.0.1:{second}"}}]
        {checks}
{retries}
"""
TRAEFIK_CHECKS = (
    "healthCheck: {path: /health, interval: 500ms, unhealthyInterval: 500ms, timeout: 500ms}"
)
TRAEFIK_RETRIES = """
  middlewares:
    thrice: {retry: {attempts: 3, initialInterval: 50ms, status: ["502-504"]}}
"""


def traefik(spot: Spot, program: str, means: Means) -> Started:
    config = spot.folder / "traefik.yaml"
    config.write_text(TRAEFIK.format(folder=spot.folder, port=spot.port))
    text = TRAEFIK_DYNAMIC.format(
        **spot._asdict(),
        use=", middlewares: [thrice]" if means.retries else "",
        checks=TRAEFIK_CHECKS if means.checks else "",
        retries=TRAEFIK_RETRIES if means.retries else "",
    )
    (spot.folder / "dynamic.yaml").write_text(text)
    command = (program, f"--configFile={config}")
    return Started(command, f"http://127.0.0.1:{spot.port}/")


PROXIES = (
    LosingProxy("Sluicegate", lambda: sys.executable, "", gateway),
    LosingProxy(
        "Sluicegate, budget: 100%", lambda: sys.executable, "",
        partial(gateway, budget="100%"), always=False,
    ),
    LosingProxy("HAProxy", lambda: find("haproxy"), "apt-get install haproxy", haproxy),
    LosingProxy("Traefik", lambda: installed("traefik"), PIP.format("traefik"), traefik),
)  # fmt: skip
