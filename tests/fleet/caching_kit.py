"""Gateways that share a cache, and an origin whose answers a test chooses and may keep back."""

import asyncio
import http.client
import json
from collections import Counter
from pathlib import Path
from typing import Any

from gateways import Gateway
from load_client import Client, Shot

CONFIG = """\
server: {{listen: "127.0.0.1:{port}", workers: {workers}, drain_timeout: 2s}}
log: {{level: info}}
admin: {{listen: "127.0.0.1:{admin}"}}
store: {{url: "{store}", timeout: {timeout}, cache: {{blind: {blind}}}}}
policies: [limits.yaml]
upstreams:
  origin: {{endpoints: ["http://127.0.0.1:{origin}"], max_connections: 1000, queue: 2000}}
routes:
  - {{name: things, match: {{path: "/{{rest:path}}"}}, upstream: origin, cache: things}}
"""
CACHES = "caches: {things: {early_refresh: 0, lock_timeout: 8s, hit_for_miss: 20s}}\n"
KEPT = {
    "private": "no-store",
    "brief": "max-age=1, stale-while-revalidate=600",
    "error": "no-cache",
}
"""Cache-Control by a target's first segment."""
BLIND = 1.0
"""Seconds."""


class CacheGateway(Gateway):
    """A gateway whose one route has a cache."""

    def __init__(self, folder: Path, store: str, origin: int, *, workers: int = 1) -> None:
        super().__init__(folder, store, origin, CACHES, {}, workers=workers, timeout="500ms")

    def write(self, round_: str, *, cache: bool = True) -> None:
        text = CONFIG.format(
            port=self.port,
            admin=self.admin_port,
            workers=self.workers,
            blind=f"{BLIND:g}s",
            **self._settings,
        )
        if not cache:
            text = text.replace(", cache: things}", "}")
        (self.folder / "gateway.yaml").write_text(text)

    def post(self, path: str, document: Any) -> tuple[int, Any]:
        """The admin's status and document. Blocks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=10)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(document), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    async def purge(self, **what: Any) -> int:
        """The status of the admin's answer."""
        return (await asyncio.to_thread(self.post, "/cache/purge", what))[0]

    async def shares(self) -> bool:
        """Whether all of its processes use the shared tier, and hear purges."""
        cache = (await self.ask("GET", "/status"))[1]["cache"]
        return bool(cache["shared"]["healthy"]) and not cache["blind"]

    async def alarm(self, name: str) -> int:
        """What the metric says of it."""
        _, text = await asyncio.to_thread(self.call, "GET", "/metrics")
        (line,) = [line for line in text.decode().splitlines() if f'alarm="{name}"' in line]
        return int(float(line.rpartition(" ")[2]))

    async def readyz(self) -> dict[str, Any]:
        return dict((await self.ask("GET", "/readyz"))[1])

    async def get(self, target: str, method: str = "GET", lines: str = "") -> Shot:
        """One request on a connection of its own."""
        client = await Client.open(self.port)
        try:
            return await client.get(target, method, lines)
        finally:
            client.close()


def told(shot: Shot) -> str:
    """What our Cache-Status says."""
    assert shot.status == 200, shot.head
    return (shot.get("cache-status") or "").removeprefix("sluicegate; ")


class SlowOrigin:
    """Answers after `delay` seconds, and not before `release` where it is told to `hold`. The
    first segment of a target chooses the answer: see `_answer`. A version that a test may raise is
    part of the body."""

    def __init__(self, port: int) -> None:
        self.seen: Counter[str] = Counter()
        self.delay = 0.0
        self.version = 1
        self._port = port
        self._gate = asyncio.Event()
        self._gate.set()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    def hold(self) -> None:
        self._gate.clear()

    def release(self) -> None:
        self._gate.set()

    def body(self, target: str) -> bytes:
        size = 40_000 if target.startswith("/large") else 0
        return f"{target} {self.version} ".encode() + b"x" * size

    async def asked(self, target: str, times: int) -> None:
        """Waits until the target has been asked for so often: not so long that a lock's time, in
        which nobody else would ask, is over."""
        async with asyncio.timeout(6):
            while self.seen[target] < times:
                await asyncio.sleep(0.005)

    async def __aenter__(self) -> "SlowOrigin":
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self._port, backlog=2048
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        self.release()
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, target, _ = head.decode("latin-1").split(" ", 2)
                self.seen[target if method == "GET" else f"{method} {target}"] += 1
                await asyncio.sleep(self.delay)
                await self._gate.wait()
                if target.startswith("/broken"):
                    return  # closes without an answer
                writer.write(self._answer(target))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    def _answer(self, target: str) -> bytes:
        body = self.body(target)
        kept = KEPT.get(target.split("/")[1], "max-age=600")
        status = "503 Service Unavailable" if target.startswith("/error") else "200 OK"
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nCache-Control: {kept}\r\n"
        if target.startswith("/cookie"):
            head += "Vary: Cookie\r\n"
        head += f'Surrogate-Key: all {target.rsplit("/", 1)[-1]}\r\nETag: "{self.version}"\r\n'
        return head.encode() + b"\r\n" + body
