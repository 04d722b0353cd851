"""Half-open: who is let through, and what a probe's end says."""

import asyncio
from typing import Any

import pytest
from rawhttp import Answer, Cut, Seen, Wire
from relay import Fault, Relay
from resilience_kit import (
    BREAKER,
    BRIEF,
    Gate,
    Origin,
    Settings,
    StartGateway,
    ill,
    leaves,
    refused,
    request,
    respond,
    silent,
    slowly,
    until,
    well,
)

pytestmark = pytest.mark.usefixtures("lane")


@pytest.mark.parametrize("probes", [1, 3])
async def test_exactly_so_many_probes(
    start_gateway: StartGateway, origin: Origin, probes: int
) -> None:
    """200 requests at the moment that a circuit is due: so many reach the origin, the others are
    refused at once, and the probes' successes close it."""
    gateway = await start_gateway(origin, BRIEF | {"half_open_requests": probes})
    await gateway.trip(origin)
    await gateway.until_due()
    origin.script = gate = Gate()
    before = origin.asked
    asked = [asyncio.create_task(gateway.ask()) for _ in range(200)]
    await until(lambda: sum(task.done() for task in asked) == 200 - probes)
    await until(lambda: gate.waiting == probes)
    for task in asked:
        if task.done():
            assert refused(await task) == 1
    assert (await gateway.circuit())["probes"] == probes
    gate.open()
    statuses = [answer.status for answer in await asyncio.gather(*asked)]
    assert statuses.count(200) == origin.asked - before == probes
    assert (await gateway.circuit())["state"] == "closed"
    assert (await gateway.ask()).status == 200


async def test_a_failed_probe_doubles_the_time(start_gateway: StartGateway, origin: Origin) -> None:
    gateway = await start_gateway(origin, BRIEF | {"open_for": "150ms", "open_max": "450ms"})
    await gateway.trip(origin)
    origin.script = ill
    for least, most in ((0.165, 0.33), (0.33, 0.495)):  # the second is bounded by open_max
        await gateway.until_due()
        assert (await gateway.ask()).body == b"ill"
        circuit = await gateway.circuit()
        assert circuit["state"] == "open"
        assert least < circuit["retry_in_s"] <= most
        assert circuit["reason"] == "a probe failed: status 503"


async def test_a_probe_that_never_returns_holds_nothing_for_ever(
    start_gateway: StartGateway, origin: Origin
) -> None:
    gateway = await start_gateway(
        origin, BRIEF | {"open_for": "50ms"}, settings={"response_timeout": "400ms"}
    )
    await gateway.trip(origin)
    await gateway.until_due()
    origin.script = silent
    assert (await gateway.ask()).status == 504
    circuit = await gateway.circuit()
    assert (circuit["state"], circuit["probes"]) == ("open", 0)
    assert circuit["reason"] == "a probe failed: timeout"
    origin.script = well
    await gateway.until_due()
    assert (await gateway.ask()).status == 200
    assert (await gateway.circuit())["state"] == "closed"


async def test_a_probe_into_the_void(start_gateway: StartGateway, origin: Origin) -> None:
    """Nobody even answers its SYN."""
    async with Relay(origin.port) as relay:
        settings = {"connect_timeout": "400ms"}
        gateway = await start_gateway(relay.port, BRIEF | {"open_for": "50ms"}, settings=settings)
        await gateway.trip(origin)
        await gateway.until_due()
        relay.suffer(Fault("connect", "ignore"))
        assert (await gateway.ask()).status in (502, 503)
        circuit = await gateway.circuit()
        assert (circuit["state"], circuit["probes"]) == ("open", 0)
        assert circuit["reason"] == "a probe failed: connect_error"
        relay.recover()
        await gateway.until_due()
        assert (await gateway.ask()).status == 200
        assert (await gateway.circuit())["state"] == "closed"


async def test_a_probe_whose_client_never_ends_is_no_probe(
    start_gateway: StartGateway, start_origin: Any
) -> None:
    """Others are; what comes of it after they have closed the circuit is too late to count."""
    origin = await start_origin()
    gateway = await start_gateway(
        origin, BRIEF | {"open_for": "50ms"}, settings={"deadline": "100ms"}
    )
    await gateway.trip(origin)
    await gateway.until_due()
    before = origin.asked
    async with await gateway.open() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nh")
        await until(lambda: origin.asked > before)
        await until(lambda: gateway.gateway.breakers()[0]["probes"] == 0)
        assert (await gateway.ask()).status == 200
        assert (await gateway.circuit())["state"] == "closed"
        origin.script = ill
        assert (await client.ask(b"alf", "POST")).status == 503
    circuit = await gateway.circuit()
    assert (circuit["state"], circuit["failed"]) == ("closed", 0)


