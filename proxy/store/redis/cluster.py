"""The road to a Redis Cluster: a link to every primary, calls to the one that has the key's slot.

Rules:
- MOVED corrects the slot at once and the whole map soon; ASK sends this one call elsewhere;
  TRYAGAIN (keys of a slot that is moving are in two places) is asked again within the deadline.
- Every hop has a deadline of its own, and there are `HOPS` of them at most.
- The map is read anew when a server says that it is wrong, while a primary cannot be reached, and
  every `REFRESH_EVERY` seconds.
- One server in trouble is the trouble of its keys (`StoreError.partial`): the others go on.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any, Final

from redis.crc import key_slot

from proxy.metrics import Metrics
from proxy.policy.snapshot import StorePlan
from proxy.store.ports import StoreError
from proxy.store.redis.access import FAILURES, Access, Address, let_go
from proxy.store.redis.connection import ErrorReply, Word
from proxy.store.redis.eviction import Eviction
from proxy.store.redis.link import NOT_SERVING, Link, NotServing, ended, refused, wait_for
from proxy.store.redis.pubsub import PING_EVERY, Subscriptions
from proxy.store.redis.road_port import PROBE_EXPIRY, Script
from proxy.store.redis.topology import SLOTS, node_address, read_slots

log = logging.getLogger(__name__)

HOPS: Final = 4
REFRESH_EVERY: Final = 30.0
_IN_TROUBLE: Final = 0.4  # seconds between two readings of the map while something is wrong
_AT_LEAST: Final = 0.1
_KEEP_UNMAPPED: Final = 60.0  # seconds that a link to a server without slots outlives its last use
_TRY_AGAIN: Final = 0.005


class ClusterRoad:
    """A Road to a Redis Cluster."""

    cluster = True
    direct = None

    def __init__(self, plan: StorePlan, metrics: Metrics) -> None:
        self._plan = plan
        self._timeout = plan.timeout
        self._access = Access.of(plan)
        self._seeds = [Address(*node) for node in plan.url.nodes]
        self._eviction = Eviction(metrics)
        self._scripts: dict[str, bytes] = {}
        self._slots: list[Address | None] = [None] * SLOTS
        self._links: dict[Address, Link] = {}
        self._redirected: dict[Address, float] = {}  # when a redirect led there last
        self._probes: dict[bytes, Address] = {}
        self._known = asyncio.Event()
        self._stale = asyncio.Event()
        self._reason = "the cluster's slots are not known yet"
        self._closing: set[asyncio.Task[None]] = set()
        self._subscriptions = Subscriptions(self._access, self._any_address)
        self._task = asyncio.get_running_loop().create_task(self._watch())

    def slot(self, key: bytes) -> int:
        return key_slot(key)

    async def run(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[Word],
        *,
        timeout: float | None = None,
    ) -> Any:
        timeout = timeout or self._timeout

        def call(link: Link, asking: bool) -> Awaitable[Any]:
            return link.run(script, keys, args, timeout, asking=asking)

        return await self._follow(keys[0], timeout, call)

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

        def call(link: Link, asking: bool) -> Awaitable[Any]:
            return link.run_and_wait(script, keys, args, replicas, timeout, asking=asking)

        reply, acknowledged = await self._follow(keys[0], timeout, call)
        return reply, acknowledged

    async def ask(self, command: Sequence[Word], *, timeout: float | None = None) -> Any:
        timeout = timeout or self._timeout

        def call(link: Link, asking: bool) -> Awaitable[Any]:
            return link.ask(*command, timeout=timeout, asking=asking)

        key = command[1]
        assert isinstance(key, bytes)
        return await self._follow(key, timeout, call)

    async def _follow(
        self, key: bytes, timeout: float, call: Callable[[Link, bool], Awaitable[Any]]
    ) -> Any:
        """A call to the primary that has the key, wherever redirects lead to."""
        give_up_at = time.monotonic() + timeout
        link = self._owner(key_slot(key))
        asking = False
        hops = 0
        while True:
            try:
                return await call(link, asking)
            except StoreError as error:
                if error.reason == "down":
                    self._stale.set()
                error.partial = not link.usable and self._most_are_well()
                raise
            except ErrorReply as error:
                code = error.code
                if code == "TRYAGAIN" and time.monotonic() < give_up_at:
                    await asyncio.sleep(_TRY_AGAIN)
                    continue
                if code not in ("MOVED", "ASK") or hops == HOPS:
                    raise self._refused(link, error) from None
                hops += 1
                asking = code == "ASK"
                link = await self._redirect(link, error, timeout)

    async def probe(self) -> None:
        if not self._known.is_set():
            raise StoreError("down", self._reason)
        keys = self._probe_keys()
        troubles: list[StoreError] = []
        for key in keys:
            try:
                await self._ask(self._owner(key_slot(key)), b"SET", key, b"1", b"PX", PROBE_EXPIRY)
            except StoreError as error:
                troubles.append(error)
        if troubles:
            trouble = troubles[0]
            trouble.partial = 2 * len(troubles) < len(keys)
            raise trouble

    async def publish(self, channel: str, message: bytes) -> None:
        for link in self._links.values():
            if link.connection is not None:
                await self._ask(link, b"PUBLISH", channel, message)
                return
        raise StoreError("down", "no server of the cluster is connected")

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
        until = time.monotonic() + seconds
        if not await wait_for(self._known, seconds):
            return False
        for link in list(self._links.values()):
            if not await wait_for(link.up, max(0.0, until - time.monotonic())):
                return False
        return True

    def status(self) -> dict[str, object]:
        down = {str(a): link.reason for a, link in self._links.items() if link.connection is None}
        status: dict[str, object] = {
            "kind": "redis",
            "url": str(self._plan.url),
            "servers": sorted(map(str, self._links)),
            "connected": bool(self._links) and not down,
            **self._eviction.status(),
        }
        if down:
            status["reason"] = "; ".join(f"{name}: {why}" for name, why in down.items())
        elif not self._links:
            status["reason"] = self._reason
        return status

    async def close(self) -> None:
        await ended(self._task)
        await self._subscriptions.close()
        for link in self._links.values():
            await link.close()
        for task in list(self._closing):
            await task

    # Calls

    def _owner(self, slot: int) -> Link:
        address = self._slots[slot]
        if address is None:
            self._stale.set()
            raise StoreError("down", self._reason)
        return self._link(address)

    def _link(self, address: Address) -> Link:
        link = self._links.get(address)
        if link is None:

            async def find() -> Address:
                return address

            link = self._links[address] = Link(
                self._access, find, self._scripts, greet=self._eviction.read, on_lost=self._lost
            )
        return link

    def _most_are_well(self) -> bool:
        links = self._links.values()
        return 2 * sum(link.usable for link in links) > len(links)

    async def _redirect(self, link: Link, error: ErrorReply, timeout: float) -> Link:
        """The link that a MOVED or ASK leads to, connected if that is done in time."""
        _, number, place = str(error).split(" ", 2)
        host, _, port = place.rpartition(":")
        assert link.address is not None
        address = node_address(host, int(port), link.address)
        if error.code == "MOVED":
            self._slots[int(number)] = address
            self._stale.set()
        self._redirected[address] = time.monotonic()
        fresh = address not in self._links
        target = self._link(address)
        if fresh:
            await wait_for(target.up, timeout)
        return target

    async def _ask(self, link: Link, *command: Word) -> None:
        try:
            await link.ask(*command, timeout=self._timeout)
        except ErrorReply as error:
            raise self._refused(link, error) from None

    def _refused(self, link: Link, error: ErrorReply) -> StoreError:
        code = error.code
        if code in ("READONLY", "MOVED") or code in NOT_SERVING:
            self._stale.set()
        return refused(error)

    def _probe_keys(self) -> list[bytes]:
        """One key for every primary, kept until the slots change hands."""
        addresses = {address for address in self._slots if address is not None}
        probes = self._probes
        if set(probes.values()) != addresses or any(
            self._slots[key_slot(key)] != address for key, address in probes.items()
        ):
            found: dict[Address, bytes] = {}
            for number in count():
                key = f"{self._plan.prefix}:probe:{number}".encode()
                address = self._slots[key_slot(key)]
                if address is not None:
                    found.setdefault(address, key)
                if len(found) == len(addresses):
                    break
            self._probes = {key: address for address, key in found.items()}
        return list(self._probes)

    # The map

    def _lost(self, link: Link) -> None:
        self._stale.set()

    async def _watch(self) -> None:
        while True:
            self._stale.clear()
            try:
                await self._read_map()
                wait = REFRESH_EVERY
            except NotServing as error:
                self._reason = str(error)
                log.debug("redis cluster: %s", error)
                wait = _IN_TROUBLE
            if any(link.connection is None for link in self._links.values()):
                wait = _IN_TROUBLE
            await asyncio.sleep(_AT_LEAST)
            await wait_for(self._stale, wait)

    async def _read_map(self) -> None:
        """Asks the servers in turn, those that are connected first. Raises NotServing."""
        links = list(self._links.items())
        random.shuffle(links)
        links.sort(key=lambda item: item[1].connection is None)
        trouble = "no server of the cluster is known"
        for address in dict.fromkeys([*(address for address, _ in links), *self._seeds]):
            client = self._access.client(address)
            try:
                table = await read_slots(client, address)
            except FAILURES as error:
                trouble = f"{address}: {error}"
                continue
            finally:
                await let_go(client)
            if any(table):
                self._use(table)
                return
            trouble = f"{address}: it has no slots to tell of"
        raise NotServing(trouble)

    def _use(self, table: list[Address | None]) -> None:
        self._slots = table
        mapped = {address for address in table if address is not None}
        for address in mapped:
            self._link(address)
        self._reason = "no server has the key's slot"
        now = time.monotonic()
        for address in self._links.keys() - mapped:
            if now - self._redirected.get(address, 0.0) > _KEEP_UNMAPPED:
                task = asyncio.get_running_loop().create_task(self._links.pop(address).close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
                self._redirected.pop(address, None)
        self._known.set()

    async def _any_address(self) -> Address:
        for address, link in self._links.items():
            if link.connection is not None:
                return address
        return random.choice(self._seeds)
