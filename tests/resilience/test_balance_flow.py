"""How requests are spread over endpoints: by weight, by load, by a key that stays; and over the
addresses that a name has by now."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from rawhttp import Seen, Wire, answering, free_port
from retries_kit import OK, Bench, Origin, Running, head, until

from proxy.edge.upstream import resolve

pytestmark = pytest.mark.usefixtures("lane")

ILL: Final = answering(head("500 Ill"))
HASH: Final = {"balance": "hash", "hash_key": ["header:X-Api-Key|ip"]}
CHECK: Final = {"path": "/healthz", "interval": "50ms", "timeout": "50ms"}
KEYS: Final = [f"key-{number}" for number in range(60)]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Bench(tmp_path) as bench:
        yield bench


async def where(gateway: Running, origins: list[Origin], keys: list[str]) -> dict[str, int]:
    """The origin that gets the requests of each key, by its place."""
    there: dict[str, int] = {}
    async with await Wire.open(gateway.port) as client:
        for key in keys:
            before = [len(origin.seen) for origin in origins]
            answer = await client.ask(f"GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n")
            assert answer.status == 200
            more = [len(origin.seen) - n for origin, n in zip(origins, before, strict=True)]
            assert sum(more) == 1
            there[key] = more.index(1)
    return there


# By a key.


async def test_a_key_stays_with_its_endpoint(bench: Bench) -> None:
    origins = [await bench.origin() for _ in range(3)]
    gateway = await bench.gateway(*origins, upstream=HASH)
    first = await where(gateway, origins, KEYS)
    assert await where(gateway, origins, KEYS[::-1]) == first
    assert min(Counter(first.values()).values()) >= 5
    assert len(Counter(first.values())) == 3


async def test_without_the_header_the_next_part_of_the_key_stays(bench: Bench) -> None:
    origins = [await bench.origin() for _ in range(3)]
    gateway = await bench.gateway(*origins, upstream=HASH)
    for _ in range(9):
        await gateway.ask()
    assert sorted(len(origin.seen) for origin in origins) == [0, 0, 9]


async def test_a_lost_endpoint_moves_only_its_own_keys(bench: Bench) -> None:
    origins = [await bench.origin() for _ in range(3)]
    gateway = await bench.gateway(*origins, upstream=HASH | {"health_check": CHECK})
    before = await where(gateway, origins, KEYS)

    origins[1].health = ILL
    await until(lambda: gateway.up() == [True, False, True])
    without = await where(gateway, origins, KEYS)
    assert {key for key in KEYS if without[key] != before[key]} == {
        key for key in KEYS if before[key] == 1
    }
    assert {without[key] for key in KEYS if before[key] == 1} == {0, 2}  # to both of the others

    origins[1].health = answering(OK)
    await until(lambda: all(gateway.up()))
    assert await where(gateway, origins, KEYS) == before


async def test_a_retry_leaves_the_keys_endpoint_for_that_request_only(bench: Bench) -> None:
    origins = [await bench.origin() for _ in range(3)]
    gateway = await bench.gateway(*origins, upstream=HASH, retry={"backoff": "1ms"})
    home = (await where(gateway, origins, KEYS[:1]))[KEYS[0]]
    for origin in origins:
        origin.seen.clear()
    well = origins[home].answer
    origins[home].answer = answering(head("503 Busy"))
    ask = f"GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {KEYS[0]}\r\n\r\n"
    assert {(await gateway.ask(ask)).status for _ in range(3)} == {200}
    seen = [len(origin.seen) for origin in origins]
    assert sorted(seen) == [0, 3, 3]  # every retry goes to the same other one
    assert seen[home] == 3
    origins[home].answer = well
    assert (await where(gateway, origins, KEYS[:1]))[KEYS[0]] == home


# By weight.


async def test_a_canary_gets_its_tenth(bench: Bench) -> None:
    origins = [await bench.origin() for _ in range(2)]
    urls = [f"http://127.0.0.1:{origin.port}" for origin in origins]
    gateway = await bench.gateway(
        {"url": urls[0], "weight": 90}, {"url": urls[1], "weight": 10}, retry={}
    )

    async def client() -> None:
        async with await Wire.open(gateway.port) as wire:
            for _ in range(250):
                assert (await wire.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(client())
    assert len(origins[0].seen) + len(origins[1].seen) == 2000
    assert 190 <= len(origins[1].seen) <= 210


# By load.


async def test_the_endpoint_with_the_fewest_requests_is_next(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def slow(wire: Wire, seen: Seen) -> None:
        await go_on.wait()
        await wire.send(OK)

    late, quick = await bench.origin(slow), await bench.origin()
    gateway = await bench.gateway(late, quick, upstream={"balance": "least_requests"})
    held = [asyncio.create_task(gateway.ask())]
    await until(lambda: late.seen)
    for _ in range(10):
        assert (await gateway.ask()).status == 200
    assert (len(late.seen), len(quick.seen)) == (1, 10)
    assert [one["in_flight"] for one in gateway.upstream()["endpoints"]] == [1, 0]

    go_on.set()
    assert [answer.status for answer in await asyncio.gather(*held)] == [200]
    for _ in range(10):
        await gateway.ask()
    assert (len(late.seen), len(quick.seen)) == (6, 15)  # idle ones take turns


async def test_an_answer_counts_until_its_body_has_ended(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def long(wire: Wire, seen: Seen) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        await go_on.wait()
        await wire.send(b"full")

    late, quick = await bench.origin(long), await bench.origin()
    gateway = await bench.gateway(late, quick, upstream={"balance": "least_requests"})
    async with await Wire.open(gateway.port) as client:
        await client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.read_head()
        for _ in range(5):
            await gateway.ask()
        assert (len(late.seen), len(quick.seen)) == (1, 5)
        go_on.set()
        assert await client.exactly(8) == b"halffull"


# By name.


async def test_requests_and_checks_follow_a_name_that_moves(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = ["127.0.0.2"]

    async def lookup(host: str) -> list[str]:
        assert host == "api.test"
        return list(addresses)

    monkeypatch.setattr(resolve, "system_lookup", lookup)
    port = free_port()
    old = await bench.origin(host="127.0.0.2", port=port)
    new = await bench.origin(host="127.0.0.3", port=port)
    gateway = await bench.gateway(
        f"http://api.test:{port}",
        upstream={"dns_refresh": "40ms", "idle_timeout": "60s", "health_check": CHECK},
    )
    assert (await gateway.ask()).status == 200
    await until(lambda: old.checks)
    assert (len(old.seen), new.checks) == (1, [])

    addresses[:] = ["127.0.0.3"]
    await until(lambda: new.checks)
    await until(lambda: old.open == 0)  # its pooled connection has gone, though it was well
    for _ in range(3):
        assert (await gateway.ask()).status == 200
    assert (len(old.seen), len(new.seen)) == (1, 3)
    assert new.seen[0].get("Host") == "a"
