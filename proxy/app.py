"""The composition root: with live.py and stores.py the only place that names concrete classes.

One `Gateway` is one process: it loads the YAML, binds the listeners, swaps snapshots on reload,
and drains on a signal.
"""

import asyncio
import gc
import logging
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from proxy import logs
from proxy.admin.breakers import STATES
from proxy.admin.explain import routed
from proxy.admin.listeners import AdminListeners
from proxy.admin.question import Question
from proxy.admin.stored import looked_up
from proxy.buffer import BodyRoom
from proxy.edge.listener import Listener, server_tls
from proxy.edge.server import Front, capacity_warnings
from proxy.handler import Flow
from proxy.live import Live
from proxy.metrics import Metrics
from proxy.policy.compile import compile_snapshot
from proxy.policy.load import Loaded, load
from proxy.policy.problem import ConfigError
from proxy.policy.reload import ReloadOutcomes, Watcher
from proxy.policy.snapshot import Snapshot
from proxy.resources import release
from proxy.stages.cache import Caching
from proxy.stages.idempotency import Replaying
from proxy.store.ports import LimitStore, Purge
from proxy.store.redis.cache import RedisCache, open_cache
from proxy.store.redis.circuits import SharedCircuits
from proxy.stores import CONNECT_PATIENCE, Counting, Recording

log = logging.getLogger(__name__)


