"""Gateways that replay, clients that do what clients should, and an origin that books what it was
asked to do: by key, as often as it was done."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from gateways import Gateway
from load_client import Client, Shot
from redisservers import RedisServer

CONFIG = """\
server: {{listen: "127.0.0.1:{port}", workers: {workers}, drain_timeout: 2s}}
log: {{level: info}}
admin: {{listen: "127.0.0.1:{admin}"}}
store: {{url: "{store}", timeout: {timeout}}}
policies: [limits.yaml]
upstreams:
  wide: {{endpoints: ["http://127.0.0.1:{origin}"], max_connections: 1000, queue: 2000}}
  narrow: &narrow
    endpoints: ["http://127.0.0.1:{origin}"]
    max_connections: 1
    queue: 100
    queue_timeout: 25s
  narrow-2: *narrow
routes:
  - {{name: hold, match: {{path: /hold}}, upstream: wide, idempotency: hold}}
  - {{name: again, match: {{path: /again}}, upstream: wide, idempotency: again}}
  - {{name: wait, match: {{path: /wait}}, upstream: wide, idempotency: wait}}
  - {{name: queue, match: {{path: /queue}}, upstream: narrow, idempotency: wait}}
  - {{name: late, match: {{path: /late}}, upstream: narrow-2, idempotency: hold}}
"""
POLICIES = """\
idempotency:
  hold: {scope: ["header:X-Api-Key"], required: true}
  again: {scope: ["header:X-Api-Key"], on_unknown: release}
  wait: {scope: ["header:X-Api-Key"], in_flight: wait, wait_timeout: 25s}
"""
BODY = b'{"amount": 100}'
API_KEY = "merchant-7"
COME_AGAIN = ("idempotency-conflict", "idempotency-unavailable")
PAUSE = 0.1
PATIENCE = 20.0
"""Seconds: more than a lease, after which nobody waits for whoever had it."""


class PayGateway(Gateway):
    """Behind `/queue` and `/late` each worker has one connection to the origin: a second request
    there has claimed its key, and waits to be sent."""

    def __init__(self, folder: Path, store: str, origin: int, *, workers: int) -> None:
        super().__init__(folder, store, origin, POLICIES, {}, workers=workers, timeout="500ms")

    def write(self, round_: str) -> None:
        text = CONFIG.format(
            port=self.port, admin=self.admin_port, workers=self.workers, **self._settings
        )
        (self.folder / "gateway.yaml").write_text(text)

    def kill(self) -> None:
        """At once, as a crash does. Blocks."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    async def pay(self, route: str, key: str) -> Shot:
        """One payment on a connection of its own."""
        client = await Client.open(self.port)
        try:
            return await payment(client, route, key)
        finally:
            client.close()

    async def insist(self, route: str, key: str) -> Shot:
        """As a client should: again with the same key, while it is told to come again."""
        until = time.monotonic() + PATIENCE
        while problem(shot := await self.pay(route, key)) in COME_AGAIN:
            assert shot.get("retry-after") == "1", shot.head
            assert time.monotonic() < until, shot
            await asyncio.sleep(PAUSE)
        return shot


async def payment(client: Client, route: str, key: str) -> Shot:
    lines = (
        f"X-Api-Key: {API_KEY}\r\nIdempotency-Key: {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n"
    )
    return await client.get(f"/{route}", "POST", lines, BODY, PATIENCE)


def problem(shot: Shot) -> str | None:
    """What the gateway itself refused it for; None where the origin has answered."""
    return None if shot.status == 201 else shot.body.decode().split('"')[3].rpartition(":")[2]


def problems(shots: Iterable[Shot]) -> Counter[str | None]:
    return Counter(problem(shot) for shot in shots)


def replayed(shots: Iterable[Shot]) -> int:
    return sum(shot.get("idempotent-replayed") == "true" for shot in shots)


async def everywhere(gateways: Sequence[PayGateway], route: str, key: str, each: int) -> list[Shot]:
    """What repeats get, so many at once from each gateway."""
    asking = [gateway.insist(route, key) for gateway in gateways for _ in range(each)]
    return list(await asyncio.gather(*asking))


class Ledger:
    """Executes every request that it has read to its end, and answers where the key is not held.

    The answer tells the execution: the key, and which one of this key's it is.
    """

    def __init__(self, port: int) -> None:
        self.executed: Counter[str] = Counter()
        self._port = port
        self._held: dict[str, asyncio.Event] = {}
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    def hold(self, *keys: str) -> None:
        """Executes these, and does not say so yet."""
        for key in keys:
            self._held[key] = asyncio.Event()

    def release(self, *keys: str) -> None:
        for key in keys:
            self._held.pop(key).set()

    async def until_executed(self, *keys: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while not all(self.executed[key] for key in keys):
                await asyncio.sleep(0.005)

    @staticmethod
    def answer(key: str, execution: int) -> bytes:
        return f"\x00 {key} {execution} \xff".encode("latin-1")

    async def __aenter__(self) -> "Ledger":
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self._port, backlog=2048
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        self._server.close()
        self.release(*list(self._held))
        for writer in self._open:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
                await reader.readexactly(int(fields["Content-Length"]))
                key = fields["Idempotency-Key"]
                self.executed[key] += 1
                body = self.answer(key, self.executed[key])
                if (held := self._held.get(key)) is not None:
                    await held.wait()
                writer.write(
                    b"HTTP/1.1 201 Paid\r\nContent-Type: application/x-receipt\r\n"
                    b"X-Part: one\r\nx-part: \xe4 two\r\nLocation: /receipts/1\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()


def states(redis: RedisServer) -> Counter[str]:
    """What the records say, leases that are over aside. Blocks."""
    with redis.client() as client:
        found = [client.hget(key, "state") for key in client.scan_iter(_type="hash", count=1000)]
    return Counter(state.decode() for state in found if state is not None)
