"""What one process has read and checked, another loads as it was, whatever the disk says now."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.compile import config_hash
from proxy.policy.load import load
from proxy.policy.problem import ConfigError
from proxy.policy.sources import GivenSources, KeptSources

GATEWAY = """
policies: {policies}
upstreams: {{origin: {{endpoints: ["http://127.0.0.1:9001"]}}}}
routes: [{{name: all, match: {{path: "/{{rest:path}}"}}, upstream: origin, limits: {limits}}}]
"""
LIMIT = "limits:\n  {name}: {{algorithm: fixed_window, rate: {rate}, key: [ip]}}\n"


def handed_on(kept: KeptSources) -> GivenSources:
    return GivenSources(json.loads(json.dumps(kept.packed())))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "one.yaml").write_text(LIMIT.format(name="one", rate="1/s"))
    (tmp_path / "two.yaml").write_text(LIMIT.format(name="two", rate="2/s"))
    path = tmp_path / "gateway.yaml"
    path.write_text(GATEWAY.format(policies="[more, two.yaml]", limits="[one, two]"))
    return path


def test_loads_the_same_after_the_disk_changed(path: Path) -> None:
    kept = KeptSources()
    first = load(path, {}, kept)
    path.write_text("nonsense: true\n")
    (path.parent / "two.yaml").unlink()
    (path.parent / "two.yaml").mkdir()
    (path.parent / "more" / "three.yaml").write_text("limits: nonsense\n")
    second = load(path, {}, handed_on(kept))
    assert config_hash(second.draft) == config_hash(first.draft)
    assert second.sources.digest == first.sources.digest
    assert second.sources.files == first.sources.files


def test_a_folder_that_was_missing_stays_missing(tmp_path: Path) -> None:
    path = tmp_path / "config" / "gateway.yaml"
    path.parent.mkdir()
    path.write_text(GATEWAY.format(policies="", limits="[]"))
    kept = KeptSources()
    first = load(path, {}, kept)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "bad.yaml").write_text("limits: nonsense\n")
    second = load(path, {}, handed_on(kept))
    assert second.sources.digest == first.sources.digest


def test_what_was_not_read_is_missing(path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(path, {}, GivenSources({"files": {}, "folders": {}}))


@given(st.binary())
def test_any_bytes_arrive(data: bytes) -> None:
    given_sources = GivenSources(
        json.loads(json.dumps({"files": {"f": data.decode("latin-1")}, "folders": {}}))
    )
    assert given_sources.read(Path("f")) == data
