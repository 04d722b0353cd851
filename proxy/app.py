"""The composition root: the only file that names concrete classes.

One `Gateway` is one process: it loads the YAML, binds the listeners, swaps snapshots on reload,
and drains on a signal.
"""

import asyncio
import gc
import logging
import ssl
import time
from pathlib import Path
from typing import Final

from aiohttp import web

from proxy import __version__, logs
from proxy.admin.app import make_admin_app, make_probes_app
from proxy.edge.server import Front, Listener, open_listener, server_tls
from proxy.edge.upstream.client import HttpUpstream
from proxy.handler import Flow
from proxy.metrics import Metrics
from proxy.policy.compile import load_snapshot
from proxy.policy.problem import ConfigError
from proxy.policy.reload import Watcher
from proxy.policy.snapshot import Listen, Snapshot, UpstreamPlan
from proxy.store.memory.limits import MemoryLimits

log = logging.getLogger(__name__)


class Upstreams:
    """The live upstreams by name and settings: what a reload does not change keeps its
    connections, what no snapshot uses ends after its last request. Implements
    `proxy.policy.compile.Live`."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._live: dict[str, HttpUpstream] = {}
        self._made: dict[str, HttpUpstream] = {}

    def upstream(self, plan: UpstreamPlan) -> HttpUpstream:
        """The upstream for a snapshot that is being built."""
        made = self._live.get(plan.name)
        if made is None or made.plan != plan:
            made = HttpUpstream(plan, self.metrics.upstream(plan.name))
        self._made[plan.name] = made
        return made

    def commit(self) -> None:
        """The snapshot is in use: retires the upstreams that it does not have."""
        for name, upstream in self._live.items():
            if self._made.get(name) is not upstream:
                upstream.retire()
        self._live, self._made = self._made, {}

    def roll_back(self) -> None:
        """The snapshot was refused. What was made for it has not connected to anything."""
        self._made = {}

    def status(self) -> list[dict[str, object]]:
        """Each upstream's name and figures."""
        return [{"name": name} | upstream.status() for name, upstream in self._live.items()]

    async def close(self) -> None:
        """Closes every connection."""
        for upstream in self._live.values():
            await upstream.close()


