"""`sluicegate init`: what it writes, what it leaves alone, and what its two limits protect from."""

import asyncio
import errno
import time
from collections import Counter
from pathlib import Path

import pytest
from rawhttp import RawOrigin, Wire, echo, free_port

from proxy import logs
from proxy.app import Gateway
from proxy.cli import main
from proxy.init import FILES


def test_both_files_are_written_with_comments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "gateway"
    assert main(["init", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (folder / name).read_text().count("# ") >= 3
    assert f"sluicegate run {folder}/gateway.yaml" in capsys.readouterr().out
    assert main(["check", "--strict", str(folder / "gateway.yaml")]) == 0


def test_here_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("there", FILES)
def test_what_is_there_stays_and_nothing_is_added(
    there: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / there).write_text("mine")
    assert main(["init", str(tmp_path)]) == 2
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {there: "mine"}
    assert capsys.readouterr().err == (
        f"sluicegate: {tmp_path}/{there} exists already; nothing was written\n"
    )


def test_a_link_that_leads_nowhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "limits.yaml").symlink_to(tmp_path / "elsewhere")
    assert main(["init", str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["limits.yaml"]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    assert main(["init", str(tmp_path / "x")]) == 2
    assert (tmp_path / "x").read_text() == "mine"


def test_nothing_is_left_of_what_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = Path.open

    def full(path: Path, mode: str = "r") -> object:
        if mode == "xb" and path.name == "limits.yaml":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return opened(path, mode)

    monkeypatch.setattr(Path, "open", full)
    assert main(["init", str(tmp_path)]) == 2
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == (
        f"sluicegate: {tmp_path}/limits.yaml cannot be written: No space left on device\n"
    )


async def test_a_client_that_invents_keys_is_held(tmp_path: Path) -> None:
    """500 requests, a new X-Api-Key each: with the key's limit alone all of them passed."""
    assert await asyncio.to_thread(main, ["init", str(tmp_path)]) == 0
    port, admin = free_port(), free_port()
    origin = await RawOrigin(echo).start()
    file = tmp_path / "gateway.yaml"
    text = file.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{origin.port}")
    file.write_text(
        f"server: {{listen: '127.0.0.1:{port}'}}\nadmin: {{listen: '127.0.0.1:{admin}'}}\n"
        f"log: {{level: warning}}\n{text}"
    )
    gateway = Gateway(file)
    await gateway.start()
    try:
        statuses: Counter[int] = Counter()
        began = time.monotonic()
        async with await Wire.open(port) as client:
            for number in range(500):
                head = f"GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {number}\r\n\r\n"
                statuses[(await client.ask(head)).status] += 1
        took = time.monotonic() - began
    finally:
        await gateway.stop()
        await origin.stop()
        await asyncio.to_thread(logs.shutdown)
    assert statuses[200] <= 100 + 50 * took + 1
    assert statuses[200] + statuses[429] == 500
