"""The compiled wheel: built once, it serves a request, and says what it is."""

import asyncio
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from rawhttp import free_port

from hatch_build import lacking
from proxy import __version__

ROOT = Path(__file__).resolve().parents[2]
MISSING = list(lacking())
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not here: {', '.join(MISSING)}"),
    pytest.mark.timeout(600),  # of which nearly all is the compiler's
]

GATEWAY = """
server: {{listen: "127.0.0.1:{port}"}}
admin: {{listen: "127.0.0.1:{admin}"}}
policies: []
upstreams: {{app: {{endpoints: ["http://127.0.0.1:1"]}}}}
routes: [{{name: api, match: {{path: "/api"}}, upstream: app}}]
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the compiled wheel's files as an installer lays them."""
    folder = tmp_path_factory.mktemp("compiled")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist"],
        cwd=ROOT,
        env={**os.environ, "HATCH_BUILD_HOOK_ENABLE_CUSTOM": "true"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (folder / "dist").glob("*.whl")
    assert not built.name.endswith("-none-any.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def running(installed: Path, tmp_path: Path) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """Its port, and the process; nothing of the checkout is on its path."""
    port = free_port()
    config = tmp_path / "gateway.yaml"
    config.write_text(GATEWAY.format(port=port, admin=free_port()))
    command = (sys.executable, "-P", "-m", "proxy", "run", "-c", config)
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        yield port, process
        process.terminate()


async def test_it_serves_and_says_what_it_is(
    running: tuple[int, "subprocess.Popen[str]"],
) -> None:
    port, process = running
    assert process.stderr is not None
    said = await asyncio.to_thread(_until, process.stderr, "listens on")
    assert f"sluicegate {__version__} (compiled) listens on" in said
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    writer.close()


def test_what_is_compiled_is_what_runs(installed: Path, tmp_path: Path) -> None:
    code = "import proxy.handler, proxy.cli; print(proxy.handler.__file__, proxy.cli.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    handler, cli = map(Path, done.stdout.split())
    assert handler.suffix == ".so"
    assert cli == installed / "proxy" / "cli.py"
    assert handler.is_relative_to(installed)


def test_nothing_is_left_in_the_checkout(installed: Path) -> None:
    assert [*(ROOT / "proxy").rglob("*.so"), *ROOT.glob("*__mypyc*")] == []


def _until(lines: IO[str], text: str) -> str:
    """The first line with this text; "" where there is none."""
    return next((line for line in lines if text in line), "")
