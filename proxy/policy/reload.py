"""Notices that the configuration changed.

Content is polled, not modification times or inotify events: a ConfigMap is swapped by a symbolic
link and mounts do not always tell. Files are read in a thread, never on the event loop. A change
is reported once: a bad one is not reported again until something changes again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from proxy.metrics import Metrics
from proxy.policy.load import survey

log = logging.getLogger(__name__)


class ReloadOutcomes:
    """Counts what became of reloads, and logs why one was refused and when that is over."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._refused = False

    def note(self, errors: Sequence[str]) -> None:
        """A reload that was done (no errors) or refused."""
        self._metrics.reloads["failed" if errors else "ok"] += 1
        for error in errors:
            log.error("not reloaded: %s", error)
        if not errors:
            self.valid()
        self._refused = bool(errors)

    def valid(self) -> None:
        """What is on disk is what is in use, be it that a bad change was taken back."""
        if self._refused:
            log.info("the configuration on disk is valid again")
        self._refused = False


class Watcher:
    """Calls `changed` when what the configuration at `path` is read from holds something new, and
    `unchanged` when it holds what is in use, at first and after every change.

    `loaded()` is the content that is in use (`Snapshot.content`): a change that was loaded
    meanwhile, by a signal or an admin call, is not told again.
    """

    def __init__(
        self,
        path: Path,
        loaded: Callable[[], str],
        changed: Callable[[], Awaitable[object]],
        unchanged: Callable[[], None],
        *,
        interval: float = 2.0,
    ) -> None:
        self._path = path
        self._loaded = loaded
        self._changed = changed
        self._unchanged = unchanged
        self._interval = interval
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to watch; also a change since the configuration was loaded is noticed."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ends it; harmless twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            # The survey follows the configuration to files that were not part of it before.
            known = await asyncio.to_thread(survey, self._path)
            if known.digest != self._loaded():
                await self._tell()
            else:
                self._unchanged()
            before = known.digest
            while known.digest == before:
                await asyncio.sleep(self._interval)
                known = await asyncio.to_thread(known.again)

    async def _tell(self) -> None:
        try:
            await self._changed()
        except Exception:
            # A reload that fails in a way nobody foresaw must not be the last one.
            log.exception("the changed configuration could not be loaded")
