"""What people install: the wheel's content, and that an installed copy finds what ships in it."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import proxy
from proxy.resources import ROOMS, config_file, shipped

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout by the backend that pyproject.toml names."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's files as an installer lays them, far from the checkout."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def files_below(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("room", ROOMS)
def test_the_wheel_holds_the_room(wheel: Path, room: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    prefix = f"proxy/shipped/{room}/"
    inside = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    assert inside == files_below(ROOT / room)
    assert inside


def test_the_wheel_holds_every_module_and_no_test(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        modules = {name for name in archive.namelist() if name.endswith(".py")}
    assert modules == {
        f"proxy/{name}" for name in files_below(ROOT / "proxy") if name.endswith(".py")
    }


def test_one_version_everywhere(wheel: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert proxy.__version__ == project["version"]
    assert wheel.name.startswith(f"sluicegate-{project['version']}-")
    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_command_is_declared(installed: Path) -> None:
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "sluicegate = proxy.cli:main" in entry_points.read_text().splitlines()


def test_an_installed_copy_finds_what_ships(installed: Path, tmp_path: Path) -> None:
    """Nothing of the checkout is on its path, nor in its working directory."""
    code = "from proxy.resources import *; print(*(shipped(room) for room in ROOMS), sep='\\n')"
    found = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed)).splitlines()
    assert [Path(path) for path in found] == [installed / "proxy/shipped" / room for room in ROOMS]


def test_a_checkout_finds_its_own_folders() -> None:
    assert [shipped(room) for room in ROOMS] == [ROOT / room for room in ROOMS]


def test_what_does_not_ship_is_said() -> None:
    with pytest.raises(ValueError, match="nothing called 'tests'"):
        shipped("tests")
    with pytest.raises(FileNotFoundError, match=r"config/none\.yaml"):
        config_file("none.yaml")


def test_a_folder_of_somebody_else_is_not_ours(installed: Path, tmp_path: Path) -> None:
    """`config/` beside an installed package belongs to another distribution."""
    copy = tmp_path / "site-packages"
    (copy / "config").mkdir(parents=True)
    (copy / "proxy").symlink_to(ROOT / "proxy")
    code = (
        "import pathlib, proxy.resources as r\n"
        "r.files = lambda _: pathlib.Path('proxy').absolute()\n"
        "try: r.shipped('config')\n"
        "except FileNotFoundError: print('refused')"
    )
    assert run(sys.executable, "-c", code, cwd=copy).strip() == "refused"


@pytest.mark.parametrize("arguments", [["schema", "policies"], ["--help"]])
def test_the_module_is_the_command(installed: Path, tmp_path: Path, arguments: list[str]) -> None:
    """`python -m proxy` and the console script say the same, from the wheel."""
    script = "from proxy.cli import main; import sys; sys.argv[0] = 'sluicegate'; sys.exit(main())"
    by_script = run(
        sys.executable, "-c", script, *arguments, cwd=tmp_path, PYTHONPATH=str(installed)
    )
    by_module = run(
        sys.executable, "-m", "proxy", *arguments, cwd=tmp_path, PYTHONPATH=str(installed)
    )
    assert by_script == by_module
    assert by_script


@pytest.mark.parametrize("name", ["gateway.yaml", "demo.yaml", "init/gateway.yaml"])
def test_the_wheels_configurations_pass_check(installed: Path, tmp_path: Path, name: str) -> None:
    file = installed / "proxy/shipped/config" / name
    run(
        sys.executable,
        "-m",
        "proxy",
        "check",
        "--strict",
        file,
        cwd=tmp_path,
        PYTHONPATH=str(installed),
    )
