"""What a piece of the gateway costs: steps of the interpreter, counted, not timed.

What is counted is bytecodes and calls into C, in units of a fixed piece of plain Python
(`bench.hit_path.reference`), so that neither the machine nor the version of Python matters much.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

GROWTH = 1.25
"""A cost may grow by a quarter before a test says so."""


class Steps:
    """Counts what the interpreter does in this thread while it is entered."""

    def __init__(self) -> None:
        self.count = 0

    def of(self, call: Callable[[], object]) -> int:
        """How many steps a call takes."""
        self.count = 0
        with self:
            call()
        return self.count

    def __enter__(self) -> None:
        sys.setprofile(self._called)
        sys.settrace(self._entered)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        sys.setprofile(None)

    def _entered(self, frame: FrameType, event: str, arg: Any) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._stepped

    def _stepped(self, frame: FrameType, event: str, arg: Any) -> Any:
        self.count += event == "opcode"
        return self._stepped

    def _called(self, frame: FrameType, event: str, arg: Any) -> None:
        self.count += event == "c_call"
