"""How many connections a gateway has to Redis: what the README says, counted by Redis itself."""

import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from redisservers import RedisServer, free_port, wait_for

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()

GATEWAY = """\
server: {{listen: "127.0.0.1:{port}", workers: {workers}}}
admin: {{listen: "127.0.0.1:{admin}"}}
store: {{url: "{store}", timeout: 5s}}
policies: [policies.yaml]
upstreams: {{app: {{endpoints: ["http://127.0.0.1:{nobody}"]{upstream}}}}}
routes: [{{name: all, match: {{path: "/{{rest:path}}"}}, upstream: app{route}}}]
"""
POLICIES = {
    "limits": "limits: {some: {rate: 1000/s, key: [ip]}}\n",
    "cache": "caches: {some: {}}\n",
    "idempotency": "idempotency: {some: {scope: [ip, global]}}\n",
    "shared breaker": "breakers: {some: {shared: true}}\n",
}
OF_ROUTE = {"limits": ", limits: [some]", "cache": ", cache: some",
            "idempotency": ", idempotency: some"}  # fmt: skip


class Running:
    """`sluicegate run` with some of the features, on this Redis."""

    def __init__(
        self, folder: Path, redis: RedisServer, workers: int, features: tuple[str, ...]
    ) -> None:
        self.redis = redis
        self.port, self.admin = free_port(), free_port()
        (folder / "policies.yaml").write_text("".join(POLICIES[name] for name in features))
        gateway = folder / "gateway.yaml"
        gateway.write_text(
            GATEWAY.format(
                port=self.port,
                admin=self.admin,
                workers=workers,
                store=redis.url,
                nobody=free_port(),
                upstream=", breaker: some" if "shared breaker" in features else "",
                route="".join(OF_ROUTE.get(name, "") for name in features),
            )
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "proxy", "run", str(gateway)],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def until_ready(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if " listens on " in line:
                return
        raise AssertionError("ended at the start")

    def use(self) -> None:
        """A purge, and requests that want all there is; nobody answers behind, which is no
        matter."""
        for method, headers in (("GET", {}), ("POST", {"Idempotency-Key": "k"})):
            self._send(f"http://127.0.0.1:{self.port}/x", method, headers, None)
        purge = {"Content-Type": "application/json"}
        self._send(f"http://127.0.0.1:{self.admin}/cache/purge", "POST", purge, b'{"all": true}')

    def _send(self, url: str, method: str, headers: dict[str, str], data: bytes | None) -> None:
        asking = urllib.request.Request(url, data, headers, method=method)
        try:
            urllib.request.urlopen(asking, timeout=10).close()
        except urllib.error.HTTPError as refused:
            refused.close()

    def connections(self) -> int:
        clients = self.redis.call("CLIENT", "LIST")
        text = clients.decode() if isinstance(clients, bytes) else str(clients)
        return len(re.findall(r"\bname=sluicegate\b", text))


@pytest.fixture
def running(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path: Path
) -> Iterator[Running]:
    workers, features = request.param
    gateway = Running(tmp_path, redis_server, workers, features)
    try:
        gateway.until_ready()
        yield gateway
    finally:
        gateway.process.send_signal(signal.SIGTERM)
        gateway.process.communicate(timeout=20)


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        ((1, ("limits",)), 2),
        ((1, ("limits", "shared breaker")), 2),
        ((1, ("limits", "cache")), 5),
        ((1, ("limits", "idempotency")), 5),
        ((1, ("limits", "cache", "idempotency", "shared breaker")), 8),
        ((2, ("limits",)), 2 * 2 + 2),
        ((2, ("limits", "cache", "idempotency")), 2 * 8 + 5),
    ],
    indirect=["running"],
)
def test_a_process_has_the_connections_that_the_readme_says(
    running: Running, expected: int
) -> None:
    wait_for(lambda: running.connections() >= expected, f"{expected} connections")
    running.use()
    assert running.connections() == expected


def test_the_readme_says_so() -> None:
    sums = "a single process with all of it has eight, two workers and their supervisor twenty-one"
    assert sums in " ".join(README.split())
