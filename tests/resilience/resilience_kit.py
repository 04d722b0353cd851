"""A gateway of real parts in this process whose upstreams have breakers; origins that fall ill and
get well when a test says so; and the admin's view of it all."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from rawhttp import Answer, Cut, RawOrigin, Seen, Wire, free_port

from proxy.app import Gateway

PATIENCE: Final = 5.0
"""Seconds that anything waited for may take."""
BREAKER: Final = {"consecutive_failures": 2, "open_for": "1m"}
"""Opens after two failures, and stays so for the rest of a test."""
BRIEF: Final = {"consecutive_failures": 2, "open_for": "200ms", "half_open_requests": 1}
"""Opens after two failures, and is soon asked again by one probe."""
ROUTE: Final = {"name": "all", "match": {"path": "/{rest:path}"}, "upstream": "origin"}

Settings = Mapping[str, Any]


class Origin(RawOrigin):
    """An origin whose `script` a test may exchange at any time."""

    def __init__(self, script: Callable[[Wire, Seen], Awaitable[None]] | None = None) -> None:
        super().__init__(well if script is None else script)

    @property
    def asked(self) -> int:
        """Requests that have come."""
        return len(self.seen)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def _message(*lines: str) -> bytes:
    return "\r\n".join((*lines, "", "")).encode()


def respond(status: str = "200 OK", *lines: str, body: bytes = b"ok") -> bytes:
    """An answer: its status line's end, such as `503 Busy`, its field lines, its body."""
    return _message(f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}") + body


async def well(wire: Wire, seen: Seen) -> None:
    """A script that answers 200."""
    await wire.send(respond())


async def ill(wire: Wire, seen: Seen) -> None:
    """A script that answers 503."""
    await wire.send(respond("503 Busy", body=b"ill"))


async def resets(wire: Wire, seen: Seen) -> None:
    """A script that closes the connection without an answer."""
    raise Cut


async def silent(wire: Wire, seen: Seen) -> None:
    """A script that says nothing until the gateway leaves."""
    await wire.rest()
    raise Cut


async def breaks_off(wire: Wire, seen: Seen) -> None:
    """A script that ends in the middle of its answer's body."""
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    raise Cut


async def slowly(wire: Wire, seen: Seen) -> None:
    """A script that answers 200 after 30 ms."""
    await asyncio.sleep(0.03)
    await wire.send(respond())


class Gate:
    """A script that answers 200 once it is opened, and counts who waits."""

    def __init__(self, answer: bytes = respond()) -> None:
        self._answer = answer
        self._open = asyncio.Event()
        self.waiting = 0

    def open(self) -> None:
        self._open.set()

    async def __call__(self, wire: Wire, seen: Seen) -> None:
        self.waiting += 1
        try:
            await self._open.wait()
        finally:
            self.waiting -= 1
        await wire.send(self._answer)


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Returns once the condition holds; fails where it does not in time."""
    deadline = time.monotonic() + seconds
    while not (await held if isinstance(held := condition(), Awaitable) else held):
        assert time.monotonic() < deadline, "it did not come to that in time"
        await asyncio.sleep(0.005)


def request(
    target: str = "/", *lines: str, method: str = "GET", body: bytes | None = None
) -> bytes:
    """One request's bytes."""
    length = () if body is None else (f"Content-Length: {len(body)}",)
    return _message(f"{method} {target} HTTP/1.1", "Host: a", *lines, *length) + (body or b"")


