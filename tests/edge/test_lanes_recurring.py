"""Requests that come again, byte for byte: what is remembered of them changes nothing but the time
that they take."""

from pathlib import Path

import pytest
from edge_kit import ROUTE, Running, StartGateway, StartOrigin
from lanes_kit import Gate, Way, ask, start
from rawhttp import Answer, RawOrigin, Wire

from proxy.core.fields import Fields
from proxy.core.matching import Match
from proxy.edge.express import Memos

ELSEWHERE = ('"/{rest:path}"', '"/other/{rest:path}"')
TRACE = "traceparent: 00-{:032x}-{:016x}-01"
TIMES = 4
"""Enough for a request to be read, to be remembered, and to be recognised twice."""


def trace(number: int) -> str:
    return TRACE.format(number, number)


def memos(running: Running) -> Memos:
    front = running.gateway._front
    assert front is not None
    return front.memos


async def reload(running: Running, old: str, new: str) -> None:
    """With another text in place of the gateway file's own."""
    text = running.path.read_text()
    assert old in text
    running.path.write_text(text.replace(old, new))
    assert await running.gateway.reload() == []


async def heard(client: Wire, *requests: bytes) -> list[Answer]:
    return [await client.ask(data) for data in requests]


async def test_it_is_remembered_the_second_time(
    tmp_path: Path, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin: RawOrigin = await start_origin(Gate())
    running = await start(start_gateway, origin, tmp_path)
    async with await Wire.open(running.port) as client:
        for known in (0, 1, 1, 1):
            assert (await client.ask(ask("/o/a", "X-A: 1"))).status == 200
            assert len(memos(running)) == known
    first, *others = (
        [line for line in seen.lines if line[0] != "X-Request-Id"] for seen in origin.seen
    )
    assert others == [first] * 3
    assert len({seen.get("x-request-id") for seen in origin.seen}) == TIMES


async def test_each_keeps_its_own_trace(
    tmp_path: Path, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    """One memo serves a request whatever its trace, first or last of its lines, or without."""
    origin: RawOrigin = await start_origin(Gate())
    running = await start(start_gateway, origin, tmp_path)
    requests = [ask("/o/a", "X-A: 1", trace(n)) for n in range(3)]
    requests += [ask("/o/a", trace(n), "X-A: 1") for n in range(3, 6)]
    requests += [ask("/o/a", "X-A: 1")] * 2
    async with await Wire.open(running.port) as client:
        for answer in await heard(client, *requests):
            assert answer.status == 200
    assert len(memos(running)) == 1
    traces = [seen.get("traceparent") for seen in origin.seen]
    assert traces == [*(trace(n).partition(": ")[2] for n in range(6)), None, None]
    for seen in origin.seen:
        assert seen.get("x-a") == "1"


@pytest.mark.parametrize(
    "line",
    [
        trace(1)[:-1],
        trace(1) + "0",
        trace(1)[:-1] + "\t",
        trace(1)[:-1] + "\xe4",
        trace(1)[:-1] + "\x00",
        trace(1)[:-1] + "\r",
        trace(1)[:-1] + "\n",
    ],
)
async def test_what_is_no_trace_is_read_as_ever(
    tmp_path: Path, start_gateway: StartGateway, start_origin: StartOrigin, line: str
) -> None:
    origin: RawOrigin = await start_origin(Gate())
    running = await start(start_gateway, origin, tmp_path)
    async with await Wire.open(running.port) as client:
        for number in range(TIMES):
            await client.ask(ask("/o/a", trace(number)))
        data = ask("/o/a", "@").replace(b"@", line.encode("latin-1"))
        answer = await client.ask(data)
    is_well_formed = all(char >= " " or char == "\t" for char in line)
    assert answer.status == (200 if is_well_formed else 400)
    if is_well_formed:
        value = origin.seen[-1].get("traceparent")
        assert value == line.partition(": ")[2].strip("\t")


async def test_two_traces_are_two_lines(
    tmp_path: Path, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin: RawOrigin = await start_origin(Gate())
    running = await start(start_gateway, origin, tmp_path)
    async with await Wire.open(running.port) as client:
        for number in range(TIMES):
            await client.ask(ask("/o/a", trace(number), trace(9)))
    for number, seen in enumerate(origin.seen):
        values = [value for name, value in seen.lines if name == "traceparent"]
        assert values == [trace(n).partition(": ")[2] for n in (number, 9)]


async def test_a_trace_behind_the_end_is_no_part_of_the_head(
    tmp_path: Path, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    """Cut out, it would leave a request that is well known."""
    origin: RawOrigin = await start_origin(Gate())
    running = await start(start_gateway, origin, tmp_path)
    known = ask("/o/a", "X-A: 1")
    async with await Wire.open(running.port) as client:
        for _ in range(TIMES):
            await client.ask(known)
        await client.send(known + trace(1).encode() + b"\r\n")
        assert (await client.read_answer()).status == 200
        await client.send(b"\r\n")
        assert (await client.read_answer()).status == 400
    assert len(origin.seen) == TIMES + 1


async def test_what_goes_by_the_trace_is_told_apart_by_it(
    tmp_path: Path, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    running = await start_gateway(
        await start_origin(),
        routes=ROUTE.replace("upstream: origin}", "upstream: origin, limits: [one]}"),
        limits='one: {algorithm: fixed_window, rate: 2/d, key: ["header:Traceparent"]}',
    )
    async with await Wire.open(running.port) as client:
        for number in range(6):
            statuses = [(await client.ask(ask("/a", trace(number)))).status for _ in range(3)]
            assert statuses == [200, 200, 429]


async def test_a_memo_is_one_peers(start_gateway: StartGateway, start_origin: StartOrigin) -> None:
    running = await start_gateway(
        await start_origin(),
        routes=ROUTE.replace("upstream: origin}", "upstream: origin, limits: [one]}"),
        limits="one: {algorithm: fixed_window, rate: 3/d, key: [ip]}",
    )
    for peer in ("127.0.0.1", "127.0.0.2"):
        async with await Wire.open(running.port, local_addr=(peer, 0)) as client:
            statuses = [(await client.ask(ask("/a"))).status for _ in range(4)]
            assert statuses == [200, 200, 200, 429]
    assert len(memos(running)) == 2


async def test_a_reload_forgets_them(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    running = await start_gateway(await start_origin())
    async with await Wire.open(running.port) as client:
        for _ in range(TIMES):
            assert (await client.ask(ask("/a"))).status == 200
        await reload(running, *ELSEWHERE)
        assert len(memos(running)) == 0
        for _ in range(TIMES):
            assert (await client.ask(ask("/a"))).status == 404
        assert len(memos(running)) == 0, "what has no place is nobody's memo"
        await reload(running, *reversed(ELSEWHERE))
        for _ in range(TIMES):
            assert (await client.ask(ask("/a"))).status == 200


async def test_stricter_bounds_hold_for_what_is_known_elsewhere(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    running = await start_gateway(await start_origin(), server="max_headers: 5")
    wide = ask("/a", "A: 1", "B: 1", "C: 1", "D: 1")
    async with await Wire.open(running.port) as old:
        for _ in range(TIMES):
            assert (await old.ask(wide)).status == 200
        await reload(running, "max_headers: 5", "max_headers: 4")
        for _ in range(TIMES):
            assert (await old.ask(wide)).status == 200  # as when its connection was made
        async with await Wire.open(running.port) as new:
            assert (await new.ask(wide)).status == 431


async def test_a_trace_counts_as_a_line(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    running = await start_gateway(await start_origin(), server="max_headers: 3")
    async with await Wire.open(running.port) as client:
        for _ in range(TIMES):
            assert (await client.ask(ask("/a", "A: 1", "B: 1"))).status == 200
        assert (await client.ask(ask("/a", "A: 1", "B: 1", trace(1)))).status == 431


async def test_the_name_that_a_trusted_peer_gives_stays(
    tmp_path: Path, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    """And one that is no name is replaced, each time anew."""
    running = await start_gateway(await start_origin())
    async with await Wire.open(running.port) as client:
        for _ in range(TIMES):
            answer = await client.ask(ask("/a", "X-Request-Id: mine"))
            assert answer.get("X-Request-Id") == "mine"
        made = {
            (await client.ask(ask("/a", "X-Request-Id: no name"))).get("X-Request-Id")
            for _ in range(TIMES)
        }
        assert len(made) == TIMES


async def test_limits_caches_and_conditions(
    tmp_path: Path, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    origin: RawOrigin = await start_origin(Gate())
    running = await start(start_gateway, origin, tmp_path, way=Way())
    async with await Wire.open(running.port) as client:
        limited = await heard(client, *[ask("/l/a")] * 5)
        assert [answer.status for answer in limited] == [200, 200, 429, 429, 429]
        cached = await heard(client, *[ask("/c/a", trace(n)) for n in range(5)])
        assert ["; hit;" in str(answer.get("Cache-Status")) for answer in cached] == (
            [False] + [True] * 4
        )
        again = [ask("/c/a", 'If-None-Match: "v1"')] * 4
        assert [answer.status for answer in await heard(client, *again)] == [304] * 4
    assert sum(seen.target == "/c/a" for seen in origin.seen) == 1


async def test_what_is_answered_at_the_door_is_no_routes(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    running = await start_gateway(await start_origin(), server="health_path: /healthz")
    async with await Wire.open(running.port) as client:
        for _ in range(TIMES):
            assert (await client.ask(ask("/healthz"))).body == b"ready\n"
    front = running.gateway._front
    assert front is not None
    route = front.snapshot.table.find("GET", "a", "/healthz", Fields())
    assert isinstance(route, Match)
    assert route.item.tally.requests == {}
    assert front._metrics.no_route.requests == {("GET", 200): TIMES}


async def test_nothing_is_kept_of_long_ones(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    running = await start_gateway(await start_origin())
    long = ask("/a", "X-A: " + "a" * 2048)
    async with await Wire.open(running.port) as client:
        for _ in range(3):  # an odd number: the second time takes out what the first put down
            assert (await client.ask(long)).status == 200
    assert len(memos(running)) == 0
    assert not memos(running)._once


async def test_a_reload_leaves_none_to_idle_connections(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    running = await start_gateway(await start_origin())
    async with await Wire.open(running.port) as client:
        for _ in range(TIMES):
            assert (await client.ask(ask("/a"))).status == 200
        old = memos(running)
        assert len(old) == 1
        await reload(running, *ELSEWHERE)
        assert len(old) == 0
        assert memos(running) is not old
