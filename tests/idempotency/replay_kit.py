"""Gateways in this process with an idempotency policy, on each store, and the origin whose
executions are counted."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from rawhttp import Answer, Cut, RawOrigin, Script, Seen, Wire, free_port
from redisservers import RedisServer
from relay import Relay

from proxy.app import Gateway
from proxy.core.idempotency import fingerprint, record_id
from proxy.policy.snapshot import IdempotencyPlan
from proxy.store.idempotency import IdempotencyStore
from proxy.store.memory.idempotency import MemoryIdempotency
from proxy.store.redis.idempotency_codec import IdempotencyNames

PATIENCE: Final = 8.0
"""Seconds that anything waited for may take."""
POLICY: Final = "payments"
CALLER: Final = "caller-a"
"""The X-Api-Key of requests that name no other."""
HOST: Final = "a"
"""The Host of requests that name no other."""
BODY: Final = b'{"amount": 100}'
CHUNKED: Final = "Transfer-Encoding: chunked"
PIECES: Final = tuple(bytes([number]) * 500 for number in range(4))
"""A body that comes piece by piece."""
OWN: Final = frozenset((
    "date", "x-request-id", "via", "ratelimit", "ratelimit-policy", "idempotent-replayed",
    "connection", "content-length", "transfer-encoding",
))  # fmt: skip
"""What an answer and its replay need not have in common; framing among it."""

Settings = Mapping[str, Any]
Held = Callable[[], object]


class Origin(RawOrigin):
    """An origin whose `script` a test may exchange at any time."""

    def __init__(self, script: Script | None = None) -> None:
        super().__init__(paid if script is None else script)

    @property
    def executed(self) -> int:
        """Requests that have come."""
        return len(self.seen)


def message(*lines: str) -> bytes:
    """A head: its lines, and the empty one."""
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def respond(status: str = "201 Created", *lines: str, body: bytes = b"paid") -> bytes:
    """An answer: its status line's end, its field lines, its body."""
    return message(f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}") + body


def chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


async def paid(wire: Wire, seen: Seen) -> None:
    """A script that answers 201 with a body of its own each time."""
    await wire.send(respond(body=f"payment {id(seen):x}".encode()))


async def resets(wire: Wire, seen: Seen) -> None:
    """A script that closes the connection without an answer."""
    raise Cut


async def silent(wire: Wire, seen: Seen) -> None:
    """A script that says nothing until the gateway leaves."""
    await wire.rest()
    raise Cut


class Gate:
    """A script that answers once it is opened, and counts who waits. `first` goes out before."""

    def __init__(self, answer: bytes | None = None, first: bytes = b"") -> None:
        self._answer = respond() if answer is None else answer
        self._first = first
        self._open = asyncio.Event()
        self.waiting = 0

    def open(self) -> None:
        self._open.set()

    async def __call__(self, wire: Wire, seen: Seen) -> None:
        if self._first:
            await wire.send(self._first)
        self.waiting += 1
        try:
            await self._open.wait()
        finally:
            self.waiting -= 1
        await wire.send(self._answer)


async def until(condition: Held, seconds: float = PATIENCE) -> None:
    """Returns once the condition holds; fails where it does not in time."""
    deadline = time.monotonic() + seconds
    while not (await held if isinstance(held := condition(), Awaitable) else held):
        assert time.monotonic() < deadline, "it did not come to that in time"
        await asyncio.sleep(0.005)


def post(
    key: str | None = "k1",
    body: bytes = BODY,
    target: str = "/pay",
    *lines: str,
    method: str = "POST",
    caller: str | None = CALLER,
    host: str = HOST,
) -> bytes:
    """A request's bytes; `key` as it stands in its field."""
    head = [f"{method} {target} HTTP/1.1", f"Host: {host}", *lines]
    head += [] if key is None else [f"Idempotency-Key: {key}"]
    head += [] if caller is None else [f"X-Api-Key: {caller}"]
    return message(*head, f"Content-Length: {len(body)}") + body


def trouble(answer: Answer, status: int, name: str) -> Answer:
    """The same answer, which is this problem of the gateway's own."""
    assert answer.status == status, (answer.status, answer.body)
    assert answer.get("Content-Type") == "application/problem+json"
    assert answer.get("Cache-Control") == "no-store"
    assert answer.json()["type"] == f"urn:sluicegate:problem:{name}"
    assert answer.json()["status"] == status
    assert answer.get("Idempotent-Replayed") is None
    return answer


def is_replay(answer: Answer) -> bool:
    return answer.get("Idempotent-Replayed") == "true"


def common(answer: Answer) -> tuple[int, str, list[tuple[str, str]], bytes]:
    """What an answer has in common with its replays: status, reason, lines in order, body."""
    lines = [line for line in answer.lines if line[0].lower() not in OWN]
    return answer.status, answer.reason, lines, answer.body