class Configured:
    """A gateway's files (`config`, `policies`; `write` puts them there), and ways to ask it."""

    def __init__(self, folder: Path, config: dict[str, Any], policies: dict[str, Any]) -> None:
        self.port, self.admin_port = free_port(), free_port()
        self.path = folder / "gateway.yaml"
        defaults = {"log": {"level": "error"}, "policies": ["policies.yaml"]}
        server = {"listen": f"127.0.0.1:{self.port}", "drain_timeout": "1s"}
        self.config = defaults | config | {"admin": {"listen": f"127.0.0.1:{self.admin_port}"}}
        self.config["server"] = server | config.get("server", {})
        self.policies = policies

    def write(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        (self.path.parent / "policies.yaml").write_text(json.dumps(self.policies))
        self.path.write_text(json.dumps(self.config))

    async def open(self) -> Wire:
        return await Wire.open(self.port)

    async def ask(
        self, target: str = "/", *lines: str, method: str = "GET", body: bytes | None = None
    ) -> Answer:
        """One request on a connection of its own."""
        async with await self.open() as client:
            return await client.ask(request(target, *lines, method=method, body=body))

    async def trip(self, origin: Origin, target: str = "/trip") -> None:
        """Opens the circuit by two failures; the origin is as it was afterwards."""
        script, origin.script = origin.script, ill
        try:
            for _ in range(2):
                assert (await self.ask(target)).status == 503
        finally:
            origin.script = script
        assert (await self.circuit())["state"] == "open"

    # The admin's view.

    async def admin(self, path: str, method: str = "GET", document: Any = None) -> Answer:
        body = None if document is None else json.dumps(document).encode()
        type_ = () if body is None else ("Content-Type: application/json",)
        async with await Wire.open(self.admin_port) as wire:
            asked = request(path, *type_, method=method, body=body)
            return await wire.ask(asked.replace(b"Host: a\r", b"Host: localhost\r"))

    async def force(self, state: str, upstream: str = "origin") -> Answer:
        return await self.admin(f"/breakers/{upstream}", "PUT", {"state": state})

    async def circuits(self) -> list[dict[str, Any]]:
        """What `/breakers` says."""
        return list(json.loads((await self.admin("/breakers")).body))

    async def circuit(self, upstream: str = "origin") -> dict[str, Any]:
        """What it says of one upstream."""
        return next(line for line in await self.circuits() if line["upstream"] == upstream)

    async def is_(self, state: str, upstream: str = "origin") -> bool:
        return bool((await self.circuit(upstream))["state"] == state)

    async def until_due(self, upstream: str = "origin") -> None:
        """Returns when the next request would be a probe."""
        await until(lambda: self.is_("half-open", upstream))

    async def metric(self, name: str, **labels: str) -> float:
        """A figure of `/metrics`; 0 where it is not."""
        inside = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        text = (await self.admin("/metrics")).body.decode()
        found = [line.rpartition(" ") for line in text.splitlines()]
        values = [value for key, _, value in found if key == f"sluicegate_{name}{{{inside}}}"]
        return float(values[0]) if values else 0.0

    async def transitions(self, upstream: str = "origin") -> dict[str, int]:
        """How often it turned to each state."""
        states = ("closed", "half-open", "open")
        return {
            state: int(await self.metric("breaker_transitions_total", upstream=upstream, to=state))
            for state in states
        }


class Running(Configured):
    """A gateway in this process."""

    def __init__(self, folder: Path, config: dict[str, Any], policies: dict[str, Any]) -> None:
        super().__init__(folder, config, policies)
        self.gateway = Gateway(self.path)

    async def reload(self) -> None:
        """What `config` and `policies` say, from now on."""
        await asyncio.to_thread(self.write)
        assert await self.gateway.reload() == []


def refused(answer: Answer) -> int:
    """The Retry-After of a problem that says the circuit is open."""
    assert answer.status == 503, answer
    assert answer.get("Content-Type") == "application/problem+json"
    assert answer.get("Cache-Control") == "no-store"
    assert answer.json()["type"] == "urn:sluicegate:problem:breaker-open"
    assert answer.json()["status"] == 503
    seconds = int(answer.get("Retry-After") or 0)
    assert seconds >= 1
    return seconds


async def leaves(gateway: Running, data: bytes, origin: Origin) -> None:
    """A client that goes away once the origin has its request."""
    before = origin.asked
    wire = await gateway.open()
    await wire.send(data)
    await until(lambda: origin.asked > before)
    wire.writer.transport.abort()
    await wire.close()


StartOrigin = Callable[..., Awaitable[Origin]]
"""`start_origin(script)`."""
StartGateway = Callable[..., Awaitable[Running]]
"""`start_gateway(origin, breaker, …)`; see conftest.py."""
