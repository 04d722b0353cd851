"""What concerns several values: references, collisions, combinations that cannot be meant.

Every check notes what it finds and goes on. A field that could not be read is skipped (`has`):
its error stands already.
"""

from proxy.policy.checks import (
    breakers,
    caches,
    idempotency,
    inventable,
    limits,
    retries,
    routes,
    server,
    store,
    unkeyed,
    unused,
    upstreams,
)
from proxy.policy.draft import Draft


def check_draft(draft: Draft) -> None:
    """Notes every error and warning in the draft's documents."""
    server.check(draft)
    store.check(draft)
    upstreams.check(draft)
    limits.check(draft)
    caches.check(draft)
    breakers.check(draft)
    retries.check(draft)
    idempotency.check(draft)
    routes.check(draft)
    if not any(document.broken for document in draft.documents):
        unused.check(draft)
        inventable.check(draft)
        unkeyed.check(draft)
