"""What a configuration was read from: which files and folders, and what stood in them.

Content counts, not modification times: a ConfigMap is swapped by a symbolic link, and its files
may well keep their times. Only digests are kept, since TLS keys are among the files; where a
supervisor has to hand on to its workers exactly what it checked, a KeptSources keeps the content,
and a GivenSources is read from that instead of the disk.
"""

import errno
import os
from hashlib import sha256
from pathlib import Path
from typing import Any


class Sources:
    """Every file and folder that was read, and what they held."""

    def __init__(self) -> None:
        self._files: dict[Path, str | None] = {}
        self._folders: dict[Path, tuple[str, ...] | None] = {}

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was read or missed, in that order."""
        return tuple(self._files)

    def read(self, path: Path) -> bytes:
        """The file's content. Raises OSError; a file that is missed is watched for."""
        self._files[path] = None
        data = path.read_bytes()
        self._files[path] = sha256(data).hexdigest()
        return data

    def policy_files(self, folder: Path) -> tuple[str, ...]:
        """The names of a folder's policy files, sorted. Raises OSError."""
        self._folders[folder] = None
        names = tuple(sorted(e.name for e in folder.iterdir() if is_policy_file(e.name)))
        self._folders[folder] = names
        return names

    def is_file(self, path: Path) -> bool:
        """Whether there is a file, rather than a folder or nothing."""
        return path.is_file()

    def again(self) -> "Sources":
        """The same files and folders as they are now."""
        now = Sources()
        for path in self._files:
            try:
                now.read(path)
            except OSError:
                continue
        for folder in self._folders:
            try:
                if folder.is_file():  # an entry of `policies` that was missing before
                    now.read(folder)
                else:
                    now.policy_files(folder)
            except OSError:
                continue
        return now

    @property
    def digest(self) -> str:
        """Hex digest of everything that was read; equal where all of it holds the same."""
        facts = sorted((str(path), held or "") for path, held in self._files.items())
        names = sorted((str(path), held or ()) for path, held in self._folders.items())
        return sha256(repr((facts, names)).encode()).hexdigest()


class KeptSources(Sources):
    """Sources that can be handed on to other processes."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[Path, bytes] = {}

    def read(self, path: Path) -> bytes:
        data = self._held[path] = super().read(path)
        return data

    def packed(self) -> dict[str, Any]:
        """Everything that was read, as JSON can carry it: for a GivenSources."""
        return {
            "files": {str(path): data.decode("latin-1") for path, data in self._held.items()},
            "folders": {str(path): names for path, names in self._folders.items()},
        }


class GivenSources(Sources):
    """Sources that another process has read; what it did not find is missing here too."""

    def __init__(self, packed: dict[str, Any]) -> None:
        super().__init__()
        self._given_files: dict[str, str] = packed["files"]
        self._given_folders: dict[str, list[str] | None] = packed["folders"]

    def read(self, path: Path) -> bytes:
        self._files[path] = None
        if str(path) not in self._given_files:
            raise _missing(path)
        data = self._given_files[str(path)].encode("latin-1")
        self._files[path] = sha256(data).hexdigest()
        return data

    def policy_files(self, folder: Path) -> tuple[str, ...]:
        names = self._given_folders.get(str(folder))
        self._folders[folder] = None if names is None else tuple(names)
        if names is None:
            raise _missing(folder)
        return tuple(names)

    def is_file(self, path: Path) -> bool:
        return str(path) in self._given_files


def _missing(path: Path) -> OSError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def is_policy_file(name: str) -> bool:
    """Whether a name in the policies folder is read: visible YAML (not a ConfigMap's `..data`)."""
    return name.endswith((".yaml", ".yml")) and not name.startswith(".")
