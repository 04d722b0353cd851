"""What becomes of a key when something fails: the upstream, before and after it was asked; the
gateway itself."""

import asyncio
from typing import Any

import pytest
from rawhttp import Seen, Wire, answering, free_port
from redisservers import RedisServer
from relay import Fault, Relay
from replay_kit import (
    BODY,
    HOST,
    POLICY,
    Gate,
    Origin,
    Settings,
    StartOrigin,
    StartShop,
    is_replay,
    paid,
    post,
    resets,
    respond,
    silent,
    trouble,
    until,
)

in_memory = pytest.mark.parametrize("store", ["memory"], indirect=True)
in_redis = pytest.mark.parametrize("store", ["redis"], indirect=True)
GONE = Fault("connect", "refuse")
BRISK = {"response_timeout": "500ms"}
SOON = "150ms"
"""A store's timeout that a test waits for."""


# The upstream, after it was asked.


@pytest.mark.parametrize(
    ("script", "status", "name"),
    [(silent, 504, "upstream-timeout"), (resets, 502, "upstream-invalid")],
    ids=["timeout", "reset"],
)
@pytest.mark.parametrize("on_unknown", ["hold", "release"])
async def test_nobody_knows_what_became_of_it(
    start_shop: StartShop, origin: Origin, script: Any, status: int, name: str, on_unknown: str
) -> None:
    shop = await start_shop({"on_unknown": on_unknown}, settings=BRISK)
    origin.script = script
    trouble(await shop.pay(), status, name)
    origin.script = paid
    if on_unknown == "release":
        answer = await shop.pay()
        assert (answer.status, is_replay(answer)) == (201, False)
        assert is_replay(await shop.pay())
        assert origin.executed == 2
        return
    for _ in range(2):
        unknown = trouble(await shop.pay(), 409, "idempotency-unknown")
        assert unknown.get("Retry-After") is None
    assert origin.executed == 1
    assert await shop.counted("unknown") == 2


@pytest.mark.parametrize("sent", [False, True], ids=["claimed", "sent"])
async def test_an_owner_that_was_killed(start_shop: StartShop, origin: Origin, sent: bool) -> None:
    shop = await start_shop({"in_flight": "wait"})
    await shop.foreign(lease=300, sent=sent)
    asked = asyncio.create_task(shop.pay())
    if sent:
        trouble(await asked, 409, "idempotency-unknown")
        assert origin.executed == 0
    else:
        answer = await asked
        assert (answer.status, is_replay(answer)) == (201, False)
        assert origin.executed == 1


async def test_an_execution_outlasts_its_lease(start_shop: StartShop, origin: Origin) -> None:
    shop = await start_shop(lease=300)
    origin.script = gate = Gate()
    loop = asyncio.get_running_loop()
    began = loop.time()
    first = asyncio.create_task(shop.pay())
    await until(lambda: gate.waiting)
    while loop.time() < began + 0.8:
        trouble(await shop.pay(), 409, "idempotency-conflict")
        await asyncio.sleep(0.02)
    gate.open()
    assert (await first).status == 201
    assert is_replay(await shop.pay())
    assert origin.executed == 1


@in_redis
async def test_a_request_in_line_outlasts_its_lease(start_shop: StartShop, origin: Origin) -> None:
    settings = {"max_connections": 1, "queue_timeout": "5s"}
    shop = await start_shop(settings=settings, lease=300)
    origin.script = gate = Gate()
    other = asyncio.create_task(shop.pay(None))
    await until(lambda: gate.waiting)
    first = asyncio.create_task(shop.pay())
    await until(lambda: shop.at_work)
    await asyncio.sleep(0.7)
    trouble(await shop.pay(), 409, "idempotency-conflict")
    gate.open()
    assert [(await asked).status for asked in (first, other)] == [201, 201]
    assert is_replay(await shop.pay())
    assert origin.executed == 2


