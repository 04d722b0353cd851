"""The store goes away, says nothing or has too few replicas, at every moment of a request."""

import asyncio
from typing import Any

import pytest
from rawhttp import Seen, Wire
from redisservers import RedisServer, RedisServers
from relay import Fault, Relay
from replay_kit import (
    BODY,
    Gate,
    Origin,
    Settings,
    StartShop,
    is_replay,
    resets,
    respond,
    trouble,
    until,
)

pytestmark = pytest.mark.parametrize("store", ["redis"], indirect=True)
GONE = Fault("connect", "refuse")
ALLOW = {"on_store_failure": "allow"}
SOON = "150ms"
"""A store's timeout that a test waits for."""


@pytest.mark.parametrize("policy", [{}, ALLOW], ids=["deny", "allow"])
async def test_no_store_before_the_claim(
    start_shop: StartShop, origin: Origin, relay: Relay, policy: Settings
) -> None:
    shop = await start_shop(policy, timeout=SOON)
    assert (await shop.pay("k0")).status == 201
    relay.suffer(GONE)
    for key in ("k0", "k1", "k1"):
        answer = await shop.pay(key)
        if policy is ALLOW:
            assert (answer.status, is_replay(answer)) == (201, False)
        else:
            trouble(answer, 503, "idempotency-unavailable")
            assert "gave no answer" in answer.json()["detail"]
            assert int(answer.get("Retry-After") or 0) >= 1
    relay.recover()

    async def back() -> bool:
        return is_replay(await shop.pay("k0"))

    async def freed() -> bool:  # what may have been claimed is let go of
        return (await shop.pay("k1")).status == 201

    if policy is ALLOW:
        assert origin.executed == 4
        assert await shop.counted("unprotected") == 3
        assert await shop.counted("new") == 1
    else:
        await until(back)
        await until(freed)
        assert origin.executed == 2
        assert await shop.counted("unprotected") == 0


async def test_without_a_key_no_store_is_needed(
    start_shop: StartShop, origin: Origin, relay: Relay
) -> None:
    shop = await start_shop(timeout=SOON)
    relay.suffer(GONE)
    assert (await shop.pay(None)).status == 201


@pytest.mark.parametrize("how", ["gone", "silent"])
@pytest.mark.parametrize("policy", [{}, ALLOW], ids=["deny", "allow"])
async def test_no_store_between_the_claim_and_the_sending(
    start_shop: StartShop,
    origin: Origin,
    relay: Relay,
    server: RedisServer,
    policy: Settings,
    how: str,
) -> None:
    """A silent one may have marked it as sent all the same: nothing was, and the key is free."""
    settings = {"max_connections": 1, "queue_timeout": "10s"}
    shop = await start_shop(policy, settings=settings, timeout=SOON)
    origin.script = gate = Gate()
    other = asyncio.create_task(shop.pay(None))
    await until(lambda: gate.waiting)
    first = asyncio.create_task(shop.pay())
    await until(lambda: shop.at_work)
    if how == "gone":
        relay.suffer(GONE)
    else:
        server.pause()
    gate.open()
    await other
    answer = await first
    relay.recover()
    server.resume()
    if policy is ALLOW:
        assert answer.status == 201
        assert origin.executed == 2
        assert await shop.counted("unprotected") == 1
        return
    trouble(answer, 503, "idempotency-unavailable")
    assert answer.get("Retry-After") == "1"
    assert origin.executed == 1

    async def free() -> bool:
        return (await shop.pay(body=b"another")).status == 201

    await until(free)
    assert origin.executed == 2


@pytest.mark.parametrize("back", ["before", "after"])
@pytest.mark.parametrize("script", ["answers", "streams", "resets"])
async def test_no_store_while_the_upstream_works(
    start_shop: StartShop, origin: Origin, relay: Relay, back: str, script: str
) -> None:
    """It is back before the answer comes, or after: what came of it is known in the end."""
    shop = await start_shop(timeout=SOON)
    whole = respond("200 OK", body=b"paid" * 100)
    first = whole[:-200] if script == "streams" else b""
    origin.script = gate = Gate(whole[len(first) :], first=first)
    if script == "resets":
        origin.script = _after(gate, resets)
    asked = asyncio.create_task(shop.pay())
    await until(lambda: gate.waiting)
    relay.suffer(GONE)
    if back == "before":
        relay.recover()
    gate.open()
    answer = await asked
    if script == "resets":
        trouble(answer, 502, "upstream-invalid")
    else:
        assert (answer.status, answer.body) == (200, b"paid" * 100)
    if back == "after":
        assert shop.at_work
        trouble(await shop.pay(), 503, "idempotency-unavailable")
        relay.recover()
    await shop.rests()
    again = await shop.pay()
    if script == "resets":
        trouble(again, 409, "idempotency-unknown")
    else:
        assert (again.status, again.body, is_replay(again)) == (200, b"paid" * 100, True)
    assert origin.executed == 1


