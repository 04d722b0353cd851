"""One worker's post: a process is started for it, watched, and replaced when it ends.

Rules:
- A fresh interpreter, never a fork: a process with a running loop and log threads cannot be forked
  safely.
- Whoever fills the post inherits the same listening sockets, which the supervisor keeps open.
- A worker that ends is replaced at once. One that ends again before it has been well for
  STEADY_SECONDS is waited for, longer each time, up to BACKOFF_MAX.
"""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

import proxy
from proxy.workers.channel import Channel, Lost, Refused, unasked

START_SECONDS: Final = 60.0
EXIT_SECONDS: Final = 5.0
STEADY_SECONDS: Final = 10.0
BACKOFF: Final = 0.25
BACKOFF_MAX: Final = 10.0

# `-m` looks into the current folder first. Only where we were loaded from there may it.
_FROM_HERE: Final = Path(proxy.__file__).resolve().parent.parent == Path.cwd()
_FLAGS: Final = () if _FROM_HERE else ("-P",)

log = logging.getLogger(__name__)


class Staff(Protocol):
    """What a post asks of its supervisor."""

    def orders(self) -> tuple[int, dict[str, Any]]:
        """The number of the configuration in use, and what `start` needs to load it."""

    async def joined(self, post: "Post") -> None:
        """A worker has started with the configuration `post.loaded`: brings it up to date and
        sets `post.ready`."""

    def left(self, post: "Post") -> None:
        """The post's worker has ended; `post.figures` are its last."""


class NotStarted(RuntimeError):
    """A worker that did not get as far as accepting."""


class Post:
    """One place in the staff. `number` counts from 1."""

    def __init__(self, number: int, sockets: Sequence[socket.socket], staff: Staff) -> None:
        self.number = number
        self.ready = False
        self.loaded = 0
        """The number of the configuration that the worker has."""
        self.restarts = 0
        self.figures: dict[str, Any] | None = None
        """What the present worker told last."""
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the first worker is ready, or NotStarted."""
        self._sockets = sockets
        self._staff = staff
        self._process: asyncio.subprocess.Process | None = None
        self._channel: Channel | None = None
        self._leaving = asyncio.Event()
        self._keeping = asyncio.create_task(self._keep())

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def ask(self, what: str, timeout: float, **order: Any) -> Any:
        """The worker's answer. Raises Lost (also where there is none), Refused, TimeoutError."""
        if self._channel is None:
            raise Lost
        return await self._channel.ask(what, timeout, **order)

    async def ask_figures(self, timeout: float) -> None:
        """Brings `figures` up to date, if the worker answers."""
        channel = self._channel
        with suppress(Lost, Refused, TimeoutError):
            figures = await self.ask("figures", timeout)
            if channel is self._channel:
                self.figures = figures

    async def ask_readiness(self, timeout: float) -> None:
        """Brings that part of `figures` up to date, if the worker answers."""
        figures = self.figures
        with suppress(Lost, Refused, TimeoutError):
            readiness = await self.ask("readiness", timeout)
            if figures is not None and figures is self.figures:
                figures.update(readiness)

    async def drain(self, timeout: float) -> None:
        """Lets the worker finish and exit; it is killed after `timeout` seconds."""
        self._leaving.set()
        if self.ready:
            try:
                self.figures = await self.ask("drain", timeout)
            except (Lost, Refused, TimeoutError):
                log.warning("worker %d did not drain within %g s", self.number, timeout)
                self.kill()
        else:
            self.kill()
        if self._channel is not None:
            await self._channel.close()  # what the worker waits for to exit
        await asyncio.wait((self._keeping,))

    def kill(self) -> None:
        """Ends the worker at once, if there is one; `keep` will see it."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _keep(self) -> None:
        """Fills the post again and again until `drain`. Cancelled, it kills the worker."""
        loop = asyncio.get_running_loop()
        failures = 0
        while not self._leaving.is_set():
            began = loop.time()
            ended = await self._fill()
            if self._leaving.is_set():
                return
            failures = 1 if loop.time() - began >= STEADY_SECONDS else failures + 1
            delay = backoff(failures)
            when = f"in {delay:g} s" if delay else "now"
            log.error("worker %d %s; it is replaced %s", self.number, ended, when)
            self.restarts += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._leaving.wait()

    async def _fill(self) -> str:
        """One worker, from its start to its end: how it ended."""
        ours, theirs = socket.socketpair()
        try:
            self._process = process = await _spawn(theirs, self._sockets)
        except OSError as failed:
            ours.close()
            return self._not_started(f"cannot be started: {failed}")
        finally:
            theirs.close()
        try:
            self._channel = await Channel.open(ours, unasked)
            error = "it is not wanted any more" if self._leaving.is_set() else await self._start()
            if error is None:
                await self._until_exit(process)
                return f"(pid {process.pid}) {_manner(process.returncode)}"
            self.kill()
            await process.wait()
            return self._not_started(f"(pid {process.pid}) did not start: {error}")
        finally:
            await self._clear(process)

    async def _start(self) -> str | None:
        """Has the process load and accept: None, or why it does not."""
        self.loaded, orders = self._staff.orders()
        fds = [bound.fileno() for bound in self._sockets]
        try:
            errors = await self.ask("start", START_SECONDS, sockets=fds, **orders)
            if errors:
                return "; ".join(errors)
            await self._staff.joined(self)
        except Lost:
            return "it ended first"
        except Refused as refused:
            return str(refused)
        except TimeoutError:
            return "it did not answer in time"
        if not self.first.done():
            self.first.set_result(None)
        return None

    def _not_started(self, how: str) -> str:
        if not self.first.done():
            self.first.set_exception(NotStarted(f"worker {self.number} {how}"))
        return how

    async def _until_exit(self, process: asyncio.subprocess.Process) -> None:
        """Waits for the process; one that gave its channel up has EXIT_SECONDS left."""
        assert self._channel is not None
        exit_ = asyncio.ensure_future(process.wait())
        lost = asyncio.ensure_future(self._channel.closed.wait())
        try:
            await asyncio.wait((exit_, lost), return_when=asyncio.FIRST_COMPLETED)
            self.ready = False
            _, running = await asyncio.wait((exit_,), timeout=EXIT_SECONDS)
            if running:
                self.kill()
                await exit_
        finally:
            exit_.cancel()
            lost.cancel()

    async def _clear(self, process: asyncio.subprocess.Process) -> None:
        """The post is empty again, whatever happened before."""
        self.ready = False
        if process.returncode is None:
            self.kill()
            await process.wait()
        if self._channel is not None:
            await self._channel.close()
        self._channel = self._process = None
        self._staff.left(self)
        self.figures = None


def backoff(failures: int) -> float:
    """Seconds before the next worker after so many failures in a row."""
    return 0.0 if failures < 2 else min(BACKOFF_MAX, BACKOFF * 2.0 ** min(failures - 2, 16))


async def _spawn(
    channel: socket.socket, sockets: Sequence[socket.socket]
) -> asyncio.subprocess.Process:
    """A fresh worker process that inherits these sockets and our outputs."""
    fds = [channel.fileno(), *(bound.fileno() for bound in sockets)]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, *_FLAGS, "-m", "proxy.workers.worker", str(channel.fileno())),
        stdin=subprocess.DEVNULL,
        pass_fds=fds,
        # A terminal's Ctrl-C is for the supervisor, which then drains.
        start_new_session=True,
    )


def _manner(status: int | None) -> str:
    if status is not None and status < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"
