"""What is installed: which build, and what ships beside the code (`lua/`, `policies/`, `config/`).

The folders stand at the top of the repository, where people edit them, and the build puts them
into the wheel as `proxy/shipped/`. Either way the three are neighbours, so `policies: ../policies`
in a shipped configuration holds in both.
"""

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from proxy import __version__

ROOMS = ("lua", "policies", "config")


def shipped(room: str) -> Path:
    """The folder of one of `ROOMS`. Raises FileNotFoundError where the installation lacks it."""
    if room not in ROOMS:
        raise ValueError(f"nothing called {room!r} ships with Sluicegate")
    package = Path(str(files("proxy")))
    installed = package / "shipped" / room
    if installed.is_dir():
        return installed
    # A checkout, or an editable install of one. Only beside our own pyproject.toml: next to an
    # installed package, a folder called `config` would be somebody else's.
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / room).is_dir():
        return checkout / room
    raise FileNotFoundError(f"{room}/ is not part of this installation of Sluicegate")


def config_file(name: str) -> Path:
    """A shipped configuration file, such as `demo.yaml`."""
    path = shipped("config") / name
    if not path.is_file():
        raise FileNotFoundError(f"config/{name} is not part of this installation of Sluicegate")
    return path


def compiled() -> bool:
    """Whether this installation runs what a request goes through as C extensions."""
    spec = find_spec("proxy.handler")
    return spec is not None and not str(spec.origin).endswith(".py")


def release() -> str:
    """The version, as people are told of it."""
    return f"{__version__} (compiled)" if compiled() else __version__
