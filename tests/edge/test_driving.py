"""Coroutines that are driven by hand: each wait that a request may do, and each way it may end."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

from proxy.edge.driving import Driven, resumed

Wait = Callable[[], Awaitable[Any]]


class Run:
    """A coroutine under way, as the express lane has it; `ended` has what it raised, or None."""

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self.ended: asyncio.Future[BaseException | None] = (
            asyncio.get_running_loop().create_future()
        )
        self.driven = Driven(work, work.send(None), self.ended.set_result)

    async def end(self) -> BaseException | None:
        async with asyncio.timeout(5):
            return await self.ended


async def run(wait: Wait) -> list[Any]:
    """What a driven coroutine got by its wait, and its current task then."""
    got: list[Any] = []

    async def work() -> None:
        got.append(await wait())
        got.append(asyncio.current_task())

    assert await Run(work()).end() is None
    return got


async def later(value: object, turns: int = 3) -> object:
    for _ in range(turns):
        await asyncio.sleep(0)
    return value


def in_a_while(value: object) -> "asyncio.Future[object]":
    loop = asyncio.get_running_loop()
    future: asyncio.Future[object] = loop.create_future()
    loop.call_later(0.001, future.set_result, value)
    return future


async def of_an_event() -> object:
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.001, event.set)
    return await event.wait()


async def of_a_wait() -> object:
    task = asyncio.create_task(later(7))
    done, _ = await asyncio.wait((task,), timeout=5)
    return done == {task} and task.result()


async def of_many() -> object:
    return await asyncio.gather(later(1), in_a_while(2), later(3, 1))


async def of_a_lock() -> object:
    lock = asyncio.Lock()
    await lock.acquire()
    asyncio.get_running_loop().call_later(0.001, lock.release)
    return await lock.acquire()


@pytest.mark.parametrize(
    ("wait", "result"),
    [
        (lambda: in_a_while("there"), "there"),
        (lambda: asyncio.sleep(0, "slept"), "slept"),
        (lambda: asyncio.sleep(0.001, "slept"), "slept"),
        (lambda: later("nested", 50), "nested"),
        (lambda: asyncio.create_task(later("task")), "task"),
        (lambda: asyncio.shield(asyncio.create_task(later("safe"))), "safe"),
        (lambda: asyncio.to_thread(int, "7"), 7),
        (of_an_event, True),
        (of_a_wait, 7),
        (of_many, [1, 2, 3]),
        (of_a_lock, True),
    ],
    ids=[
        "future", "sleep-0", "sleep", "nested", "task", "shield", "thread", "event", "wait",
        "gather", "lock",
    ],
)  # fmt: skip
async def test_it_gets_what_it_waited_for(wait: Wait, result: object) -> None:
    assert await run(wait) == [result, None]


async def test_an_error_is_raised_where_it_waits() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    caught: list[BaseException] = []

    async def work() -> None:
        try:
            await future
        except ValueError as error:
            caught.append(error)
        raise KeyError("its own")

    under_way = Run(work())
    future.set_exception(error := ValueError("theirs"))
    assert isinstance(await under_way.end(), KeyError)
    assert caught == [error]


class Witness:
    """A coroutine that waits by `wait`, and tells what it was told."""

    def __init__(self, wait: Wait, *, swallows: bool = False) -> None:
        self.told: list[str] = []
        self._swallows = swallows
        self.run = Run(self._work(wait))

    async def _work(self, wait: Wait) -> None:
        try:
            await wait()
            self.told.append("result")
        except asyncio.CancelledError:
            self.told.append("cancelled")
            if not self._swallows:
                raise
        finally:
            await asyncio.sleep(0)  # an end may wait for something, too
            self.told.append("end")


@pytest.mark.parametrize(
    "wait",
    [
        lambda: asyncio.get_running_loop().create_future(),
        lambda: asyncio.sleep(0),
        lambda: asyncio.sleep(60),
        lambda: asyncio.Event().wait(),
        lambda: asyncio.create_task(asyncio.sleep(60)),
        lambda: asyncio.shield(asyncio.create_task(later(1))),
        lambda: asyncio.wait([asyncio.create_task(later(1))]),
        lambda: asyncio.gather(asyncio.sleep(60), asyncio.sleep(60)),
    ],
    ids=["future", "sleep-0", "sleep", "event", "task", "shield", "wait", "gather"],
)
async def test_cancelled_where_it_waits(wait: Wait) -> None:
    witness = Witness(wait)
    witness.run.driven.cancel()
    assert isinstance(await witness.run.end(), asyncio.CancelledError)
    assert witness.told == ["cancelled", "end"]
    witness.run.driven.cancel()  # it is over: nothing is left to be cancelled


async def test_cancelled_twice_is_cancelled_once() -> None:
    witness = Witness(lambda: asyncio.get_running_loop().create_future(), swallows=True)
    witness.run.driven.cancel()
    witness.run.driven.cancel()
    assert await witness.run.end() is None
    assert witness.told == ["cancelled", "end"]


async def test_a_swallowed_cancellation_is_no_end() -> None:
    witness = Witness(lambda: asyncio.sleep(60), swallows=True)
    witness.run.driven.cancel()
    assert await witness.run.end() is None
    assert witness.told == ["cancelled", "end"]


async def test_cancelled_while_its_end_waits() -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    told: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            try:
                await gate
            except asyncio.CancelledError:
                told.append("again")
                raise

    under_way = Run(work())
    under_way.driven.cancel()
    await later(None)
    under_way.driven.cancel()
    assert isinstance(await under_way.end(), asyncio.CancelledError)
    assert told == ["again"]


async def test_cancelled_by_its_own_step() -> None:
    runs: list[Run] = []

    async def work() -> None:
        await asyncio.sleep(0)
        runs[0].driven.cancel()
        await asyncio.get_running_loop().create_future()

    runs.append(Run(work()))
    assert isinstance(await runs[0].end(), asyncio.CancelledError)


@pytest.fixture
async def complaints() -> AsyncIterator[list[str]]:
    """What the loop has been told of as an error."""
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: told.append(context["message"])
    )
    yield told
    gc.collect()
    assert told == []


@pytest.mark.parametrize("fails", [False, True])
async def test_cancelled_when_what_it_waits_for_is_there(
    complaints: list[str], fails: bool
) -> None:
    """As a task would: the cancellation wins, and what came is nobody's loss."""
    waited: list[asyncio.Future[None]] = [asyncio.get_running_loop().create_future()]
    witness = Witness(waited.pop)
    awaited = witness.run.driven._awaited
    if fails:
        awaited.set_exception(ValueError("nobody waits for this"))
    else:
        awaited.set_result(None)
    witness.run.driven.cancel()
    del awaited
    assert isinstance(await witness.run.end(), asyncio.CancelledError)
    assert witness.told == ["cancelled", "end"]


# A coroutine that was started by hand, and goes on in a task.


async def started(work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
    return asyncio.create_task(resumed(work, work.send(None)))


async def test_resumed_has_the_result_and_a_task() -> None:
    async def work() -> object:
        return [await in_a_while(1), await later(2), asyncio.current_task()]

    task = await started(work())
    assert await task == [1, 2, task]


async def test_resumed_raises_what_it_raises() -> None:
    async def work() -> None:
        await later(1)
        raise KeyError("its own")

    with pytest.raises(KeyError):
        await (await started(work()))


async def test_resumed_is_cancelled_where_it_waits() -> None:
    told: list[str] = []

    async def work() -> None:
        try:
            async with asyncio.timeout(None):  # it has a task from its first resumption on
                await later(1)
                await asyncio.sleep(60)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    async def plain() -> None:
        await later(1)
        await work()

    task = await started(plain())
    await later(None, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == ["cancelled"]
