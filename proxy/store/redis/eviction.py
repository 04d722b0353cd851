"""Warns where Redis may drop keys that count."""

import logging

from proxy.metrics import Metrics
from proxy.store.redis.access import CONNECT_TIMEOUT
from proxy.store.redis.connection import ErrorReply
from proxy.store.redis.link import Link

log = logging.getLogger(__name__)


class Eviction:
    """Warns where Redis may drop keys that count: `maxmemory-policy allkeys-*`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._policy: str | None = None

    async def read(self, link: Link) -> None:
        """Asks the server; one that does not tell is taken as it is."""
        try:
            reply = await link.ask(b"CONFIG", b"GET", b"maxmemory-policy", timeout=CONNECT_TIMEOUT)
        except ErrorReply:
            return
        if not isinstance(reply, list) or len(reply) != 2:
            return
        policy = reply[1].decode("latin-1")
        evicts = policy.startswith("allkeys-")
        self._metrics.store_alarms["evicts"] = int(evicts)
        if evicts and policy != self._policy:
            log.warning(
                "redis %s drops keys that count when its memory is full (maxmemory-policy %s): "
                "limits start anew whenever it does; set noeviction or volatile-ttl",
                link.address,
                policy,
            )
        self._policy = policy

    def status(self) -> dict[str, object]:
        if self._policy is None:
            return {}
        return {
            "maxmemory_policy": self._policy,
            "evicts": bool(self._metrics.store_alarms["evicts"]),
        }
