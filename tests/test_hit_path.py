"""Holds the cost of a cache hit, from the bytes of a request to the bytes of its answer.
`python -m bench.hit_path` gives the times."""

from pathlib import Path

from facts_kit import interpreted_only
from steps_kit import GROWTH, Steps

from bench.hit_path import HitPath, reference

UNITS = 1.15
"""References per hit when last looked at. Lower it with the code; raise it with a reason."""


@interpreted_only
async def test_a_hit_has_not_grown_by_a_quarter(tmp_path: Path) -> None:
    path = await HitPath.open(tmp_path)
    try:
        for _ in range(3):  # what is remembered is there, as it is in the long run
            path.run()
        steps = Steps()
        requests = path.requests[:100]
        receive = path.protocol.received
        hits = steps.of(lambda: [receive(one) for one in requests]) / len(requests)
        assert b"Cache-Status: sluicegate; hit" in path.transport.last
        units = hits / steps.of(reference)
    finally:
        await path.close()
    print(f"{hits:.0f} steps per hit, {units:.2f} references")
    assert units <= UNITS * GROWTH, "the hit path has grown: profile it with bench.hit_path"
