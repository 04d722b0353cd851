"""Circuits as the supervisor sees them: each worker has its own; a hand on one is a hand on all."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from proxy.workers.channel import Lost, Refused, Worker

_SECONDS: Final = 5.0
_WORST_FIRST: Final = ("open", "half-open", "closed")


class ForcedBreakers:
    """What operators have decided about circuits, for workers of now and to come."""

    def __init__(self) -> None:
        self._forced: dict[str, str] = {}

    async def force(self, posts: Sequence[Worker], upstream: str, state: str) -> None:
        """Tells every worker, and remembers it. A worker that does not hear it is of no use: it
        ends, and its successor is told. Raises nothing."""
        if state == "auto":
            self._forced.pop(upstream, None)
        else:
            self._forced[upstream] = state
        asked = (_tell(post, upstream, state) for post in posts if post.ready)
        await asyncio.gather(*asked)

    async def brief(self, post: Worker) -> None:
        """Tells a new worker of all that holds."""
        for upstream, state in self._forced.items():
            await post.ask("force", _SECONDS, upstream=upstream, state=state)

    def retain(self, upstreams: set[str]) -> None:
        """Forgets upstreams that have no breaker any more."""
        for name in self._forced.keys() - upstreams:
            del self._forced[name]


async def _tell(post: Worker, upstream: str, state: str) -> None:
    try:
        await post.ask("force", _SECONDS, upstream=upstream, state=state)
    except (Lost, Refused, TimeoutError):
        post.kill()


def worst(said: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One line per upstream of what several workers say: the worst circuit's, its counts summed
    over all of them."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for line in (line for lines in said for line in lines):
        by_name.setdefault(line["upstream"], []).append(line)
    merged = []
    for lines in by_name.values():
        first = min(lines, key=lambda line: _WORST_FIRST.index(line["state"]))
        counts = {
            name: sum(line[name] for line in lines)
            for name, value in first.items()
            if isinstance(value, int) and not isinstance(value, bool)
        }
        merged.append(first | counts)
    return merged
