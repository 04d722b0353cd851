"""The gateway as bench/targets.py measures it: with everything on that a user has on.

The route under load is the last of 201. It has two limits, one per `X-Api-Key` and one for the
whole service; its upstream has a breaker (all three rules), a retry policy and a health check every
second. Metrics, X-Request-Id, Via, the forwarding fields and the RateLimit fields are on by
default, Cache-Status where the route has a cache. The peers have a limit per key, and no more.
"""

from functools import partial

from bench.proxies import Place, Started

ROUTES = 200
"""Routes before the one under load."""

CHECKS = 1
"""Health checks per second, which the origin sees beside the load."""

GATEWAY = """
server: {{listen: "127.0.0.1:{port}", workers: {workers}}}
log: {{level: warning}}
admin: {{listen: "127.0.0.1:{admin}"}}
store: {{{store}}}
policies: [policies.yaml]
upstreams:
  origin:
    endpoints: ["http://127.0.0.1:{origin}"]
    breaker: usual
    retry: usual
    health_check: {{path: /api/health, interval: 1s}}
routes:
{others}
  - name: api
    match: {{path: "/api/{{rest:path}}"}}
    upstream: origin
    limits: [per-key, whole]
    {cache}
"""

POLICIES = """
limits:
  per-key: {{algorithm: token_bucket, rate: {rate}, burst: {burst}, key: ["header:X-Api-Key"]}}
  whole: {{algorithm: token_bucket, rate: 1000000/s, key: [global]}}
breakers: {{usual: {{failure_rate: 50%, slow_rate: 50%, slow_after: 1s}}}}
retries: {{usual: {{}}}}
"""
CACHES = "caches: {answers: {}}\n"


def gateway(
    place: Place,
    program: str,
    *,
    redis: bool = False,
    workers: int = 1,
    cached: bool = False,
    rate: str = "1/m",
    burst: int = 100_000,
) -> Started:
    """Writes its configuration. `rate` and `burst` are those of the limit per key; by default it
    refuses nothing, and its keys stay known."""
    # The timeout is longer than the default: on a busy machine it should wait, not count by itself.
    store = f'url: "redis://127.0.0.1:{place.redis}/0", timeout: 1s'
    others = (
        f'  - {{name: r{number}, match: {{path: "/service-{number}/{{id}}"}}, upstream: origin}}'
        for number in range(ROUTES)
    )
    config = place.folder / "gateway.yaml"
    config.write_text(
        GATEWAY.format(
            port=place.port, admin=place.admin, origin=place.origin, workers=workers,
            store=store if redis else 'url: "memory://"', others="\n".join(others),
            cache="cache: answers" if cached else "",
        )
    )  # fmt: skip
    (place.folder / "policies.yaml").write_text(
        POLICIES.format(rate=rate, burst=burst) + (CACHES if cached else "")
    )
    ready = f"http://127.0.0.1:{place.admin}/readyz"
    # -P: what is installed there runs, whatever stands in the working directory.
    return Started((program, "-P", "-m", "proxy", "run", "-c", config), ready)


caching = partial(gateway, cached=True)
refusing = partial(gateway, rate="1/h", burst=1)
in_redis = partial(gateway, redis=True)
two_workers = partial(gateway, redis=True, workers=2)
many_keys = partial(gateway, cached=True, rate="1/h")
"""A key is remembered for an hour after one request; what has no room for a state of its own
passes, too."""
