"""Retries through the whole flow: what is sent again, where to, how often and how soon; and what
must never be sent twice."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from rawhttp import Cut, Script, Seen, Wire, answering, echo, free_port
from retries_kit import BUSY, OK, QUICK, Bench, head, in_turn, resets, silent, sized, until, well

pytestmark = pytest.mark.usefixtures("lane")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Bench(tmp_path) as bench:
        yield bench


# What is worth another try.


@pytest.mark.parametrize(
    ("reason", "first"),
    [
        ("reset", resets),
        ("502", answering(head("502 Bad"))),
        ("503", BUSY),
        ("504", answering(head("504 Late", "Connection: close"))),
    ],
)
async def test_a_failed_try_is_followed_by_one_at_another_endpoint(
    bench: Bench, reason: str, first: Script
) -> None:
    bad, good = await bench.origin(first), await bench.origin()
    gateway = await bench.gateway(bad, good, retry=QUICK)
    answer = await gateway.ask()
    assert (answer.status, answer.body) == (200, b"ok")
    assert (len(bad.seen), len(good.seen)) == (1, 1)
    assert await gateway.retries(reason) == 1


async def test_an_endpoint_that_refuses_is_followed_by_another(bench: Bench) -> None:
    good = await bench.origin()
    gateway = await bench.gateway(free_port(), good, retry=QUICK)
    assert (await gateway.ask()).status == 200
    assert await gateway.retries("connect_error") == 1


@pytest.mark.parametrize("named", [True, False])
async def test_a_timeout_is_a_reason_only_where_it_is_named(bench: Bench, named: bool) -> None:
    late, good = await bench.origin(silent), await bench.origin()
    on = ["connect_error", "reset", "timeout"] if named else ["connect_error", "reset", 504]
    gateway = await bench.gateway(
        late, good, upstream={"response_timeout": "400ms"}, retry=QUICK | {"on": on}
    )
    answer = await gateway.ask()
    assert answer.status == (200 if named else 504)
    assert (len(late.seen), len(good.seen)) == (1, int(named))
    assert await gateway.retries("timeout") == int(named)


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (answering(head("500 Broken", body=b"broken")), 500),
        (answering(head("404 None")), 404),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), 502),
    ],
)
async def test_what_is_not_named_is_passed_on(bench: Bench, first: Script, status: int) -> None:
    bad, good = await bench.origin(first), await bench.origin()
    gateway = await bench.gateway(bad, good, retry=QUICK)
    assert (await gateway.ask()).status == status
    assert good.seen == []


async def test_without_retries_a_failure_is_passed_on(bench: Bench) -> None:
    bad, good = await bench.origin(BUSY), await bench.origin()
    gateway = await bench.gateway(bad, good)
    assert (await gateway.ask()).status == 503
    assert good.seen == []


async def test_an_answer_that_breaks_off_is_not_asked_for_again(bench: Bench) -> None:
    """Its head is out: the client must see the cut."""

    async def cut(wire: Wire, seen: Seen) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        raise Cut

    bad, good = await bench.origin(cut), await bench.origin()
    gateway = await bench.gateway(bad, good, retry=QUICK)
    with pytest.raises((Cut, ConnectionError)):
        await gateway.ask()
    assert (len(bad.seen), len(good.seen)) == (1, 0)


async def test_the_body_of_an_answer_that_is_not_passed_on_holds_nothing(bench: Bench) -> None:
    """It is let go with its connection: its slot is the next try's."""

    async def endless(wire: Wire, seen: Seen) -> None:
        await wire.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 1000000\r\n\r\nand so on")
        await silent(wire, seen)

    origin = await bench.origin(in_turn(endless, well))
    gateway = await bench.gateway(origin, upstream={"max_connections": 1, "queue": 0}, retry=QUICK)
    assert (await gateway.ask()).status == 200
    await until(lambda: origin.open <= 1)


# How often, and where to.


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_attempts_counts_all_tries(bench: Bench, attempts: int) -> None:
    origin = await bench.origin(BUSY)
    gateway = await bench.gateway(origin, retry=QUICK | {"attempts": attempts})
    answer = await gateway.ask()
    assert (answer.status, answer.body) == (503, b"busy")  # the origin's own
    assert len(origin.seen) == attempts
    assert await gateway.retries("503") == attempts - 1


async def test_every_endpoint_is_tried_before_one_is_again(bench: Bench) -> None:
    origins = [await bench.origin(BUSY) for _ in range(3)]
    heavy = {"url": f"http://127.0.0.1:{origins[0].port}", "weight": 100}
    gateway = await bench.gateway(heavy, *origins[1:], retry=QUICK)
    for turn in range(1, 4):
        await gateway.ask()
        assert [len(origin.seen) for origin in origins] == [turn] * 3


