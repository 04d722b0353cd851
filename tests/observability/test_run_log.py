"""What `sluicegate run` logs of itself: what it serves, and what became of reloads."""

import asyncio
import json
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from rawhttp import free_port

Run = Callable[[Path], Awaitable["Running"]]


class Running:
    """`sluicegate run FILE`, and its log."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def until(self, text: str) -> list[str]:
        """The messages up to the first that holds this text."""
        assert self.process.stderr is not None
        found: list[str] = []
        async with asyncio.timeout(30):
            while not found or text not in found[-1]:
                line = (await self.process.stderr.readline()).decode()
                assert line, f"ended after {found}"
                found.append(json.loads(line)["message"] if line[0] == "{" else line.rstrip())
        return found


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    started: list[Process] = []

    async def start(path: Path) -> Running:
        command = (sys.executable, "-m", "proxy", "run", str(path))
        started.append(await asyncio.create_subprocess_exec(*command, stderr=PIPE))
        return Running(started[-1])

    yield start
    for process in started:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            await process.communicate()


def write(path: Path, *, port: int, admin: int, log: str = "{}", more: str = "") -> None:
    path.write_text(
        f"server: {{listen: '127.0.0.1:{port}'}}\nadmin: {{listen: '127.0.0.1:{admin}'}}\n"
        f"log: {log}\npolicies: []\nupstreams: {{app: {{endpoints: ['http://127.0.0.1:1']}}}}\n"
        f"routes: [{{name: all, match: {{path: /}}, upstream: app}}]\n{more}"
    )


@pytest.mark.parametrize("form", ["plain", "json"])
async def test_the_line_at_the_start_says_what_is_served(
    form: str, run: Run, tmp_path: Path
) -> None:
    port, admin = free_port(), free_port()
    path = tmp_path / "gateway.yaml"
    write(path, port=port, admin=admin, log=f"{{format: {form}}}")
    running = await run(path)
    *_, said = await running.until("listens on")
    assert said.endswith(
        f" listens on 127.0.0.1:{port} "
        f"(admin 127.0.0.1:{admin}, store memory://, 1 worker, 1 route)"
    )


async def test_an_address_that_is_taken_is_named_in_words(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        admin = taken.getsockname()[1]
        write(path, port=free_port(), admin=admin)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy", "run", str(path), stderr=PIPE
        )
        _, log = await process.communicate()
    assert process.returncode == 1
    assert f"sluicegate: cannot bind 127.0.0.1:{admin}: Address already in use" in (
        log.decode().splitlines()
    )


async def test_warnings_are_logged_and_counted_at_the_start(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    write(path, port=free_port(), admin=free_port())
    route = "{name: all, match: {path: /}, upstream: app}"
    text = path.read_text().replace(route, f"{route}, {route.replace('all', 'again')}")
    path.write_text(text)
    *before, said = await (await run(path)).until("listens on")
    assert "never reached: routes[0] takes all its requests" in before[-1]
    assert said.endswith("2 routes, 1 warning)")


async def test_the_log_says_when_a_refused_configuration_is_mended(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "gateway.yaml"
    ports = {"port": free_port(), "admin": free_port()}
    write(path, **ports)
    running = await run(path)
    await running.until("listens on")
    write(path, **ports, more="bad: 1\n")
    await running.until("not reloaded: ")
    write(path, **ports)  # as it was: nothing is reloaded
    said = await running.until("the configuration on disk is valid again")
    assert not any("was reloaded" in line for line in said)
    write(path, **ports, more="bad: 1\n")
    await running.until("not reloaded: ")
    write(path, **ports, log="{level: debug}")  # something else
    said = await running.until("the configuration on disk is valid again")
    assert any("was reloaded" in line for line in said)


async def test_warnings_are_no_reasons_for_a_refusal(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    ports = {"port": free_port(), "admin": free_port()}
    warned = "store: {cache: {blind: 5s}}\n"
    write(path, **ports, more=warned)
    running = await run(path)
    assert any("blind" in line for line in await running.until("listens on"))
    write(path, **ports, more=f"bad: 1\n{warned}bad_too: 1\n")
    said = await running.until("bad_too: unknown key")
    assert not any("blind" in line for line in said)
