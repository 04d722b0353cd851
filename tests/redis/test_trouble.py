"""Redis in trouble, under load: what requests see, how long they wait, what is still limited, and
how soon counting is shared again. Real servers, on the loop that production uses."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from guard_kit import Guarded, Load, charge, guarded, limit
from redisservers import RedisServer, RedisServers
from road_kit import SILENCE, Relay, Trio, blocking, eventually, sooner_or_later

LOCAL = limit("local", on_failure="local")
ALLOW = limit("allow", on_failure="allow")
DENY = limit("deny", on_failure="deny")

BACK_WITHIN = 5.0
"""Seconds after which counting is shared again, on a machine that may be busy."""
BACK_SOON = 0.8
"""The same where the machine is not, whenever in its round the way back begins: the wait to connect
again is half a second, a probe comes every quarter."""
LONG = 3.0
"""Seconds that no request takes: it waits for a deadline of 200 ms, not for the trouble's end."""


class Trouble:
    """A server, and a way into trouble and out of it."""

    def __init__(self, server: RedisServer, relay: Relay) -> None:
        self.server = server
        self.relay = relay

    async def begin(self) -> None:
        raise NotImplementedError

    async def end(self) -> None:
        raise NotImplementedError


class Killed(Trouble):
    async def begin(self) -> None:
        await blocking(self.server.kill)

    async def end(self) -> None:
        await blocking(self.server.start)


class Paused(Trouble):
    async def begin(self) -> None:
        self.server.pause()

    async def end(self) -> None:
        self.server.resume()


class OutOfMemory(Trouble):
    async def begin(self) -> None:
        await blocking(self.server.call, "CONFIG", "SET", "maxmemory", 1)

    async def end(self) -> None:
        await blocking(self.server.call, "CONFIG", "SET", "maxmemory", 0)


class Slow(Trouble):
    async def begin(self) -> None:
        self.relay.delay = 0.6

    async def end(self) -> None:
        self.relay.delay = 0.0


class Vanished(Trouble):
    """Nothing comes through, no connection ends."""

    async def begin(self) -> None:
        self.relay.suffer(SILENCE)

    async def end(self) -> None:
        self.relay.recover()


class Held(Trouble):
    """CLIENT PAUSE: reads are answered, writes wait."""

    async def begin(self) -> None:
        await blocking(self.server.call, "CLIENT", "PAUSE", 60_000, "WRITE")

    async def end(self) -> None:
        await blocking(self.server.call, "CLIENT", "UNPAUSE")


KINDS = [Killed, Paused, OutOfMemory, Slow, Vanished, Held]


@asynccontextmanager
async def relayed(servers: RedisServers) -> AsyncIterator[tuple[RedisServer, Relay, str]]:
    server = await blocking(servers.start)
    async with Relay(server.port) as relay:
        yield server, relay, f"redis://127.0.0.1:{relay.port}"


@pytest.mark.parametrize("kind", KINDS)
async def test_no_request_suffers(
    redis_servers: RedisServers, kind: Callable[[RedisServer, Relay], Trouble]
) -> None:
    """Load ends at any exception that is not agreed on, and at any request that waits while the
    breaker is open."""
    async with relayed(redis_servers) as (server, relay, url), guarded(url) as made:
        load = Load(made, LOCAL, ALLOW)
        await load.more(200)
        assert made.errors == 0
        load.slowest = 0.0
        trouble = kind(server, relay)
        await trouble.begin()
        await eventually(lambda: not made.breaker.closed)
        await load.more(500)
        assert load.uncounted > 0
        assert load.slowest < LONG
        await trouble.end()
        assert await eventually(made.healthy) < BACK_WITHIN
        degraded = made.metrics.limit("local").degraded
        await load.more(200)
        await load.end()
        assert made.metrics.limit("local").degraded == degraded, "all is shared again"


