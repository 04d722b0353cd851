"""A gateway of real parts in this process, with real origins behind it; and a look at what it
holds, so that every test ends with the question whether all was given back."""

import asyncio
import json
import re
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from rawhttp import Answer, Cut, RawOrigin, Script, Seen, Wire, answering, free_port

from proxy import logs
from proxy.app import Gateway

PATIENCE: Final = 5.0
"""Seconds that anything waited for may take."""
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def head(status: str, *lines: str, body: bytes = b"") -> bytes:
    """An answer: its status line's end, such as `503 Busy`, field lines, body."""
    said = "\r\n".join((f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}"))
    return said.encode() + b"\r\n\r\n" + body


def sized(body: bytes, method: str = "PUT") -> bytes:
    """A request with this body and its length."""
    return f"{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(body: bytes, method: str = "PUT") -> bytes:
    """A request with this body in chunks."""
    said = f"{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    for start in range(0, len(body), 1000):
        piece = body[start : start + 1000]
        said += b"%x\r\n%b\r\n" % (len(piece), piece)
    return said + b"0\r\n\r\n"


async def well(wire: Wire, seen: Seen) -> None:
    """A script that answers 200."""
    await wire.send(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" if seen.method == "HEAD" else OK
    )


async def silent(wire: Wire, seen: Seen) -> None:
    """A script that says nothing, until the gateway leaves."""
    await wire.rest()
    raise Cut


async def resets(wire: Wire, seen: Seen) -> None:
    """A script that closes the connection without an answer."""
    raise Cut


BUSY: Final = answering(head("503 Busy", body=b"busy"))
"""A script that answers 503."""
QUICK: Final = {"attempts": 3, "backoff": "4ms", "budget": "100%"}
"""Terms that wait hardly at all, and let every request have its retries."""


def in_turn(*scripts: Script) -> Script:
    """A script that does as the first for the first request, and so on; the last one stays."""
    left = list(scripts)

    async def script(wire: Wire, seen: Seen) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(wire, seen)

    return script


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Returns once the condition holds; fails where it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        await asyncio.sleep(0.002)


class Origin(RawOrigin):
    """An origin on any address or unix socket, with TLS or without.

    What asks for `/healthz` is answered by the script `health`, which a test may exchange at any
    time, and is kept apart from `seen`, in `checks`.
    """

    def __init__(
        self,
        script: Script = well,
        *,
        read_body: bool = True,
        port: int = 0,
        host: str = "127.0.0.1",
        path: Path | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(script, read_body=read_body, port=port)
        self.health: Script = well
        self.checks: list[Seen] = []
        self.answer = script
        self.script = self._by_target
        self._host = host
        self._path = path
        self._tls = tls

    async def start(self, **options: object) -> "Origin":
        if self._path is not None:
            self.server = await asyncio.start_unix_server(self._serve, self._path)
        else:
            self.server = await asyncio.start_server(
                self._serve, self._host, self.port, ssl=self._tls
            )
            self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def _by_target(self, wire: Wire, seen: Seen) -> None:
        if "/healthz" in seen.target:
            self.seen.remove(seen)
            self.checks.append(seen)
            await self.health(wire, seen)
        else:
            await self.answer(wire, seen)


class Running:
    """A started gateway."""

    def __init__(self, gateway: Gateway, port: int, admin_port: int, write: Any) -> None:
        self.gateway = gateway
        self.port = port
        self.admin_port = admin_port
        self._write = write

    async def ask(
        self, data: bytes | str = "", *, target: str = "/", method: str = "GET"
    ) -> Answer:
        """One request on a connection of its own: `data`, or a plain one."""
        async with await Wire.open(self.port) as client:
            return await client.ask(data or f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n")

    async def reload(self, **upstream: object) -> None:
        """Other settings of the upstream's, from now on."""
        await asyncio.to_thread(self._write, upstream)
        assert await self.gateway.reload() == []

    def upstream(self) -> dict[str, Any]:
        """The figures of the upstream called `origin`."""
        for one in self.gateway.upstream_status():
            if one["name"] == "origin":
                return one
        raise AssertionError("there is no such upstream")

    def up(self) -> list[bool]:
        """Of each endpoint, whether it is up."""
        return [endpoint["up"] for endpoint in self.upstream()["endpoints"]]

    def avoided(self) -> list[bool]:
        """Of each endpoint, whether it is avoided because of failed connects."""
        return [endpoint["avoided_s"] > 0 for endpoint in self.upstream()["endpoints"]]

    def busy(self) -> bool:
        """Whether requests or their connections are under way."""
        held = [one[k] for one in self.gateway.upstream_status() for k in _HELD]
        return any(held) or any(endpoint["in_flight"] for endpoint in self.upstream()["endpoints"])

    async def metric(self, name: str, **labels: str) -> float:
        """A figure of /metrics; 0 where there is none with these labels."""
        async with await Wire.open(self.admin_port) as client:
            answer = await client.ask("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        for line in answer.body.decode().splitlines():
            found = _SAMPLE.fullmatch(line)
            if found and found[1] == name and set((found[2] or "").split(",")) == wanted:
                return float(found[3])
        return 0.0

    async def retries(self, reason: str) -> float:
        return await self.metric("sluicegate_retries_total", upstream="origin", reason=reason)


_HELD: Final = ("in_flight", "busy", "waiting")
_SAMPLE: Final = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")


class Bench:
    """Starts origins and gateways, ends them with the test, and asks whether something is left:
    a slot, a connection, a task."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._origins: list[Origin] = []
        self._gateways: list[Running] = []

    async def __aenter__(self) -> "Bench":
        self._tasks = len(asyncio.all_tasks())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                for running in self._gateways:
                    await until(lambda: not running.busy())  # noqa: B023 it is awaited here
        finally:
            for running in self._gateways:
                await running.gateway.stop()
            open_ones = [origin for origin in self._origins if origin.open]
            if error is None:
                for origin in open_ones:
                    await until(lambda: not origin.open)  # noqa: B023
            for origin in self._origins:
                await origin.stop()
            await asyncio.to_thread(logs.shutdown)
        if error is None:
            await until(lambda: len(asyncio.all_tasks()) <= self._tasks)

    async def origin(self, script: Script = well, **options: Any) -> Origin:
        origin = await Origin(script, **options).start()
        self._origins.append(origin)
        return origin

    async def gateway(
        self,
        *endpoints: Origin | int | str | dict[str, Any],
        upstream: dict[str, Any] | None = None,
        retry: dict[str, Any] | None = None,
        route: dict[str, Any] | None = None,
        policies: dict[str, Any] | None = None,
        others: dict[str, Any] | None = None,
    ) -> Running:
        """A gateway with one route to an upstream `origin` of these endpoints (origins, ports,
        URLs, or as the YAML has them); `retry` are its retry terms."""
        port, admin = free_port(), free_port()
        path = self._folder / "gateway.yaml"
        listed = [_endpoint(endpoint) for endpoint in endpoints]

        def write(changes: dict[str, Any]) -> None:
            named = policies or {}
            settings = (upstream or {}) | changes
            if retry is not None:
                named = named | {"retries": {"again": retry}}
                settings["retry"] = "again"
            (self._folder / "policies.yaml").write_text(json.dumps(named))
            path.write_text(
                json.dumps(
                    {
                        "server": {"listen": f"127.0.0.1:{port}", "drain_timeout": "1s"},
                        "log": {"level": "error"},
                        "admin": {"listen": f"127.0.0.1:{admin}"},
                        "policies": ["policies.yaml"],
                        "upstreams": {"origin": {"endpoints": listed} | settings} | (others or {}),
                        "routes": [
                            {"name": "all", "match": {"path": "/{rest:path}"}, "upstream": "origin"}
                            | (route or {})
                        ],
                    }
                )
            )

        write({})
        gateway = Gateway(path)
        running = Running(gateway, port, admin, write)
        self._gateways.append(running)
        await gateway.start()
        return running


def _endpoint(endpoint: Origin | int | str | dict[str, Any]) -> str | dict[str, Any]:
    if isinstance(endpoint, Origin):
        endpoint = endpoint.port
    return f"http://127.0.0.1:{endpoint}" if isinstance(endpoint, int) else endpoint