@pytest.mark.parametrize("on_unknown", ["hold", "release"])
async def test_an_answer_after_the_lease(
    start_shop: StartShop, origin: Origin, server: RedisServer | None, on_unknown: str
) -> None:
    shop = await start_shop({"on_unknown": on_unknown})
    origin.script = gate = Gate(respond(body=b"late"))
    first = asyncio.create_task(shop.pay())
    await until(lambda: gate.waiting)
    shop.lease_over(server)
    origin.script = paid
    second = await shop.pay()
    gate.open()
    assert (await first).body == b"late"
    again = await shop.pay()
    assert is_replay(again)
    if on_unknown == "hold":
        trouble(second, 409, "idempotency-unknown")
        assert again.body == b"late"
        assert origin.executed == 1
    else:  # it was executed twice, and the one that owns the key is what is known
        assert (second.status, again.body) == (201, second.body)
        assert origin.executed == 2


async def test_a_claim_that_was_lost_in_line(
    start_shop: StartShop, origin: Origin, server: RedisServer | None
) -> None:
    """Somebody else has the key by the time that there is a connection: nothing is sent."""
    settings = {"max_connections": 1, "queue_timeout": "5s"}
    shop = await start_shop(settings=settings)
    origin.script = gate = Gate()
    other = asyncio.create_task(shop.pay(None))
    await until(lambda: gate.waiting)
    first = asyncio.create_task(shop.pay())
    await until(lambda: shop.at_work == 1)
    shop.lease_over(server)
    second = asyncio.create_task(shop.pay())
    await until(lambda: shop.at_work == 2)
    gate.open()
    refused = trouble(await first, 503, "idempotency-unavailable")
    assert "claim on this Idempotency-Key was lost" in refused.json()["detail"]
    assert (await second).status == 201
    assert (await other).status == 201
    assert is_replay(await shop.pay())
    assert origin.executed == 2


# The upstream, before it was asked: the key is free.


@pytest.mark.parametrize(
    ("settings", "policies", "status", "name"),
    [
        ({"endpoints": ["http://127.0.0.1:1"]}, {}, 502, "upstream-unreachable"),
        (
            {"endpoints": ["http://127.0.0.1:1"], "retry": "twice"},
            {"retries": {"twice": {"attempts": 2, "backoff": "1ms"}}},
            502,
            "upstream-unreachable",
        ),
        (
            {"endpoints": ["http://127.0.0.1:1"], "breaker": "quick"},
            {"breakers": {"quick": {"fallback": {"status": 503, "body": "later"}}}},
            503,
            None,
        ),
        (
            {"endpoints": ["http://127.0.0.1:1"], "breaker": "quick"},
            {"breakers": {"quick": {}}},
            503,
            "breaker-open",
        ),
    ],
    ids=["connect", "connect, retried", "fallback", "breaker"],
)
async def test_what_was_never_sent_frees_the_key(
    start_shop: StartShop,
    origin: Origin,
    settings: Settings,
    policies: dict[str, Any],
    status: int,
    name: str | None,
) -> None:
    shop = await start_shop(settings=settings, policies=policies)
    if "breaker" in settings:
        await shop.admin("/breakers/origin", "PUT", {"state": "open"})
    for body in (BODY, b"another"):  # it does not stand for the first one
        answer = await shop.pay(body=body)
        assert (answer.status, is_replay(answer)) == (status, False)
        if name is not None:
            trouble(answer, status, name)
    shop.config["upstreams"]["origin"] = {"endpoints": [f"http://127.0.0.1:{origin.port}"]}
    await shop.reload()
    assert (await shop.pay()).status == 201
    assert is_replay(await shop.pay())
    assert origin.executed == 1


@pytest.mark.parametrize("queue", [0, 1], ids=["full", "timeout"])
async def test_a_line_that_is_full(start_shop: StartShop, origin: Origin, queue: int) -> None:
    settings = {"max_connections": 1, "queue": queue, "queue_timeout": "50ms"}
    shop = await start_shop(settings=settings)
    origin.script = gate = Gate()
    other = asyncio.create_task(shop.pay(None))
    await until(lambda: gate.waiting)
    for body in (BODY, b"another"):
        trouble(await shop.pay(body=body), 503, "overloaded")
    gate.open()
    await other
    assert (await shop.pay()).status == 201
    assert origin.executed == 2


