"""Holds the cost of passing a request through, as `test_hit_path` holds that of a hit.
`python -m bench.pass_path` gives the times."""

from pathlib import Path

from facts_kit import interpreted_only
from steps_kit import GROWTH, Steps

from bench.hit_path import reference
from bench.pass_path import PassPath

UNITS = 2.02
"""References per request when last looked at. Lower it with the code; raise it with a reason."""


@interpreted_only
async def test_a_passed_request_has_not_grown_by_a_quarter(tmp_path: Path) -> None:
    path = await PassPath.open(tmp_path)
    try:
        for _ in range(3):  # what is remembered is there, as it is in the long run
            await path.run(100)
        steps = Steps()
        with steps:
            await path.run(100)
        passed = steps.count / 100
        assert path.last.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Cache-Status" not in path.last
        units = passed / steps.of(reference)
    finally:
        await path.close()
    print(f"{passed:.0f} steps per request, {units:.2f} references")
    assert units <= UNITS * GROWTH, "the way through has grown: profile it with bench.pass_path"
