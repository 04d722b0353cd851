"""One bad file per kind of error: the first line of each says what is to be said of it."""

from pathlib import Path

import pytest
from yaml_kit import BAD, is_policy_file

from proxy.policy.load import load
from proxy.policy.problem import ConfigError

HERE = Path(__file__).parent

# What stands around a bad policy file: a route and an upstream that use what it defines, and
# others.
GATEWAY = """
policies: ["{good}", "{bad}"]
upstreams:
  app: {{endpoints: ["http://127.0.0.1:9001"], {of_upstream}}}
  spare: {{endpoints: ["http://127.0.0.1:9002"]}}
routes: [{{name: all, match: {{path: "/{{user}}"}}, upstream: app, limits: [{limits}], {of_route}}}]
"""


def problems_of(file: Path, folder: Path) -> list[str]:
    """The errors of a bad file, without the file's name."""
    path = file
    if is_policy_file(file):
        path = folder / "gateway.yaml"
        text = file.read_text()
        limits = "by-ip, by-user" + (", x" if "limits:\n  x:" in text else "")
        of_route = "cache: x" if "caches:\n  x:" in text else ""
        of_route += "idempotency: x" if "idempotency:\n  x:" in text else ""
        of_upstream = "breaker: x" if "breakers:\n  x:" in text else ""
        of_upstream += "retry: x" if "retries:\n  x:" in text else ""
        around = GATEWAY.format(
            good=HERE / "good", bad=file, limits=limits, of_route=of_route, of_upstream=of_upstream
        )
        path.write_text(around)
    with pytest.raises(ConfigError) as raised:
        load(path, env={})
    found = [p for p in raised.value.problems if not p.warning]
    assert {p.file for p in found} == {str(file)}
    return [str(p).removeprefix(f"{file}:").replace(f"{HERE}/", "") for p in found]


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_a_bad_file_yields_exactly_its_error(file: Path, tmp_path: Path) -> None:
    first_line = file.read_bytes().partition(b"\n")[0].decode()
    assert problems_of(file, tmp_path) == [first_line.removeprefix("# expect: ")]
