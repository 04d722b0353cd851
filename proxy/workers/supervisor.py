"""The supervisor: one admin, one configuration and one port for N workers.

Rules:
- It serves no traffic. It binds the data port for the workers, owns the admin and probes
  listeners, watches the files and takes the signals.
- A reload is read and checked once. The workers load what was read, not the disk again, and all of
  them have built the new configuration before the first puts it in use; if one cannot, none does.
- Ready means that every worker accepts: what is missing would leave a share of the clients waiting.
- Counters of workers that have ended are kept, so totals never go down. Figures are fetched every
  POLL_SECONDS and for every scrape; a worker that is killed takes at most those since then along.
"""

import asyncio
import gc
import logging
import time
from pathlib import Path
from typing import Any, Final

from proxy import logs
from proxy.admin.listeners import AdminListeners
from proxy.admin.question import Question
from proxy.app import announcement, changed_bindings
from proxy.core.message import Outgoing, Reply
from proxy.edge.server import capacity_warnings
from proxy.metrics import Metrics
from proxy.policy.compile import Live, compile_snapshot
from proxy.policy.load import Loaded, load
from proxy.policy.problem import ConfigError
from proxy.policy.reload import ReloadOutcomes, Watcher
from proxy.policy.snapshot import Snapshot, UpstreamPlan
from proxy.policy.sources import KeptSources
from proxy.store.ports import LimitStore, Purge, StoreError
from proxy.stores import Counting, Recording
from proxy.workers.breakers import ForcedBreakers, worst
from proxy.workers.channel import Lost, Refused
from proxy.workers.limits import FleetLimits
from proxy.workers.merging import merged
from proxy.workers.ports import Port
from proxy.workers.post import Post
from proxy.workers.purges import purge as pass_on

POLL_SECONDS: Final = 1.0
FIGURES_SECONDS: Final = 1.0
READINESS_SECONDS: Final = 0.25
"""A probe must be answered in time, also where a worker is stuck."""
ORDER_SECONDS: Final = 10.0
DRAIN_MARGIN: Final = 5.0
"""Beyond drain_delay and drain_timeout: what a worker may take to let go of all."""

log = logging.getLogger(__name__)


