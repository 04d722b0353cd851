"""Idempotency records in memory: bounded, and never at the cost of a record that counts."""

import asyncio
import tracemalloc

import pytest

from proxy.core.idempotency import LEASE, Answer, Mine, Mismatch, Replay, Running, State, Terms
from proxy.store.memory import idempotency
from proxy.store.memory.idempotency import MemoryIdempotency
from proxy.store.ports import StoreError

START = 1_750_000_000_000
TTL = 60_000
HOLD = Terms(ttl=TTL)
ME, YOU, PRINT = b"m" * 16, b"y" * 16, b"f" * 32


class Clock:
    """ms, turned by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def at_once(coroutine):
    """The result of what does not suspend."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise AssertionError("it suspended")


def claim(store, number, terms=HOLD, token=ME):
    return at_once(store.claim(name(number), token, PRINT, terms))


def recorded(store, number, body=b"", terms=HOLD):
    assert claim(store, number, terms) == Mine()
    assert at_once(store.sent(name(number), ME, terms))
    answer = Answer(200, "OK", [("A", "b")], body)
    assert at_once(store.settle(name(number), ME, PRINT, State.RECORDED, answer, terms))
    return answer


def test_a_full_store_refuses_and_forgets_nothing():
    clock = Clock()
    store = MemoryIdempotency(clock, max_records=10)
    answers = [recorded(store, number) for number in range(5)]
    for number in range(5, 10):
        claim(store, number)
    assert store.status()["healthy"] is False
    with pytest.raises(StoreError, match="full") as caught:
        claim(store, 10)
    assert caught.value.reason == "refused"
    for number, answer in enumerate(answers):
        assert claim(store, number, token=YOU) == Replay(answer)
    for number in range(5, 10):
        assert isinstance(claim(store, number, token=YOU), Running)
    assert at_once(store.claim(name(0), YOU, b"g" * 32, HOLD)) == Mismatch()
    assert store.status()["records"] == 10


def test_what_is_over_makes_room():
    clock = Clock()
    store = MemoryIdempotency(clock, max_records=10)
    for number in range(5):
        recorded(store, number)
    for number in range(5, 10):
        claim(store, number)
    clock.now += LEASE  # the claims are over, and only they
    for number in range(10, 15):
        assert claim(store, number) == Mine()
    with pytest.raises(StoreError):
        claim(store, 15)
    assert store.status()["healthy"] is False
    clock.now += TTL
    assert store.status()["healthy"] is True
    for number in range(20, 30):
        assert claim(store, number) == Mine()
    assert store.status()["records"] == 10


def test_what_was_renewed_or_settled_meanwhile_stays():
    clock = Clock()
    store = MemoryIdempotency(clock, max_records=2)
    claim(store, 0)
    answer = recorded(store, 1)
    for _ in range(5):
        clock.now += LEASE - 1
        assert at_once(store.renew(name(0), ME, HOLD))
        with pytest.raises(StoreError):
            claim(store, 2)
    assert claim(store, 1, token=YOU) == Replay(answer)
    assert at_once(store.sent(name(0), ME, HOLD))


def test_bytes_are_bounded_and_counted_back():
    clock = Clock()
    store = MemoryIdempotency(clock, max_bytes=10_000)
    assert store.status()["bytes"] == 0
    answer = recorded(store, 0, b"x" * 8_000)
    claim(store, 1)
    at_once(store.sent(name(1), ME, HOLD))
    large = Answer(200, "", [], b"y" * 8_000)
    with pytest.raises(StoreError, match="full"):
        at_once(store.settle(name(1), ME, PRINT, State.RECORDED, large, HOLD))
    assert isinstance(
        claim(store, 1, token=YOU), Running
    )  # it may be said again, when there is room
    assert not at_once(store.settle(name(1), YOU, PRINT, State.RECORDED, large, HOLD))
    assert claim(store, 0, token=YOU) == Replay(answer)
    clock.now += TTL - 1
    at_once(store.renew(name(1), ME, HOLD))
    clock.now += 1
    assert at_once(store.free(name(0))) is False
    clock.now -= 1
    assert at_once(store.settle(name(1), ME, PRINT, State.TOO_LARGE, None, HOLD))
    clock.now += 1
    claim(store, 2)
    assert store.status() == {
        "kind": "memory", "healthy": True, "records": 2, "bytes": 2 * idempotency._RECORD,
    }  # fmt: skip
    assert at_once(store.free(name(1)))
    assert at_once(store.release(name(2), ME))
    assert store.status()["records"] == store.status()["bytes"] == 0


