"""A gateway whose user at Redis has no right to any channel: it records, replays and waits all the
same."""

import asyncio

import pytest
from redisservers import RedisServer
from relay import Relay
from replay_kit import Gate, Origin, Shop, StartShop, common, is_replay, until

pytestmark = pytest.mark.parametrize("store", ["redis"], indirect=True)


@pytest.fixture
async def mute(start_shop: StartShop, relay: Relay, server: RedisServer) -> Shop:
    server.call("ACL", "SETUSER", "mute", "reset", "on", ">s3cret", "~*", "+@all", "resetchannels")
    url = f"redis://mute:s3cret@127.0.0.1:{relay.port}"
    return await start_shop({"in_flight": "wait"}, config={"store": {"url": url}}, hears=False)


async def test_it_answers_and_replays(mute: Shop, origin: Origin) -> None:
    first = await mute.pay()
    assert (first.status, is_replay(first)) == (201, False)
    await mute.rests()  # nothing is said again and again
    again = await mute.pay()
    assert is_replay(again)
    assert common(again) == common(first)
    assert mute.store.status()["hears"] is False
    assert await mute.metric("store_errors_total", operation="idempotency_settle") == 0


async def test_who_waits_has_it_soon(mute: Shop, origin: Origin) -> None:
    origin.script = gate = Gate()
    asked = [asyncio.create_task(mute.pay()) for _ in range(2)]
    await until(lambda: gate.waiting)
    gate.open()
    answers = await asyncio.wait_for(asyncio.gather(*asked), 8)
    assert sorted(is_replay(answer) for answer in answers) == [False, True]
    assert origin.executed == 1