async def test_what_must_not_be_guessed_is_refused(redis_servers: RedisServers) -> None:
    async with relayed(redis_servers) as (server, relay, url), guarded(url) as made:
        load = Load(made, DENY)
        await load.more(100)
        assert load.unavailable == 0
        trouble = Killed(server, relay)
        await trouble.begin()
        await eventually(lambda: load.unavailable > 100)
        await trouble.end()
        await eventually(made.healthy)
        refused = load.unavailable
        await load.more(100)
        await load.end()
        assert load.unavailable - refused <= 8, "those that were under way"


@pytest.mark.parametrize("kind", KINDS)
async def test_the_way_back_takes_less_than_a_second(
    redis_servers: RedisServers, kind: Callable[[RedisServer, Relay], Trouble]
) -> None:
    """Counted from a probe that has just failed: the next one is as far away as it can be."""
    async with relayed(redis_servers) as (server, relay, url), guarded(url) as made:
        trouble = kind(server, relay)
        probes = made.metrics.store("probe")

        async def back_in_time() -> bool:
            load = Load(made, DENY)
            await load.more(20)
            await trouble.begin()
            await eventually(lambda: load.unavailable > 20)
            failed = probes.errors
            await eventually(lambda: probes.errors > failed)
            await trouble.end()
            seconds = await eventually(lambda: made.breaker.closed)
            refused = load.unavailable
            await load.more(50)
            await load.end()
            assert load.unavailable - refused <= 8, "those that were under way"
            return seconds < BACK_SOON

        await sooner_or_later(back_in_time)


async def test_scripts_flushed_under_load(redis_server: RedisServer) -> None:
    async with guarded(redis_server.url) as made:
        load = Load(made, LOCAL)
        for _ in range(5):
            await load.more(100)
            await blocking(redis_server.call, "SCRIPT", "FLUSH")
        await load.more(100)
        await load.end()
        assert made.errors == 0


async def test_absent_at_the_start(redis_servers: RedisServers) -> None:
    server = redis_servers.create()
    async with guarded(server.url, up=False) as made:
        assert not made.healthy()
        load = Load(made, LOCAL, ALLOW)
        await load.more(300)
        assert load.slowest < LONG
        await blocking(server.start)
        assert await eventually(made.healthy) < BACK_WITHIN
        await load.more(100)
        await load.end()
        assert await blocking(server.call, "DBSIZE") > 0


async def test_a_failover(redis_servers: RedisServers) -> None:
    trio = await blocking(Trio, redis_servers)
    async with guarded(trio.url()) as made:
        load = Load(made, LOCAL, ALLOW)
        await load.more(100)
        await blocking(trio.primary.kill)
        await eventually(lambda: not made.healthy())
        await load.more(100)
        await eventually(
            lambda: (
                made.road.status()["server"] == f"127.0.0.1:{trio.replica.port}"
                and bool(made.road.status()["connected"])
            )
        )
        assert await eventually(made.healthy) < BACK_WITHIN
        await load.more(100)
        await load.end()
        assert load.slowest < LONG


async def test_a_cluster_that_loses_a_node(frail_cluster: list[RedisServer]) -> None:
    """Two thirds of the keys are counted as before; the others go their own way."""
    servers = frail_cluster
    url = "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers)
    async with guarded(url) as made:
        load = Load(made, LOCAL, ALLOW, clients=24)
        await load.more(300)
        assert made.errors == 0
        await blocking(servers[1].kill)
        await eventually(lambda: made.errors > 50)
        calls = made.metrics.store("admit").duration
        answered = sum(calls.counts) - made.errors
        await load.more(500)
        assert sum(calls.counts) - made.errors - answered > 150, "the others are still asked"
        assert made.breaker.closed
        assert not made.healthy(), "some are decided without it"
        await load.end()
        probes = made.metrics.store("probe")
        failed = probes.errors
        await eventually(lambda: probes.errors > failed + 1)
        assert not made.healthy(), "though nobody asks for them now"
        assert made.breaker.closed
        load = Load(made, LOCAL, ALLOW, clients=24)
        await blocking(servers[1].start)
        await eventually(lambda: bool(made.road.status()["connected"]))
        await eventually(lambda: _calm(made))
        errors = made.errors
        await load.more(300)
        await load.end()
        assert made.errors - errors <= 24
        await eventually(made.healthy)
        assert load.slowest < LONG


