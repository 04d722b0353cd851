"""Circuits that replicas share: who finds an upstream ill or well again tells the others.

News only, over pub/sub, and nothing is kept: who misses a message finds out for itself, from its
own requests. The channel is `PREFIX:circuits`, a message `{"from", "upstream", "state", "for"}`:
who says it, of what, open or closed, and for how many seconds if open.
"""

import asyncio
import json
import logging
import math
from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

from proxy.core.breaker import Order, State
from proxy.store.ports import StoreError
from proxy.store.redis.road_port import Road

log = logging.getLogger(__name__)

_STATES: Final[dict[object, Order]] = {"open": State.OPEN, "closed": State.CLOSED}


class SharedCircuits:
    """This process's ear and mouth. `heard(upstream, state, seconds)` gets what others say."""

    def __init__(self, road: Road, prefix: str, heard: Callable[[str, Order, float], None]) -> None:
        self._road = road
        self._channel = f"{prefix}:circuits"
        self._heard = heard
        self._me = uuid4().hex
        self._telling: set[asyncio.Task[None]] = set()
        road.subscribe(self._channel, self._hear, _nothing)

    def tell(self, upstream: str, state: State, seconds: float) -> None:
        """Tells the others, beside whatever goes on; where the store does not take it, they find
        out for themselves."""
        said = {"from": self._me, "upstream": upstream, "state": state.name.lower(), "for": seconds}
        task = asyncio.get_running_loop().create_task(self._publish(json.dumps(said).encode()))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _publish(self, message: bytes) -> None:
        try:
            await self._road.publish(self._channel, message)
        except StoreError as error:
            log.info("nobody was told of a circuit: %s", error)

    def _hear(self, message: bytes) -> None:
        try:
            said: Any = json.loads(message)
            sender, upstream, seconds = said["from"], said["upstream"], float(said["for"])
            state = _STATES[said["state"]]
        except (ValueError, TypeError, KeyError):
            log.warning("a message about a circuit makes no sense")
            return
        if sender != self._me and isinstance(upstream, str) and math.isfinite(seconds):
            self._heard(upstream, state, max(0.0, seconds))


def _nothing() -> None:
    """What is missed is found out otherwise."""
