"""What a failover by Sentinel does to idempotent POSTs: how many are executed twice.

    python -m bench.idempotency_failover [--turns 5] [--down-after 1.0]

In each turn a primary, a replica, a Sentinel and two gateways are started. Clients pay without a
pause: a new key, the POST, the same again at the other gateway, and again where they are told to
come again. After two seconds the primary is killed (SIGKILL). With a wire between primary and
replica, which is killed with it, what is on its way is lost, as when a host loses its power. Then a
new replica joins the new primary. At the end every key is sent once more. The origin, in this
process, counts the executions of each key.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis
import uvloop

from bench.contest import markdown, tell_load_average
from bench.failover import Trio, trio, until
from bench.tools import free_port, redis_server, running

CLIENTS = 16
WORK = 0.02
"""Seconds that the origin takes for a payment."""
BEFORE, AFTER = 2.0, 1.0
"""Seconds of load before the blow, and after the first payment on the new primary."""
PATIENCE = 40.0
PAUSE = 0.05
CONFIG = """
server: {{listen: "127.0.0.1:{port}"}}
log: {{level: error}}
admin: {{listen: "127.0.0.1:{admin}"}}
store: {{url: "redis+sentinel://127.0.0.1:{sentinel}/main/0", timeout: 250ms}}
policies: [policies.yaml]
upstreams: {{origin: {{endpoints: ["http://127.0.0.1:{origin}"]}}}}
routes: [{{name: pay, match: {{path: /pay}}, upstream: origin, idempotency: pay}}]
"""
POLICY = 'idempotency: {{pay: {{scope: ["header:X-Api-Key"], replicas: {replicas}}}}}\n'
COME_AGAIN = ("idempotency-conflict", "idempotency-unavailable")


@dataclass
class Told:
    """One turn."""

    keys: int = 0
    twice: int = 0
    """Keys that were executed more than once."""
    unknown: int = 0
    """Keys whose last answer is that nobody knows."""
    refused: int = 0
    """Tries that were told to come again since Redis could not be relied on."""
    gap: float = 0.0
    """The longest time without a payment that was executed, in seconds."""
    other: Counter[int] = field(default_factory=Counter)
    """Statuses that nobody should see, by status."""


class Origin:
    """Executes payments, and says which execution of its key each is."""

    def __init__(self) -> None:
        self.executed: Counter[str] = Counter()
        self.times: list[float] = []
        self.port = free_port()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Origin"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                key = head.partition("idempotency-key: ")[2].partition("\r\n")[0]
                self.executed[key] += 1
                self.times.append(time.monotonic())
                body = f"{key} {self.executed[key]}".encode()
                await asyncio.sleep(WORK)
                writer.write(b"HTTP/1.1 201 Paid\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        writer.close()


class Client:
    """One client with a connection to each gateway."""

    def __init__(self, ports: Sequence[int], told: Told) -> None:
        self._ports = ports
        self._told = told
        self._ways: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def pay(self, key: str, gateway: int) -> str | None:
        """The problem that ends it, None for an answer; tried again for as long as it should be."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            status, body = await self._post(key, self._ports[gateway % len(self._ports)])
            if status == 201:
                return None
            problem = str(json.loads(body)["type"]).rpartition(":")[2]
            if problem not in COME_AGAIN:
                if problem != "idempotency-unknown":
                    self._told.other[status] += 1
                return problem
            self._told.refused += problem == "idempotency-unavailable"
            await asyncio.sleep(PAUSE)
        raise TimeoutError(f"{key}: no answer within {PATIENCE:g} s")

    async def _post(self, key: str, port: int) -> tuple[int, bytes]:
        if port not in self._ways:
            self._ways[port] = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = self._ways[port]
        writer.write(
            f"POST /pay HTTP/1.1\r\nHost: a\r\nX-Api-Key: a\r\nIdempotency-Key: {key}\r\n"
            "Content-Length: 0\r\n\r\n".encode()
        )
        async with asyncio.timeout(PATIENCE):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            return int(head[9:12]), await reader.readexactly(length)

    def close(self) -> None:
        for _, writer in self._ways.values():
            writer.close()


class Shop:
    """Clients that pay and pay, until the end."""

    def __init__(self, ports: Sequence[int], told: Told) -> None:
        self.keys: dict[str, str | None] = {}
        """The last answer of each."""
        self._told = told
        self._stop = False
        self._clients = [Client(ports, told) for _ in range(CLIENTS)]
        self._tasks = [
            asyncio.create_task(self._go(client, place))
            for place, client in enumerate(self._clients)
        ]

    async def _go(self, client: Client, place: int) -> None:
        while not self._stop:
            key = str(uuid.uuid4())
            self.keys[key] = await client.pay(key, place)
            self.keys[key] = await client.pay(key, place + 1)

    async def end(self) -> None:
        """Lets all finish, and sends each key once more."""
        self._stop = True
        await asyncio.gather(*self._tasks)
        left = list(self.keys)

        async def again(client: Client, place: int) -> None:
            while left:
                key = left.pop()
                self.keys[key] = await client.pay(key, place)

        await asyncio.gather(*(again(client, n) for n, client in enumerate(self._clients)))
        for client in self._clients:
            client.close()
        self._told.keys = len(self.keys)
        self._told.unknown = sum(answer is not None for answer in self.keys.values())


