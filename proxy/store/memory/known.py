"""What is known of the purges of one tag or prefix (`purges`).

Never compiled: what is compiled cannot be referred to weakly, and a `Tag` is.
"""

from typing import NamedTuple


class Known(NamedTuple):
    """The numbers under which one tag or prefix was purged last."""

    hard: int = 0
    soft: int = 0
    at: int = 0
    """When the last soft purge was, in ms since the epoch."""
    before: int = 0
    """The soft purge before the last one."""

    def heard(self, hard: int, soft: int, at: int) -> "Known":
        """With these, too, in whatever order they are heard."""
        hard = max(self.hard, hard)
        if soft > self.soft:
            return Known(hard, soft, at, self.soft)
        before = self.before if soft == self.soft else max(self.before, soft)
        return Known(hard, self.soft, self.at, before)

    def stale_at(self, began: int) -> int | None:
        """Since when (ms) what began with this number is stale by a soft purge; None: it is not.
        0 where more have come since then than are known, as the first of them counts."""
        if self.soft <= began:
            return None
        return self.at if self.before <= began else 0


class Tag:
    """One tag, shared by all that carry it, and gone with the last of them."""

    __slots__ = ("__weakref__", "known")

    def __init__(self, known: Known) -> None:
        self.known = known
