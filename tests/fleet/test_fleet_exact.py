"""Four gateways of two workers count in one Redis exactly what one would: hammered on one key they
admit what the algorithm allows and no less, a refusal charges nothing, a reload resets nothing,
and a reset is heard everywhere."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from math import ceil, floor
from typing import NamedTuple

import pytest
from gateways import Fleet, StartFleet, until
from load_client import PATIENCE, Client, Load, Origin, Shot, aimed, statuses, volley
from redisservers import RedisServer, RedisServers

ONCE = 400  # units that do not come back within a test
RATE = 40  # a second
BURST = 20
QUEUE = 20
LIMITS = f"""\
limits:
  once-fixed_window: {{algorithm: fixed_window, rate: {ONCE}/month, key: [path.key]}}
  once-sliding_window: {{algorithm: sliding_window, rate: {ONCE}/30d, key: [path.key]}}
  once-sliding_log: {{algorithm: sliding_log, rate: {ONCE}/30d, key: [path.key]}}
  once-token_bucket: {{algorithm: token_bucket, rate: {ONCE}/30d, key: [path.key]}}
  once-leaky_bucket: {{algorithm: leaky_bucket, rate: 1/30d, key: [path.key]}}
  fixed_window: {{algorithm: fixed_window, rate: {RATE}/s, key: [path.key]}}
  sliding_window: {{algorithm: sliding_window, rate: {RATE}/s, key: [path.key]}}
  sliding_log: {{algorithm: sliding_log, rate: {RATE}/s, key: [path.key]}}
  token_bucket: {{algorithm: token_bucket, rate: {RATE}/s, burst: {BURST}, key: [path.key]}}
  leaky_bucket: {{algorithm: leaky_bucket, rate: {RATE}/s, burst: {QUEUE}, key: [path.key]}}
  tight: {{algorithm: sliding_log, rate: 50/30d, key: [path.key]}}
  wide: {{algorithm: token_bucket, rate: 100000/30d, key: [path.key]}}
  wider: {{algorithm: fixed_window, rate: 100000/month, key: [path.key]}}
  reloaded: {{algorithm: fixed_window, rate: 600/month, key: [path.key]}}
"""
PERIODIC = ("fixed_window", "sliding_window", "sliding_log", "token_bucket", "leaky_bucket")
ROUTES = {
    **{f"once-{name}": f"once-{name}" for name in PERIODIC},
    **{name: name for name in PERIODIC},
    "several": "wide, tight, wider",
    "reloaded": "reloaded",
}
TIMEOUT = "5s"  # these tests are about counting: no busy machine may make the store look ill


@pytest.fixture(scope="module")
def redis(redis_servers: RedisServers) -> RedisServer:
    return redis_servers.start()


@pytest.fixture(scope="module")
def fleet(start_fleet: StartFleet, redis: RedisServer) -> Fleet:
    return start_fleet(4, redis.url, LIMITS, ROUTES, timeout=TIMEOUT)


@pytest.mark.parametrize("name", PERIODIC)
async def test_admits_all_there_is_and_no_more(name: str, fleet: Fleet, origin: Origin) -> None:
    """Where nothing comes back in time, what is admitted is a number, not a range."""
    capacity = 1 if name == "leaky_bucket" else ONCE
    target = f"/once-{name}/k"
    before = await fleet.figures()

    shots = await volley(fleet.ports, target, clients=32, each=20)

    assert statuses(shots) == {200: capacity, 429: len(shots) - capacity}
    assert origin.seen[target] == capacity
    # No two requests anywhere were given the same unit.
    assert {shot.left for shot in shots if shot.status == 200} == set(range(capacity))
    figures = await fleet.figures() - before
    assert figures.decided(f"once-{name}", "allowed") == capacity
    assert figures.decided(f"once-{name}", "denied") == len(shots) - capacity
    assert figures.answered(f"once-{name}") == statuses(shots)
    assert figures.store_errors == figures.decided(f"once-{name}", "degraded") == 0


class Span(NamedTuple):
    """By the clock (seconds since the epoch): before the first request, when demand had begun
    everywhere, when it ended, and after the last answer."""

    before: float
    begun: float
    ended: float
    after: float

    @property
    def longest(self) -> float:
        return self.after - self.before

    @property
    def shortest(self) -> float:
        """Seconds with demand above the limits all the time."""
        return self.ended - self.begun

    @property
    def windows(self) -> int:
        """Windows of a second that were touched."""
        return floor(self.after) - floor(self.before) + 1

    @property
    def whole_windows(self) -> int:
        """Windows with demand above the limits all the time."""
        return floor(self.ended) - ceil(self.begun)


class Hammered(NamedTuple):
    span: Span
    shots: dict[str, list[Shot]]
    arrived: Counter[str]


@pytest.fixture(scope="module")
def hammered(fleet: Fleet, origin_port: int) -> Hammered:
    """All five limits at once, one key each, for which the clients of all gateways ask six times as
    often as it lets through. Those of the queue have to be more than it holds, as they wait in it.
    """

    async def hammer() -> Hammered:
        *asking, waiting = (f"/{name}/k" for name in PERIODIC)
        async with Origin(origin_port) as origin:
            before = time.time()
            async with (
                Load(fleet.ports, asking, each=3, pause=0.05) as load,
                Load(fleet.ports, [waiting], each=QUEUE // 2, pause=0.05) as queue,
            ):
                while len(load.shots) < 2 * load.clients or len(queue.shots) < queue.clients:
                    await asyncio.sleep(0.001)
                begun = time.time()
                await asyncio.sleep(3)
                ended = time.time()
            span = Span(before, begun, ended, time.time())
        shots = load.shots + queue.shots
        return Hammered(span, {name: aimed(shots, f"/{name}/k") for name in PERIODIC}, origin.seen)

    return asyncio.run(hammer())


BOUNDS: dict[str, Callable[[Span], tuple[float, float]]] = {
    # Windows begin at whole seconds of the server's clock, which is ours.
    "fixed_window": lambda span: (RATE * span.whole_windows, RATE * span.windows),
    # Within one window no more than a window's worth, whatever the one before had.
    "sliding_window": lambda span: (RATE * span.whole_windows, RATE * span.windows),
    "sliding_log": lambda span: (RATE * floor(span.shortest), RATE * ceil(span.longest)),
    "token_bucket": lambda span: (RATE * span.shortest, BURST + RATE * span.longest),
    # The first leaves at once, each of the others 1/RATE after the one before.
    "leaky_bucket": lambda span: (RATE * span.shortest, 1 + RATE * span.longest),
}
"""The least and the most that may be admitted by algorithm."""


@pytest.mark.parametrize("name", PERIODIC)
async def test_admits_what_time_allows(name: str, hammered: Hammered) -> None:
    span, shots = hammered.span, hammered.shots[name]
    counts = statuses(shots)
    least, most = BOUNDS[name](span)
    assert set(counts) == {200, 429}
    assert counts[200] == hammered.arrived[f"/{name}/k"]
    assert 0.9 * least <= counts[200] <= most
    if name == "fixed_window":  # a unit of a window goes to one request
        units = Counter(shot.left for shot in shots if shot.status == 200)
        assert set(units) == set(range(RATE))
        assert span.whole_windows <= min(units.values())
        assert max(units.values()) <= span.windows


async def test_a_refusal_charges_no_other_limit(fleet: Fleet, origin: Origin) -> None:
    """Of the route's three limits the one in the middle denies."""
    before = await fleet.figures()
    shots = await volley(fleet.ports, "/several/k", clients=32, each=8)
    assert statuses(shots) == {200: 50, 429: len(shots) - 50}
    assert origin.seen["/several/k"] == 50
    assert {shot.get("ratelimit-policy") is None for shot in shots} == {False}
    assert all(b'"violated-policies": ["tight"]' in s.body for s in shots if s.status == 429)
    for limit in ("wide", "wider"):
        stands = [left["remaining"] for _, left in await fleet.ask("GET", f"/limits/{limit}?key=k")]
        assert stands == [100_000 - 50] * len(fleet.gateways)
    figures = await fleet.figures() - before
    assert figures.decided("tight", "denied") == len(shots) - 50
    assert figures.decided("tight", "allowed") == 50


