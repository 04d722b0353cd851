"""`sluicegate init`: the first two files of a configuration, with comments."""

import sys
from pathlib import Path

from proxy.resources import config_file

FILES = ("gateway.yaml", "limits.yaml")


def init(folder: Path) -> int:
    """Writes both files, or neither: 2 where one is there already or cannot be written."""
    try:
        written = _write(folder)
    except FileExistsError as error:
        print(f"sluicegate: {error.filename} exists already; nothing was written", file=sys.stderr)
        return 2
    except OSError as error:
        message = f"sluicegate: {error.filename or folder} cannot be written: {error.strerror}"
        print(message, file=sys.stderr)
        return 2
    gateway, limits = written
    print(f"wrote {gateway} and {limits}; next:")
    print(f"  sluicegate check {gateway}")
    print(f"  sluicegate run {gateway}")
    return 0


def _write(folder: Path) -> list[Path]:
    """The files' paths. Raises OSError, after which there is nothing that was not there before."""
    paths = [folder / name for name in FILES]
    for path in paths:
        if path.is_symlink() or path.exists():
            raise FileExistsError(None, None, str(path))
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    try:
        for path in paths:
            with path.open("xb") as file:
                made.append(path)
                file.write(config_file(f"init/{path.name}").read_bytes())
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise
    return paths
