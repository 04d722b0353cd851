"""Writing configurations, loading them, and what is said of them."""

from pathlib import Path

import pytest

from proxy.policy.load import Loaded, load
from proxy.policy.problem import ConfigError

APP = 'upstreams: {app: {endpoints: ["http://127.0.0.1:9001"]}}\n'
ROUTES = 'routes: [{name: all, match: {path: "/{rest:path}"}, upstream: app}]\n'

BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))
"""One bad file per kind of error."""

_OF_POLICIES = ("limit-", "cache-", "breaker-", "retry-", "idempotency-")


def is_policy_file(bad: Path) -> bool:
    """Whether a bad file is a policy file rather than a gateway file, by its name."""
    return bad.name.startswith(_OF_POLICIES)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def loaded(folder: Path, text: str, **env: str) -> Loaded:
    return load(write(folder, "gateway.yaml", text), env)


def errors(folder: Path, text: str, **env: str) -> list[str]:
    """The errors of a gateway file, with file names below the folder."""
    with pytest.raises(ConfigError) as raised:
        loaded(folder, text, **env)
    return [str(p).removeprefix(f"{folder}/") for p in raised.value.problems if not p.warning]


def warnings(folder: Path, text: str) -> list[str]:
    return [str(p).removeprefix(f"{folder}/") for p in loaded(folder, text).warnings]
