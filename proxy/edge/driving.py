"""Coroutines driven by hand: as far as they need not wait at once, and on from there.

What needs no I/O is over after the first step, without a task or a future. What waits goes on as a
`Driven`: a task without what a request does not need of one (a first turn of the loop, a name, a
context). So there is no current task in a coroutine that is driven, and `asyncio.timeout` and
TaskGroup, which ask for it, may be entered in tasks of its own only.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, Generic, TypeVar

_T = TypeVar("_T")


ENDED: Final = object()
"""In place of what a coroutine waits for: it waits for nothing, it is over."""


def begun(coroutine: Coroutine[Any, Any, None]) -> Any:
    """Runs a coroutine up to where it waits; what it waits for, or ENDED."""
    # Not send(): a StopIteration that has to be caught costs as much as thirty calls.
    return next(coroutine.__await__(), ENDED)


class Driven:
    """A coroutine that has been started and waits for `awaited`: goes on whenever that is there.

    `done` is called at its end, with what it raised (CancelledError among it) or None.
    """

    __slots__ = ("_awaited", "_coroutine", "_done", "_is_cancelled", "_steps")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, None],
        awaited: Any,
        done: Callable[[BaseException | None], None],
    ) -> None:
        self._coroutine = coroutine
        self._steps = coroutine.__await__()
        self._done = done
        self._is_cancelled = False
        self._awaited: Any = None
        self._wait_for(awaited)

    def cancel(self) -> None:
        """Has CancelledError raised in it, where it waits; by the next turn of the loop."""
        awaited = self._awaited
        if awaited is None or not awaited.cancel():
            self._is_cancelled = True

    def _wait_for(self, awaited: Any) -> None:
        self._awaited = awaited
        if awaited is None:  # a bare yield: it lets others go first
            asyncio.get_running_loop().call_soon(self._go_on)
            return
        awaited._asyncio_future_blocking = False  # what a task does with a future it waits for
        awaited.add_done_callback(self._go_on)
        if self._is_cancelled and awaited.cancel():
            self._is_cancelled = False

    def _go_on(self, _: object = None) -> None:
        self._awaited = None
        try:
            if self._is_cancelled:
                self._is_cancelled = False
                awaited = self._coroutine.throw(asyncio.CancelledError())
            else:
                awaited = next(self._steps, ENDED)  # as `begun` does
        except StopIteration:
            awaited = ENDED
        except BaseException as error:
            self._done(error)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            return
        if awaited is ENDED:
            self._done(None)
        else:
            self._wait_for(awaited)


async def resumed(started: Coroutine[Any, Any, _T], awaited: Any) -> _T:
    """Goes on with a coroutine that was started by hand and waits for `awaited`, in a task; its
    result."""
    return await _Rest(started, awaited)


class _Rest(Generic[_T]):
    """What is left of a coroutine that waits for `awaited`."""

    __slots__ = ("_awaited", "_started")

    def __init__(self, started: Coroutine[Any, Any, _T], awaited: Any) -> None:
        self._started = started
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, _T]:
        started, awaited = self._started, self._awaited
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
