"""What opens a circuit, and what does not: seen by clients and the origin."""

import asyncio
from typing import Any

import pytest
from rawhttp import Cut, Script, Seen, Wire, free_port
from resilience_kit import (
    BREAKER,
    Gate,
    Origin,
    Running,
    Settings,
    StartGateway,
    breaks_off,
    ill,
    leaves,
    refused,
    request,
    resets,
    respond,
    silent,
    slowly,
    until,
    well,
)

pytestmark = pytest.mark.usefixtures("lane")

ONE: Settings = {"consecutive_failures": 1, "open_for": "1m"}
RATE = {"consecutive_failures": 0, "failure_rate": "50%", "minimum_requests": 4, "open_for": "1m"}
SLOW = {
    "consecutive_failures": 0,
    "slow_rate": "50%",
    "slow_after": "20ms",
    "minimum_requests": 2,
    "open_for": "1m",
}


def replies(status: int) -> Script:
    async def script(wire: Wire, seen: Seen) -> None:
        await wire.send(respond(f"{status} Said"))

    return script


# What opens it.


async def test_failures_in_a_row_open_it(start_gateway: StartGateway, origin: Origin) -> None:
    gateway = await start_gateway(origin)
    origin.script = ill
    for _ in range(2):
        answer = await gateway.ask()
        assert (answer.status, answer.body) == (503, b"ill")  # the origin's own, as it came
    origin.script = well
    assert 50 <= refused(await gateway.ask()) <= 66
    assert origin.asked == 2


async def test_a_success_between_begins_the_row_anew(
    start_gateway: StartGateway, origin: Origin
) -> None:
    gateway = await start_gateway(origin)
    for script in (ill, well, ill, well, ill):
        origin.script = script
        await gateway.ask()
    assert (await gateway.circuit())["state"] == "closed"
    await gateway.ask()
    refused(await gateway.ask())


async def test_a_share_of_failures_opens_it(start_gateway: StartGateway, origin: Origin) -> None:
    gateway = await start_gateway(origin, RATE)
    for script in (ill, well, ill, well):  # the fourth result is judged, though a success
        origin.script = script
        assert (await gateway.ask()).status != 429
    refused(await gateway.ask())
    assert origin.asked == 4
    assert (await gateway.circuit())["reason"] == "2 of 4 in 10 s failed"


async def test_slow_answers_open_it(start_gateway: StartGateway, origin: Origin) -> None:
    gateway = await start_gateway(origin, SLOW)
    assert (await gateway.ask()).status == 200
    origin.script = slowly
    assert (await gateway.ask()).status == 200
    refused(await gateway.ask())
    assert origin.asked == 2
    assert (await gateway.circuit())["reason"] == "1 of 2 in 10 s took over 0.02 s"


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        (resets, 502, "reset"),
        (silent, 504, "timeout"),
        (replies(500), 500, "status 500"),
        (replies(502), 502, "status 502"),
        (replies(504), 504, "status 504"),
    ],
)
async def test_each_failure_counts(
    start_gateway: StartGateway, origin: Origin, script: Script, status: int, reason: str
) -> None:
    gateway = await start_gateway(origin, settings={"response_timeout": "300ms"})
    origin.script = script
    for _ in range(2):
        assert (await gateway.ask(method="POST", body=b"x")).status == status
    refused(await gateway.ask())
    assert origin.asked == 2
    assert (await gateway.circuit())["reason"] == f"2 failures in a row, the last: {reason}"


