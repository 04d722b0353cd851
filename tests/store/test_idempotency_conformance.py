"""What every IdempotencyStore must do, whatever it keeps records in."""

import asyncio

import pytest
from redisservers import store_plan

from proxy.core.idempotency import (
    LEASE,
    Answer,
    Mine,
    Mismatch,
    Replay,
    Running,
    State,
    Terms,
    TooLarge,
    Unknown,
)
from proxy.store.memory.idempotency import MemoryIdempotency
from proxy.store.redis.idempotency import INLINE, open_idempotency

RECORD, OTHER = bytes(range(16)), bytes(16)
ME, YOU = b"m" * 16, b"y" * 16
PRINT, PRINT_2 = b"f" * 32, b"g" * 32
HOUR = 3_600_000
HOLD = Terms(ttl=HOUR)
GIVEN_AGAIN = Terms(ttl=HOUR, release_unknown=True)
ANSWER = Answer(
    201,
    "Created \xe9",
    [("Content-Type", "text/plain"), ("X-A", "\xe4\xff"), ("x-a", ""), ("Set-Cookie", 'a="b"')],
    bytes(range(256)),
)
SETTLED = [
    (State.RECORDED, ANSWER, Replay(ANSWER)),
    (State.TOO_LARGE, None, TooLarge()),
    (State.UNKNOWN, None, Unknown()),
]


class Clock:
    """ms since the epoch, turned by hand."""

    def __init__(self):
        self.now = 1_750_000_000_000

    def __call__(self):
        return self.now


@pytest.fixture
def ms():
    return Clock()


@pytest.fixture(params=["memory", "redis"])
async def store(request, ms, metrics):
    """Each store in turn, by the clock `ms`."""
    if request.param == "memory":
        made = MemoryIdempotency(ms)
    else:
        server = request.getfixturevalue("store_redis")
        server.call("FLUSHALL")
        made = open_idempotency(store_plan(server, timeout=5.0, prefix="t"), metrics)
        made._now = ms
        assert await made.up(10)
        async with asyncio.timeout(10):
            while not made.status()["hears"]:
                await asyncio.sleep(0.005)
    yield made
    await made.close()


async def claim(store, token=YOU, print_=PRINT, terms=HOLD, record=RECORD):
    return await store.claim(record, token, print_, terms)


async def sent(store, terms=HOLD):
    assert await claim(store, ME, terms=terms) == Mine()
    assert await store.sent(RECORD, ME, terms)


async def test_the_first_has_it_and_the_others_are_told(store, ms):
    assert await claim(store, ME) == Mine()
    assert await claim(store) == Running(LEASE)
    ms.now += LEASE - 1
    assert await claim(store) == Running(1)
    assert await claim(store, record=OTHER) == Mine()


async def test_a_claim_that_was_not_renewed_is_anybody_s(store, ms):
    await claim(store, ME)
    ms.now += LEASE
    assert not await store.sent(RECORD, ME, HOLD)
    assert not await store.renew(RECORD, ME, HOLD)
    assert not await store.release(RECORD, ME)
    assert await claim(store) == Mine()
    assert not await store.sent(RECORD, ME, HOLD)
    assert await store.sent(RECORD, YOU, HOLD)


@pytest.mark.parametrize("marked", [False, True])
async def test_what_is_renewed_goes_on(store, ms, marked):
    await claim(store, ME)
    if marked:
        await store.sent(RECORD, ME, HOLD)
    for _ in range(3):
        ms.now += LEASE - 1
        assert await store.renew(RECORD, ME, HOLD)
        assert await claim(store) == Running(LEASE)


async def test_marking_twice_is_harmless_and_counts_the_ttl_once(store, ms):
    await sent(store)
    ms.now += 5
    assert await store.sent(RECORD, ME, HOLD)
    assert await claim(store) == Running(LEASE)
    ms.now += HOUR - 5
    assert await claim(store) == Mine()


@pytest.mark.parametrize(("outcome", "answer", "verdict"), SETTLED)
async def test_what_came_of_it_is_known_for_its_ttl(store, ms, outcome, answer, verdict):
    await sent(store)
    ms.now += 1000
    assert await store.settle(RECORD, ME, PRINT, outcome, answer, HOLD)
    ms.now += HOUR - 1
    assert await claim(store) == verdict
    assert await claim(store, ME) == verdict
    ms.now += 1
    assert await claim(store) == Mine()