class Shop:
    """A gateway in this process, and ways to ask it. `config` and `policies` are its files."""

    def __init__(
        self, folder: Path, config: dict[str, Any], policies: dict[str, Any], relay: Relay | None
    ) -> None:
        self.port, self.admin_port = free_port(), free_port()
        self.path = folder / "gateway.yaml"
        server = {"listen": f"127.0.0.1:{self.port}", "drain_timeout": "1s"}
        self.config = {"log": {"level": "error"}, "policies": ["policies.yaml"]} | config
        self.config["server"] = server | config.get("server", {})
        self.config["admin"] = {"listen": f"127.0.0.1:{self.admin_port}"}
        self.policies = policies
        self.relay = relay
        """The way to Redis, where that is the store."""
        self.gateway = Gateway(self.path)

    def write(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        (self.path.parent / "policies.yaml").write_text(json.dumps(self.policies))
        self.path.write_text(json.dumps(self.config))

    async def start(self, hears: bool = True) -> None:
        await asyncio.to_thread(self.write)
        await self.gateway.start()
        if self.relay is not None and hears:
            await until(lambda: self.store.status()["hears"])

    async def reload(self) -> None:
        """What `config` and `policies` say, from now on."""
        await asyncio.to_thread(self.write)
        assert await self.gateway.reload() == []

    # Its clients.

    async def open(self) -> Wire:
        return await Wire.open(self.port)

    async def ask(self, data: bytes) -> Answer:
        """One request's answer, on a connection of its own."""
        async with await self.open() as client:
            return await client.ask(data)

    async def pay(self, *args: Any, **kwargs: Any) -> Answer:
        """`post`, asked."""
        return await self.ask(post(*args, **kwargs))

    async def leaves(self, data: bytes, when: Held, part: bytes = b"") -> None:
        """A client that goes away once `when` holds, and it has read `part`."""
        client = await self.open()
        await client.send(data)
        await until(when)
        if part:
            seen = b""
            while part not in seen:
                seen += (piece := await client.some())
                assert piece, seen
        client.writer.transport.abort()
        await client.close()

    # What it knows.

    @property
    def plan(self) -> IdempotencyPlan:
        snapshot = self.gateway.snapshot()
        assert snapshot is not None
        return snapshot.idempotency[POLICY]

    @property
    def store(self) -> IdempotencyStore:
        store = self.gateway._replaying.store
        assert store is not None
        return store

    @property
    def at_work(self) -> int:
        """Requests under a claim, and outcomes that the store has still to be told."""
        return len(self.gateway._replaying._tasks)

    async def rests(self) -> None:
        """Returns when nothing is at work."""
        await until(lambda: not self.at_work)

    def record(self, key: str = "k1", caller: str | None = CALLER) -> bytes:
        return record_id(POLICY, HOST, self.plan.scope.digest_values([caller]), key)

    async def foreign(self, lease: int, *, sent: bool, key: str = "k1") -> None:
        """A claim of `post(key)` whose owner was killed; its lease lasts for so many ms."""
        terms = self.plan.terms._replace(lease=lease)
        token = b"somebody else's!"
        print_ = fingerprint("POST", "/pay", BODY)
        await self.store.claim(self.record(key), token, print_, terms)
        if sent:
            assert await self.store.sent(self.record(key), token, terms)

    def lease_over(self, server: RedisServer | None, key: str = "k1") -> None:
        """The lease of this key's record ends now. `server`: the one that has it, if it is not
        this process."""
        if server is None:
            assert isinstance(self.store, MemoryIdempotency)
            self.store._records[self.record(key)].record.lease_ends = 1
        else:
            name = IdempotencyNames("sg").record(self.record(key))
            assert server.call("HSET", name, "lease_ends", 1) == 0

    async def admin(self, path: str, method: str = "GET", document: Any = None) -> Answer:
        body = b"" if document is None else json.dumps(document).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        async with await Wire.open(self.admin_port) as client:
            return await client.ask(message(*lines) + body)

    async def metric(self, name: str, **labels: str) -> float:
        """A figure of `/metrics`; 0 where it is not."""
        inside = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        text = (await self.admin("/metrics")).body.decode()
        found = [line.rpartition(" ") for line in text.splitlines()]
        values = [value for key, _, value in found if key == f"sluicegate_{name}{{{inside}}}"]
        return float(values[0]) if values else 0.0

    async def counted(self, outcome: str) -> int:
        """Requests of the policy that came to this."""
        return int(await self.metric("idempotency_total", policy=POLICY, outcome=outcome))


StartOrigin = Callable[..., Awaitable[Origin]]
"""`start_origin(script)`."""
StartShop = Callable[..., Awaitable[Shop]]
"""`start_shop(policy, …)`; see conftest.py."""
