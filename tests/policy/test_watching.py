"""The watcher: content counts, a change is told once, and a ConfigMap's swap is one."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from proxy.policy.load import survey
from proxy.policy.reload import Watcher

GATEWAY = """
policies: policies
upstreams: {app: {endpoints: ["http://127.0.0.1:9001"]}}
routes: [{name: all, match: {path: "/{rest:path}"}, upstream: app}]
"""


SECOND = GATEWAY + "log: {level: debug}\n"


def put(path: Path, text: str) -> None:
    """Writes a file as editors and Kubernetes do: at once, by a rename."""
    half = path.with_name(f".{path.name}.half")
    half.write_text(text)
    half.rename(path)


class Told:
    """Counts the calls, and lets a test wait for the next one."""

    def __init__(self) -> None:
        self.calls = 0
        self._called = asyncio.Event()

    async def __call__(self) -> None:
        self.calls += 1
        self._called.set()

    async def wait(self) -> None:
        await asyncio.wait_for(self._called.wait(), 10)
        self._called.clear()


class Watched:
    """A configuration and its watcher. `compared` counts how often content was compared."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told = Told()
        self.content = survey(path).digest  # as if it had been loaded now
        self.compared = 0
        self.unchanged = 0
        self.watcher = Watcher(path, self._loaded, self.told, self._same, interval=0.01)

    def _same(self) -> None:
        self.unchanged += 1

    def _loaded(self) -> str:
        self.compared += 1
        return self.content

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0.005)


@pytest.fixture
def written(tmp_path: Path) -> Watched:
    """A configuration that is loaded, not yet watched."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "gateway.yaml").write_text(GATEWAY)
    return Watched(tmp_path / "gateway.yaml")


@pytest.fixture
async def watched(written: Watched) -> AsyncIterator[Watched]:
    written.watcher.start()
    await written.until(lambda: written.compared == 1)  # the first survey is done
    yield written
    await written.watcher.stop()


async def test_what_was_loaded_is_not_told(watched: Watched) -> None:
    assert watched.told.calls == 0


async def test_a_change_is_told_once(watched: Watched) -> None:
    put(watched.path, GATEWAY + "log: {level: debug}\n")
    await watched.told.wait()
    put(watched.path, GATEWAY + "log: {level: error}\n")
    await watched.told.wait()
    assert watched.told.calls == 2


async def test_a_bad_change_is_told_once_and_its_mending_again(watched: Watched) -> None:
    """Nothing loads, so the content in use stays what it was; the change is not told again."""
    put(watched.path, GATEWAY + "log: {level: loud}\n")
    await watched.told.wait()
    put(watched.path.parent / "policies" / "a.yaml", "limits: {}\n")
    await watched.told.wait()
    assert watched.told.calls == 2


async def test_a_new_and_a_lost_policy_file_are_changes(watched: Watched) -> None:
    file = watched.path.parent / "policies" / "new.yaml"
    put(file, "limits: {a: {rate: 1/s, key: [ip]}}\n")
    await watched.told.wait()
    watched.content = (await asyncio.to_thread(survey, watched.path)).digest
    file.unlink()
    await watched.told.wait()


def test_files_that_are_not_read_are_no_change(written: Watched) -> None:
    folder = written.path.parent / "policies"
    (folder / "notes.txt").write_text("x")
    (folder / ".a.yaml.swp").write_text("x")
    os.utime(written.path, (0, 0))
    assert survey(written.path).digest == written.content


async def test_a_bad_change_that_is_taken_back_needs_no_reload(watched: Watched) -> None:
    put(watched.path, GATEWAY + "log: {level: loud}\n")
    await watched.told.wait()
    compared = watched.compared
    put(watched.path, GATEWAY)
    unchanged = watched.unchanged
    await watched.until(lambda: watched.compared == compared + 1)
    assert watched.told.calls == 1
    assert watched.unchanged == unchanged + 1


async def test_the_watcher_follows_to_files_that_are_named_anew(
    watched: Watched, tmp_path: Path
) -> None:
    """A bad change may name another file; mending that file is a change too."""
    other = tmp_path / "elsewhere.yaml"
    put(other, "limits: [\n")
    put(watched.path, GATEWAY.replace("policies: policies", "policies: [elsewhere.yaml]"))
    await watched.told.wait()
    await watched.until(lambda: watched.compared >= 2)
    put(other, "limits: {}\n")
    await watched.told.wait()
    assert watched.told.calls == 2


async def test_a_policies_folder_that_comes_later_is_a_change(watched: Watched) -> None:
    put(watched.path, GATEWAY.replace("policies: policies", "policies: later"))
    await watched.told.wait()
    (watched.path.parent / "later").mkdir()
    (watched.path.parent / "later" / "a.yaml").write_text("limits: {}\n")
    await watched.told.wait()


@pytest.fixture
def second_content(written: Watched) -> str:
    """The digest of the configuration that `SECOND` will be."""
    put(written.path, SECOND)
    digest = survey(written.path).digest
    put(written.path, GATEWAY)
    return digest


async def test_what_a_signal_loaded_meanwhile_is_not_told(
    second_content: str, watched: Watched
) -> None:
    watched.content = second_content  # as the signal's reload leaves it
    put(watched.path, SECOND)
    await watched.until(lambda: watched.compared == 2)
    assert watched.told.calls == 0


@pytest.fixture
def config_map(tmp_path: Path) -> Watched:
    """As Kubernetes mounts it: a link through `..data`, itself a link to a version."""
    for version, level in (("v1", "error"), ("v2", "debug")):
        (tmp_path / version).mkdir()
        file = tmp_path / version / "gateway.yaml"
        put(file, GATEWAY + f"log: {{level: {level}}}\n")
        os.utime(file, (0, 0))  # one size and one time for both
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "gateway.yaml").symlink_to(Path("..data") / "gateway.yaml")
    return Watched(tmp_path / "gateway.yaml")


async def test_the_swap_of_a_config_map_is_a_change(config_map: Watched) -> None:
    config_map.watcher.start()
    await config_map.until(lambda: config_map.compared == 1)
    folder = config_map.path.parent
    (folder / "..data_tmp").symlink_to("v2")
    (folder / "..data_tmp").rename(folder / "..data")
    await config_map.told.wait()
    await config_map.watcher.stop()
    assert config_map.told.calls == 1


async def test_a_change_between_loading_and_watching_is_told(written: Watched) -> None:
    put(written.path, SECOND)
    written.watcher.start()
    await written.told.wait()
    await written.watcher.stop()
    await written.watcher.stop()


async def test_a_reload_that_fails_unforeseen_is_not_the_last(
    written: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        await written.told()
        raise RuntimeError("unforeseen")

    watcher = Watcher(written.path, lambda: written.content, fail, lambda: None, interval=0.01)
    watcher.start()
    put(written.path, SECOND)
    await written.told.wait()
    put(written.path, GATEWAY + "log: {level: error}\n")
    await written.told.wait()
    await watcher.stop()
    assert "the changed configuration could not be loaded" in caplog.text
