"""What benchmarks and load tests are made of: an nginx origin, pinned processes, wrk.

Everything listens on 127.0.0.1, on ports of its own, and ends with its `with` block.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])

BODY = json.dumps({"id": 1, "text": "x" * 780}).encode()
"""What the origin answers: about 0.8 KB of JSON."""


def find(program: str) -> str | None:
    """The path of a program, also where it lies outside an ordinary user's PATH (nginx)."""
    return shutil.which(program, path=SEARCH)


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Answer(NamedTuple):
    """One answer."""

    status: int
    headers: Message
    body: bytes


def get(url: str, timeout: float = 5.0, headers: Mapping[str, str] | None = None) -> Answer:
    """One plain GET, without any proxy that the environment may name."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        request = urllib.request.Request(url, headers=dict(headers or {}))
        with opener.open(request, timeout=timeout) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read())


def _answers_http(url: str) -> bool:
    return get(url, 1.0).status < 500


def _answers_redis(url: str) -> bool:
    """Whether a `redis://127.0.0.1:PORT` takes a PING."""
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    with socket.create_connection(address, 1.0) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(64) == b"+PONG\r\n"


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], seconds: float) -> None:
    answers = _answers_redis if url.startswith("redis:") else _answers_http
    deadline = time.monotonic() + seconds
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        with contextlib.suppress(OSError):
            if answers(url):
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{url} did not answer within {seconds:g} s")
        time.sleep(0.02)


@contextlib.contextmanager
def running(
    *command: str | Path, ready: str, core: int | None = None, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, pinned to one core where asked, from its first answer on the URL `ready` on."""
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    process = subprocess.Popen([*pinned, *command], env={**os.environ, **(env or {})})
    try:
        _wait_until_it_answers(ready, process, 20.0)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log warn; worker_processes 1;
events {{ worker_connections 4096; }}
http {{
    access_log off; default_type application/json; server_tokens off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 100000000; keepalive_timeout 75s;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /-/counts {{ stub_status; }}
        location / {{ {fields} return 200 '{body}'; }}
    }}
}}
"""


@dataclass(frozen=True)
class Origin:
    """A running nginx that answers every path with BODY."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def requests(self) -> int:
        """How many requests it has had, this question included."""
        return int(get(f"{self.url}/-/counts").body.split(b"requests")[1].split()[2])


@contextlib.contextmanager
def nginx_origin(
    folder: Path, core: int | None = None, fields: dict[str, str] | None = None
) -> Iterator[Origin]:
    """nginx as an origin that answers with these further fields; `folder` takes its configuration,
    its log and its pid."""
    nginx = find("nginx")
    if nginx is None:
        raise FileNotFoundError("nginx is not installed (Debian: apt-get install nginx-light)")
    origin = Origin(free_port())
    config = folder / "nginx.conf"
    further = " ".join(f"add_header {name} '{value}';" for name, value in (fields or {}).items())
    config.write_text(
        NGINX.format(folder=folder, port=origin.port, body=BODY.decode(), fields=further)
    )
    command = (nginx, "-e", "stderr", "-p", folder, "-c", config)
    with running(*command, ready=f"{origin.url}/-/counts", core=core):
        yield origin


@dataclass(frozen=True)
class RedisServer:
    """A running redis-server without persistence."""

    port: int
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def redis_server(
    folder: Path, core: int | None = None, *further: str | Path
) -> Iterator[RedisServer]:
    """A redis-server of its own; `folder` is where it would write, `further` its options."""
    binary = find("redis-server")
    if binary is None:
        raise FileNotFoundError("there is no redis-server (Debian: apt-get install redis-server)")
    port = free_port()
    options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder)
    command = (binary, *options, "--logfile", folder / f"redis-{port}.log", *further)
    with running(*command, ready=f"redis://127.0.0.1:{port}", core=core) as process:
        yield RedisServer(port, process)


TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process and its living children have spent so far (proc(5), stat)."""
    ticks = 0
    waiting = [pid]
    while waiting:
        folder = Path(f"/proc/{waiting.pop()}")
        spent = (folder / "stat").read_text().rpartition(")")[2].split()
        ticks += int(spent[11]) + int(spent[12])
        for children in folder.glob("task/*/children"):
            waiting += map(int, children.read_text().split())
    return ticks / TICKS_PER_SECOND


@dataclass(frozen=True)
class Load:
    """What wrk saw. Latencies in microseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    statuses: dict[int, int] = field(default_factory=dict)
    """Only where the script counts them (statuses.lua)."""
    closes: int = 0
    """Answers that said `Connection: close` (statuses.lua)."""
    socket_errors: dict[str, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def start_wrk(
    url: str, script: str, *, seconds: float, connections: int = 32, core: int | None = None
) -> subprocess.Popen[str]:
    """Starts wrk with one thread and one of the Lua scripts of this folder."""
    wrk = find("wrk")
    if wrk is None:
        raise FileNotFoundError("wrk is not installed (Debian: apt-get install wrk)")
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    shape = ["-t", "1", "-c", str(connections), "-d", f"{round(seconds)}s"]
    return subprocess.Popen(
        [*pinned, wrk, *shape, "-s", HERE / script, url], stdout=subprocess.PIPE, text=True
    )


def finish_wrk(process: subprocess.Popen[str]) -> Load:
    """Waits for wrk's end and reads the one JSON line that the scripts print."""
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"wrk ended with {process.returncode}: {out}")
    (line,) = [line for line in out.splitlines() if line.startswith("{")]
    seen = json.loads(line)
    statuses = {int(status): count for status, count in seen.get("statuses", {}).items()}
    return Load(
        seen["requests"], seen["us"] / 1e6, seen["p50"], seen["p99"], statuses,
        seen.get("closes", 0), seen["errors"],
    )  # fmt: skip
