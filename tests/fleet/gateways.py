"""Gateways as a user runs them: `sluicegate run` processes of several workers on one Redis, seen
through their ports, their admin and their logs."""

import asyncio
import http.client
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from redisservers import free_port

GATEWAY = """\
server: {{listen: "127.0.0.1:{port}", workers: {workers}, drain_timeout: 2s}}
log: {{level: info}}
admin: {{listen: "127.0.0.1:{admin}"}}
store: {{url: "{store}", timeout: {timeout}}}
policies: [limits.yaml]
upstreams:
  origin:
    endpoints: ["http://127.0.0.1:{origin}"]
    max_connections: 64
    queue: 2000
    queue_timeout: 10s
routes:
{routes}
"""
ROUTE = """\
  - name: {name}
    match: {{path: "/{name}/{{key}}"}}
    upstream: origin
    limits: [{limits}]
    response_headers: {{set: {{X-Round: "{round}"}}}}
"""


class Gateway:
    """One gateway process. `routes` name their limits; a route `a` answers below `/a/KEY`, and
    limits may have `path.key` for their key."""

    def __init__(
        self,
        folder: Path,
        store: str,
        origin: int,
        limits: str,
        routes: dict[str, str],
        *,
        workers: int = 2,
        timeout: str = "50ms",
    ) -> None:
        self.folder = folder
        self.port, self.admin_port = free_port(), free_port()
        self.workers = workers
        self._settings = {"store": store, "origin": origin, "timeout": timeout}
        self._routes = routes
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        (folder / "limits.yaml").write_text(limits)
        self.write("first")

    def write(self, round_: str) -> None:
        """The configuration, told apart by a response header."""
        new = self.folder / "gateway.new"
        new.write_text(
            GATEWAY.format(
                port=self.port,
                admin=self.admin_port,
                workers=self.workers,
                routes="".join(
                    ROUTE.format(name=name, limits=limits, round=round_)
                    for name, limits in self._routes.items()
                ),
                **self._settings,
            )
        )
        new.replace(self.folder / "gateway.yaml")

    def start(self) -> None:
        """Returns at once; see `until_ready`."""
        command = (sys.executable, "-m", "proxy", "run", "-c", str(self.folder / "gateway.yaml"))
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def until_ready(self, seconds: float = 30.0) -> None:
        assert self._process is not None
        deadline = time.monotonic() + seconds
        while True:
            try:
                if self.call("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                pass
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)

    def end(self) -> None:
        """Begins to stop."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def until_ended(self) -> None:
        """In good order, as it was asked to."""
        if self._process is None:
            return
        try:
            status = self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        assert status == 0, self.log

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def hang_up(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def call(self, method: str, path: str) -> tuple[int, bytes]:
        """The admin's status and body. Blocks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=10)
        try:
            connection.request(method, path, headers={"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    async def ask(self, method: str, path: str) -> tuple[int, Any]:
        """The admin's status and document."""
        status, body = await asyncio.to_thread(self.call, method, path)
        return status, json.loads(body) if body else None


Figure = tuple[str, frozenset[tuple[str, str]]]


class Figures:
    """The metrics of several gateways, summed."""

    def __init__(self, samples: Counter[Figure]) -> None:
        self._samples = samples

    def __sub__(self, earlier: "Figures") -> "Figures":
        grown = self._samples.copy()
        grown.subtract(earlier._samples)
        return Figures(grown)

    def sum(self, name: str, **labels: str) -> int:
        """The sum of a metric's samples that have these labels."""
        wanted = labels.items()
        return int(
            sum(
                value
                for (sample, has), value in self._samples.items()
                if sample == name and has >= wanted
            )
        )

    def decided(self, limit: str, decision: str) -> int:
        return self.sum("sluicegate_limit_decisions_total", limit=limit, decision=decision)

    def answered(self, route: str) -> Counter[int]:
        """How often by status."""
        counts: Counter[int] = Counter()
        for (sample, labels), value in self._samples.items():
            named = dict(labels)
            if sample == "sluicegate_requests_total" and named["route"] == route and value:
                counts[int(named["status"])] += int(value)
        return counts

    @property
    def store_errors(self) -> int:
        return self.sum("sluicegate_store_errors_total")

    @property
    def asked(self) -> int:
        """How many admits went to the store."""
        return self.sum("sluicegate_store_duration_seconds_count", operation="admit")

    @property
    def slow_admits(self) -> int:
        """How many admits took the store, or the wait for it, more than a second."""
        return self.asked - self.sum(
            "sluicegate_store_duration_seconds_bucket", operation="admit", le="1.0"
        )

    @property
    def degraded(self) -> int:
        """How many gateways have a process that counts alone."""
        return self.sum("sluicegate_store_alarm", alarm="degraded")


class Fleet:
    """Gateways that share a store."""

    def __init__(self, gateways: Sequence[Gateway]) -> None:
        self.gateways = gateways

    def start(self) -> "Fleet":
        """Returns when all are ready."""
        for gateway in self.gateways:
            gateway.start()
        for gateway in self.gateways:
            gateway.until_ready()
        return self

    def stop(self) -> None:
        for gateway in self.gateways:
            gateway.end()
        for gateway in self.gateways:
            gateway.until_ended()

    @property
    def ports(self) -> list[int]:
        return [gateway.port for gateway in self.gateways]

    @property
    def processes(self) -> int:
        """How many processes count."""
        return sum(gateway.workers for gateway in self.gateways)

    async def figures(self) -> Figures:
        scrapes = await asyncio.gather(
            *(asyncio.to_thread(one.call, "GET", "/metrics") for one in self.gateways)
        )
        samples: Counter[Figure] = Counter()
        for _, body in scrapes:
            for family in text_string_to_metric_families(body.decode()):
                for sample in family.samples:
                    samples[sample.name, frozenset(sample.labels.items())] += sample.value  # type: ignore[assignment]
        return Figures(samples)

    async def ask(self, method: str, path: str) -> list[tuple[int, Any]]:
        """What every admin answers."""
        return list(await asyncio.gather(*(one.ask(method, path) for one in self.gateways)))


StartFleet = Callable[..., Fleet]
"""The fixture `start_fleet`."""


async def until(
    condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 10.0
) -> float:
    """Waits for the condition; the seconds that took."""
    began = time.monotonic()
    while not await condition():
        assert time.monotonic() - began < seconds, f"{what}: not within {seconds:g} s"
        await asyncio.sleep(0.02)
    return time.monotonic() - began
