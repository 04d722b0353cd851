"""The road to one Redis server, or to the primary that Sentinels name; `open_road` builds the one
that a URL asks for.

Rules:
- Nothing here waits for a connection or tries again: whoever calls has a way of its own to go on.
- A server that turns out to be a replica, or to be of no use, is left and found anew.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from proxy.metrics import Metrics
from proxy.policy.snapshot import StorePlan
from proxy.store.ports import StoreError
from proxy.store.redis.access import Access, Address
from proxy.store.redis.cluster import ClusterRoad
from proxy.store.redis.connection import ErrorReply, Word
from proxy.store.redis.eviction import Eviction
from proxy.store.redis.link import NOT_SERVING, Link, refused, wait_for
from proxy.store.redis.pubsub import PING_EVERY, Subscriptions
from proxy.store.redis.road_port import PROBE_EXPIRY, Direct, Road, Script
from proxy.store.redis.topology import Sentinels


def open_road(plan: StorePlan, metrics: Metrics) -> Road:
    """The road that `plan.url` (not memory://) asks for. It connects by itself from now on, and
    has to be closed. Needs the running event loop."""
    if plan.url.kind == "cluster":
        return ClusterRoad(plan, metrics)
    return SingleRoad(plan, metrics)


class SingleRoad:
    """A Road whose calls all go to one server at a time."""

    cluster = False

    def __init__(self, plan: StorePlan, metrics: Metrics) -> None:
        url = plan.url
        self._plan = plan
        self._timeout = plan.timeout
        self._eviction = Eviction(metrics)
        access = Access.of(plan)
        self._sentinels: Sentinels | None = None
        if url.kind == "sentinel":
            self._sentinels = Sentinels(access, url.nodes, url.master or "", self._moved)
            find = self._sentinels.find
        else:
            find = _fixed(Address("", 0, url.socket) if url.socket else Address(*url.nodes[0]))
        self._link = Link(
            access, find, {}, primary=url.kind == "sentinel", greet=self._eviction.read
        )
        self._subscriptions = Subscriptions(access, find)

    @property
    def direct(self) -> Direct:
        return self

    def post(self, command: bytes) -> Awaitable[Any]:
        link = self._link
        connection = link.connection
        if connection is None:
            raise StoreError("down", link.reason)
        return connection.call(command, self._timeout)

    def failure(self, reply: Exception) -> StoreError:
        if isinstance(reply, StoreError):
            return reply
        assert isinstance(reply, ErrorReply)
        return self._refused(reply)

    def slot(self, key: bytes) -> int:
        return 0

    async def run(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[Word],
        *,
        timeout: float | None = None,
    ) -> Any:
        try:
            return await self._link.run(script, keys, args, timeout or self._timeout)
        except ErrorReply as error:
            raise self._refused(error) from None

    async def run_and_wait(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[Word],
        replicas: int,
        *,
        timeout: float | None = None,
    ) -> tuple[Any, int]:
        timeout = timeout or self._timeout
        try:
            return await self._link.run_and_wait(script, keys, args, replicas, timeout)
        except ErrorReply as error:
            raise self._refused(error) from None

    async def ask(self, command: Sequence[Word], *, timeout: float | None = None) -> Any:
        try:
            return await self._link.ask(*command, timeout=timeout or self._timeout)
        except ErrorReply as error:
            raise self._refused(error) from None

    async def probe(self) -> None:
        await self.ask((b"SET", f"{self._plan.prefix}:probe", b"1", b"PX", PROBE_EXPIRY))

    async def publish(self, channel: str, message: bytes) -> None:
        await self.ask((b"PUBLISH", channel, message))

    def subscribe(
        self,
        channel: str,
        callback: Callable[[bytes], None],
        lost: Callable[[], None],
        back: Callable[[], None] | None = None,
        alive: Callable[[float], None] | None = None,
        ping_every: float = PING_EVERY,
    ) -> None:
        self._subscriptions.add(channel, callback, lost, back, alive, ping_every)

    async def up(self, seconds: float) -> bool:
        return await wait_for(self._link.up, seconds)

    def status(self) -> dict[str, object]:
        link = self._link
        status: dict[str, object] = {
            "kind": "redis",
            "url": str(self._plan.url),
            "server": None if link.address is None else str(link.address),
            "connected": link.connection is not None,
            **self._eviction.status(),
        }
        if link.connection is None:
            status["reason"] = link.reason
        return status

    async def close(self) -> None:
        await self._subscriptions.close()
        await self._link.close()
        if self._sentinels is not None:
            await self._sentinels.close()

    def _refused(self, error: ErrorReply) -> StoreError:
        code = error.code
        if code == "READONLY" or code in NOT_SERVING:
            self._link.renew(str(error))
        return refused(error)

    def _moved(self, address: Address) -> None:
        """The Sentinels name another primary."""
        if self._link.connection is not None and self._link.address != address:
            self._link.renew(f"the primary is {address} now")


def _fixed(address: Address) -> Callable[[], Any]:
    async def find() -> Address:
        return address

    return find