async def test_answers_that_wait_for_the_store_are_bounded(
    start_shop: StartShop, origin: Origin, relay: Relay
) -> None:
    """What is beyond is known as executed, and that is all."""
    shop = await start_shop({"on_unknown": "release"}, timeout=SOON)
    shop.gateway._replaying.untold.most = 1000
    origin.script = gate = Gate(respond(body=bytes(600)))
    asked = [asyncio.create_task(shop.pay(f"k{number}")) for number in range(3)]
    await until(lambda: gate.waiting == 3)
    relay.suffer(GONE)
    gate.open()
    assert [(await one).body for one in asked] == [bytes(600)] * 3
    relay.recover()
    await shop.rests()
    assert sorted([(await shop.pay(f"k{number}")).status for number in range(3)]) == [201, 409, 409]
    assert origin.executed == 3
    assert shop.gateway._replaying.untold.size == 0


def _after(gate: Gate, then: Any) -> Any:
    async def script(wire: Wire, seen: Seen) -> None:
        gate.waiting += 1
        await gate._open.wait()
        await then(wire, seen)

    return script


async def test_a_store_that_says_nothing(
    start_shop: StartShop, origin: Origin, server: RedisServer
) -> None:
    """Its mark may have been set when nobody hears of it; nothing was sent, and the key is free."""
    shop = await start_shop(timeout=SOON)
    with server.paused():
        trouble(await shop.pay(), 503, "idempotency-unavailable")
    assert origin.executed == 0

    async def free() -> bool:
        return (await shop.pay(body=b"another")).status == 201

    await until(free)
    assert origin.executed == 1


async def test_replicas_that_are_not_there(start_shop: StartShop, origin: Origin) -> None:
    shop = await start_shop({"replicas": 1}, timeout=SOON)
    for body in (BODY, b"another"):
        refused = trouble(await shop.pay(body=body), 503, "idempotency-unavailable")
        assert refused.get("Retry-After") == "1"
    assert origin.executed == 0


async def test_replicas_that_have_the_claim(
    start_shop: StartShop, origin: Origin, server: RedisServer, tmp_path_factory: Any
) -> None:
    servers = RedisServers(tmp_path_factory.mktemp("replica"))
    server.call("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    options = {"replicaof": f"{server.host} {server.port}"}
    replica = await asyncio.to_thread(servers.start, options=options)
    try:
        await until(lambda: server.call("WAIT", 1, 100))
        shop = await start_shop({"replicas": 1})
        origin.script = gate = Gate()
        first = asyncio.create_task(shop.pay())
        await until(lambda: gate.waiting)
        assert replica.call("KEYS", "*")  # it was there before anything was sent
        gate.open()
        assert (await first).status == 201
        assert is_replay(await shop.pay())
    finally:
        servers.stop()
    assert origin.executed == 1


@pytest.mark.parametrize("ends", ["answered", "unknown"])
async def test_a_store_that_forgets_while_the_upstream_works(
    start_shop: StartShop, origin: Origin, server: RedisServer, ends: str
) -> None:
    """As one does that is failed over: what came of the request is known all the same."""
    shop = await start_shop()
    gate = Gate(respond("200 OK", body=b"done"))
    origin.script = gate if ends == "answered" else _after(gate, resets)
    first = asyncio.create_task(shop.pay())
    await until(lambda: gate.waiting)
    server.call("FLUSHALL")
    gate.open()
    assert (await first).status == (200 if ends == "answered" else 502)
    again = await shop.pay()
    if ends == "answered":
        assert (again.status, again.body, is_replay(again)) == (200, b"done", True)
    else:
        trouble(again, 409, "idempotency-unknown")
    trouble(await shop.pay(body=b"another"), 422, "idempotency-mismatch")
    assert origin.executed == 1
