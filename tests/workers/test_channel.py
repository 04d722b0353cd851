"""The line between supervisor and worker: answers find their questions, and nobody waits for the
dead."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.workers.channel import Channel, Lost, Refused, unasked


async def answer(what: str, order: dict[str, Any]) -> Any:
    match what:
        case "echo":
            return order
        case "slow":
            await asyncio.sleep(order["seconds"])
            return "slow"
        case "refuse":
            raise Refused("not today")
        case "break":
            raise KeyError(order["key"])
    raise AssertionError(what)


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Channel, Channel]]:
    one, other = socket.socketpair()
    asking, answering = await Channel.open(one, unasked), await Channel.open(other, answer)
    yield asking, answering
    await asking.close()
    await answering.close()


async def test_a_large_message_arrives_whole(ends: tuple[Channel, Channel]) -> None:
    text = "é\udc80\n" * 500_000
    assert await ends[0].ask("echo", 5, text=text, number=2**60) == {
        "text": text,
        "number": 2**60,
    }


async def test_a_slow_answer_holds_up_no_other(ends: tuple[Channel, Channel]) -> None:
    asking, _ = ends
    slow = asyncio.create_task(asking.ask("slow", 5, seconds=0.2))
    many = await asyncio.gather(*(asking.ask("echo", 5, n=n) for n in range(100)))
    assert [one["n"] for one in many] == list(range(100))
    assert not slow.done()
    assert await slow == "slow"


async def test_a_late_answer_is_nobody_elses(ends: tuple[Channel, Channel]) -> None:
    asking, _ = ends
    with pytest.raises(TimeoutError):
        await asking.ask("slow", 0.01, seconds=0.05)
    for n in range(20):
        assert await asking.ask("echo", 5, n=n) == {"n": n}
        await asyncio.sleep(0.005)


async def test_what_fails_there_is_told_here(
    ends: tuple[Channel, Channel], caplog: pytest.LogCaptureFixture
) -> None:
    asking, answering = ends
    with pytest.raises(Refused, match="not today"):
        await asking.ask("refuse", 5)
    with pytest.raises(Refused, match="KeyError"):
        await asking.ask("break", 5, key="k")
    assert "failed at 'break'" in caplog.text
    with pytest.raises(Refused, match="nobody answers"):
        await answering.ask("echo", 5)


async def test_the_end_ends_every_question(ends: tuple[Channel, Channel]) -> None:
    asking, answering = ends
    waiting = [asyncio.create_task(asking.ask("slow", 60, seconds=60)) for _ in range(3)]
    await asyncio.sleep(0)
    await answering.close()
    for task in waiting:
        with pytest.raises(Lost):
            await task
    assert asking.closed.is_set()
    with pytest.raises(Lost):
        await asking.ask("echo", 60)


async def test_an_answer_is_sent_before_the_end(ends: tuple[Channel, Channel]) -> None:
    """A worker that has drained answers and ends."""
    asking, answering = ends
    reply = asyncio.create_task(asking.ask("echo", 5, n=1))
    while not answering._answering:
        await asyncio.sleep(0)
    await asyncio.gather(*answering._answering)
    await answering.close()
    assert await reply == {"n": 1}


async def test_half_a_message_is_the_end(ends: tuple[Channel, Channel]) -> None:
    one, other = socket.socketpair()
    channel = await Channel.open(one, unasked)
    other.sendall(b"\x00\x00\x00\x10{")
    other.close()
    async with asyncio.timeout(5):
        await channel.closed.wait()
    await channel.close()