async def test_a_refused_connection_counts(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(free_port())
    for _ in range(2):
        assert (await gateway.ask()).status in (502, 503)
    refused(await gateway.ask())
    assert "connect_error" in (await gateway.circuit())["reason"]


@pytest.mark.parametrize("status", [200, 404, 429, 501, 505])
async def test_other_statuses_do_not_count(
    start_gateway: StartGateway, origin: Origin, status: int
) -> None:
    gateway = await start_gateway(origin)
    origin.script = replies(status)
    for _ in range(4):
        assert (await gateway.ask()).status == status
    circuit = await gateway.circuit()
    assert (circuit["state"], circuit["failed"]) == ("closed", 0)


async def test_an_event_stream_that_is_short_is_not_slow_either(
    start_gateway: StartGateway, origin: Origin
) -> None:
    async def stream(wire: Wire, seen: Seen) -> None:
        await asyncio.sleep(0.05)
        await wire.send(respond("200 OK", "Content-Type: Text/Event-Stream", body=b"data:\n\n"))

    gateway = await start_gateway(origin, SLOW)
    origin.script = stream
    for _ in range(4):
        assert (await gateway.ask()).status == 200
    circuit = await gateway.circuit()
    assert (circuit["state"], circuit["slow"]) == ("closed", 0)


async def test_failure_statuses_are_the_users(start_gateway: StartGateway, origin: Origin) -> None:
    gateway = await start_gateway(origin, BREAKER | {"failure_statuses": [429, "520-529"]})
    for status in (503, 503, 429, 525):
        origin.script = replies(status)
        assert (await gateway.ask()).status == status
    refused(await gateway.ask())


async def test_a_body_that_breaks_off_counts(start_gateway: StartGateway, origin: Origin) -> None:
    gateway = await start_gateway(origin, ONE)
    origin.script = breaks_off
    with pytest.raises((Cut, ConnectionError)):
        await gateway.ask()
    await until(lambda: gateway.is_("open"))
    refused(await gateway.ask())
    assert (await gateway.circuit())["reason"] == "1 failure in a row, the last: reset"


# What does not.


async def unharmed(gateway: Running) -> None:
    """Nothing is under way, nothing has failed, and one failure alone would have shown."""
    await until(lambda: not any(one["in_flight"] for one in gateway.gateway.upstream_status()))
    circuit = await gateway.circuit()
    assert (circuit["state"], circuit["failed"]) == ("closed", 0), circuit


async def test_a_client_that_leaves_is_nobodys_failure(
    start_gateway: StartGateway, origin: Origin
) -> None:
    gateway = await start_gateway(origin, ONE)
    origin.script = silent
    await leaves(gateway, request(), origin)
    await leaves(gateway, request(method="POST", body=b"x"), origin)
    await unharmed(gateway)


async def test_a_client_that_leaves_amid_the_body(
    start_gateway: StartGateway, origin: Origin
) -> None:
    async def endless(wire: Wire, seen: Seen) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            await wire.send(b"x" * 65536)

    gateway = await start_gateway(origin, ONE)
    origin.script = endless
    async with await gateway.open() as client:
        await client.send(request())
        await client.read_head()
        client.writer.transport.abort()
    await unharmed(gateway)


async def test_a_body_that_comes_up_short(start_gateway: StartGateway, origin: Origin) -> None:
    gateway = await start_gateway(origin, ONE)
    async with await gateway.open() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        await until(lambda: origin.asked)
        client.writer.write_eof()
        await client.rest()
    await unharmed(gateway)


async def test_a_body_that_is_too_large(start_gateway: StartGateway, origin: Origin) -> None:
    gateway = await start_gateway(origin, ONE, config={"server": {"max_body_bytes": "1KiB"}})
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with await gateway.open() as client:
        await client.send(chunked + b"4\r\nfour\r\n")
        await until(lambda: origin.asked)
        answer = await client.ask(b"800\r\n" + b"x" * 0x800 + b"\r\n0\r\n\r\n", "POST")
    assert answer.status == 413
    await unharmed(gateway)


async def test_a_body_that_fails_beside_its_answer(
    start_gateway: StartGateway, start_origin: Any
) -> None:
    """The origin answers while it reads, as an echo does; then the client's body makes no
    sense. The answer is cut for it, and the origin has done nothing wrong."""

    async def at_once(wire: Wire, seen: Seen) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await wire.rest()
        raise Cut

    origin = await start_origin(at_once)
    origin.read_body = False
    gateway = await start_gateway(origin, ONE)
    async with await gateway.open() as client:
        await client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n"
        )
        await client.read_head()
        assert await client.exactly(4) == b"half"
        await client.send(b"no size\r\n")
        with pytest.raises((Cut, ConnectionError)):
            await client.exactly(6)
    await unharmed(gateway)


async def test_no_room_is_nobodys_failure(start_gateway: StartGateway, origin: Origin) -> None:
    few = {"max_connections": 1, "queue": 1, "queue_timeout": "50ms"}
    gateway = await start_gateway(origin, ONE, settings=few)
    origin.script = gate = Gate()
    first = asyncio.create_task(gateway.ask())
    await until(lambda: gate.waiting == 1)
    second = asyncio.create_task(gateway.ask())  # queue_timeout
    await until(lambda: gateway.gateway.upstream_status()[0]["waiting"] == 1)
    third = await gateway.ask()  # queue_full
    assert [third.status, (await second).status] == [503, 503]
    for answer in (third, await second):
        assert answer.json()["type"] == "urn:sluicegate:problem:overloaded"
    gate.open()
    assert (await first).status == 200
    await unharmed(gateway)