class Supervisor:
    """The first process of a gateway with several workers. Implements
    `proxy.admin.control.Control` and `proxy.workers.post.Staff`."""

    def __init__(self, path: Path, workers: int, sources: dict[str, Any]) -> None:
        """`sources` is what `read` gave with the configuration that `start` gets."""
        self.path = path
        self.workers = workers
        self.started = time.time()
        self.metrics = Metrics()
        """The totals, as of the last `refresh`."""
        self._own = Metrics()
        self._ended = Metrics()
        self._counting = Counting(self._own)
        self._forced = ForcedBreakers()
        self._recording = Recording(self._own)
        self._snapshot: Snapshot | None = None
        self._sources = sources
        self._generation = 0
        self._posts: list[Post] = []
        self._port: Port | None = None
        self._admin = AdminListeners()
        self._watcher: Watcher | None = None
        self._polling: asyncio.Task[None] | None = None
        self._reloading = asyncio.Lock()
        self._outcomes = ReloadOutcomes(self._own)
        self._stopping = False

    # Control: what the admin application sees and may do.

    async def refresh(self) -> None:
        await asyncio.gather(*(post.ask_figures(FIGURES_SECONDS) for post in self._posts))
        total = Metrics()
        total.add(self._own.dump())
        total.add(self._ended.dump())
        for figures in self._figures():
            total.add(figures["metrics"])
        self.metrics.take(total)
        self.metrics.workers = tuple(post.pid for post in self._posts if post.pid is not None)

    async def refresh_readiness(self) -> None:
        await asyncio.gather(*(post.ask_readiness(READINESS_SECONDS) for post in self._posts))

    @property
    def limit_store(self) -> LimitStore:
        return FleetLimits(self._counting.limits, self._reset)

    async def key_salt(self) -> bytes | None:
        assert self._snapshot is not None
        return await self._counting.key_salt(self._snapshot.log)

    def snapshot(self) -> Snapshot | None:
        return self._snapshot

    def readiness(self) -> tuple[bool, dict[str, object]]:
        workers = [
            {"pid": post.pid, "ready": post.ready, "restarts": post.restarts}
            for post in self._posts
        ]
        detail: dict[str, object] = {"workers": workers}
        told = [figures["detail"] for figures in self._figures() if figures["ready"]]
        if told:
            detail |= merged(told)
        ready = sum(post.ready for post in self._posts)
        if self._stopping:
            return False, {"reason": "draining", **detail}
        if ready < self.workers:
            why = "starting" if self._port is None else f"{ready} of {self.workers} workers serve"
            return False, {"reason": why, **detail}
        return True, detail

    def store_status(self) -> dict[str, object]:
        told = [figures["store"] for figures in self._figures()]
        status: dict[str, object] = merged(told) if told else {"healthy": False}
        return status

    def cache_status(self) -> dict[str, object]:
        told = [figures["cache"] for figures in self._figures()]
        status: dict[str, object] = merged(told) if told else {}
        return status

    def upstream_status(self) -> list[dict[str, object]]:
        told = [figures["upstreams"] for figures in self._figures()]
        status: list[dict[str, object]] = merged(told) if told else []
        return status

    def breakers(self) -> list[dict[str, Any]]:
        return worst([figures["breakers"] for figures in self._figures()])

    async def force_breaker(self, upstream: str, state: str) -> None:
        async with self._reloading:
            await self._forced.force(self._posts, upstream, state)

    async def free_record(self, record: bytes) -> None:
        await self._recording.free(record)

    def idempotency_status(self) -> dict[str, object]:
        told = [figures["idempotency"] for figures in self._figures()]
        status: dict[str, object] = merged(told) if told else {}
        return status

    def connections(self) -> int:
        return sum(figures["connections"] for figures in self._figures())

    async def reload(self) -> list[str]:
        async with self._reloading:
            errors = await self._reload()
        self._outcomes.note(errors)
        return errors

    async def _reload(self) -> list[str]:
        current = self._snapshot
        assert current is not None
        try:
            loaded, sources = await asyncio.to_thread(read, self.path)
        except ConfigError as failed:
            return failed.errors
        snapshot = await asyncio.to_thread(compile_snapshot, loaded, Abroad(self.metrics))
        bound = changed_bindings(current, snapshot)
        if bound:
            return [f"{self.path}: {key}: cannot change while running; restart" for key in bound]
        posts = [post for post in self._posts if post.ready]
        said = await asyncio.gather(*(self._prepare(post, sources) for post in posts))
        errors = list(dict.fromkeys(error for errors in said for error in errors))
        if errors:
            await asyncio.gather(*(self._order(post, "abort") for post in posts))
            return errors
        self._adopt(loaded, snapshot, sources)
        await asyncio.gather(*(self._commit(post) for post in posts))
        log.info("the configuration was reloaded: %s", snapshot.hash[:12])
        return []

    async def _prepare(self, post: Post, sources: dict[str, Any]) -> list[str]:
        try:
            errors: list[str] = await post.ask("prepare", ORDER_SECONDS, sources=sources)
        except Lost:
            return []  # its successor starts with what is in use by then
        except Refused as refused:
            return [f"{self.path}: worker {post.number}: {refused}"]
        except TimeoutError:
            return [f"{self.path}: worker {post.number} did not answer"]
        return errors

    async def _commit(self, post: Post) -> None:
        if await self._order(post, "commit"):
            post.loaded = self._generation
        else:
            post.kill()  # nobody may go on with the old one; the successor has the new

    async def _order(self, post: Post, what: str) -> bool:
        """Whether the worker did it."""
        try:
            await post.ask(what, ORDER_SECONDS)
        except (Lost, Refused, TimeoutError) as error:
            log.warning("worker %d failed at %s: %r", post.number, what, error)
            return False
        return True

    async def _reset(self, space: str, key: bytes) -> None:
        """Has every worker forget a limit's key. Raises StoreError where one does not."""
        asked = (
            post.ask("reset", ORDER_SECONDS, space=space, key=key.hex())
            for post in self._posts
            if post.ready
        )
        for error in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(error, Lost):
                continue  # what it remembered went with it
            if isinstance(error, TimeoutError):
                raise StoreError("timeout", "a worker did not answer")
            if isinstance(error, BaseException):
                raise StoreError("down", str(error))

    async def purge(self, purge: Purge, selector: str, number: int) -> None:
        assert self._snapshot is not None
        shared = self._snapshot.store.cache_at.kind != "memory"
        await pass_on(self._posts, purge, shared=shared)
        counts = self._own.purges
        counts[selector] = counts.get(selector, 0) + number

    async def looked_up(self, question: Question) -> dict[str, Any]:
        """As the first worker says that has something stored, else as any says."""
        said: dict[str, Any] = {}
        for post in self._posts:
            if post.ready:
                try:
                    found = await post.ask("stored", FIGURES_SECONDS, question=question)
                except (Lost, Refused, TimeoutError):
                    continue
                said = said or found
                if any(one["tier"] == "memory" for one in found.get("stored", ())):
                    return dict(found)
        return said

    # Staff: what the posts ask.

    def orders(self) -> tuple[int, dict[str, Any]]:
        return self._generation, {"path": str(self.path), "sources": self._sources}

    async def joined(self, post: Post) -> None:
        async with self._reloading:
            if post.loaded != self._generation:
                errors = await post.ask("prepare", ORDER_SECONDS, sources=self._sources)
                if errors:
                    raise Refused("; ".join(errors))
                await post.ask("commit", ORDER_SECONDS)
                post.loaded = self._generation
            await self._forced.brief(post)
            post.ready = True

    def left(self, post: Post) -> None:
        if post.figures is not None:
            self._ended.add(post.figures["metrics"], gauges=False)

    # The life of the process.

    async def start(self, loaded: Loaded) -> None:
        """Binds, starts the workers, and returns when all of them accept.

        Raises OSError where an address cannot be bound, NotStarted where a worker does not come
        up.
        """
        snapshot = await asyncio.to_thread(compile_snapshot, loaded, Abroad(self.metrics))
        self._adopt(loaded, snapshot, self._sources)
        await self._counting.open(snapshot.store)
        await self._admin.open(self, snapshot)
        self._port = await asyncio.to_thread(Port, snapshot.server.listen, self.workers)
        self._posts = [
            Post(number, sockets, self) for number, sockets in enumerate(self._port.sockets, 1)
        ]
        await asyncio.gather(*(post.first for post in self._posts))
        await self.refresh()  # readyz tells of the store from the first moment
        self._polling = asyncio.create_task(self._poll())
        self._watcher = Watcher(self.path, self._content, self.reload, self._outcomes.valid)
        self._watcher.start()
        gc.collect()
        gc.freeze()
        log.info("%s", announcement(snapshot, len(loaded.warnings)))

    async def stop(self) -> None:
        """Drains all workers: readiness first, then the port, then requests in flight."""
        if self._stopping:
            return
        self._stopping = True
        if self._watcher is not None:
            await self._watcher.stop()
        if self._port is not None:
            self._port.close()  # the workers accept on theirs until drain_delay is over
        await self._drain()
        if self._polling is not None:
            self._polling.cancel()
        if self._port is not None:
            await asyncio.to_thread(self._port.unlink)
        await self._admin.close()
        await self._recording.close()
        await self._counting.close()
        log.info("stopped")

    async def _drain(self) -> None:
        if self._snapshot is None:
            return
        server = self._snapshot.server
        patience = server.drain_delay + server.drain_timeout + DRAIN_MARGIN
        if server.drain_delay:
            log.info("draining: accepting for %g s more", server.drain_delay)
        await asyncio.gather(*(post.drain(patience) for post in self._posts))

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self.refresh()

    def _adopt(self, loaded: Loaded, snapshot: Snapshot, sources: dict[str, Any]) -> None:
        logs.configure(snapshot.log)
        for warning in (*loaded.warnings, *capacity_warnings(snapshot)):
            log.warning("%s", warning)
        self._snapshot = snapshot
        self._sources = sources
        self._generation += 1
        self._recording.open(snapshot)
        self._forced.retain({name for name, it in snapshot.upstreams.items() if it.breaker})

    def _content(self) -> str:
        return "" if self._snapshot is None else self._snapshot.content

    def _figures(self) -> list[dict[str, Any]]:
        """What the workers of this moment told last."""
        return [post.figures for post in self._posts if post.figures is not None]


class Abroad(Live):
    """What the supervisor's snapshot is bound to: the live parts are the workers' business."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def upstream(self, plan: UpstreamPlan) -> "Elsewhere":
        return Elsewhere(plan.name)


class Elsewhere:
    """An upstream that only the workers talk to."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def send(self, request: Outgoing) -> Reply:
        raise AssertionError("the supervisor serves no traffic")


def read(path: Path) -> tuple[Loaded, dict[str, Any]]:
    """The configuration, checked, and what it was read from. Raises ConfigError. Reads files."""
    sources = KeptSources()
    return load(path, sources=sources), sources.packed()
