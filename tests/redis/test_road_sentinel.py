"""The road by Sentinel: the primary is found, and found anew when it ends, falls silent, or hands
over; each with calls under way."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Awaitable, Callable

import pytest
from redisservers import RedisServer, RedisServers
from road_kit import INCR, SILENCE, Relay, Trio, a_road, blocking, eventually, outcome

from proxy.store.redis.access import Access
from proxy.store.redis.link import NotServing
from proxy.store.redis.road_port import Road
from proxy.store.redis.topology import Sentinels


@pytest.fixture
def trio(redis_servers: RedisServers) -> Trio:
    return Trio(redis_servers)


class Load:
    """Calls without a pause; what they said, and how long the longest took."""

    def __init__(self, road: Road) -> None:
        self._road = road
        self._stop = False
        self.said: list[object] = []
        self.slowest = 0.0
        self._tasks = [asyncio.ensure_future(self._go(n)) for n in range(8)]

    async def _go(self, place: int) -> None:
        while not self._stop:
            began = time.monotonic()
            self.said.append(await outcome(self._road.run(INCR, [b"k%d" % place], [])))
            self.slowest = max(self.slowest, time.monotonic() - began)
            await asyncio.sleep(0.002)

    async def end(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)


def served_by(road: Road, server: RedisServer) -> Callable[[], bool]:
    return lambda: (
        road.status()["server"] == f"127.0.0.1:{server.port}" and bool(road.status()["connected"])
    )


async def test_the_primary_is_found(trio: Trio) -> None:
    async with a_road(trio.url()) as road:
        assert await road.run(INCR, [b"k"], []) == 1
        assert await blocking(trio.primary.call, "GET", "k") == b"1"


async def kill(trio: Trio) -> None:
    await blocking(trio.primary.kill)


async def pause(trio: Trio) -> None:
    trio.primary.pause()


async def hand_over(trio: Trio) -> None:
    await blocking(trio.sentinel.call, "SENTINEL", "FAILOVER", "main")


@pytest.mark.parametrize("trouble", [kill, pause, hand_over])
async def test_a_failover(trio: Trio, trouble: Callable[[Trio], Awaitable[None]]) -> None:
    async with a_road(trio.url(), timeout=0.2) as road:
        load = Load(road)
        await eventually(lambda: len(load.said) > 50)
        assert all(isinstance(answer, int) for answer in load.said)
        await trouble(trio)
        await eventually(served_by(road, trio.replica))
        load.said.clear()
        await eventually(lambda: any(isinstance(answer, int) for answer in load.said))
        await load.end()
        errors = {answer for answer in load.said if not isinstance(answer, int)}
        assert errors <= {"down", "timeout", "refused"}
        assert load.slowest < 4.0, "twenty deadlines"
        assert await blocking(trio.replica.call, "DBSIZE") >= 8


async def test_a_primary_that_turns_into_a_replica_is_left(trio: Trio) -> None:
    """READONLY: what is no primary any more is asked no longer, though the connection is well."""
    async with a_road(trio.url()) as road:
        await road.run(INCR, [b"k"], [])
        await blocking(trio.replica.call, "REPLICAOF", "NO", "ONE")
        await blocking(trio.primary.call, "REPLICAOF", "127.0.0.1", trio.replica.port)
        said = await outcome(road.run(INCR, [b"k"], []))
        assert said in ("refused", "down")
        await eventually(lambda: road.status().get("reason") == "it is no primary")


@pytest.mark.parametrize("credentials", [":s3cret@", "default:s3cret@"])
async def test_servers_with_a_password(redis_servers: RedisServers, credentials: str) -> None:
    """The credentials are the servers'; a Sentinel without a password is asked without."""
    trio = await blocking(Trio, redis_servers, "s3cret")
    async with a_road(trio.url(credentials)) as road:
        assert await road.run(INCR, [b"k"], []) == 1


async def test_a_sentinel_with_a_password(redis_servers: RedisServers) -> None:
    """It is the servers' own."""
    trio = await blocking(lambda: Trio(redis_servers, "s3cret", sentinel_password="s3cret"))
    async with a_road(trio.url(":s3cret@")) as road:
        assert await road.run(INCR, [b"k"], []) == 1


async def test_one_sentinel_of_many_is_enough(trio: Trio) -> None:
    nodes = f"127.0.0.1:1,127.0.0.1:{trio.sentinel.port}"
    async with a_road(f"redis+sentinel://{nodes}/main") as road:
        assert await road.run(INCR, [b"k"], []) == 1


async def test_a_sentinel_that_is_silent_is_asked_last(trio: Trio) -> None:
    """One time-out, not one at every question: a failover is not found late for it."""
    async with Relay(trio.sentinel.port) as silent:
        silent.suffer(SILENCE)
        nodes = f"127.0.0.1:{silent.port},127.0.0.1:{trio.sentinel.port}"
        async with a_road(f"redis+sentinel://{nodes}/main") as road:
            asked = silent.requests
            await blocking(trio.primary.kill)
            await eventually(served_by(road, trio.replica))
            assert silent.requests == asked


async def test_a_name_that_no_sentinel_knows(trio: Trio) -> None:
    url = f"redis+sentinel://127.0.0.1:{trio.sentinel.port}/other"
    async with a_road(url, up=False) as road:
        await eventually(lambda: "knows nobody of this name" in road.status()["reason"])
        assert await outcome(road.run(INCR, [b"k"], [])) == "down"


async def test_messages_follow_the_primary(trio: Trio) -> None:
    got: list[bytes] = []
    lost: list[bool] = []
    async with a_road(trio.url()) as road:
        road.subscribe("news", got.append, lambda: lost.append(True))

        async def heard() -> bool:
            got.clear()
            await road.publish("news", b"hello")
            await asyncio.sleep(0.02)
            return b"hello" in got

        await eventually(heard)
        await blocking(trio.primary.kill)
        await eventually(served_by(road, trio.replica))
        await eventually(heard)
        assert lost


def reset_each(listener: socket.socket) -> None:
    """From a thread: on the loop's own it would never come within a connect."""
    with contextlib.suppress(OSError):
        while True:
            accepted, _ = listener.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.close()


async def test_a_sentinel_that_resets_connections_is_trouble_and_no_more() -> None:
    """uvloop has a word of its own for a connection that ended before its first write; whoever
    looks for the primary would have ended with it."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        resetting = asyncio.create_task(asyncio.to_thread(reset_each, listener))
        # By name, the reset often comes between the connect and the first write.
        nodes = [("localhost", listener.getsockname()[1])]
        sentinels = Sentinels(Access(), nodes, "main", lambda found: None)
        for _ in range(2000):
            with pytest.raises(NotServing):
                await sentinels.find()
        await sentinels.close()
        listener.shutdown(socket.SHUT_RDWR)
        await resetting