async def test_no_endpoint_is_up(start_shop: StartShop, origin: Origin) -> None:
    check = {"path": "/healthz", "interval": "300ms", "timeout": "300ms"}
    shop = await start_shop(
        settings={"health_check": check | {"unhealthy_after": 1, "healthy_after": 1}}
    )
    well = True

    async def checked(wire: Wire, seen: Seen) -> None:
        if seen.target == "/healthz" and not well:
            await wire.send(respond("503 Ill"))
        else:
            await wire.send(respond("200 OK"))

    origin.script = checked
    well = False

    async def down() -> bool:
        return (await shop.pay(None)).status == 503

    await until(down)
    for body in (BODY, b"another"):
        trouble(await shop.pay(body=body), 503, "no-endpoint")
    well = True

    async def up() -> bool:
        return (await shop.pay()).status == 200

    await until(up)
    assert is_replay(await shop.pay())
    assert [seen.get("Idempotency-Key") for seen in origin.seen].count("k1") == 1


async def test_a_charge_that_is_refused(start_shop: StartShop, origin: Origin) -> None:
    """`charge: miss` is asked just before a request goes upstream, under its claim."""
    limit = {"algorithm": "fixed_window", "rate": "1/d", "key": ["global"], "charge": "miss"}
    shop = await start_shop(
        route={"limits": ["misses"], "cache": "things"},
        policies={"limits": {"misses": limit}, "caches": {"things": {}}},
    )
    assert (await shop.pay("k0")).status == 201
    assert is_replay(await shop.pay("k0"))  # a replay goes nowhere, and is not charged
    for body in (BODY, b"another"):
        assert (await shop.pay(body=body)).status == 429
    assert origin.executed == 1


# Other ways to an upstream.


async def test_it_is_tried_again_only_where_no_byte_was_sent(
    start_shop: StartShop, origin: Origin
) -> None:
    retry = {"attempts": 3, "backoff": "1ms", "budget": "100%", "methods": ["POST"]}
    retry["on"] = ["connect_error", "reset", 503, "timeout"]
    endpoints = [f"http://127.0.0.1:{port}" for port in (free_port(), origin.port)]
    shop = await start_shop(
        settings={"endpoints": endpoints, "retry": "more", **BRISK},
        policies={"retries": {"more": retry}},
    )
    for number in range(4):  # one of two begins where nobody listens
        answer = await shop.pay(f"k{number}")
        assert (answer.status, is_replay(answer)) == (201, False)
        assert is_replay(await shop.pay(f"k{number}"))
    assert origin.executed == 4
    assert await shop.metric("retries_total", upstream="origin", reason="connect_error") >= 1
    for script in (resets, silent, answering(respond("503 Busy"))):
        origin.script = script
        before = origin.executed
        assert (await shop.pay("k9")).status in (502, 503, 504)
        assert origin.executed == before + 1
        await shop.admin(f"/idempotency/{POLICY}?scope=caller-a&key=k9&host={HOST}", "DELETE")


async def test_a_fallback_executes_it(
    start_shop: StartShop, start_origin: StartOrigin, origin: Origin
) -> None:
    other = await start_origin(answering(respond(body=b"elsewhere")))
    shop = await start_shop(
        settings={"breaker": "leads"},
        others={"other": {"endpoints": [f"http://127.0.0.1:{other.port}"]}},
        policies={"breakers": {"leads": {"fallback": {"upstream": "other"}}}},
    )
    await shop.admin("/breakers/origin", "PUT", {"state": "open"})
    assert (await shop.pay()).body == b"elsewhere"
    await shop.admin("/breakers/origin", "PUT", {"state": "closed"})
    again = await shop.pay()
    assert (again.body, is_replay(again)) == (b"elsewhere", True)
    assert (origin.executed, other.executed) == (0, 1)
    assert other.seen[0].get("Idempotency-Key") == "k1"
    other.script = resets
    await shop.admin("/breakers/origin", "PUT", {"state": "open"})
    trouble(await shop.pay("k2"), 502, "upstream-invalid")
    trouble(await shop.pay("k2"), 409, "idempotency-unknown")
    assert (origin.executed, other.executed) == (0, 2)