async def test_scripts_that_are_flushed_are_not_missed(
    fleet: Fleet, redis: RedisServer, origin: Origin
) -> None:
    before = await fleet.figures()
    target = "/once-sliding_window/flushed"
    async with Load(fleet.ports, [target], each=4) as load:
        for _ in range(8):
            await asyncio.sleep(0.05)
            await asyncio.to_thread(redis.call, "SCRIPT", "FLUSH")
    assert statuses(load.shots) == {200: ONCE, 429: len(load.shots) - ONCE}
    assert origin.seen[target] == ONCE
    assert (await fleet.figures() - before).store_errors == 0


async def test_a_reset_is_heard_everywhere_at_once(fleet: Fleet, origin: Origin) -> None:
    """Every process remembers a denial, for a second. A reset through one gateway ends that in
    all of them well before."""
    async with AsyncExitStack() as stack:
        clients = [await Client.open(port) for port in fleet.ports for _ in range(8)]
        for client in clients:
            stack.callback(client.close)

        async def ask_until(status: int, target: str) -> None:
            """Every client, until it is answered so."""

            async def ask(client: Client) -> None:
                async with asyncio.timeout(PATIENCE):
                    while (await client.get(target)).status != status:
                        pass

            await asyncio.gather(*(ask(client) for client in clients))

        for turn in range(5):  # a pause of this machine may take the second up
            target = f"/several/turn{turn}"
            began = time.monotonic()
            await ask_until(429, target)
            answer = await fleet.gateways[0].ask("DELETE", f"/limits/tight?key=turn{turn}")
            assert answer == (204, None)
            await ask_until(200, target)
            if time.monotonic() - began < 0.9:
                return
    pytest.fail("no reset was heard before the denials were forgotten anyway")


async def test_a_reload_under_load_counts_on(fleet: Fleet, origin: Origin) -> None:
    """All gateways are reloaded, by signal and by call, while their clients use the limit up."""
    target = "/reloaded/k"

    async def used(share: float) -> None:
        async def enough() -> bool:
            return origin.seen[target] >= share * 600

        await until(enough, f"{share:.0%} are used")

    async with Load(fleet.ports, [target], each=4, pause=0.04) as load:
        for turn in range(1, 4):
            await used(turn / 5)
            for gateway in fleet.gateways:
                gateway.write(f"round{turn}")
            if turn % 2:
                assert {status for status, _ in await fleet.ask("POST", "/config/reload")} == {200}
            else:
                for gateway in fleet.gateways:
                    gateway.hang_up()
        await used(1)
        await asyncio.sleep(0.2)
    assert statuses(load.shots) == {200: 600, 429: len(load.shots) - 600}
    assert origin.seen[target] == 600
    assert {shot.left for shot in load.shots if shot.status == 200} == set(range(600))
    assert {shot.get("x-round") for shot in load.shots} == {"first", "round1", "round2", "round3"}
