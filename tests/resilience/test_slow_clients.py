"""Clients that keep an upstream waiting: that is held against nobody but them."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from rawhttp import Cut, Seen, Wire
from resilience_kit import (
    BREAKER,
    BRIEF,
    PATIENCE,
    Gate,
    Origin,
    Running,
    StartGateway,
    request,
    respond,
    until,
    well,
)

pytestmark = pytest.mark.usefixtures("lane")

READ_TIMEOUT = WRITE_TIMEOUT = 0.3
"""Seconds for which a server waits for more of a body, or for room in its connection, before it
gives the client up."""
LARGE = 40_000_000
UNFINISHED = request("/", "Content-Length: 100", method="POST") + b"x"


async def closes(wire: Wire, seen: Seen) -> None:
    """Ends the connection where the body does not go on."""
    await _gives_up(wire)
    raise Cut


async def resets(wire: Wire, seen: Seen) -> None:
    """The same by a reset."""
    await _gives_up(wire)
    wire.writer.transport.abort()
    raise Cut


async def _gives_up(wire: Wire) -> None:
    with pytest.raises(TimeoutError):
        while True:
            async with asyncio.timeout(READ_TIMEOUT):
                await wire.reader.readexactly(1)


async def sends_large(wire: Wire, seen: Seen) -> None:
    """A large answer, given up where the gateway takes nothing of it for a while."""
    wire.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
    piece = bytes(1_000_000)
    for _ in range(LARGE // len(piece)):
        wire.writer.write(piece)
        try:
            async with asyncio.timeout(WRITE_TIMEOUT):
                await wire.writer.drain()
        except TimeoutError:
            wire.writer.transport.abort()
            raise Cut from None


async def healthy(gateway: Running) -> bool:
    """Whether nothing was held against the upstream."""
    turned = await gateway.transitions()
    circuit = await gateway.circuit()
    return circuit["state"] == "closed" and not any(turned.values()) and circuit["failed"] == 0


@pytest.mark.parametrize("gives_up", [closes, resets], ids=["close", "reset"])
@pytest.mark.parametrize("framing", ["length", "chunked", "expect"])
async def test_unfinished_requests_open_no_circuit(
    start_gateway: StartGateway,
    origin: Origin,
    framing: str,
    gives_up: Callable[[Wire, Seen], Awaitable[None]],
) -> None:
    gateway = await start_gateway(origin, BREAKER | {"consecutive_failures": 2})
    origin.script, origin.read_body = gives_up, False
    data = UNFINISHED
    if framing == "chunked":
        data = request("/", "Transfer-Encoding: chunked", method="POST") + b"64\r\nx"
    elif framing == "expect":  # and the upstream says no 100, as it need not
        data = request("/", "Content-Length: 9", "Expect: 100-continue", method="POST")
    for _ in range(5):
        async with await gateway.open() as client:
            answer = await client.ask(data)
            assert answer.status == 408
            assert answer.json()["type"] == "urn:sluicegate:problem:request-timeout"
            assert await client.closed()
    assert await healthy(gateway)
    origin.script, origin.read_body = well, True
    assert (await gateway.ask()).status == 200


async def test_their_retries_use_up_nothing(start_gateway: StartGateway, origin: Origin) -> None:
    """They go out again, as the endpoint may have died; the ten retries that an upstream has
    without any share of its requests are all left."""
    retry = {"attempts": 3, "backoff": "1ms", "budget": "0%", "on": ["reset"], "methods": ["PUT"]}
    gateway = await start_gateway(
        origin, None, settings={"retry": "again"}, policies={"retries": {"again": retry}}
    )
    origin.script, origin.read_body = closes, False
    for _ in range(6):
        async with await gateway.open() as client:
            assert (await client.ask(UNFINISHED.replace(b"POST", b"PUT"))).status == 408
    assert origin.asked == 18
    assert await gateway.metric("retries_total", upstream="origin", reason="reset") == 0
    origin.script, origin.read_body = _Counting(), True
    for _ in range(6):
        assert (await gateway.ask(method="PUT", body=b"whole")).status == 502
    assert await gateway.metric("retries_total", upstream="origin", reason="reset") == 10


async def test_a_reset_in_the_middle_of_a_request_counts(
    start_gateway: StartGateway, origin: Origin
) -> None:
    """While its client sends without a pause."""
    gateway = await start_gateway(origin)

    async def at_once(wire: Wire, seen: Seen) -> None:
        raise Cut

    origin.script, origin.read_body = at_once, False
    for _ in range(2):
        async with await gateway.open() as client:
            await client.send(UNFINISHED)
            assert (await client.read_answer("POST")).status == 502
    assert (await gateway.circuit())["state"] == "open"


class _Refusing:
    """Answers 503 so many seconds after the first byte of the body, whatever follows it."""

    def __init__(self, after: float) -> None:
        self.after = after

    async def __call__(self, wire: Wire, seen: Seen) -> None:
        await wire.exactly(1)
        await asyncio.sleep(self.after)
        await wire.send(respond("503 Busy"))
        raise Cut


async def test_errors_for_unfinished_requests_open_no_circuit(
    start_gateway: StartGateway, origin: Origin
) -> None:
    """An upstream that says so, when it has waited for the client for long enough."""
    gateway = await start_gateway(origin, BREAKER | {"consecutive_failures": 2})
    origin.script, origin.read_body = _Refusing(READ_TIMEOUT), False
    for _ in range(5):
        async with await gateway.open() as client:
            assert (await client.ask(UNFINISHED)).status == 503
    assert await healthy(gateway)


async def test_errors_at_once_count(start_gateway: StartGateway, origin: Origin) -> None:
    """An upstream that has not waited for the client fails for its own reasons."""
    gateway = await start_gateway(origin)
    origin.script, origin.read_body = _Refusing(0.0), False
    for _ in range(10):  # two are enough, where the machine keeps nobody waiting
        async with await gateway.open() as client:
            assert (await client.ask(UNFINISHED)).status == 503
        if (await gateway.circuit())["state"] == "open":
            return
    pytest.fail("the circuit is not open")


async def test_errors_for_unfinished_probes_open_no_circuit(
    start_gateway: StartGateway, origin: Origin
) -> None:
    gateway = await start_gateway(origin, BRIEF)
    await gateway.trip(origin)
    await gateway.until_due()
    origin.script, origin.read_body = _Refusing(READ_TIMEOUT), False
    async with await gateway.open() as client:
        assert (await client.ask(UNFINISHED)).status == 503
    assert (await gateway.circuit())["state"] == "half-open"
    origin.script, origin.read_body = well, True
    assert (await gateway.ask()).status == 200
    assert (await gateway.circuit())["state"] == "closed"


async def test_retries_of_such_errors_use_up_nothing(
    start_gateway: StartGateway, origin: Origin
) -> None:
    retry = {"attempts": 3, "backoff": "1ms", "budget": "0%", "on": [503], "methods": ["PUT"]}
    gateway = await start_gateway(
        origin, None, settings={"retry": "again"}, policies={"retries": {"again": retry}}
    )
    origin.script, origin.read_body = _Refusing(READ_TIMEOUT), False
    async with await gateway.open() as client:
        assert (await client.ask(UNFINISHED.replace(b"POST", b"PUT"))).status == 503
    assert origin.asked == 3
    assert await gateway.metric("retries_total", upstream="origin", reason="503") == 0


async def test_an_early_answer_that_waits_for_the_client_opens_no_circuit(
    start_gateway: StartGateway, origin: Origin
) -> None:
    """An echo, say: while the client sends nothing, nothing can come of it, and read_timeout
    ends it."""

    async def echoes(wire: Wire, seen: Seen) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        await wire.send(await wire.exactly(1))
        assert await wire.closed()
        raise Cut

    gateway = await start_gateway(
        origin, BREAKER | {"consecutive_failures": 2}, settings={"read_timeout": "100ms"}
    )
    origin.script, origin.read_body = echoes, False
    for _ in range(3):
        async with await gateway.open() as client:
            await client.send(UNFINISHED)
            assert (await _received(client)) > 0
    await until(lambda: _idle(gateway))
    assert await healthy(gateway)


async def test_a_reset_after_the_whole_request_counts(
    start_gateway: StartGateway, origin: Origin
) -> None:
    """However slowly it came."""
    gateway = await start_gateway(origin)
    origin.script = resets_at_the_end = _Counting()
    for number in (1, 2):
        async with await gateway.open() as client:
            await client.send(UNFINISHED)
            await until(lambda number=number: origin.asked == number)
            assert (await client.ask(b"x" * 99, "POST")).status == 502
    assert resets_at_the_end.times == 2
    assert (await gateway.circuit())["state"] == "open"


class _Counting:
    """Resets connections, once requests are whole; counts them."""

    def __init__(self) -> None:
        self.times = 0

    async def __call__(self, wire: Wire, seen: Seen) -> None:
        self.times += 1
        raise Cut


async def test_slow_readers_open_no_circuit(start_gateway: StartGateway, origin: Origin) -> None:
    """Six clients that read nothing of a large answer until its server has given them up."""
    gateway = await start_gateway(origin)
    origin.script = sends_large
    clients = [await gateway.open() for _ in range(6)]
    for client in clients:
        await client.send(request())
    await until(lambda: origin.asked == 6)
    await until(lambda: origin.open == 0, 3 * PATIENCE)
    for client in clients:
        assert await _received(client) < LARGE
        await client.close()
    await until(lambda: _idle(gateway))
    assert await healthy(gateway)


async def _received(client: Wire) -> int:
    """How many bytes come before the connection ends, one way or another."""
    received = 0
    try:
        while data := await client.some():
            received += len(data)
    except ConnectionError:
        pass
    return received


async def _idle(gateway: Running) -> bool:
    return await gateway.metric("in_flight_requests", upstream="origin") == 0


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_unfinished_probes_hold_no_place(
    start_gateway: StartGateway, origin: Origin, method: str
) -> None:
    """20 unfinished requests reach a half-open circuit, as fast as they can: the next whole one is
    its probe, and closes it."""
    gateway = await start_gateway(origin, BRIEF)
    await gateway.trip(origin)
    await gateway.until_due()
    before = origin.asked
    slow = [await gateway.open() for _ in range(20)]
    for number, client in enumerate(slow, 1):
        await client.send(UNFINISHED)
        await until(lambda number=number: origin.asked == before + number)
    body = b"whole" if method == "POST" else None
    assert (await gateway.ask(method=method, body=body)).status == 200
    assert (await gateway.circuit())["state"] == "closed"
    for client in slow:
        await client.close()


async def test_probes_that_wait_to_proceed_hold_no_place(
    start_gateway: StartGateway, origin: Origin
) -> None:
    """With `Expect: 100-continue` the client keeps its body back, and the upstream its 100."""
    gateway = await start_gateway(origin, BRIEF)
    await gateway.trip(origin)
    await gateway.until_due()
    before = origin.asked
    expecting = request("/", "Content-Length: 9", "Expect: 100-continue", method="POST")
    slow = [await gateway.open() for _ in range(5)]
    for number, client in enumerate(slow, 1):
        await client.send(expecting)
        await until(lambda number=number: origin.asked == before + number)
        assert (await gateway.circuit())["probes"] == 0
    assert (await gateway.ask()).status == 200
    assert (await gateway.circuit())["state"] == "closed"
    for client in slow:
        await client.close()


async def test_a_slow_probe_that_comes_to_an_end_counts(
    start_gateway: StartGateway, origin: Origin
) -> None:
    """An upstream that gets nothing but long uploads must be able to prove itself."""
    gateway = await start_gateway(origin, BRIEF)
    await gateway.trip(origin)
    await gateway.until_due()
    before = origin.asked
    async with await gateway.open() as client:
        await client.send(UNFINISHED)
        await until(lambda: origin.asked == before + 1)
        assert (await gateway.circuit())["probes"] == 0
        assert (await client.ask(b"x" * 99, "POST")).status == 200
    assert (await gateway.circuit())["state"] == "closed"


async def test_a_slow_probe_holds_its_place_while_the_upstream_works(
    start_gateway: StartGateway, origin: Origin
) -> None:
    """Once all of it is out, nobody else may come between."""
    gateway = await start_gateway(origin, BRIEF)
    await gateway.trip(origin)
    await gateway.until_due()
    before = origin.asked
    answered = asyncio.Event()

    async def waits(wire: Wire, seen: Seen) -> None:
        await answered.wait()
        await wire.send(respond())

    async with await gateway.open() as client:
        await client.send(UNFINISHED)
        await until(lambda: origin.asked == before + 1)
        origin.script = waits
        await client.send(b"x" * 99)
        await until(lambda: _has_probe(gateway))
        assert (await gateway.ask()).status == 503
        answered.set()
        assert (await client.read_answer("POST")).status == 200
    assert (await gateway.circuit())["state"] == "closed"


async def _has_probe(gateway: Running) -> bool:
    return bool((await gateway.circuit())["probes"] == 1)


async def test_no_more_probes_go_on_than_there_are_places(
    start_gateway: StartGateway, origin: Origin
) -> None:
    """Five clients hold back the rest of their bodies, then send it together."""
    gateway = await start_gateway(origin, BRIEF)
    await gateway.trip(origin)
    await gateway.until_due()
    before = origin.asked
    clients = [await gateway.open() for _ in range(5)]
    for number, client in enumerate(clients, 1):
        await client.send(UNFINISHED)
        await until(lambda number=number: origin.asked == before + number)
    origin.script = gate = Gate()
    answers = [asyncio.create_task(client.ask(b"x" * 99, "POST")) for client in clients]
    await until(lambda: sum(answer.done() for answer in answers) == 4)
    await until(lambda: gate.waiting == 1)
    gate.open()
    statuses = sorted([answer.status for answer in await asyncio.gather(*answers)])
    assert statuses == [200, 503, 503, 503, 503]
    for client in clients:
        await client.close()
    assert (await gateway.circuit())["state"] == "closed"