class Gateway:
    """One process that serves: the whole gateway, or a worker of several. Implements
    `proxy.admin.control.Control`."""

    def __init__(self, path: Path, *, supervised: bool = False) -> None:
        """`supervised`: a worker, whose supervisor logs what holds for all of them."""
        self.path = path
        self._supervised = supervised
        self.started = time.time()
        self.metrics = Metrics()
        self._counting = Counting(self.metrics)
        self._access = logs.AccessLog()
        self._live = Live(self.metrics)
        self._snapshot: Snapshot | None = None
        self._prepared: tuple[Snapshot, list[str]] | None = None
        self._recording = Recording(self.metrics)
        self._bodies = BodyRoom()
        self._replaying = Replaying(self._bodies)
        self._caching: Caching | None = None
        self._shared: RedisCache | None = None
        self._front: Front | None = None
        self._tls: ssl.SSLContext | None = None
        self._listeners: list[Listener] = []
        self._admin = AdminListeners()
        self._watcher: Watcher | None = None
        self._reloading = asyncio.Lock()
        self._outcomes = ReloadOutcomes(self.metrics)
        self._stopping = False

    # Control: what the admin application sees and may do.

    async def refresh(self) -> None:
        """All figures are here, and of this moment, but for the circuits' states."""
        self._live.observe()
        self.metrics.store_alarms["blind"] = int(self._blind)

    async def refresh_readiness(self) -> None:
        """It is of this moment."""

    @property
    def limit_store(self) -> LimitStore:
        return self._counting.limits

    async def key_salt(self) -> bytes | None:
        assert self._snapshot is not None
        return await self._counting.key_salt(self._snapshot.log)

    def snapshot(self) -> Snapshot | None:
        return self._snapshot

    def readiness(self) -> tuple[bool, dict[str, object]]:
        if self._stopping:
            return False, {"reason": "draining"}
        if not self._listeners:
            return False, {"reason": "starting"}
        return True, self._counting.trouble() | ({"blind": True} if self._blind else {})

    @property
    def _blind(self) -> bool:
        """Whether the cache may miss purges."""
        return self._caching is not None and self._caching.blind

    async def purge(self, purge: Purge, selector: str, number: int) -> None:
        await self.apply_purge(purge)
        counts = self.metrics.purges
        counts[selector] = counts.get(selector, 0) + number

    async def apply_purge(self, purge: Purge) -> None:
        """Purges without counting it: who passes it on to several processes counts it once."""
        assert self._caching is not None
        await self._caching.purge(purge)

    async def looked_up(self, question: Question) -> dict[str, Any]:
        caching, snapshot = self._caching, self._snapshot
        ex = None if snapshot is None else routed(snapshot, question)
        if ex is None or caching is None:
            return {}
        return await looked_up(ex, caching)

    def cache_status(self) -> dict[str, object]:
        return {} if self._caching is None else self._caching.status()

    def store_status(self) -> dict[str, object]:
        return self._counting.status()

    def upstream_status(self) -> list[dict[str, object]]:
        return self._live.upstreams()

    def breakers(self) -> list[dict[str, Any]]:
        return self._live.breakers()

    async def force_breaker(self, upstream: str, state: str) -> None:
        self._live.force(upstream, STATES[state])

    async def free_record(self, record: bytes) -> None:
        await self._recording.free(record)

    def idempotency_status(self) -> dict[str, object]:
        return self._replaying.status()

    def connections(self) -> int:
        return 0 if self._front is None else self._front.connections()

    async def reload(self) -> list[str]:
        async with self._reloading:
            errors = await self._reload()
        self._outcomes.note(errors)
        return errors

    async def _reload(self) -> list[str]:
        try:
            loaded = await asyncio.to_thread(load, self.path)
        except ConfigError as failed:
            return failed.errors
        errors = await self.prepare(loaded)
        if not errors:
            snapshot = self.commit()
            log.info("the configuration was reloaded: %s", snapshot.hash[:12])
        return errors

    async def prepare(self, loaded: Loaded) -> list[str]:
        """Builds what `commit` puts in use or `abort` forgets. Empty, or the errors: then there
        is nothing to commit."""
        current = self._snapshot
        assert current is not None
        self.abort()  # what was prepared before, if nobody has decided on it
        try:
            snapshot = await asyncio.to_thread(compile_snapshot, loaded, self._live)
            bound = changed_bindings(current, snapshot)
            if not bound and self._tls is not None and snapshot.server.tls is not None:
                # A renewed certificate serves from the next handshake on.
                await asyncio.to_thread(
                    self._tls.load_cert_chain, snapshot.server.tls.cert, snapshot.server.tls.key
                )
        except OSError as failed:  # ssl.SSLError is one: a file changed after it was checked
            self.abort()
            return [f"{self.path}: {failed}"]
        except BaseException:
            self.abort()
            raise
        if bound:
            self.abort()
            return [f"{self.path}: {key}: cannot change while running; restart" for key in bound]
        self._prepared = snapshot, self._warnings(loaded, snapshot)
        return []

    def commit(self) -> Snapshot:
        """Puts in use what was prepared."""
        assert self._prepared is not None
        snapshot, warnings = self._prepared
        self._prepared = None
        self._adopt(snapshot, warnings)
        return snapshot

    def abort(self) -> None:
        """Forgets what was prepared."""
        self._prepared = None
        self._live.roll_back()

    @property
    def front(self) -> Front:
        """The data port, once it is open."""
        assert self._front is not None
        return self._front

    # The life of the process.

    async def start(self, loaded: Loaded | None = None) -> None:
        """Binds and accepts, on the admin listener too, and watches the files; reads them first
        where they are not `loaded`.

        Raises ConfigError, or OSError where an address cannot be bound.
        """
        if loaded is None:
            loaded = await asyncio.to_thread(load, self.path)
        snapshot, front = await self._begin(loaded)
        server = snapshot.server
        await self._admin.open(self, snapshot)
        listener = Listener(front, self._tls, server.header_timeout)
        await listener.open(server.listen)
        self._listeners.append(listener)
        self._watcher = Watcher(self.path, self._content, self.reload, self._outcomes.valid)
        self._watcher.start()
        _settle()
        log.info("%s", announcement(snapshot, len(loaded.warnings)))

    async def start_worker(self, loaded: Loaded, bound: Sequence[socket.socket]) -> None:
        """Accepts on sockets that a supervisor has bound; admin and files are its business."""
        snapshot, front = await self._begin(loaded)
        for given in bound:
            listener = Listener(front, self._tls, snapshot.server.header_timeout)
            await listener.open_given(given)
            self._listeners.append(listener)
        _settle()

    async def _begin(self, loaded: Loaded) -> tuple[Snapshot, Front]:
        snapshot = await asyncio.to_thread(compile_snapshot, loaded, self._live)
        logs.configure(snapshot.log)  # what is said before all stands is said as the file wants
        if snapshot.server.tls is not None:
            self._tls = await asyncio.to_thread(server_tls, snapshot.server.tls)
        await self._counting.open(snapshot.store)
        store = snapshot.store
        if self._counting.road is not None:
            circuits = SharedCircuits(self._counting.road, store.prefix, self._live.told)
            self._live.tell = circuits.tell
        caching = self._caching = Caching(
            self.metrics, store.cache_memory, blind=round(store.cache_blind * 1000)
        )
        flow = Flow(self.limit_store, self._replaying, caching)
        front = self._front = Front(snapshot, flow, self.metrics, self._access, self._is_ready)
        self._adopt(snapshot, self._warnings(loaded, snapshot))
        if self._shared is not None:
            await self._shared.up(CONNECT_PATIENCE)
        await self._recording.up(CONNECT_PATIENCE)
        return snapshot, front

    async def stop(self) -> None:
        """Drains: readiness first, then the port, then requests in flight; lets go of all."""
        if self._stopping:
            return
        self._stopping = True
        if self._watcher is not None:
            await self._watcher.stop()
        if self._front is not None and self._snapshot is not None and self._listeners:
            left = await self._drain(self._front, self._snapshot)
            # Requests whose clients have left are recorded all the same.
            await self._replaying.close(left)
        await self._recording.close()
        if self._caching is not None:
            await self._caching.close()
        await self._live.close()
        await self._admin.close()
        await self._counting.close()
        log.info("stopped")
        await asyncio.to_thread(self._access.close)

    async def _drain(self, front: Front, snapshot: Snapshot) -> float:
        """Lets clients' requests finish; the seconds of drain_timeout that are left then."""
        server = snapshot.server
        front.draining = True  # answers say Connection: close from here on
        if server.drain_delay:
            log.info("draining: accepting for %g s more", server.drain_delay)
            await asyncio.sleep(server.drain_delay)
        for listener in self._listeners:
            await listener.close()
        began = time.monotonic()
        await front.drain(server.drain_timeout)
        return max(0.0, server.drain_timeout - (time.monotonic() - began))

    def _adopt(self, snapshot: Snapshot, warnings: list[str]) -> None:
        """Puts a snapshot in use, all at once: there is no await in here."""
        logs.configure(snapshot.log)
        self._access.configure(snapshot.log)
        for warning in warnings:
            log.warning("%s", warning)
        self._snapshot = snapshot
        assert self._front is not None
        self._front.adopt(snapshot)
        self._bodies.most = snapshot.server.body_buffer
        self._live.commit()
        self._counting.retain(snapshot)
        self._share(snapshot)
        self._recording.open(snapshot)
        self._replaying.store = self._recording.store

    def _warnings(self, loaded: Loaded, snapshot: Snapshot) -> list[str]:
        if self._supervised:
            return []
        return [*map(str, loaded.warnings), *capacity_warnings(snapshot)]

    def _share(self, snapshot: Snapshot) -> None:
        """Opens the shared tier with the first cache there is. It stays for what is stored."""
        assert self._caching is not None
        store = snapshot.store
        if self._shared is None and snapshot.caches and store.cache_at.kind != "memory":
            self._shared = open_cache(store, self.metrics)
            self._caching.share(self._shared)

    def _is_ready(self) -> bool:
        return self.readiness()[0]

    def _content(self) -> str:
        return "" if self._snapshot is None else self._snapshot.content


