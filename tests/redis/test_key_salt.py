"""The salt of shown keys: one for all processes on a store, none that others might not have."""

from contextlib import AsyncExitStack

from redisservers import RedisServer, RedisServers
from road_kit import a_road, blocking, eventually

from proxy.store.redis.key_salt import KeySalt

NAME = "sg:key_salt"


async def test_all_processes_have_one(redis_server: RedisServer) -> None:
    async with AsyncExitStack() as stack:
        roads = [await stack.enter_async_context(a_road(redis_server.url)) for _ in range(3)]
        salts = [await KeySalt(road, "sg").read() for road in roads]
        assert len(set(salts)) == 1
        assert salts[0] == redis_server.call("GET", NAME)
        assert len(salts[0] or b"") == 32
        assert redis_server.call("PTTL", NAME) == -1, "it does not expire"
        assert await KeySalt(roads[0], "other").read() not in (None, salts[0])


async def test_a_cluster_has_one(redis_cluster: list[RedisServer]) -> None:
    url = "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in redis_cluster)
    async with a_road(url) as one, a_road(url) as other:
        salt = await KeySalt(one, "sg").read()
        assert salt is not None
        assert await KeySalt(other, "sg").read() == salt


async def test_it_is_put_back_by_who_knows_it(redis_server: RedisServer) -> None:
    async with a_road(redis_server.url) as road:
        known = KeySalt(road, "sg")
        salt = await known.read()
        redis_server.call("FLUSHALL")
        assert await known.read() == salt
        assert await KeySalt(road, "sg").read() == salt


async def test_what_others_have_by_now_is_taken(redis_server: RedisServer) -> None:
    async with a_road(redis_server.url) as road:
        late = KeySalt(road, "sg")
        await late.read()
        redis_server.call("SET", NAME, "theirs")
        assert await late.read() == b"theirs"


async def test_none_is_made_up_without_the_store(redis_servers: RedisServers) -> None:
    server = redis_servers.create()
    async with a_road(server.url, up=False, timeout=0.2) as road:
        salt = KeySalt(road, "sg")
        assert await salt.read() is None
        await blocking(server.start)
        await eventually(salt.read)
        known = await salt.read()
        assert known == await blocking(server.call, "GET", NAME)
        await blocking(server.kill)
        assert await salt.read() == known, "it is what the others know, too"