@pytest.mark.parametrize("size", [0, 1, INLINE, INLINE + 1, 1_000_000])
async def test_an_answer_comes_back_as_it_was(store, size):
    await sent(store)
    answer = ANSWER._replace(body=b"\x00x\r\n" * (size // 4) + b"y" * (size % 4))
    assert await store.settle(RECORD, ME, PRINT, State.RECORDED, answer, HOLD)
    assert await claim(store) == Replay(answer)


@pytest.mark.parametrize(("outcome", "answer", "verdict"), SETTLED)
async def test_the_same_may_be_said_again_and_nothing_else(store, outcome, answer, verdict):
    """The answer to the first word may have been lost; a late owner may know more by then."""
    await sent(store)
    for _ in range(2):
        assert await store.settle(RECORD, ME, PRINT, outcome, answer, HOLD)
    for other, content, _ in SETTLED:
        if outcome is not State.UNKNOWN and other is not outcome:
            assert not await store.settle(RECORD, ME, PRINT, other, content, HOLD)
    assert await claim(store) == verdict
    assert await store.release(RECORD, ME) is (outcome is State.UNKNOWN)
    assert not await store.renew(RECORD, ME, HOLD)
    assert not await store.sent(RECORD, ME, HOLD)


async def test_nothing_came_of_what_was_not_sent(store):
    await claim(store, ME)
    for outcome, answer, _ in SETTLED:
        assert not await store.settle(RECORD, ME, PRINT, outcome, answer, HOLD)
    assert await claim(store) == Running(LEASE)
    assert await store.release(RECORD, ME)


async def test_only_the_owner_has_a_say(store):
    await sent(store)
    assert not await store.sent(RECORD, YOU, HOLD)
    assert not await store.renew(RECORD, YOU, HOLD)
    assert not await store.release(RECORD, YOU)
    for outcome, answer, _ in SETTLED:
        assert not await store.settle(RECORD, YOU, PRINT, outcome, answer, HOLD)
    assert isinstance(await claim(store), Running)


@pytest.mark.parametrize("verdict", [Running(LEASE), *(row[2] for row in SETTLED)])
async def test_another_request_learns_nothing(store, verdict):
    await sent(store)
    for outcome, answer, said in SETTLED:
        if said == verdict:
            await store.settle(RECORD, ME, PRINT, outcome, answer, HOLD)
    assert await claim(store) == verdict
    assert await claim(store, print_=PRINT_2) == Mismatch()
    assert await claim(store, print_=PRINT_2, terms=GIVEN_AGAIN) == Mismatch()


@pytest.mark.parametrize(("outcome", "answer", "verdict"), SETTLED)
@pytest.mark.parametrize("gone", ["lost", "over", "another's is over"])
async def test_an_owner_that_finds_nothing_makes_it_known(
    store, ms, outcome, answer, verdict, gone
):
    """A failover may have lost the record: without its owner's word it would be executed again."""
    if gone == "another's is over":
        await claim(store, YOU, PRINT_2)
        ms.now += LEASE
    else:
        await sent(store)
        if gone == "lost":
            await store.free(RECORD)
        else:
            await store.settle(RECORD, ME, PRINT, State.RECORDED, ANSWER, HOLD)
            ms.now += HOUR
    assert await store.settle(RECORD, ME, PRINT, outcome, answer, HOLD)
    assert await claim(store, print_=PRINT_2) == Mismatch()
    assert await claim(store) == verdict
    assert await store.settle(RECORD, ME, PRINT, outcome, answer, HOLD)
    ms.now += HOUR - 1
    assert await claim(store) == verdict
    ms.now += 1
    assert await claim(store) == Mine()
    assert not await store.settle(RECORD, ME, PRINT, outcome, answer, HOLD)


async def test_another_request_may_have_what_is_over(store, ms):
    await claim(store, ME)
    ms.now += LEASE
    assert await claim(store, print_=PRINT_2) == Mine()


async def test_sent_and_silent_is_unknown_until_its_owner_comes_back(store, ms):
    await sent(store)
    ms.now += LEASE
    assert await claim(store) == Unknown()
    assert not await store.sent(RECORD, ME, HOLD)
    assert await store.renew(RECORD, ME, HOLD)
    assert await claim(store) == Running(LEASE)
    ms.now += LEASE
    assert await store.settle(RECORD, ME, PRINT, State.RECORDED, ANSWER, HOLD)
    assert await claim(store) == Replay(ANSWER)


@pytest.mark.parametrize("said", [False, True])
async def test_unknown_is_given_out_again_where_the_policy_says_so(store, ms, said):
    await sent(store, GIVEN_AGAIN)
    if said:
        await store.settle(RECORD, ME, PRINT, State.UNKNOWN, None, GIVEN_AGAIN)
    else:
        assert await claim(store, terms=GIVEN_AGAIN) == Running(LEASE)
        ms.now += LEASE
    assert await claim(store, terms=HOLD) == Unknown()
    assert await claim(store, terms=GIVEN_AGAIN) == Mine()
    assert not await store.settle(RECORD, ME, PRINT, State.RECORDED, ANSWER, HOLD)
    assert not await store.renew(RECORD, ME, HOLD)
    assert not await store.release(RECORD, ME)
    assert await claim(store, b"3") == Running(LEASE)
    ms.now += LEASE  # the new owner has sent nothing: what the first one sent is forgotten with it
    assert await claim(store, b"3") == Mine()


@pytest.mark.parametrize("marked", [False, True])
async def test_what_is_let_go_is_anybody_s(store, marked):
    await claim(store, ME)
    if marked:
        await store.sent(RECORD, ME, HOLD)
    assert await store.release(RECORD, ME)
    assert not await store.release(RECORD, ME)
    assert not await store.sent(RECORD, ME, HOLD)
    assert await claim(store, print_=PRINT_2) == Mine()


async def test_a_late_owner_lets_go_of_what_was_unknown(store, ms):
    await sent(store)
    ms.now += LEASE
    assert await store.release(RECORD, ME)
    assert await claim(store) == Mine()


@pytest.mark.parametrize("state", ["claimed", "sent", *(row[0].value for row in SETTLED)])
async def test_an_operator_frees_anything(store, state):
    assert not await store.free(RECORD)
    await claim(store, ME)
    if state != "claimed":
        await store.sent(RECORD, ME, HOLD)
    for outcome, answer, _ in SETTLED:
        if outcome.value == state:
            await store.settle(RECORD, ME, PRINT, outcome, answer, HOLD)
    assert await store.free(RECORD)
    assert not await store.free(RECORD)
    assert not await store.sent(RECORD, ME, HOLD)
    assert await claim(store) == Mine()


async def test_what_is_over_is_not_there_to_be_freed(store, ms):
    await sent(store)
    ms.now += HOUR
    assert not await store.free(RECORD)
    await claim(store, ME)
    ms.now += LEASE
    assert not await store.free(RECORD)


async def test_a_ttl_that_ends_under_the_owner_ends_everything(store, ms):
    """Even while it renews: what is promised is promised for a ttl."""
    short = Terms(ttl=LEASE // 2)
    await sent(store, short)
    ms.now += LEASE // 2 - 1
    assert await store.renew(RECORD, ME, short)
    ms.now += 1
    assert not await store.renew(RECORD, ME, short)
    assert await claim(store) == Mine()
    assert not await store.settle(RECORD, ME, PRINT, State.RECORDED, ANSWER, short)


async def test_without_replicas_none_has_it(store):
    await claim(store, ME)
    if hasattr(store, "_large"):
        store._large.road._timeout = 0.05
    assert not await store.sent(RECORD, ME, HOLD, replicas=1)
    assert await store.sent(RECORD, ME, HOLD)


async def _settle(store):
    await store.settle(RECORD, ME, PRINT, State.RECORDED, ANSWER, HOLD)


async def _lose(store):
    await store.settle(RECORD, ME, PRINT, State.UNKNOWN, None, HOLD)


async def _release(store):
    await store.release(RECORD, ME)


async def _free(store):
    await store.free(RECORD)


@pytest.mark.parametrize("act", [_settle, _lose, _release, _free])
async def test_who_waits_hears_of_it(store, act):
    await sent(store)
    assert isinstance(await claim(store), Running)
    waiting = [asyncio.ensure_future(store.news(RECORD, 30)) for _ in range(3)]
    elsewhere = asyncio.ensure_future(store.news(OTHER, 30))
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting)
    await act(store)
    async with asyncio.timeout(10):
        await asyncio.gather(*waiting)
    assert not elsewhere.done()
    elsewhere.cancel()
    assert len(store._news) <= 1


async def test_a_wait_ends_in_time(store):
    began = asyncio.get_running_loop().time()
    await store.news(RECORD, 0.05)
    await store.news(RECORD, -1)
    assert 0.04 < asyncio.get_running_loop().time() - began < 5
    assert len(store._news) == 0


async def test_it_says_how_it_is(store):
    assert store.status()["healthy"] is True
    assert store.status()["kind"] in ("memory", "redis")
