"""A gateway of several real processes, seen from outside: its ports, its admin, its pids."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from rawhttp import Answer, Wire, free_port

GET = "GET {} HTTP/1.1\r\nHost: a\r\n\r\n"
SCRIPT = Path(__file__).with_name("fleet_process.py")
BIG = 1000

# `python -m proxy`, with a limit of open files.
LIMITED = """
import resource, runpy, sys
files = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
runpy.run_module("proxy", run_name="__main__")
"""
GATEWAY = """\
server:
  listen: {listen}
{server}
admin: {{listen: "127.0.0.1:{admin}"{probes}}}
{more}
policies: [limits.yaml]
upstreams:
  origin: {{endpoints: ["http://127.0.0.1:{origin}"]}}
routes:
  - name: all
    match: {{path: "/{{rest:path}}"}}
    upstream: origin
    limits: [counted]
    {keys}
    response_headers: {{set: {{X-Round: "{round}"}}}}
"""
LIMITS = """\
limits:
  counted: {{algorithm: fixed_window, rate: {rate}/month, key: [global]}}
{policies}
"""


class Fleet:
    """A running supervisor and where to reach it."""

    def __init__(self, folder: Path, origin: int, workers: int, server: str, rate: int) -> None:
        self.port, self.admin = free_port(), free_port()
        self.listen = f"127.0.0.1:{self.port}"
        self.path = folder / "gateway.yaml"
        self.workers = workers
        self.rate = rate
        self._origin = origin
        self._server = server
        self.process: Process | None = None
        self.write("first")

    def write(self, round_: str, *, policies: str = "", **other: str) -> None:
        """The configuration, told apart by a response header. `keys` are the route's."""
        limits = LIMITS.format(rate=self.rate, policies=policies)
        (self.path.parent / "limits.yaml").write_text(limits)
        settings = {
            "listen": self.listen,
            "server": self._server,
            "more": "",
            "keys": "",
            "probes": "",
        } | other
        new = self.path.with_suffix(".new")
        new.write_text(
            GATEWAY.format(admin=self.admin, origin=self._origin, round=round_, **settings)
        )
        new.replace(self.path)

    async def start(self, *options: str) -> "Fleet":
        """With workers that count alone (see fleet_process.py)."""
        return await self._start(str(SCRIPT), str(self.path), str(self.workers), *options)

    async def start_by_file(self, files: int | None = None) -> "Fleet":
        """As a user does: what the file says, and no more. `files` is the limit of open files."""
        if files is None:
            return await self._start("-m", "proxy", "run", "-c", str(self.path))
        return await self._start("-c", LIMITED, str(files), "run", "-c", str(self.path))

    async def _start(self, *command: str) -> "Fleet":
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=PIPE, stderr=PIPE
        )
        return self

    async def until_ready(self) -> "Fleet":
        await until(self.is_ready, "every worker accepts")
        return self

    async def until_replaced(self, pids: list[int]) -> None:
        async def replaced() -> bool:
            return not set(pids) & set(await self.pids()) and await self.is_ready()

        await until(replaced, "successors accept")

    async def end(self) -> tuple[int, str]:
        """Waits for the end: the exit status and the log."""
        assert self.process is not None
        async with asyncio.timeout(15):
            _, log = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, log.decode()

    async def stop(self) -> None:
        """Whatever a test has left."""
        if self.process is not None and self.process.returncode is None:
            self.signal(signal.SIGTERM)
            try:
                await self.end()
            except TimeoutError:
                self.process.kill()
                raise

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def ask_admin(self, path: str, method: str = "GET", body: str = "") -> Answer:
        async with await Wire.open(self.admin) as admin:
            return await admin.ask(
                f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
                f"Content-Type: application/json\r\nConnection: close\r\n\r\n{body}"
            )

    async def ready(self) -> dict[str, Any]:
        return (await self.ask_admin("/readyz")).json()

    async def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, await self.end()
        try:
            return bool((await self.ready())["ready"])
        except ConnectionError:
            return False

    async def pids(self) -> list[int]:
        """The workers' process ids; those that are between two are left out."""
        workers = (await self.ready())["workers"]
        return [worker["pid"] for worker in workers if worker["pid"] is not None]

    async def requests(self) -> float:
        """How many requests the scrape tells of."""
        return sum(
            sample.value
            for sample in await self.samples("sluicegate_requests_total")
            if sample.labels["route"] == "all"
        )

    async def samples(self, name: str) -> list[Any]:
        text = (await self.ask_admin("/metrics")).body.decode()
        families = text_string_to_metric_families(text)
        return [sample for family in families for sample in family.samples if sample.name == name]

    async def get(self, target: str = "/") -> Answer:
        """One request on a connection of its own, so any worker may get it."""
        async with await Wire.open(self.port) as client:
            return await client.ask(GET.format(target))

    async def get_many(self, count: int = 48) -> list[Answer]:
        """So many that every worker has some."""
        return list(await asyncio.gather(*(self.get() for _ in range(count))))


async def until(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 15) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not await condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {seconds:g} s") from None


def lives(pid: int) -> bool:
    """Whether the process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def left(answer: Answer) -> int:
    """RateLimit's r: with the memory store, what the worker that answered has left."""
    field = answer.get("ratelimit")
    assert field is not None
    return int(field.partition(";r=")[2].partition(";")[0])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
