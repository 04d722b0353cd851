"""Which of a request's fields matter to the configuration."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.policy.snapshot import Snapshot


def goes_by(snapshot: "Snapshot", name: str) -> bool:
    """Whether a request field (lower case) has a say in who sends a request, where it goes, or
    what it is counted and filed under."""
    return (
        name in snapshot.server.trusted_headers
        or name in snapshot.table.headers
        or any(name in plan.key.headers for plan in snapshot.limits.values())
        or any(name in plan.key.headers for plan in snapshot.caches.values())
    )
