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
        self._policies: dict[str, str] = {}  # by server

    async def read(self, link: Link) -> None:
        """Asks the server; one that does not tell is taken as it is."""
        try:
            reply = await link.ask(b"CONFIG", b"GET", b"maxmemory-policy", timeout=CONNECT_TIMEOUT)
        except ErrorReply:
            return
        if not isinstance(reply, list) or len(reply) != 2:
            return
        server = str(link.address)
        policy = reply[1].decode("latin-1")
        known = self._policies.get(server)
        self._policies[server] = policy
        self._metrics.store_alarms["evicts"] = int(self._evicts())
        if policy.startswith("allkeys-") and policy != known:
            log.warning(
                "redis %s drops keys that count when its memory is full (maxmemory-policy %s): "
                "limits start anew whenever it does; set noeviction or volatile-ttl",
                server,
                policy,
            )

    def status(self) -> dict[str, object]:
        """`maxmemory_policy` (of the servers that tell it) and `evicts`."""
        if not self._policies:
            return {}
        policies = ", ".join(sorted(set(self._policies.values())))
        return {"maxmemory_policy": policies, "evicts": self._evicts()}

    def _evicts(self) -> bool:
        return any(policy.startswith("allkeys-") for policy in self._policies.values())
