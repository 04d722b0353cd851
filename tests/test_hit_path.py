"""Holds the cost of a cache hit: steps of the interpreter, counted, not timed.

What is counted is bytecodes and calls into C, from the bytes of a request to the bytes of its
answer, in units of a fixed piece of plain Python (`bench.hit_path.reference`), so that neither the
machine nor the version of Python matters much. `python -m bench.hit_path` gives the times.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from bench.hit_path import HitPath, reference

UNITS = 1.12
"""References per hit when last looked at. Lower it with the code; raise it with a reason."""
GROWTH = 1.25


class Steps:
    """Counts what the interpreter does in a call."""

    def __init__(self) -> None:
        self.count = 0

    def of(self, call: Callable[[], object]) -> int:
        """How many steps it takes."""
        self.count = 0
        sys.setprofile(self._called)
        sys.settrace(self._entered)
        try:
            call()
        finally:
            sys.settrace(None)
            sys.setprofile(None)
        return self.count

    def _entered(self, frame: FrameType, event: str, arg: Any) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._stepped

    def _stepped(self, frame: FrameType, event: str, arg: Any) -> Any:
        self.count += event == "opcode"
        return self._stepped

    def _called(self, frame: FrameType, event: str, arg: Any) -> None:
        self.count += event == "c_call"


async def test_a_hit_has_not_grown_by_a_quarter(tmp_path: Path) -> None:
    path = await HitPath.open(tmp_path)
    try:
        for _ in range(3):  # what is remembered is there, as it is in the long run
            path.run()
        steps = Steps()
        requests = path.requests[:100]
        receive = path.protocol.data_received
        hits = steps.of(lambda: [receive(one) for one in requests]) / len(requests)
        assert b"Cache-Status: sluicegate; hit" in path.transport.last
        units = hits / steps.of(reference)
    finally:
        await path.close()
    print(f"{hits:.0f} steps per hit, {units:.2f} references")
    assert units <= UNITS * GROWTH, "the hit path has grown: profile it with bench.hit_path"
