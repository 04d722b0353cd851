"""Notices that the configuration changed.

Content is polled, not modification times or inotify events: a ConfigMap is swapped by a symbolic
link and mounts do not always tell. Files are read in a thread, never on the event loop. A change
is told once: a bad one is not told again until something changes again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from proxy.policy.load import survey

log = logging.getLogger(__name__)


class Watcher:
    """Calls `changed` when what the configuration at `path` is read from holds something new.

    `loaded()` is the content that is in use (`Snapshot.content`): a change that was loaded
    meanwhile, by a signal or an admin call, is not told again.
    """

    def __init__(
        self,
        path: Path,
        loaded: Callable[[], str],
        changed: Callable[[], Awaitable[object]],
        *,
        interval: float = 2.0,
    ) -> None:
        self._path = path
        self._loaded = loaded
        self._changed = changed
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
