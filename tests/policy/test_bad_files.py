"""One bad file per kind of error: the first line of each says what is to be said of it."""

from pathlib import Path

import pytest

from proxy.policy.load import load
from proxy.policy.problem import ConfigError

HERE = Path(__file__).parent
BAD = sorted((HERE / "bad").glob("*.yaml"))

# What stands around a bad policy file: a route that uses its limits and caches, and others.
GATEWAY = """
policies: ["{good}/limits.yaml", "{good}/caches.yaml", "{bad}"]
upstreams: {{app: {{endpoints: ["http://127.0.0.1:9001"]}}}}
routes: [{{name: all, match: {{path: "/{{user}}"}}, upstream: app, limits: [{limits}], {more}}}]
"""


def problems_of(file: Path, folder: Path) -> list[str]:
    """The errors of a bad file, without the file's name."""
    path = file
    if file.name.startswith(("limit-", "cache-")):
        path = folder / "gateway.yaml"
        text = file.read_text()
        limits = "by-ip, by-user" + (", x" if "limits:\n  x:" in text else "")
        more = "cache: x" if "caches:\n  x:" in text else ""
        path.write_text(GATEWAY.format(good=HERE / "good", bad=file, limits=limits, more=more))
    with pytest.raises(ConfigError) as raised:
        load(path, env={})
    found = [p for p in raised.value.problems if not p.warning]
    assert {p.file for p in found} == {str(file)}
    return [str(p).removeprefix(f"{file}:").replace(f"{HERE}/", "") for p in found]


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_a_bad_file_yields_exactly_its_error(file: Path, tmp_path: Path) -> None:
    first_line = file.read_bytes().partition(b"\n")[0].decode()
    assert problems_of(file, tmp_path) == [first_line.removeprefix("# expect: ")]
