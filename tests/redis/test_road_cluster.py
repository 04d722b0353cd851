"""The road to a Redis Cluster of three nodes: whose key is whose, MOVED and ASK while slots change
hands under load, and one node in trouble."""

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator

import pytest
from redisservers import RedisServer, RedisServers
from road_kit import INCR, Lua, a_road, at_once, blocking, eventually, outcome

from proxy.store.ports import StoreError
from proxy.store.redis.road_port import Road

PAIR = Lua("pair", "return {redis.call('INCR', KEYS[1]), redis.call('INCR', KEYS[2])}")


def url(servers: list[RedisServer]) -> str:
    nodes = ",".join(f"{server.host}:{server.port}" for server in servers)
    return f"redis+cluster://{nodes}"


def owner(servers: list[RedisServer], slot: int) -> RedisServer:
    """The server that has the slot, by its own word."""
    for first, last, (_, port, *_), *_ in servers[0].call("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return next(server for server in servers if server.port == port)
    raise AssertionError(f"nobody has the slot {slot}")


def node_id(server: RedisServer) -> str:
    with server.client() as client:
        return client.execute_command("CLUSTER MYID").decode()


class Move:
    """A slot on its way from its server to another, step by step."""

    def __init__(self, servers: list[RedisServer], slot: int) -> None:
        self.servers = servers
        self.slot = slot
        self.source = owner(servers, slot)
        self.target = next(server for server in servers if server is not self.source)

    def begin(self) -> "Move":
        self.target.call("CLUSTER", "SETSLOT", self.slot, "IMPORTING", node_id(self.source))
        self.source.call("CLUSTER", "SETSLOT", self.slot, "MIGRATING", node_id(self.target))
        return self

    def keys(self) -> list[bytes]:
        return self.source.call("CLUSTER", "GETKEYSINSLOT", self.slot, 1_000)

    def carry(self, key: bytes) -> None:
        self.source.call("MIGRATE", self.target.host, self.target.port, key, 0, 1_000)

    def end(self) -> None:
        for key in self.keys():
            self.carry(key)
        new = node_id(self.target)
        for server in (self.target, self.source, *self.servers):
            server.call("CLUSTER", "SETSLOT", self.slot, "NODE", new)


def in_slot(road: Road, tag: bytes, count: int) -> list[bytes]:
    return [b"{%s}%d" % (tag, n) for n in range(count)]


@contextlib.contextmanager
def moved_back(servers: list[RedisServer], slot: int) -> Iterator[Move]:
    """A move that is undone: the session's cluster is as it was."""
    move = Move(servers, slot)
    home = move.source
    try:
        yield move
    finally:
        if owner(servers, slot) is not home:
            back = Move(servers, slot)
            back.target = home
            back.begin().end()


async def test_every_key_finds_its_server(redis_cluster: list[RedisServer]) -> None:
    async with a_road(url(redis_cluster)) as road:
        keys = [b"key%d" % n for n in range(300)]
        assert await asyncio.gather(*(road.run(INCR, [key], []) for key in keys)) == [1] * 300
        sizes = [await blocking(server.call, "DBSIZE") for server in redis_cluster]
        assert sum(sizes) == 300
        assert all(sizes)


async def test_a_tag_decides_the_slot(redis_cluster: list[RedisServer]) -> None:
    async with a_road(url(redis_cluster)) as road:
        assert road.cluster
        for key in (b"{user1000}.following", b"foo{}{bar}", b"foo{{bar}}zap", b"123456789"):
            assert road.slot(key) == await blocking(
                redis_cluster[0].call, "CLUSTER", "KEYSLOT", key
            )
        assert await road.run(PAIR, [b"{t}1", b"{t}2"], []) == [1, 1]
        with pytest.raises(StoreError) as refused:
            await road.run(PAIR, [b"a", b"b"], [])
        assert refused.value.reason == "refused"


async def test_one_seed_of_many_is_enough(redis_cluster: list[RedisServer]) -> None:
    seeds = f"redis+cluster://127.0.0.1:1,localhost:1,127.0.0.1:{redis_cluster[1].port}"
    async with a_road(seeds) as road:
        assert await road.run(INCR, [b"k"], []) == 1
        assert len(road.status()["servers"]) == 3


async def test_a_cluster_that_is_not_there(redis_servers: RedisServers) -> None:
    async with a_road("redis+cluster://127.0.0.1:1", up=False) as road:
        assert await outcome(road.run(INCR, [b"k"], [])) == "down"
        assert await outcome(road.probe()) == "down"
        assert await outcome(road.publish("c", b"m")) == "down"
        assert not await road.up(0.05)
        assert not road.status()["connected"]


async def test_a_server_that_is_no_cluster_is_told(redis_server: RedisServer) -> None:
    async with a_road(f"redis+cluster://127.0.0.1:{redis_server.port}", up=False) as road:
        await eventually(lambda: "cluster support disabled" in road.status()["reason"])


async def test_moved_is_followed_and_learnt(redis_cluster: list[RedisServer]) -> None:
    async with a_road(url(redis_cluster)) as road:
        slot = road.slot(b"{m}")
        keys = in_slot(road, b"m", 20)
        await asyncio.gather(*(road.run(INCR, [key], []) for key in keys))
        with moved_back(redis_cluster, slot) as move:
            await blocking(lambda: move.begin().end())
            await blocking(move.source.call, "CONFIG", "RESETSTAT")
            counts = await asyncio.gather(*(road.run(INCR, [key], []) for key in keys))
            assert counts == [2] * 20
            await blocking(move.source.call, "CONFIG", "RESETSTAT")
            assert await road.run(INCR, [keys[0]], []) == 3
            stats = await blocking(move.source.call, "INFO", "commandstats")
            assert "cmdstat_evalsha" not in stats, "it is not asked any more"


async def test_ask_is_followed_for_this_call_only(redis_cluster: list[RedisServer]) -> None:
    async with a_road(url(redis_cluster)) as road:
        slot = road.slot(b"{a}")
        with moved_back(redis_cluster, slot) as move:
            await road.run(INCR, [b"{a}there"], [])
            await blocking(move.begin)
            assert await road.run(INCR, [b"{a}new"], []) == 1, "it is born on the new server"
            assert await blocking(move.source.call, "CLUSTER", "COUNTKEYSINSLOT", slot) == 1
            assert await road.run(INCR, [b"{a}there"], []) == 2
            await blocking(move.end)
            assert await road.run(INCR, [b"{a}there"], []) == 3
            assert await road.run(INCR, [b"{a}new"], []) == 2


async def test_plain_commands_are_led_as_scripts_are(redis_cluster: list[RedisServer]) -> None:
    async with a_road(url(redis_cluster)) as road:
        with moved_back(redis_cluster, road.slot(b"{p}")) as move:
            await road.ask((b"SET", b"{p}there", b"1"))
            await blocking(move.begin)
            await road.ask((b"SET", b"{p}new", b"2"))
            assert await road.ask((b"GET", b"{p}there")) == b"1"
            assert await road.ask((b"GET", b"{p}new")) == b"2"
            await blocking(move.end)
            assert await road.ask((b"GET", b"{p}there")) == b"1"
            assert await outcome(road.ask((b"INCR", b"{p}there", b"x"))) == "refused"


async def test_keys_in_two_places_are_refused_in_time(redis_cluster: list[RedisServer]) -> None:
    """TRYAGAIN: asked again while the deadline lasts, and answered as soon as both are together."""
    async with a_road(url(redis_cluster), timeout=0.1) as road:
        slot = road.slot(b"{t}")
        with moved_back(redis_cluster, slot) as move:
            await road.run(PAIR, [b"{t}1", b"{t}2"], [], timeout=5.0)
            await blocking(move.begin)
            await blocking(move.carry, b"{t}1")
            began = time.monotonic()
            assert await outcome(road.run(PAIR, [b"{t}1", b"{t}2"], [])) == "refused"
            assert 0.08 < time.monotonic() - began < 5.0
            patient = asyncio.ensure_future(road.run(PAIR, [b"{t}1", b"{t}2"], [], timeout=5.0))
            await asyncio.sleep(0.02)
            await blocking(move.carry, b"{t}2")
            assert await patient == [2, 2]
            await blocking(move.end)


async def test_nothing_is_lost_or_counted_twice_while_a_slot_moves(
    redis_cluster: list[RedisServer],
) -> None:
    async with a_road(url(redis_cluster), timeout=1.0) as road:
        slot = road.slot(b"{x}")
        keys = in_slot(road, b"x", 40)
        answered = 0
        failures: list[str] = []
        stop = asyncio.Event()

        async def load(place: int) -> None:
            nonlocal answered
            while not stop.is_set():
                for key in keys[place::4]:
                    said = await outcome(road.run(INCR, [key], []))
                    if isinstance(said, int):
                        answered += 1
                    else:
                        failures.append(said)

        with moved_back(redis_cluster, slot) as move:
            tasks = [asyncio.ensure_future(load(place)) for place in range(4)]
            await eventually(lambda: answered > 200)
            await blocking(move.begin)
            for key in await blocking(move.keys):
                await blocking(move.carry, key)
            await blocking(move.end)
            seen = answered
            await eventually(lambda: answered > seen + 200)
            stop.set()
            await asyncio.gather(*tasks)
            held = [int(await blocking(move.target.call, "GET", key)) for key in keys]
        assert failures == []
        assert sum(held) == answered


async def test_one_node_in_trouble_is_its_keys_trouble(
    redis_cluster: list[RedisServer],
) -> None:
    """A silent node costs its own keys a deadline, soon not even that; the others go on."""
    async with a_road(url(redis_cluster), timeout=0.25) as road:
        ill = redis_cluster[1]
        keys = [b"key%d" % n for n in range(60)]
        await asyncio.gather(*(road.run(INCR, [key], []) for key in keys))
        theirs = {
            key: (await blocking(owner, redis_cluster, road.slot(key))) is ill for key in keys[:12]
        }
        assert {True, False} == set(theirs.values())
        await road.probe()
        with ill.paused():
            for key, is_ill in theirs.items():
                said = await outcome(road.run(INCR, [key], []))
                assert (said in ("timeout", "down")) is is_ill, key
            with pytest.raises(StoreError) as trouble:
                await road.run(INCR, [next(key for key, ill in theirs.items() if ill)], [])
            assert trouble.value.partial
            await asyncio.sleep(0.2)
            for key, is_ill in theirs.items():
                call = road.run(INCR, [key], [])
                if is_ill:
                    assert at_once(call) in ("timeout", "down")
                else:
                    assert isinstance(await outcome(call), int)
            with pytest.raises(StoreError) as trouble:
                await road.probe()
            assert trouble.value.partial, "most of it could count"
            with redis_cluster[0].paused():
                with pytest.raises(StoreError) as trouble:
                    await road.probe()
                assert not trouble.value.partial
        await eventually(lambda: _probed(road))


async def _probed(road: Road) -> bool:
    await road.probe()
    return True


async def test_a_node_that_ends_and_comes_back(frail_cluster: list[RedisServer]) -> None:
    servers = frail_cluster
    async with a_road(url(servers), timeout=10.0) as road:
        gone = servers[2]
        key = next(
            b"key%d" % n for n in range(1_000) if owner(servers, road.slot(b"key%d" % n)) is gone
        )
        await road.run(INCR, [key], [])
        await blocking(gone.kill)
        began = time.monotonic()
        assert await outcome(road.run(INCR, [key], [])) == "down"
        assert time.monotonic() - began < 5.0
        assert str(gone.port) in road.status()["reason"]
        await blocking(gone.start)
        # Its own nodes.conf tells it who it was; it takes no writes for its first two seconds.
        await eventually(lambda: road.run(INCR, [key], []))


@pytest.mark.timeout(120)
async def test_a_replica_takes_over(redis_servers: RedisServers) -> None:
    options = {
        "cluster-require-full-coverage": "no",
        "cluster-node-timeout": 1_000,
        "cluster-replica-validity-factor": 0,  # however long ago it heard of its primary
        "repl-diskless-sync-delay": 0,
    }
    servers = await blocking(lambda: redis_servers.start_cluster(3, options=options))
    primary = servers[0]
    heir = await blocking(redis_servers.start_replica, servers, primary)
    async with a_road(url(servers)) as road:
        keys = [b"key%d" % n for n in range(200)]
        key = next(k for k in keys if owner(servers, road.slot(k)) is primary)
        await road.run(INCR, [key], [])
        await eventually(lambda: _has(heir, key))
        await blocking(primary.kill)
        assert await outcome(road.run(INCR, [key], [])) == "down"
        # An election that is lost for want of time is tried again after 4 s.
        await eventually(lambda: road.run(INCR, [key], []), patience=40)
        assert await blocking(heir.call, "GET", key) == b"2"


async def _has(server: RedisServer, key: bytes) -> bool:
    return await blocking(_get, server, key) is not None


def _get(server: RedisServer, key: bytes) -> object:
    with server.client(single_connection_client=True) as client:
        client.execute_command("READONLY")
        return client.execute_command("GET", key)


async def test_messages_cross_the_cluster(redis_cluster: list[RedisServer]) -> None:
    got: list[bytes] = []
    async with a_road(url(redis_cluster)) as one, a_road(url(redis_cluster)) as two:
        one.subscribe("news", got.append, lambda: None)

        async def published() -> bool:
            await two.publish("news", b"hello")
            return b"hello" in got

        await eventually(published)


async def test_closing_at_any_moment_leaves_nothing_behind(
    redis_cluster: list[RedisServer], redis_server: RedisServer
) -> None:
    """Also while something of redis-py's is on its way to a connection, or to its end."""
    async with a_road(redis_server.url):
        pass  # what the loop opens for itself is open now
    before = sockets()
    for place in range(60):
        for place_of in (url(redis_cluster), redis_server.url):
            async with a_road(place_of, up=False) as road:
                road.subscribe("news", lambda _: None, lambda: None)
                await asyncio.sleep(0.0003 * place)
    assert len(asyncio.all_tasks()) == 1
    await eventually(lambda: sockets() <= before)


def sockets() -> int:
    """The sockets that this process has open."""
    count = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
    return count
