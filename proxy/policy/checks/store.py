"""`store`: settings without effect, workers that would not share, and what a cluster costs."""

from proxy.policy.checks.tls import check_client
from proxy.policy.draft import Draft
from proxy.policy.problem import listing

_NO_EFFECT = "has no effect with memory://"


def check(draft: Draft) -> None:
    """Everything that depends on where limits count, and answers and records are kept."""
    part = draft.store
    if not part.has("url", "cache", "idempotency"):
        return
    url = part.section.url
    cached = part.section.cache.url or url
    recorded = part.section.idempotency.url or url
    if part.has("tls") and part.section.tls is not None:
        check_client(
            draft,
            part,
            part.section.tls,
            spoken=url.tls or cached.tls or recorded.tls,
            otherwise=f"{url} does not speak TLS; rediss:// does",
        )
    if cached.kind == "memory" and part.is_given("cache", "blind"):
        part.warn(_NO_EFFECT, "cache", "blind")
    if url.kind != "memory":
        if url.kind == "cluster":
            _note_round_trips(draft)
        return
    server = draft.server
    if server.has("workers") and server.section.workers > 1:
        server.error(
            "more than 1 needs a Redis store; memory:// counts within one process", "workers"
        )
    # Then limits alone do not need them.
    shared = cached.kind != "memory" or recorded.kind != "memory"
    for key in ("on_failure",) if shared else ("prefix", "timeout", "on_failure"):
        if part.is_given(key):
            part.warn(_NO_EFFECT, key)
    for limit in draft.limits.values():
        if limit.is_given("on_store_failure"):
            limit.warn(_NO_EFFECT, "on_store_failure")


def _note_round_trips(draft: Draft) -> None:
    """Limits with different keys lie on different nodes, and are asked one after another."""
    for route in draft.routes:
        if not route.has("limits"):
            continue
        keys: dict[tuple[str, ...], str] = {}
        for name in route.section.limits:
            limit = draft.limits.get(name)
            if limit is not None and limit.has("key"):
                keys.setdefault(tuple(limit.section.key), name)
        if len(keys) > 1:
            route.warn(
                f"are asked in up to {len(keys)} round trips on a Redis Cluster: "
                f"{listing(keys.values(), 'and')} have different keys",
                "limits",
            )