# What is bound once: a reload that changes it is refused rather than half obeyed.
_BOUND: Final = (
    ("server.listen", lambda s: s.server.listen),
    ("server.tls", lambda s: s.server.tls is None),
    ("server.workers", lambda s: s.server.workers),
    ("admin.listen", lambda s: s.admin.listen),
    ("admin.probes", lambda s: s.admin.probes),
    # on_failure is each limit's business, and may change.
    ("store", lambda s: replace(s.store, on_failure="local")),
)


def changed_bindings(current: Snapshot, new: Snapshot) -> list[str]:
    """The keys of what a reload would have to bind anew."""
    return [key for key, read in _BOUND if read(current) != read(new)]


def announcement(snapshot: Snapshot, warnings: int) -> str:
    """What runs and what it serves, for the line at the start."""
    server, admin = snapshot.server, snapshot.admin
    facts = [f"admin {admin.listen}"]
    if admin.probes is not None:
        facts.append(f"probes {admin.probes}")
    facts.append(f"store {snapshot.store.url}")
    for number, noun in (
        (server.workers, "worker"),
        (len(snapshot.routes), "route"),
        (warnings, "warning"),
    ):
        if number or noun != "warning":
            facts.append(f"{number} {noun}{'' if number == 1 else 's'}")
    return f"sluicegate {release()} listens on {server.listen} ({', '.join(facts)})"


def _settle() -> None:
    """What is loaded by now lives as long as the process: the collector need not walk it again."""
    gc.collect()
    gc.freeze()