@in_redis
async def test_a_connection_that_closes_while_the_claim_is_marked(
    start_shop: StartShop, origin: Origin, relay: Relay
) -> None:
    """Nothing was sent on it yet: another one is opened."""
    shop = await start_shop()
    wires: list[Wire] = []

    async def notes(wire: Wire, seen: Seen) -> None:
        wires.append(wire)
        await paid(wire, seen)

    origin.script = notes
    await shop.pay("k0")
    relay.delay = 0.3
    first = asyncio.create_task(shop.pay())
    await until(lambda: shop.at_work)
    wires[0].writer.transport.abort()
    assert (await first).status == 201
    relay.delay = 0.0
    assert is_replay(await shop.pay())
    assert origin.connections == origin.executed == 2


# The gateway.


@in_redis
@pytest.mark.parametrize("ends", ["in time", "too late"])
async def test_the_end_of_a_gateway(start_shop: StartShop, origin: Origin, ends: str) -> None:
    """The client has left, the upstream is at work, and the gateway is told to end."""
    shop = await start_shop(config={"server": {"drain_timeout": "600ms"}})
    origin.script = gate = Gate()
    await shop.leaves(post(), lambda: gate.waiting)
    await until(lambda: not shop.gateway.connections())
    stopping = asyncio.create_task(shop.gateway.stop())
    await until(lambda: not shop.gateway.readiness()[0])
    if ends == "in time":
        gate.open()
    await stopping
    origin.script = paid
    other = await start_shop()
    again = await other.pay()
    if ends == "in time":
        assert (again.status, again.body, is_replay(again)) == (201, b"paid", True)
    else:
        trouble(again, 409, "idempotency-unknown")
    assert origin.executed == 1


@in_redis
async def test_the_end_of_a_gateway_without_a_store(
    start_shop: StartShop, origin: Origin, relay: Relay
) -> None:
    """It ends all the same; the lease ends by itself, and then it is unknown."""
    drain = {"server": {"drain_timeout": "200ms"}}
    shop = await start_shop(config=drain, timeout=SOON, lease=500)
    origin.script = gate = Gate()
    await shop.leaves(post(), lambda: gate.waiting)
    relay.suffer(GONE)
    async with asyncio.timeout(5):
        await shop.gateway.stop()
    relay.recover()
    other = await start_shop({"in_flight": "wait"})
    trouble(await other.pay(), 409, "idempotency-unknown")
    assert origin.executed == 1


@in_memory
async def test_a_drain_waits_no_longer_in_all(start_shop: StartShop, origin: Origin) -> None:
    shop = await start_shop(config={"server": {"drain_timeout": "1500ms"}})
    origin.script = gate = Gate()
    stays = asyncio.create_task(shop.pay("k1"))
    await shop.leaves(post("k2"), lambda: gate.waiting == 2)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await shop.gateway.stop()
    assert 1.45 < loop.time() - began < 2.95  # and not twice as long
    assert isinstance((await asyncio.gather(stays, return_exceptions=True))[0], Exception)


@pytest.mark.parametrize(
    "change", [{"idempotency": None}, {"store": ["404"]}, {"max_body": "1B"}, {"gone": True}]
)
async def test_a_reload_changes_nothing_that_is_under_way(
    start_shop: StartShop, origin: Origin, change: dict[str, Any]
) -> None:
    shop = await start_shop()
    origin.script = gate = Gate()
    first = asyncio.create_task(shop.pay())
    await until(lambda: gate.waiting)
    before = shop.policies["idempotency"][POLICY]
    route = shop.config["routes"][0]
    if "gone" in change or "idempotency" in change:
        del route["idempotency"]
    if "gone" in change:
        del shop.policies["idempotency"]
    elif "idempotency" not in change:
        shop.policies["idempotency"] = {POLICY: before | change}
    await shop.reload()
    gate.open()
    assert (await first).status == 201
    origin.script = paid
    if "idempotency" not in route:
        assert not is_replay(await shop.pay())
    elif "store" in change:
        assert is_replay(await shop.pay())
    route["idempotency"] = POLICY
    shop.policies["idempotency"] = {POLICY: before}
    await shop.reload()
    assert is_replay(await shop.pay())
    assert await shop.counted("new") == 1
