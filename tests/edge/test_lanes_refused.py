"""Requests that are refused again and again: the same bytes, made once, for as long as they are
true."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from edge_kit import ROUTE, Running, StartGateway, StartOrigin
from lanes_kit import Gate, ask, start
from lanes_talk_kit import told
from rawhttp import Answer, Wire

from proxy.edge.serving import Serving
from proxy.edge.writer import Clock
from proxy.exchange import Memo
from proxy.resources import compiled
from proxy.store.charge import Charge

SECOND = 1_000_000
ENOUGH = 5
"""Times after which a refusal is the ready one."""
BURST_OF_TWO = 'two: {algorithm: token_bucket, rate: 1/10s, burst: 2, key: ["path.rest"]}'


class Clocks:
    """The stores' clock and the edge's, which a test sets."""

    def __init__(self) -> None:
        self.now = 1_700_000_000 * SECOND

    def microseconds(self) -> int:
        return self.now


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr("proxy.stores.microseconds", clocks.microseconds)
    return clocks


Refusing = Callable[..., Awaitable[Running]]


@pytest.fixture
def refusing(start_gateway: StartGateway, start_origin: StartOrigin) -> Refusing:
    async def run(limits: str = BURST_OF_TWO, names: str = "two", server: str = "") -> Running:
        routes = ROUTE.replace("upstream: origin}", f"upstream: origin, limits: [{names}]}}")
        return await start_gateway(
            await start_origin(), routes=routes, limits=limits, server=server
        )

    return run


class Ready:
    """Which requests that had been refused were answered by the ready answer. Of the compiled
    build nobody can see that: there `is_` holds whatever it is asked."""

    def __init__(self) -> None:
        self.seen: list[bool] = []

    def is_(self, last: bool) -> bool:
        """Whether the last one was."""
        return compiled() or self.seen[-1] is last

    def were(self, *all_: bool) -> bool:
        """Whether there were such and such."""
        return compiled() or set(self.seen) == set(all_)


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> Ready:
    ready = Ready()
    real = Serving.refuses

    def refuses(self: Serving, memo: Memo, started: float) -> bool:
        ready.seen.append(real(self, memo, started))
        return ready.seen[-1]

    monkeypatch.setattr(Serving, "refuses", refuses)
    return ready


async def hammer(client: Wire, target: str = "/a", times: int = ENOUGH, *lines: str) -> Answer:
    """Asks until the answer is a ready one."""
    for _ in range(times):
        answer = await client.ask(ask(target, *lines))
    return answer


def said(answer: Answer) -> tuple[int, str | None, str | None, bytes]:
    return answer.status, answer.get("Retry-After"), answer.get("RateLimit"), answer.body


async def test_it_says_the_same_with_a_name_of_its_own(
    refusing: Refusing, clocks: Clocks, ready: Ready
) -> None:
    running = await refusing()
    async with await Wire.open(running.port) as client:
        answers = [await client.ask(ask("/a")) for _ in range(8)]
    assert [answer.status for answer in answers] == [200] * 2 + [429] * 6
    first, *others = answers[2:]
    assert said(first)[1:3] == ("10", '"two";r=0;t=10')
    for other in others:
        names = [name for name, _ in other.lines]
        assert names == [name for name, _ in first.lines]
        assert said(other) == said(first)
    assert len({answer.get("X-Request-Id") for answer in answers}) == len(answers)
    assert ready.is_(True)


async def test_seconds_count_down(refusing: Refusing, clocks: Clocks, ready: Ready) -> None:
    running = await refusing()
    async with await Wire.open(running.port) as client:
        await hammer(client)
        ready.seen.clear()
        waits = []
        for _ in range(25):
            clocks.now += SECOND // 2
            waits.append((await client.ask(ask("/a"))).get("Retry-After"))
    # 9.5 s are told as 10, 9 s as 9, and after 10 s the request may pass.
    halves = [str(-(-half // 2)) for half in range(19, 0, -1)]
    assert waits == [*halves, None, *halves][:25]
    assert ready.were(True, False)


async def test_a_clock_that_is_set_back_is_asked_anew(refusing: Refusing, clocks: Clocks) -> None:
    running = await refusing()
    async with await Wire.open(running.port) as client:
        before = await hammer(client)
        clocks.now -= 3 * SECOND
        assert said(await client.ask(ask("/a"))) == said(before)


async def test_a_reset_lets_it_pass(refusing: Refusing, ready: Ready) -> None:
    running = await refusing()
    async with await Wire.open(running.port) as client:
        assert (await hammer(client)).status == 429
        front = running.gateway._front
        assert front is not None
        plan = front.snapshot.limits["two"]
        key = plan.key.digest_values(("a",))
        await running.gateway.limit_store.reset(plan.base.space, key)
        assert ready.is_(True)
        assert (await client.ask(ask("/a"))).status == 200


async def test_a_reload_lets_it_pass(refusing: Refusing) -> None:
    running = await refusing()
    async with await Wire.open(running.port) as client:
        assert (await hammer(client)).status == 429
        text = running.path.read_text()
        running.path.write_text(text.replace(", limits: [two]", ""))
        assert await running.gateway.reload() == []
        assert (await client.ask(ask("/a"))).status == 200


async def test_every_one_is_counted(refusing: Refusing) -> None:
    wide = "wide: {algorithm: fixed_window, rate: 1000/d, key: [global]}"
    running = await refusing(f"{BURST_OF_TWO}\n{wide}", "two, wide")
    async with await Wire.open(running.port) as client:
        await hammer(client, times=12)
    metrics = running.gateway.metrics
    two, of_all = metrics.limit("two"), metrics.limit("wide")
    assert (two.allowed, two.denied) == (2, 10)
    assert (of_all.allowed, of_all.denied) == (12, 0)
    (route,) = [tally for name, tally in metrics.routes.items() if name != "none"]
    assert route.requests == {("GET", 200): 2, ("GET", 429): 10}
    assert sum(route.duration.counts) == 12


async def test_each_of_two_that_refuse_is_told(refusing: Refusing, ready: Ready) -> None:
    other = 'other: {algorithm: fixed_window, rate: 2/d, key: ["path.rest"]}'
    running = await refusing(f"{BURST_OF_TWO}\n{other}", "two, other")
    async with await Wire.open(running.port) as client:
        answer = await hammer(client)
    assert ready.is_(True)
    assert b'"violated-policies": ["two", "other"]' in answer.body
    metrics = running.gateway.metrics
    assert metrics.limit("two").denied == metrics.limit("other").denied == ENOUGH - 2


async def test_another_one_that_comes_to_refuse_is_told_at_once(
    refusing: Refusing, clocks: Clocks, ready: Ready
) -> None:
    """Its requests being refused, the client is not what brings it there."""
    whole = "whole: {algorithm: fixed_window, rate: 4/h, key: [global]}"
    running = await refusing(f"{BURST_OF_TWO}\n{whole}", "two, whole")
    async with await Wire.open(running.port) as client, await Wire.open(running.port) as other:
        answer = await hammer(client)
        assert ready.is_(True)
        assert answer.get("Retry-After") == "10"
        assert (await other.ask(ask("/b"))).status == 200
        answer = await client.ask(ask("/a"))
        assert ready.is_(True), "what still allows it changes nothing"
        assert b'"violated-policies": ["two"]' in answer.body
        assert (await other.ask(ask("/b"))).status == 200
        answer = await client.ask(ask("/a"))
    assert ready.is_(False)
    assert b'"violated-policies": ["two", "whole"]' in answer.body
    assert int(answer.get("Retry-After") or 0) > 10
    metrics = running.gateway.metrics
    assert (metrics.limit("two").denied, metrics.limit("whole").denied) == (5, 1)


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window", "sliding_log",
                                       "token_bucket"])  # fmt: skip
async def test_what_is_given_back_lets_it_pass(
    refusing: Refusing, clocks: Clocks, ready: Ready, algorithm: str
) -> None:
    two = f'two: {{algorithm: {algorithm}, rate: 2/h, key: ["path.rest"]}}'
    running = await refusing(two)
    async with await Wire.open(running.port) as client:
        assert (await hammer(client)).status == 429
        front = running.gateway._front
        assert front is not None
        plan = front.snapshot.limits["two"]
        charge = Charge(plan.base, plan.key.digest_values(("a",)), 1, False)
        charge.at = clocks.now
        await running.gateway.limit_store.give_back([charge])
        assert ready.is_(True)
        assert (await client.ask(ask("/a"))).status == 200


async def test_a_name_that_the_client_gives_stays(refusing: Refusing, ready: Ready) -> None:
    """Also where it stands elsewhere in the answer."""
    running = await refusing()
    for number, name in enumerate(("mine", "4", "application", "t")):
        async with await Wire.open(running.port) as client:
            for _ in range(ENOUGH):
                answer = await client.ask(ask(f"/{number}", f"X-Request-Id: {name}"))
            assert ready.is_(True)
            assert answer.status == 429
            assert answer.get("X-Request-Id") == name
            assert answer.get("Content-Type") == "application/problem+json"


async def test_edits_of_the_route_hold(
    start_gateway: StartGateway, start_origin: StartOrigin, ready: Ready
) -> None:
    edits = "upstream: origin, limits: [two], response_headers: {set: {X-Edited: why}}}"
    running = await start_gateway(
        await start_origin(),
        routes=ROUTE.replace("upstream: origin}", edits),
        limits=BURST_OF_TWO,
    )
    async with await Wire.open(running.port) as client:
        answer = await hammer(client)
    assert ready.is_(True)
    assert answer.get("X-Edited") == "why"


@pytest.mark.parametrize("edit", ["remove: [X-Request-Id]", "set: {X-Request-Id: ours}"])
async def test_a_name_that_is_edited_out_stays_out(
    start_gateway: StartGateway, start_origin: StartOrigin, edit: str
) -> None:
    """And stands nowhere else: behind the head it would shift the body, and all that follows."""
    edits = f"upstream: origin, limits: [two], response_headers: {{{edit}}}}}"
    running = await start_gateway(
        await start_origin(),
        routes=ROUTE.replace("upstream: origin}", edits),
        limits=BURST_OF_TWO,
    )
    async with await Wire.open(running.port) as client:
        answers = [await client.ask(ask("/a")) for _ in range(8)]
    refused = answers[2:]
    assert [answer.status for answer in refused] == [429] * 6
    assert {answer.get("X-Request-Id") for answer in refused} == {
        None if edit.startswith("remove") else "ours"
    }
    assert [answer.body for answer in refused] == [refused[0].body] * 6


@pytest.mark.skipif(compiled(), reason="compiled code does not look up the class that it replaces")
async def test_a_date_is_of_its_second(
    refusing: Refusing, monkeypatch: pytest.MonkeyPatch, ready: Ready
) -> None:
    running = await refusing()
    dates = ["Sun, 06 Nov 1994 08:49:37 GMT"]
    monkeypatch.setattr(Clock, "date", lambda _: dates[0])
    async with await Wire.open(running.port) as client:
        await hammer(client)
        assert ready.is_(True)
        dates[0] = "Sun, 06 Nov 1994 08:49:38 GMT"
        assert (await client.ask(ask("/a"))).get("Date") == dates[0]
        assert ready.is_(False)


async def test_the_last_before_the_end_closes(refusing: Refusing, ready: Ready) -> None:
    """While the gateway drains, each answer says that it was the connection's last."""
    running = await refusing()
    async with await Wire.open(running.port) as client:
        await hammer(client)
        front = running.gateway._front
        assert front is not None
        front.draining = True
        answer = await client.ask(ask("/a"))
        assert (answer.status, answer.get("Connection")) == (429, "close")


async def test_the_log_tells_each(
    tmp_path: Path, start_gateway: StartGateway, start_origin: StartOrigin,
    capfd: pytest.CaptureFixture[str], ready: Ready,
) -> None:  # fmt: skip
    running = await start(start_gateway, await start_origin(Gate()), tmp_path)
    async with await Wire.open(running.port) as client:
        for _ in range(6):
            answer = await client.ask(ask("/l/a"))
    assert ready.is_(True)
    await running.gateway.stop()
    lines = told(capfd.readouterr().out)
    refused = [line for line in lines if line["status"] == 429]
    assert len(refused) == 4
    assert refused == [refused[0]] * 4
    assert refused[0]["denied"] == ["two"]
    assert refused[0]["bytes"] == len(answer.body)
