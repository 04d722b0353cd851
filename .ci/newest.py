"""What to install for the newest run-time dependencies that pyproject.toml allows.

usage: newest.py FOLDER

Writes requirements.txt and constraints.txt there, with the tools of the tests as they are locked,
and prints each dependency that is newer than the lock: nothing where none is.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)(?P<marker> ; [^\\]+)?")


def normal(name: str) -> str:
    """A name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: str) -> list[re.Match[str]]:
    """The pins of a lock file. A name may come several times, for other machines."""
    return [found for line in Path(lock).read_text().splitlines() if (found := PIN.match(line))]


def newest(wanted: list[str]) -> dict[str, str]:
    """What pip would install for these, with nothing installed and no lock."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet",
             "--dry-run", "--ignore-installed", "--report", report, *wanted],
            check=True,
        )  # fmt: skip
        packages = [one["metadata"] for one in json.loads(report.read_text())["install"]]
    return {normal(package["name"]): package["version"] for package in packages}


def main(folder: Path) -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())
    found = newest(project["project"]["dependencies"])
    locked: dict[str, set[str]] = {}
    for pin in pins("requirements.lock"):
        locked.setdefault(normal(pin["name"]), set()).add(pin["version"])
    for name, version in sorted(found.items()):
        if version not in locked.get(name, ()):
            print(f"{name} {version} (locked: {', '.join(locked.get(name, ['not at all']))})")
    runtime = [f"{name}=={version}" for name, version in found.items()]
    tools = [
        f"{pin['name']}=={pin['version']}{(pin['marker'] or '').rstrip()}"
        for pin in pins("requirements-dev.lock")
        if normal(pin["name"]) not in found
    ]
    requirements = runtime + project["dependency-groups"]["test"]
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n")
    (folder / "constraints.txt").write_text("\n".join(tools) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