async def test_a_dead_upstream_gets_a_fifth_more_and_ten(bench: Bench) -> None:
    origin = await bench.origin(BUSY)
    gateway = await bench.gateway(origin, retry=QUICK | {"budget": "20%", "attempts": 10})
    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(_many(gateway.port, 20))
    retries = await gateway.retries("503")
    assert len(origin.seen) == 200 + retries
    assert 45 <= retries <= 200 * 0.2 + 10


async def _many(port: int, number: int) -> None:
    async with await Wire.open(port) as client:
        for _ in range(number):
            answer = await client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (answer.status, answer.body) == (503, b"busy")


async def test_a_budget_of_none_leaves_ten(bench: Bench) -> None:
    origin = await bench.origin(BUSY)
    gateway = await bench.gateway(origin, retry=QUICK | {"budget": "0%"})
    await _many(gateway.port, 20)
    assert len(origin.seen) == 20 + 10


async def test_what_the_breaker_refuses_earns_no_retries(bench: Bench) -> None:
    origin = await bench.origin(BUSY)
    gateway = await bench.gateway(
        origin,
        upstream={"breaker": "kept"},
        retry=QUICK | {"budget": "20%", "attempts": 10},
        policies={"breakers": {"kept": {}}},
    )
    await gateway.gateway.force_breaker("origin", "open")
    for _ in range(100):
        assert (await gateway.ask()).json()["type"] == "urn:sluicegate:problem:breaker-open"
    await gateway.gateway.force_breaker("origin", "closed")
    await _many(gateway.port, 20)
    assert len(origin.seen) <= 20 + 20 * 0.2 + 10


# How soon.


async def test_the_upstreams_retry_after_is_waited_for(bench: Bench) -> None:
    times: list[float] = []

    async def busy(wire: Wire, seen: Seen) -> None:
        times.append(time.monotonic())
        await wire.send(head("503 Busy", "Retry-After: 1"))

    async def better(wire: Wire, seen: Seen) -> None:
        times.append(time.monotonic())
        await wire.send(OK)

    first, second = await bench.origin(busy), await bench.origin(better)
    gateway = await bench.gateway(first, second, retry=QUICK | {"backoff_max": "2s"})
    assert (await gateway.ask()).status == 200
    assert times[1] - times[0] >= 1.0


@pytest.mark.parametrize(
    ("asked", "upstream"),
    [
        ("20", {}),
        ("Fri, 31 Dec 2100 23:59:59 GMT", {}),
        ("1", {"deadline": "900ms", "response_timeout": "800ms"}),
    ],
    ids=["longer than backoff_max", "a date", "longer than the time left"],
)
async def test_a_longer_retry_after_is_passed_on_at_once(
    bench: Bench, asked: str, upstream: dict[str, Any]
) -> None:
    busy = answering(head("503 Busy", f"Retry-After: {asked}", body=b"later"))
    first, second = await bench.origin(busy), await bench.origin()
    gateway = await bench.gateway(
        first, second, upstream=upstream, retry=QUICK | {"backoff_max": "1s"}
    )
    before = time.monotonic()
    answer = await gateway.ask()
    assert time.monotonic() - before < 5
    assert (answer.status, answer.get("Retry-After"), answer.body) == (503, asked, b"later")
    assert second.seen == []


async def test_the_deadline_covers_every_try_and_the_waits_between(bench: Bench) -> None:
    async def slow(wire: Wire, seen: Seen) -> None:
        await asyncio.sleep(1.2)
        await BUSY(wire, seen)

    first, second = await bench.origin(slow), await bench.origin(silent)
    gateway = await bench.gateway(first, second, upstream={"deadline": "1800ms"}, retry=QUICK)
    before = time.monotonic()
    answer = await gateway.ask()
    took = time.monotonic() - before
    assert (answer.status, len(second.seen)) == (504, 1)
    assert 1.75 <= took < 2.9  # the second try had 0.6 s left, not 1.8 s of its own


async def test_the_client_leaving_ends_the_wait(bench: Bench) -> None:
    busy = answering(head("503 Busy", "Retry-After: 20"))
    origin = await bench.origin(busy)
    gateway = await bench.gateway(
        origin, upstream={"deadline": "60s"}, retry=QUICK | {"backoff_max": "30s"}
    )
    level = len(asyncio.all_tasks())
    async with await Wire.open(gateway.port) as client:
        await client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: origin.seen and not gateway.busy())  # it waits, and holds nothing
        assert gateway.gateway.connections() == 1
    await until(lambda: gateway.gateway.connections() == 0)
    await until(lambda: len(asyncio.all_tasks()) <= level + 1)  # the origin keeps a connection
    gone = {"route": "all", "method": "GET", "status": "499"}
    assert await gateway.metric("sluicegate_requests_total", **gone) == 1
    assert len(origin.seen) == 1


