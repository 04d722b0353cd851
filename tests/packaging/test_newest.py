"""`.ci/newest.py`: which dependencies are newer than the lock, and what is installed then."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def newest(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(ROOT)
    spec = importlib.util.spec_from_file_location("newest", ROOT / ".ci" / "newest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def locked(newest: ModuleType) -> dict[str, str]:
    """What stands in the lock, as pip would find it."""
    return {newest.normal(pin["name"]): pin["version"] for pin in newest.pins("requirements.lock")}


def test_nothing_is_printed_where_the_lock_has_the_newest(
    newest: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(newest, "newest", lambda wanted: locked(newest))
    newest.main(tmp_path)
    assert capsys.readouterr().out == ""


def test_what_is_newer_or_new_is_printed_and_installed_beside_the_locked_tools(
    newest: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    versions = locked(newest)
    before = versions["pyyaml"]
    found = versions | {"pyyaml": "99.1", "indirect": "1.0"}
    monkeypatch.setattr(newest, "newest", lambda wanted: found)
    newest.main(tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        "indirect 1.0 (locked: not at all)",
        f"pyyaml 99.1 (locked: {before})",
    ]
    wanted = (tmp_path / "requirements.txt").read_text().splitlines()
    assert {"pyyaml==99.1", "indirect==1.0", f"aiohttp=={versions['aiohttp']}"} <= set(wanted)
    assert any(line.startswith("pytest>=") for line in wanted)
    tools = (tmp_path / "constraints.txt").read_text().splitlines()
    names = [newest.normal(line.partition("==")[0]) for line in tools]
    assert "pytest" in names
    assert not set(names) & set(found)


def test_ci_runs_it_before_the_whole_suite_whose_summary_is_last() -> None:
    commands = [
        line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("make ")
    ]
    targets = [line.removeprefix("make --no-print-directory ").split()[0] for line in commands]
    assert targets == ["check", "test-newest", "test"]
