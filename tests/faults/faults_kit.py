"""Gateways whose ways out lead over relays that a test may break, the origin behind them, and what
they hold when nobody asks them anything."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from outcomes_kit import DOWNLOAD, LARGE, PATIENCE, SMALL, outcome
from rawhttp import Cut, RawOrigin, Seen, Wire
from redisservers import free_port

HEAD: Final = 256
"""Bytes of every head that the origin sends."""

CONFIG: Final = """\
server: {{listen: "127.0.0.1:{port}", drain_timeout: 1s}}
log: {{level: warning}}
admin: {{listen: "127.0.0.1:{admin}"}}
store: {{url: "{store}", prefix: {prefix}, timeout: {timeout}}}
policies: [policies.yaml]
upstreams: {upstreams}
routes: {routes}
"""
TIMEOUTS: Final = {
    "connect_timeout": "300ms",
    "response_timeout": "500ms",
    "read_timeout": "500ms",
    "queue_timeout": "500ms",
    "deadline": "2s",
}
POLICIES: Final = {
    "limits": {
        trouble: {
            "algorithm": "token_bucket",
            "rate": "1000/s",
            "key": ["global"],
            "on_store_failure": trouble,
        }
        for trouble in ("local", "deny")
    },
    "caches": {"things": {"early_refresh": 0}},
    "retries": {"once": {"attempts": 2, "backoff": "10ms", "budget": "100%"}},
    "breakers": {
        "quick": {
            "consecutive_failures": 1,
            "open_for": "50ms",
            "open_max": "50ms",
            "half_open_requests": 1,
        }
    },
}


class Feature(NamedTuple):
    """What the origin does when it is asked, and what a route and its upstream have."""

    kind: str = "get"
    route: Mapping[str, Any] = MappingProxyType({})
    upstream: Mapping[str, Any] = MappingProxyType({})


CACHED: Final = {"cache": "things"}
FEATURES: Final = {
    "plain": Feature(),
    "retried": Feature(upstream={"retry": "once"}),
    # Asked twice in a row, it has less time for each. A probe that is lost is given up after the
    # deadline, which is no sooner than a test gives up.
    "guarded": Feature(
        upstream={
            "breaker": "quick",
            "response_timeout": "250ms",
            "read_timeout": "250ms",
            "deadline": "10s",
        }
    ),
    "local": Feature(route={"limits": ["local"]}),
    "deny": Feature(route={"limits": ["deny"]}),
    "cached": Feature("fresh", CACHED),
    "stale": Feature("stale", CACHED),
    "up": Feature("up"),
    "down": Feature("down"),
    "tunnel": Feature("tunnel"),
}


class Origin(RawOrigin):
    """Does what the target's second segment says."""

    def __init__(self) -> None:
        super().__init__(self._answer)

    async def _answer(self, wire: Wire, seen: Seen) -> None:
        body = b"x" * SMALL
        length = f"Content-Length: {SMALL}"
        match seen.target.split("/")[2]:
            case "get":
                await wire.send(_head(length) + body)
            case "fresh":
                await wire.send(_head(length, "Cache-Control: max-age=60") + body)
            case "stale":
                lines = "Cache-Control: max-age=60, stale-if-error=600", "Age: 100"
                await wire.send(_head(length, *lines) + body)
            case "up":
                await wire.send(_head(length) + hashlib.sha256(seen.body).hexdigest().encode())
            case "down":
                await wire.send(_head("Transfer-Encoding: chunked"))
                for start in range(0, LARGE, 1 << 16):
                    await wire.send(b"10000\r\n%b\r\n" % DOWNLOAD[start : start + (1 << 16)])
                await wire.send(b"0\r\n\r\n")
            case "tunnel":
                upgrade = "Connection: Upgrade", "Upgrade: websocket"
                await wire.send(_head(*upgrade, status="101 Switching Protocols"))
                while said := await wire.some():
                    await wire.send(said)
                raise Cut


def _head(*lines: str, status: str = "200 OK") -> bytes:
    """A head of HEAD bytes."""
    text = "\r\n".join((f"HTTP/1.1 {status}", *lines, "X-Pad: "))
    return text.ljust(HEAD - 4, "x").encode() + b"\r\n\r\n"