# What must not be sent twice.


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_any_method_goes_on_where_no_byte_was_sent(bench: Bench, method: str) -> None:
    good = await bench.origin(echo)
    gateway = await bench.gateway(free_port(), good, retry=QUICK)
    answer = await gateway.ask(sized(b"once", method))
    assert (answer.status, answer.json()["body"]) == (200, "once")
    assert len(good.seen) == 1


@pytest.mark.parametrize(
    ("first", "status"),
    [(resets, 502), (BUSY, 503)],
    ids=["reset", "503"],
)
@pytest.mark.parametrize("body", [b"", b"once"], ids=["bare", "with a body"])
async def test_a_post_that_was_sent_is_not_sent_again(
    bench: Bench, first: Script, status: int, body: bytes
) -> None:
    bad, good = await bench.origin(first), await bench.origin()
    gateway = await bench.gateway(bad, good, retry=QUICK)
    assert (await gateway.ask(sized(body, "POST"))).status == status
    assert (len(bad.seen), len(good.seen)) == (1, 0)


async def test_only_named_methods_are_sent_twice(bench: Bench) -> None:
    bad, good = await bench.origin(BUSY), await bench.origin()
    gateway = await bench.gateway(bad, good, retry=QUICK | {"methods": ["HEAD"]})
    assert (await gateway.ask()).status == 503
    assert good.seen == []
    assert (await gateway.ask()).status == 200  # its turn; now the busy one is next
    assert (await gateway.ask(method="HEAD")).status == 200
    assert (len(bad.seen), len(good.seen)) == (2, 2)


async def test_an_early_hint_of_a_failed_try_does_no_harm(bench: Bench) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    bad, good = await bench.origin(answering(hint + head("503 Busy"))), await bench.origin()
    gateway = await bench.gateway(bad, good, retry=QUICK)
    async with await Wire.open(gateway.port) as client:
        await client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.read_answer()).status == 103
        assert (await client.read_answer()).status == 200


async def test_an_upgrade_may_be_asked_for_again(bench: Bench) -> None:
    async def tunnel(wire: Wire, seen: Seen) -> None:
        assert seen.get("Upgrade") == "websocket"
        await wire.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        await wire.send(await wire.exactly(4))
        raise Cut

    bad, good = await bench.origin(BUSY), await bench.origin(tunnel)
    gateway = await bench.gateway(bad, good, retry=QUICK)
    async with await Wire.open(gateway.port) as client:
        await client.send(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'a' * 22}==\r\n\r\n"
        )
        assert (await client.read_answer()).status == 101
        await client.send("ping")
        assert await client.exactly(4) == b"ping"
    assert (len(bad.seen), len(good.seen)) == (1, 1)


# With the stages around it.


async def test_a_limit_is_charged_once(bench: Bench) -> None:
    origin = await bench.origin(in_turn(BUSY, BUSY, well))
    gateway = await bench.gateway(
        origin,
        retry=QUICK,
        route={"limits": ["few"]},
        policies={"limits": {"few": {"rate": "10/h", "key": ["global"]}}},
    )
    answer = await gateway.ask()
    assert (answer.status, len(origin.seen)) == (200, 3)
    assert ";r=9;" in (answer.get("RateLimit") or "")


async def test_the_cache_sees_one_fetch(bench: Bench) -> None:
    fresh = answering(head("200 OK", "Cache-Control: max-age=60", body=b"fresh"))
    stored = answering(head("503 Busy", "Cache-Control: max-age=60"))
    bad, good = await bench.origin(stored), await bench.origin(fresh)
    gateway = await bench.gateway(
        bad,
        good,
        retry=QUICK,
        route={"cache": "things"},
        policies={"caches": {"things": {"early_refresh": 0}}},
    )
    answers = await asyncio.gather(*(gateway.ask() for _ in range(5)))
    assert {(answer.status, answer.body) for answer in answers} == {(200, b"fresh")}
    assert (len(bad.seen), len(good.seen)) == (1, 1)
    assert "hit" in ((await gateway.ask()).get("Cache-Status") or "")
    for outcome, number in {"miss": 1, "collapsed": 4, "hit": 1}.items():
        labels = {"cache": "things", "outcome": outcome}
        assert await gateway.metric("sluicegate_cache_requests_total", **labels) == number


async def test_a_try_on_a_connection_that_was_closed_meanwhile_costs_nothing(
    bench: Bench,
) -> None:
    """What was never written is sent on a new connection, without a retry, whatever it is."""
    origin = await bench.origin()
    gateway = await bench.gateway(origin, retry=QUICK | {"attempts": 1})
    assert (await gateway.ask()).status == 200
    port = origin.port
    await origin.stop()
    again = await bench.origin(port=port)
    assert (await gateway.ask(sized(b"x", "POST"))).status == 200
    assert len(again.seen) == 1
