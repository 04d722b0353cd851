"""Reloads under load lose nothing: no 5xx, no dropped connection, no request counted twice.

wrk in front, nginx behind, `sluicegate run` between, and the configuration reloaded all the while,
by SIGHUP and by changing the file. LOAD_SECONDS=60 makes it the long run (a reload every 5 s).
"""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.tools import Origin, find, finish_wrk, free_port, get, nginx_origin, running, start_wrk

SECONDS = float(os.environ.get("LOAD_SECONDS", "8"))
RELOAD_EVERY = SECONDS / 12
CONNECTIONS = 32

pytestmark = [
    pytest.mark.skipif(find("nginx") is None, reason="nginx is not installed"),
    pytest.mark.skipif(find("wrk") is None, reason="wrk is not installed"),
    pytest.mark.timeout(SECONDS * 2 + 60),
]

GATEWAY = """
server: {{listen: "127.0.0.1:{port}", drain_timeout: 5s}}
admin: {{listen: "127.0.0.1:{admin}"}}
policies: [limits.yaml]
upstreams:
  origin:
    endpoints: ["{origin}"]
    read_timeout: {read_timeout}s
routes:
  - name: everything
    match: {{path: "/{{rest:path}}"}}
    upstream: origin
    limits: [all]
    response_headers: {{set: {{X-Round: "{round}"}}}}
"""

RATE = 500


class Gateway:
    """A `sluicegate run` process, its configuration file and its figures."""

    def __init__(self, folder: Path, origin: Origin, algorithm: str) -> None:
        self.port, self.admin = free_port(), free_port()
        self.origin = origin
        self.config = folder / "gateway.yaml"
        self.round = 0
        self.process: subprocess.Popen[bytes] | None = None
        limit = f"{{algorithm: {algorithm}, rate: {RATE}/s, key: [global]}}"
        (folder / "limits.yaml").write_text(f"limits:\n  all: {limit}\n")
        self.write()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def write(self) -> None:
        """A new configuration, put in place at once. Every second one has other upstream settings,
        so that the pool is replaced too."""
        self.round += 1
        text = GATEWAY.format(
            port=self.port,
            admin=self.admin,
            origin=self.origin.url,
            read_timeout=30 + self.round // 2 % 2,
            round=self.round,
        )
        new = self.config.with_suffix(".new")
        new.write_text(text)
        new.replace(self.config)

    def hang_up(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def samples(self, name: str) -> dict[frozenset[str], int]:
        """Every sample of a metric by its set of `label="value"`."""
        text = get(f"http://127.0.0.1:{self.admin}/metrics").body
        found = re.findall(rf"^{name}{{(.*)}} (\S+)$", text.decode(), re.MULTILINE)
        return {frozenset(labels.split(",")): int(float(value)) for labels, value in found}

    def decisions(self, decision: str) -> int:
        labels = frozenset({'limit="all"', f'decision="{decision}"'})
        return self.samples("sluicegate_limit_decisions_total")[labels]

    def reloads(self, outcome: str) -> int:
        labels = frozenset({f'outcome="{outcome}"'})
        return self.samples("sluicegate_config_reloads_total")[labels]

    def statuses(self) -> set[str]:
        """Every status that was answered, the client's own leaving (499) among them."""
        return {
            label[8:11]
            for labels in self.samples("sluicegate_requests_total")
            for label in labels
            if label.startswith('status="')
        }


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Origin]:
    folder = tmp_path / "nginx"
    folder.mkdir()
    with nginx_origin(folder) as running_origin:
        yield running_origin


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)


def bounds(algorithm: str, began: float, ended: float) -> tuple[float, float]:
    """The least (with demand above the limit all the time) and the most that may be admitted
    between two moments of the clock."""
    if algorithm == "fixed_window":
        first, last = int(began), int(ended)
        return RATE * (last - first - 1), RATE * (last - first + 1)
    return RATE * SECONDS, RATE + RATE * (ended - began)  # a full bucket, and what flows in


@pytest.mark.parametrize("algorithm", ["token_bucket", "fixed_window"])
def test_reload_under_load(algorithm: str, origin: Origin, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, origin, algorithm)
    command = (sys.executable, "-m", "proxy", "run", "-c", gateway.config)
    with running(*command, ready=f"http://127.0.0.1:{gateway.admin}/readyz") as process:
        gateway.process = process
        before = origin.requests()

        began = time.time()
        wrk = start_wrk(
            f"{gateway.url}/x", "statuses.lua", seconds=SECONDS, connections=CONNECTIONS
        )
        hang_ups = 0
        for turn in itertools.count(1):
            try:
                wrk.wait(RELOAD_EVERY)
                break
            except subprocess.TimeoutExpired:
                gateway.write()
                if turn % 2:
                    gateway.hang_up()
                    hang_ups += 1
        load = finish_wrk(wrk)
        reached = origin.requests() - before - 1
        allowed, denied = gateway.decisions("allowed"), gateway.decisions("denied")
        ended = time.time()  # a gateway that is late decides on what wrk has left behind

        assert set(load.statuses) == {200, 429}
        assert gateway.statuses() <= {"200", "429", "499"}
        errors = {kind: n for kind, n in load.socket_errors.items() if kind != "status"}
        assert errors == {"connect": 0, "read": 0, "write": 0, "timeout": 0}
        assert load.closes == 0

        # wrk leaves at the end without the answers that it still waits for: one a connection.
        admitted, refused = load.statuses[200], load.statuses[429]
        least, most = bounds(algorithm, began, ended)
        assert 0.9 * least <= admitted
        assert reached <= most
        assert 0 <= reached - admitted <= CONNECTIONS
        assert reached <= allowed <= most
        assert 0 <= allowed + denied - (admitted + refused) <= CONNECTIONS

        # The reloads were real: those by signal, and those by a changed file alone.
        assert gateway.reloads("failed") == 0
        wait_for(lambda: gateway.reloads("ok") > hang_ups >= 5, "reloads by signal and by file")
        last = str(gateway.round)
        wait_for(lambda: get(gateway.url).headers["X-Round"] == last, "the last configuration")

        process.send_signal(signal.SIGTERM)
        assert process.wait(10.0) == 0
