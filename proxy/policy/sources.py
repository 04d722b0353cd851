"""What a configuration was read from: which files and folders, and what stood in them.

Content counts, not modification times: a ConfigMap is swapped by a symbolic link, and its files
may well keep their times. Only digests are kept, since TLS keys are among the files.
"""

from hashlib import sha256
from pathlib import Path


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


def is_policy_file(name: str) -> bool:
    """Whether a name in the policies folder is read: visible YAML (not a ConfigMap's `..data`)."""
    return name.endswith((".yaml", ".yml")) and not name.startswith(".")