def gateway(stack: contextlib.ExitStack, folder: Path, **settings: int) -> int:
    """The port of one that runs."""
    folder.mkdir()
    port, admin = free_port(), free_port()
    config = folder / "gateway.yaml"
    config.write_text(CONFIG.format(port=port, admin=admin, **settings))
    (folder / "policies.yaml").write_text(POLICY.format(**settings))
    command = (sys.executable, "-m", "proxy", "run", "-c", config)
    stack.enter_context(running(*command, ready=f"http://127.0.0.1:{admin}/readyz"))
    return port


def see_linked(servers: Trio, wires: Sequence[object]) -> None:
    """Raises where the replica is not in step, or not by the wire."""
    with redis.Redis(port=servers.replica.port) as client:
        told = client.info("replication")
    straight = told["master_port"] == servers.primary.port
    if told["master_link_status"] != "up" or straight is bool(wires):
        raise RuntimeError(f"the replica does not follow as it should: {told}")


def until_promoted(replica: int) -> None:
    with redis.Redis(port=replica) as client:
        until(lambda: client.info("replication").get("role") == "master")


def until_linked(replica: int) -> None:
    with redis.Redis(port=replica) as client:
        until(lambda: client.info("replication").get("master_link_status") == "up")


async def turn(folder: Path, replicas: int, wire: float, down_after: float) -> Told:
    """`wire`: seconds between primary and replica, each way."""
    told, origin = Told(), Origin()
    wires: list[subprocess.Popen[bytes]] = []

    def link(port: int) -> int:
        if not wire:
            return port
        near = free_port()
        command = (sys.executable, "-m", "bench.wire", str(near), str(port), f"{wire * 1000:g}")
        wires.append(stack.enter_context(running(*command, ready=f"redis://127.0.0.1:{near}")))
        return near

    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(trio(folder, down_after, 0, link))
        ports = [
            gateway(
                stack, folder / f"gateway{n}", origin=origin.port, sentinel=servers.sentinel,
                replicas=replicas,
            )
            for n in range(2)
        ]  # fmt: skip
        async with origin.serving():
            shop = Shop(ports, told)
            await asyncio.sleep(BEFORE)
            see_linked(servers, wires)
            for process in (*wires, servers.primary.process):
                process.send_signal(signal.SIGKILL)
            blow = time.monotonic()
            await asyncio.to_thread(until_promoted, servers.replica.port)
            follow = ("--replicaof", f"127.0.0.1 {servers.replica.port}")
            more = redis_server(folder, None, "--repl-diskless-sync-delay", "0", *follow)
            joined = await asyncio.to_thread(stack.enter_context, more)
            await asyncio.to_thread(until_linked, joined.port)
            ready = time.monotonic()
            async with asyncio.timeout(PATIENCE):
                while origin.times[-1] < ready:  # noqa: ASYNC110  there is no event to wait for
                    await asyncio.sleep(0.01)
            await asyncio.sleep(AFTER)
            over = time.monotonic()
            await shop.end()
    told.twice = sum(times > 1 for times in origin.executed.values())
    times = sorted(at for at in origin.times if blow - 1 < at < over)
    told.gap = max(later - earlier for earlier, later in itertools.pairwise(times))
    return told


async def run(turns: int, down_after: float) -> None:
    print(f"down-after-milliseconds {down_after * 1000:.0f}, {turns} turns, {CLIENTS} clients\n")
    heads = ["lag", "`replicas`", "keys, each turn", "executed twice, each turn",
             "unknown, each turn", "told to come again", "nothing executed for, s"]  # fmt: skip
    rows = []
    for wire in (0.0, 0.01):
        for replicas in (0, 1):
            told = []
            for _ in range(turns):
                with tempfile.TemporaryDirectory() as folder:
                    told.append(await turn(Path(folder), replicas, wire, down_after))
                print(told[-1], file=sys.stderr, flush=True)
            gaps = [each.gap for each in told]
            rows.append([
                f"{wire * 1000:.0f} ms", str(replicas),
                *(", ".join(f"{getattr(each, part):,}" for each in told)
                  for part in ("keys", "twice", "unknown", "refused")),
                f"{statistics.median(gaps):.1f} (at most {max(gaps):.1f})",
            ])  # fmt: skip
            if other := sum((each.other for each in told), Counter[int]()):
                raise RuntimeError(f"answers that nobody should see: {other}")
    print(markdown(heads, rows), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="what a failover does to idempotent POSTs")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--down-after", type=float, default=1.0, help="seconds")
    asked = parser.parse_args()
    tell_load_average("start")
    uvloop.run(run(asked.turns, asked.down_after))
    tell_load_average("end")


if __name__ == "__main__":
    main()