async def _calm(made: Guarded) -> bool:
    errors = made.errors
    await asyncio.sleep(0.1)
    return made.errors == errors


async def test_local_goes_on_limiting(redis_servers: RedisServers) -> None:
    """Never above limit x (1 + outages) for one process; exact where the store kept its data."""
    variant = limit("ten", 10)
    server = await blocking(redis_servers.start)
    async with guarded(server.url) as made:
        assert await made.admitted(variant, 4) == 4
        with server.paused():
            await eventually(lambda: _until_open(made))
            assert await made.admitted(variant, 30) == 10, "this process's own"
        await eventually(made.healthy)
        shared = await made.admitted(variant, 30)
        # What the store was asked before the breaker opened, it counted when it woke up.
        assert 0 < shared <= 6
        with server.paused():
            await eventually(lambda: _until_open(made))
            assert await made.admitted(variant, 30) == 0, "it has not forgotten its own count"
        await eventually(made.healthy)
        assert await made.admitted(variant, 30) == 0


async def _until_open(made: Guarded) -> bool:
    await made.limits.admit([charge(limit("other"), 7)])
    return not made.breaker.closed


async def test_data_that_are_lost_are_counted_anew(redis_servers: RedisServers) -> None:
    """A restart without persistence: the limit once more for each outage, and no further."""
    variant = limit("ten", 10)
    server = await blocking(redis_servers.start)
    total = 0
    async with guarded(server.url) as made:
        total += await made.admitted(variant, 30)
        for _ in range(2):
            await blocking(server.kill)
            await eventually(lambda: _until_open(made))
            total += await made.admitted(variant, 30)
            await blocking(server.start)
            await eventually(made.healthy)
            # A denial from before may be remembered for the rest of its second.
            await eventually(lambda: made.admitted(variant, 1))
            total += 1 + await made.admitted(variant, 30)
    assert total == 10 + 2 * 10 + 10, "shared, twice anew, and once alone"


async def test_a_burst_on_a_healthy_store_trips_nothing(redis_server: RedisServer) -> None:
    """1,000 at once, three times, on a loop that is busy for longer than the deadline."""

    async def bursts() -> bool:
        async with guarded(redis_server.url, timeout=0.05) as made:
            for _ in range(3):
                calls = [
                    asyncio.ensure_future(made.limits.admit([charge(LOCAL, n), charge(ALLOW, n)]))
                    for n in range(1_000)
                ]
                await asyncio.sleep(0)
                time.sleep(0.08)  # noqa: ASYNC251  # on purpose
                await asyncio.gather(*calls)
            return made.errors == 0 and made.healthy()

    await sooner_or_later(bursts)


async def test_a_hundred_bursts_of_new_requests(redis_server: RedisServer) -> None:
    """As new connections come: some, and work for the loop, and some more."""

    async def bursts() -> bool:
        async with guarded(redis_server.url, timeout=0.05) as made:
            calls: list[asyncio.Future[object]] = []
            for _ in range(100):
                calls += [
                    asyncio.ensure_future(made.limits.admit([charge(LOCAL, n)])) for n in range(10)
                ]
                time.sleep(0.003)  # noqa: ASYNC251  # on purpose
                await asyncio.sleep(0)
            await asyncio.gather(*calls)
            return made.errors == 0

    await sooner_or_later(bursts)


async def test_two_processes_share_one_count(redis_server: RedisServer) -> None:
    variant = limit("ten", 10)
    async with guarded(redis_server.url) as one, guarded(redis_server.url) as two:
        admitted = await asyncio.gather(
            *(made.admitted(variant, 10) for made in (one, two) for _ in range(2))
        )
        assert sum(admitted) == 10
