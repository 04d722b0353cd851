"""What is done a second time: a look at a record of which no news came, and the mark before another
attempt, as the claim may have been lost since the first."""

import asyncio
from typing import Any

import pytest
from rawhttp import Seen, Wire
from redisservers import RedisServer
from relay import Fault, Relay
from replay_kit import (
    BODY,
    Gate,
    Origin,
    Shop,
    StartShop,
    is_replay,
    paid,
    respond,
    trouble,
    until,
)

from proxy.core.idempotency import Answer
from proxy.store.redis import idempotency_codec as codec

in_redis = pytest.mark.parametrize("store", ["redis"], indirect=True)
RETRY = {
    "attempts": 2, "backoff": "1ms", "budget": "100%", "methods": ["PUT"], "on": ["reset", 503],
}  # fmt: skip
PUT: dict[str, Any] = {"method": "PUT"}


async def one_that_retries(start_shop: StartShop, **policy: Any) -> Shop:
    return await start_shop(
        {"methods": ["PUT"], **policy},
        settings={"retry": "again"},
        policies={"retries": {"again": RETRY}},
        timeout="150ms",
    )


@in_redis
async def test_whoever_hears_nothing_looks_again(
    start_shop: StartShop, origin: Origin, server: RedisServer
) -> None:
    """It is settled without a word: long before its lease is over, whoever waits has seen it."""
    shop = await start_shop({"in_flight": "wait"})
    await shop.foreign(lease=60_000, sent=True)
    waiting = asyncio.create_task(shop.pay())
    await until(lambda: len(shop.store._news))
    assert shop.store.status()["hears"] is True
    name = codec.IdempotencyNames("sg").record(shop.record())
    head = codec.write_head(Answer(201, "Created", [], b"paid"))
    server.call("HSET", name, "state", "recorded", "head", head, "body", b"paid")
    answer = await asyncio.wait_for(waiting, 5)
    assert (answer.status, answer.body, is_replay(answer)) == (201, b"paid", True)
    assert origin.executed == 0


async def test_another_attempt_is_marked_again(start_shop: StartShop, origin: Origin) -> None:
    shop = await one_that_retries(start_shop)

    async def at_last(wire: Wire, seen: Seen) -> None:
        if origin.executed == 1:
            await wire.send(respond("503 Busy"))
        else:
            await paid(wire, seen)

    origin.script = at_last
    assert (await shop.pay(**PUT)).status == 201
    assert is_replay(await shop.pay(**PUT))
    assert origin.executed == 2


async def test_another_attempt_under_a_claim_that_was_lost(
    start_shop: StartShop, origin: Origin, server: RedisServer | None
) -> None:
    """Somebody else executes it by then."""
    shop = await one_that_retries(start_shop, on_unknown="release")
    origin.script = busy = Gate(respond("503 Busy"))
    first = asyncio.create_task(shop.pay(**PUT))
    await until(lambda: busy.waiting)
    shop.lease_over(server)
    origin.script = gate = Gate()
    second = asyncio.create_task(shop.pay(**PUT))
    await until(lambda: gate.waiting)
    busy.open()
    trouble(await first, 409, "idempotency-unknown")
    gate.open()
    assert (await second).status == 201
    assert is_replay(await shop.pay(**PUT))
    assert origin.executed == 2


@in_redis
async def test_another_attempt_without_a_store(
    start_shop: StartShop, origin: Origin, relay: Relay
) -> None:
    """The first may have been executed, so its key is held."""
    shop = await one_that_retries(start_shop)
    origin.script = gate = Gate(b"")  # a closed connection in place of an answer

    async def cut(wire: Wire, seen: Seen) -> None:
        await gate(wire, seen)
        await wire.close()

    origin.script = cut
    first = asyncio.create_task(shop.pay("k1", BODY, **PUT))
    await until(lambda: gate.waiting)
    relay.suffer(Fault("connect", "refuse"))
    gate.open()
    trouble(await first, 409, "idempotency-unknown")
    relay.recover()

    async def known() -> bool:
        return (await shop.pay("k1", BODY, **PUT)).status == 409

    await until(known)
    await shop.rests()
    trouble(await shop.pay("k1", BODY, **PUT), 409, "idempotency-unknown")
    assert origin.executed == 1