def test_room_that_expired_answers_take_goes_to_a_new_one():
    clock = Clock()
    store = MemoryIdempotency(clock, max_bytes=10_000)
    recorded(store, 0, b"x" * 8_000)
    claim(store, 1, Terms(ttl=10 * TTL))
    at_once(store.sent(name(1), ME, Terms(ttl=10 * TTL)))
    clock.now += TTL
    answer = Answer(200, "", [], b"y" * 8_000)
    assert at_once(store.settle(name(1), ME, PRINT, State.RECORDED, answer, HOLD))
    assert claim(store, 1, token=YOU) == Replay(answer)


def test_records_that_come_and_go_leave_nothing_behind():
    clock = Clock()
    store = MemoryIdempotency(clock)
    for number in range(20_000):
        clock.now += 10
        claim(store, number % 7 if number % 2 else number)
        if number % 3:
            at_once(store.release(name(number), ME))
    clock.now += LEASE
    for _ in range(5_000):
        clock.now += 10
        claim(store, 10**6)
    assert store.status()["records"] == 1
    assert len(store._ends) < 1100  # what came in the last lease


def test_a_key_that_is_let_go_again_and_again_is_filed_once():
    clock = Clock()
    store = MemoryIdempotency(clock)
    long = Terms(ttl=100 * TTL)
    for _ in range(1_000):
        claim(store, 0, long)
        at_once(store.release(name(0), ME))
    answer = recorded(store, 0, terms=long)
    clock.now += LEASE
    for number in range(1_000):
        claim(store, 1 + number)
    assert len(store._ends) == store.status()["records"] == 1_001
    assert claim(store, 0, token=YOU) == Replay(answer)


def test_a_flood_costs_each_claim_the_same():
    """A thousand that are over are not swept by whoever comes next."""
    clock = Clock()
    store = MemoryIdempotency(clock)
    for number in range(1_000):
        claim(store, number)
    clock.now += LEASE
    claim(store, 5_000)
    assert store.status()["records"] > 990
    for number in range(6_000, 6_600):
        claim(store, number)
    assert store.status()["records"] < 700


def test_the_bytes_are_those_that_python_takes():
    clock = Clock()
    tracemalloc.start()
    try:
        store = MemoryIdempotency(clock)
        before = tracemalloc.get_traced_memory()[0]
        for number in range(2_000):
            key, token, print_ = name(number), bytes(bytearray(ME)), bytes(bytearray(PRINT))
            at_once(store.claim(key, token, print_, HOLD))
            at_once(store.sent(key, token, HOLD))
            lines = [(f"Name-{number}-{line}", f"value {number} {line}") for line in range(8)]
            answer = Answer(200, f"OK {number}", lines, bytes(2_000))
            at_once(store.settle(key, token, PRINT, State.RECORDED, answer, HOLD))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.9 < store.status()["bytes"] / taken < 1.6


async def test_who_waits_is_told_without_a_detour():
    clock = Clock()
    store = MemoryIdempotency(clock)
    claim(store, 0)
    waiting = asyncio.ensure_future(store.news(name(0), 30))
    await asyncio.sleep(0)
    assert at_once(store.release(name(0), ME))
    async with asyncio.timeout(5):
        await waiting
    waiting = asyncio.ensure_future(store.news(name(0), 30))
    await asyncio.sleep(0)
    await store.close()
    async with asyncio.timeout(5):
        await waiting