async def test_a_probe_whose_client_leaves_makes_room(
    start_gateway: StartGateway, origin: Origin
) -> None:
    gateway = await start_gateway(origin, BRIEF)
    await gateway.trip(origin)
    await gateway.until_due()
    origin.script = silent
    await leaves(gateway, request(), origin)
    await until(lambda: gateway.gateway.breakers()[0]["probes"] == 0)
    assert (await gateway.circuit())["state"] == "half-open"
    origin.script = well
    assert (await gateway.ask()).status == 200
    assert (await gateway.circuit())["state"] == "closed"


PROBED: Settings = BRIEF | {"slow_rate": "50%", "slow_after": "20ms", "minimum_requests": 5}


@pytest.mark.parametrize("ends", ["client", "origin"])
async def test_an_event_stream_as_a_probe(
    start_gateway: StartGateway, origin: Origin, ends: str
) -> None:
    """Its head may wait for something to tell, its body never ends, and it may break off late:
    none of that says that the origin is ill once the circuit is closed."""

    async def stream(wire: Wire, seen: Seen) -> None:
        await asyncio.sleep(0.05)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        await wire.send(head + b"Transfer-Encoding: chunked\r\n\r\n6\r\ndata:\n\r\n")
        await (over.wait() if ends == "origin" else wire.rest())
        raise Cut

    over = asyncio.Event()
    gateway = await start_gateway(origin, PROBED)
    await gateway.trip(origin)
    await gateway.until_due()
    origin.script = stream
    async with await gateway.open() as client:
        await client.send(request("/events"))
        assert b"200 OK" in await client.read_head()
        assert (await gateway.circuit())["state"] == "closed"
        origin.script = well
        assert (await gateway.ask()).status == 200
        if ends == "origin":
            over.set()
            with pytest.raises((Cut, ConnectionError)):
                await client.read_chunks()
    await until(lambda: gateway.gateway.upstream_status()[0]["in_flight"] == 0)
    circuit = await gateway.circuit()
    assert (circuit["state"], circuit["failed"], circuit["slow"]) == ("closed", 0, 0)


async def test_a_websocket_as_a_probe(start_gateway: StartGateway, origin: Origin) -> None:
    async def upgrade(wire: Wire, seen: Seen) -> None:
        await asyncio.sleep(0.05)
        await wire.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        await wire.rest()
        raise Cut

    gateway = await start_gateway(origin, PROBED)
    await gateway.trip(origin)
    await gateway.until_due()
    origin.script = upgrade
    async with await gateway.open() as client:
        await client.send(request("/", "Connection: Upgrade", "Upgrade: websocket"))
        assert b" 101 " in await client.read_head()
        assert (await gateway.circuit())["state"] == "closed"
        client.writer.transport.abort()
    await until(lambda: gateway.gateway.upstream_status()[0]["in_flight"] == 0)
    circuit = await gateway.circuit()
    assert (circuit["state"], circuit["failed"], circuit["slow"]) == ("closed", 0, 0)


async def test_a_slow_probe_fails(start_gateway: StartGateway, origin: Origin) -> None:
    """What the two above would be if they were like any other answer."""
    gateway = await start_gateway(origin, PROBED)
    await gateway.trip(origin)
    await gateway.until_due()
    origin.script = slowly
    assert (await gateway.ask()).status == 200
    assert (await gateway.circuit())["reason"] == "a probe failed: took over 0.02 s"


@pytest.mark.parametrize("status", ["200 OK", "503 Busy"])
@pytest.mark.parametrize("due", [False, True])
async def test_what_was_asked_before_the_trip_says_nothing_of_after(
    start_gateway: StartGateway, origin: Origin, due: bool, status: str
) -> None:
    """Neither does a success close the circuit, nor a failure open it again."""
    one = {"consecutive_failures": 1}
    gateway = await start_gateway(origin, (BRIEF if due else BREAKER) | one)
    origin.script = gate = Gate(respond(status))
    early = asyncio.create_task(gateway.ask("/early"))
    await until(lambda: gate.waiting == 1)
    await gateway.trip(origin)
    if due:
        await gateway.until_due()
        origin.script = probe = Gate()
        asked = asyncio.create_task(gateway.ask("/probe"))
        await until(lambda: probe.waiting == 1)
    gate.open()
    answer: Answer = await early
    assert answer.status == int(status[:3])
    refused(await gateway.ask())
    assert (await gateway.circuit())["state"] == ("half-open" if due else "open")
    assert (await gateway.transitions())["open"] == 1
    if due:
        probe.open()
        assert (await asked).status == 200
        assert (await gateway.circuit())["state"] == "closed"