class Gateway:
    """One process of the gateway. Implements `proxy.admin.control.Control`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started = time.time()
        self.metrics = Metrics()
        self.limit_store = MemoryLimits(_microseconds, self.metrics)
        self._access = logs.AccessLog()
        self._upstreams = Upstreams(self.metrics)
        self._snapshot: Snapshot | None = None
        self._front: Front | None = None
        self._tls: ssl.SSLContext | None = None
        self._listeners: list[Listener] = []
        self._runners: list[web.AppRunner] = []
        self._watcher: Watcher | None = None
        self._reloading = asyncio.Lock()
        self._stopping = False

    # Control: what the admin application sees and may do.

    def snapshot(self) -> Snapshot | None:
        return self._snapshot

    def readiness(self) -> tuple[bool, dict[str, object]]:
        if self._stopping:
            return False, {"reason": "draining"}
        if not self._listeners:
            return False, {"reason": "starting"}
        return True, {}

    def store_status(self) -> dict[str, object]:
        return {"kind": "memory", "healthy": True, "keys": len(self.limit_store)}

    def upstream_status(self) -> list[dict[str, object]]:
        return self._upstreams.status()

    def connections(self) -> int:
        return 0 if self._front is None else self._front.connections()

    async def reload(self) -> list[str]:
        async with self._reloading:
            errors = await self._reload()
        self.metrics.reloads["failed" if errors else "ok"] += 1
        for error in errors:
            log.error("not reloaded: %s", error)
        return errors

    async def _reload(self) -> list[str]:
        current = self._snapshot
        assert current is not None
        try:
            snapshot, warnings = await asyncio.to_thread(load_snapshot, self.path, self._upstreams)
            if self._tls is not None and snapshot.server.tls is not None:
                # A renewed certificate serves from the next handshake on.
                await asyncio.to_thread(
                    self._tls.load_cert_chain, snapshot.server.tls.cert, snapshot.server.tls.key
                )
        except ConfigError as failed:
            self._upstreams.roll_back()
            return [str(problem) for problem in failed.problems]
        except OSError as failed:  # ssl.SSLError is one: a file changed after it was checked
            self._upstreams.roll_back()
            return [f"{self.path}: {failed}"]
        bound = _changed_bindings(current, snapshot)
        if bound:
            self._upstreams.roll_back()
            return [f"{self.path}: {key}: cannot change while running; restart" for key in bound]
        self._adopt(snapshot, warnings)
        log.info("the configuration was reloaded: %s", snapshot.hash[:12])
        return []

    # The life of the process.

    async def start(self) -> None:
        """Loads, binds and accepts.

        Raises ConfigError, or OSError where an address cannot be bound.
        """
        snapshot, warnings = await asyncio.to_thread(load_snapshot, self.path, self._upstreams)
        server = snapshot.server
        if server.tls is not None:
            self._tls = await asyncio.to_thread(server_tls, server.tls)
        self._front = Front(
            snapshot, Flow(self.limit_store), self.metrics, self._access, self._is_ready
        )
        self._adopt(snapshot, warnings)
        await self._serve_admin(snapshot)
        self._listeners.append(
            await open_listener(server.listen, self._front, self._tls, server.header_timeout)
        )
        self._watcher = Watcher(self.path, self._content, self.reload)
        self._watcher.start()
        # What is loaded by now lives as long as the process: the collector need not walk it again.
        gc.collect()
        gc.freeze()
        log.info("sluicegate %s listens on %s", __version__, server.listen)

    async def stop(self) -> None:
        """Drains: readiness first, then the port, then requests in flight; lets go of all."""
        if self._stopping:
            return
        self._stopping = True
        if self._watcher is not None:
            await self._watcher.stop()
        if self._front is not None and self._snapshot is not None and self._listeners:
            await self._drain(self._front, self._snapshot)
        await self._upstreams.close()
        for runner in self._runners:
            await runner.cleanup()
        await self.limit_store.close()
        log.info("stopped")
        await asyncio.to_thread(self._access.close)

    async def _drain(self, front: Front, snapshot: Snapshot) -> None:
        server = snapshot.server
        front.draining = True  # answers say Connection: close from here on
        if server.drain_delay:
            log.info("draining: accepting for %g s more", server.drain_delay)
            await asyncio.sleep(server.drain_delay)
        for listener in self._listeners:
            await listener.close()
        await front.drain(server.drain_timeout)

    def _adopt(self, snapshot: Snapshot, warnings: list[str]) -> None:
        """Puts a snapshot in use, all at once: there is no await in here."""
        logs.configure(snapshot.log)
        self._access.configure(snapshot.log)
        for warning in warnings:
            log.warning("%s", warning)
        self._snapshot = snapshot
        assert self._front is not None
        self._front.snapshot = snapshot
        self._upstreams.commit()
        self.limit_store.retain(
            {
                variant.space
                for plan in snapshot.limits.values()
                for variant in (plan.base, *(over for _, over in plan.overrides))
                if variant is not None
            }
        )

    def _is_ready(self) -> bool:
        return self.readiness()[0]

    def _content(self) -> str:
        return "" if self._snapshot is None else self._snapshot.content

    async def _serve_admin(self, snapshot: Snapshot) -> None:
        admin = snapshot.admin
        await self._serve(make_admin_app(self, admin), admin.listen)
        if admin.probes is not None:
            await self._serve(make_probes_app(self), admin.probes)

    async def _serve(self, app: web.Application, listen: Listen) -> None:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self._runners.append(runner)
        await runner.setup()
        if listen.path is not None:
            site: web.BaseSite = web.UnixSite(runner, listen.path)
        else:
            site = web.TCPSite(runner, listen.host, listen.port)
        await site.start()


# What is bound once: a reload that changes it is refused rather than half obeyed.
_BOUND: Final = (
    ("server.listen", lambda s: s.server.listen),
    ("server.tls", lambda s: s.server.tls is None),
    ("admin.listen", lambda s: s.admin.listen),
    ("admin.probes", lambda s: s.admin.probes),
)


def _changed_bindings(current: Snapshot, new: Snapshot) -> list[str]:
    return [key for key, read in _BOUND if read(current) != read(new)]


def _microseconds() -> int:
    """Now, in microseconds since the epoch."""
    return time.time_ns() // 1000
