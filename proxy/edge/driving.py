"""Coroutines driven by hand to their first wait, and on from there by a task.

What needs no I/O is over after the first step, without a task or a future. Before its first wait
such a coroutine has no current task: no `asyncio.timeout` and no TaskGroup may be entered there.
"""

import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

_T = TypeVar("_T")


@types.coroutine
def resumed(started: Coroutine[Any, Any, _T], awaited: Any) -> Generator[Any, Any, _T]:
    """Goes on with a coroutine that was started by hand and waits for `awaited`; its result."""
    while True:
        try:
            try:
                result = yield awaited
            except BaseException as error:
                awaited = started.throw(error)
            else:
                awaited = started.send(result)
        except StopIteration as done:
            value: _T = done.value
            return value