class Gateway:
    """One gateway process, and a connection to its admin listener. `ports` has the port of the
    upstream of each feature that it serves; `settings` are the store's."""

    def __init__(
        self, folder: Path, ports: Mapping[str, int], store: str = "memory://", **settings: str
    ) -> None:
        folder.mkdir()
        self.port, self.admin_port = free_port(), free_port()
        self._log = folder / "log"
        self._config = folder / "gateway.yaml"
        (folder / "policies.yaml").write_text(json.dumps(POLICIES))
        upstreams = {
            name: {"endpoints": [f"http://127.0.0.1:{port}"], **TIMEOUTS, **FEATURES[name].upstream}
            for name, port in ports.items()
        }
        routes = [
            {
                "name": name,
                "match": {"path": f"/{name}/{{rest:path}}"},
                "upstream": name,
                **FEATURES[name].route,
            }
            for name in ports
        ]
        self._config.write_text(
            CONFIG.format(
                port=self.port,
                admin=self.admin_port,
                store=store,
                upstreams=json.dumps(upstreams),
                routes=json.dumps(routes),
                **{"prefix": "sg", "timeout": "250ms"} | settings,
            )
        )
        self.stays = True
        """Whether clients' connections might be used again: else nothing takes the express lane."""
        self._features = tuple(ports)
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: Wire | None = None
        self._descriptors = 0

    async def start(self) -> None:
        """Returns once everything has worked, twice, and nothing is under way."""
        command = (sys.executable, "-m", "proxy", "run", "-c", str(self._config))
        with self._log.open("wb") as log:
            run = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: ASYNC220 it is quick
        self._process = run
        self._admin = await self._serving(run)
        for turn in ("first", "second"):  # what is made once is there when descriptors are counted
            said = await asyncio.gather(*(self.clean(name, turn) for name in self._features))
            assert set(said) == {"ok"}, said
        held: dict[str, int] = {}

        async def quiet() -> bool:
            held.clear()
            held.update(await self.left_over())
            self._descriptors += held.pop("descriptors", 0)
            return not held

        await until(quiet)
        assert not held, held

    async def _serving(self, process: subprocess.Popen[bytes]) -> Wire:
        """A connection to the admin listener, which opens before the other."""
        for _ in range(1000):
            with suppress(OSError):
                await (await Wire.open(self.port)).close()
                return await Wire.open(self.admin_port)
            assert process.poll() is None, self._log.read_text()
            await asyncio.sleep(0.02)
        raise AssertionError(self._log.read_text())

    async def stop(self) -> None:
        """In good order, as it was asked to."""
        if self._admin is not None:
            await self._admin.close()
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                status = await asyncio.to_thread(self._process.wait, 10)
            finally:
                self._process.kill()
            assert status == 0, self._log.read_text()

    async def ask(self, feature: str, name: str, stays: bool | None = None) -> str:
        """One request for a resource of this name: what came of it."""
        kind, route, _ = FEATURES[feature]
        return await outcome(
            self.port,
            f"/{feature}/{kind}/{name}",
            kind,
            limited="limits" in route,
            stays=self.stays if stays is None else stays,
        )

    async def probe(self, feature: str, name: str) -> str:
        """As `ask`, once its breaker lets a request through: never, if a probe kept its permit."""
        said: list[str] = []

        async def through() -> bool:
            said[:] = [await self.ask(feature, name)]
            return said[0] != "503 breaker-open"

        await until(through)
        return said[0]

    async def clean(self, feature: str, name: str) -> str:
        """As `probe`, where nothing is wrong; afterwards there is a connection in the pool."""
        said = await self.probe(feature, name)
        if feature == "tunnel":
            await outcome(self.port, f"/{feature}/get/{name}", "get")
        return said

    async def status(self) -> dict[str, Any]:
        assert self._admin is not None
        host = f"Host: 127.0.0.1:{self.admin_port}"
        answer = await self._admin.ask(f"GET /status HTTP/1.1\r\n{host}\r\n\r\n")
        assert answer.status == 200, answer
        return answer.json()

    async def left_over(self) -> dict[str, int]:
        """What it holds though nobody asks it anything: all of it should be nothing."""
        status = await self.status()
        held = {
            f"{one['name']} {figure}": one[figure]
            for one in status["upstreams"]
            for figure in ("in_flight", "busy", "waiting")
        }
        held["connections"] = status["connections"]
        held["fetches"] = status["cache"]["in_flight"]
        held["leases"] = status["cache"].get("shared", {}).get("leases", 0)
        # The pools' connections come and go.
        idle = sum(one["idle"] for one in status["upstreams"])
        assert self._process is not None
        opened = len(os.listdir(f"/proc/{self._process.pid}/fd"))
        held["descriptors"] = opened - idle - self._descriptors
        return {name: number for name, number in held.items() if number}


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = PATIENCE) -> bool:
    """Whether the condition comes true within so long."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


async def still_held(gateways: list[Gateway], seconds: float = PATIENCE) -> dict[str, int]:
    """What the gateways hold, once they have had the time to let go of it."""
    held: dict[str, int] = {}

    async def none() -> bool:
        held.clear()
        for gateway in gateways:
            held.update(await gateway.left_over())
        return not held

    await until(none, seconds)
    return held
