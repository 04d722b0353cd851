"""The shared tier in Redis: what is put is found, and nothing else."""

import asyncio
from dataclasses import replace

import pytest
from road_kit import blocking
from shared_kit import HOUR, KEY, LARGE, Listener, a_cache, kept, now

from proxy.core.cache import vary
from proxy.core.cache.record import Stored
from proxy.core.fields import Fields
from proxy.store.ports import Kept, Mark, Purge
from proxy.store.redis.cache_names import CacheNames

NAMES = CacheNames("t")
OTHER = bytes(16)


def bodies(server) -> list[bytes]:
    return list(server.call("KEYS", "t:b:*"))


async def found(cache, key: bytes = KEY) -> list[tuple[Stored, bytes | None]]:
    """Everything under a key, bodies fetched."""
    looked = await cache.lookup(key)
    return [
        (one.stored, one.body if one.body is not None else await cache.body(key, one))
        for one in looked.variants
    ]


@pytest.mark.parametrize("body", [b"", b"hello", LARGE], ids=["empty", "small", "large"])
async def test_what_is_put_is_found(redis_server, body):
    async with a_cache(redis_server) as cache:
        one = kept(await now(cache), body, tags=("a", "\0path:1"), vary=(("accept", None),))
        await cache.put(KEY, one, 10_000)
        assert await found(cache) == [(one.stored, body)]
        (again,) = (await cache.lookup(KEY)).variants
        assert (again.target, again.began) == ("/a", one.began)
        assert (again.body is None) == (body == LARGE)
        assert await found(cache, OTHER) == []


async def test_it_is_found_in_a_cluster(redis_cluster):
    async with a_cache(*redis_cluster, kind="cluster") as cache:
        for number in range(20):
            key = number.to_bytes(16, "big")
            one = kept(await now(cache, key), LARGE if number % 2 else b"small", tags=("a", "b"))
            await cache.put(key, one, 10_000)
            assert await found(cache, key) == [(one.stored, one.body)]
        await cache.purge(Purge(("b",)))
        for number in range(20):
            assert await found(cache, number.to_bytes(16, "big")) == []


async def test_every_server_does(every_redis):
    every_redis.call("FLUSHALL")
    async with a_cache(every_redis) as cache:
        one = kept(await now(cache), LARGE, tags=("a",))
        await cache.put(KEY, one, 10_000)
        assert await found(cache) == [(one.stored, LARGE)]
        await cache.purge(Purge(("a",), soft=True))
        await cache.purge(Purge(prefix="/b"))
        assert await found(cache) == [(one.stored, LARGE)]
        await cache.purge(Purge(("a",)))
        assert await found(cache) == []


async def test_variants_stand_beside_each_other_and_take_their_own_place(redis_server):
    async with a_cache(redis_server) as cache:
        began = await now(cache)
        for vary in ((("accept", "a"),), (("accept", "b"),), (("accept", None),)):
            await cache.put(KEY, kept(began, b"1", vary=vary), HOUR)
        await cache.put(KEY, kept(began, b"2", vary=(("accept", "a"),)), HOUR)
        assert {(one.vary, body) for one, body in await found(cache)} == {
            ((("accept", "a"),), b"2"),
            ((("accept", "b"),), b"1"),
            ((("accept", None),), b"1"),
        }


async def test_a_get_takes_the_place_of_a_head_not_the_other_way_round(redis_server):
    async with a_cache(redis_server) as cache:
        began = await now(cache)
        head = kept(began, b"", method="HEAD")
        head.stored = replace(head.stored, length=5)
        await cache.put(KEY, head, HOUR)
        assert [one.method for one, _ in await found(cache)] == ["HEAD"]
        await cache.put(KEY, kept(began), HOUR)
        assert [one.method for one, _ in await found(cache)] == ["GET"]
        await cache.put(KEY, head, HOUR)
        assert [one.method for one, _ in await found(cache)] == ["GET", "HEAD"]


async def test_the_oldest_variants_go(redis_server):
    async with a_cache(redis_server) as cache:
        began = await now(cache)
        for number in range(70):
            await cache.put(KEY, kept(began, LARGE, vary=(("a", str(number)),)), HOUR)
        left = [one.vary[0][1] for one, _ in await found(cache)]
        assert left == [str(number) for number in range(6, 70)]
        gone = [redis_server.call("PTTL", name) for name in bodies(redis_server)]
        assert sorted(ttl <= 10_000 for ttl in gone) == [False] * 64 + [True] * 6


async def test_heads_that_are_too_large_together_go_too(redis_server):
    lines = [("X-Long", "x" * 30_000)]
    async with a_cache(redis_server) as cache:
        began = await now(cache)
        for number in range(30):
            await cache.put(KEY, kept(began, lines=lines, vary=(("a", str(number)),)), HOUR)
        left = [one.vary[0][1] for one, _ in await found(cache)]
        assert left == [str(number) for number in range(13, 30)]
        assert redis_server.call("STRLEN", NAMES.entries(KEY)) <= 524_288


async def test_times_to_live_are_milliseconds(redis_server):
    async with a_cache(redis_server) as cache:
        began = await now(cache)
        await cache.put(KEY, kept(began, LARGE), 120_000)
        await cache.put(KEY, kept(began, vary=(("a", "b"),)), 60_000)
        assert 110_000 < redis_server.call("PTTL", NAMES.entries(KEY)) <= 120_000
        (body,) = bodies(redis_server)
        assert 120_000 < redis_server.call("PTTL", body) <= 130_000
        assert HOUR < redis_server.call("PTTL", NAMES.numbers) <= HOUR + 120_000


async def test_every_key_has_a_time_to_live(redis_server):
    async with a_cache(redis_server) as cache:
        began = await now(cache)
        await cache.put(KEY, kept(began, LARGE, tags=("a",)), HOUR)
        await cache.mark(OTHER, Mark((), "", 2**43))
        await cache.lease(KEY, 1000)
        await cache.purge(Purge(("a", "b"), prefix="/x"))
        names = redis_server.call("KEYS", "*")
        assert len(names) == 6
        assert all(redis_server.call("PTTL", name) > 0 for name in names)


async def test_what_has_expired_is_not_found_while_its_neighbour_is(redis_server):
    async with a_cache(redis_server) as cache:
        began = await now(cache)
        await cache.put(KEY, kept(began, vary=(("a", "b"),)), HOUR)
        await cache.put(KEY, kept(began), 30)
        assert len(await found(cache)) == 2
        await asyncio.sleep(0.05)
        assert [one.vary for one, _ in await found(cache)] == [(("a", "b"),)]


async def test_one_that_is_freshened_keeps_its_body(redis_server):
    async with a_cache(redis_server) as cache:
        await cache.put(KEY, kept(await now(cache), LARGE), 10_000)
        (one,) = (await cache.lookup(KEY)).variants
        assert one.body is None
        one.stored = replace(one.stored, received=one.stored.received + 1000)
        await cache.put(KEY, one, HOUR)
        assert await found(cache) == [(one.stored, LARGE)]
        (body,) = bodies(redis_server)
        assert redis_server.call("PTTL", body) > HOUR - 60_000


async def test_one_whose_body_has_gone_is_not_put_without_it(redis_server):
    async with a_cache(redis_server) as cache:
        first = kept(await now(cache), LARGE)
        await cache.put(KEY, first, 10_000)
        (one,) = (await cache.lookup(KEY)).variants
        redis_server.call("DEL", *bodies(redis_server))
        assert await cache.body(KEY, one) is None
        redis_server.call("DEL", NAMES.entries(KEY))
        await cache.put(KEY, one, 10_000)
        assert await found(cache) == []
        await cache.put(KEY, first, 10_000)  # this one knows the body, and where it was
        assert await found(cache) == [(first.stored, LARGE)]


async def test_a_body_stays_for_who_is_about_to_read_it(redis_server):
    async with a_cache(redis_server) as cache:
        began = await now(cache)
        await cache.put(KEY, kept(began, b"1" * 50_000), HOUR)
        (one,) = (await cache.lookup(KEY)).variants
        await cache.put(KEY, kept(began, b"2" * 60_000), HOUR)
        assert await cache.body(KEY, one) == b"1" * 50_000
        assert sorted(
            redis_server.call("PTTL", name) > 10_000 for name in bodies(redis_server)
        ) == [False, True]


async def test_head_and_body_belong_together_whoever_writes(redis_server):
    """Writers that replace it all the time, with bodies of a length and a letter of their own."""
    async with a_cache(redis_server) as one, a_cache(redis_server) as two:
        began = await now(one)

        async def write(cache, letter: str) -> None:
            for number in range(40):
                body = letter.encode() * (5_000 + number * (1 + ord(letter) % 7))
                await cache.put(KEY, kept(began, body, etag=f"{letter}{len(body)}"), HOUR)

        async def read() -> int:
            seen = 0
            for _ in range(150):
                for head, body in await found(two):
                    assert body is not None
                    assert (body[:1].decode() + str(len(body)), body) == (
                        head.etag,
                        body[:1] * len(body),
                    )
                    seen += 1
            return seen

        *_, seen = await asyncio.gather(write(one, "a"), write(two, "b"), write(one, "c"), read())
        assert seen > 50


async def test_drop_takes_one_variant_and_its_body(redis_server):
    async with a_cache(redis_server) as cache:
        began = await now(cache)
        await cache.put(KEY, kept(began, LARGE), HOUR)
        other = kept(began, vary=(("a", "b"),))
        await cache.put(KEY, other, HOUR)
        await cache.drop(KEY, kept(began))
        assert await found(cache) == [(other.stored, b"hello")]
        assert bodies(redis_server) == []
        await cache.drop(KEY, other)
        assert redis_server.call("EXISTS", NAMES.entries(KEY)) == 0


async def test_what_cannot_be_read_is_not_there(redis_server):
    async with a_cache(redis_server) as cache:
        await cache.put(KEY, kept(await now(cache)), HOUR)
        text = bytearray(redis_server.call("GET", NAMES.entries(KEY)))
        text[-1] ^= 1
        redis_server.call("SET", NAMES.entries(KEY), bytes(text), "PX", HOUR)
        assert await found(cache) == []


async def test_marks_are_found_until_a_storable_answer_proves_them_wrong(redis_server):
    until = 2**43
    every, accept = (), (("accept", "a"),)
    async with a_cache(redis_server) as cache:
        marks = [
            Mark(v, k, until) for v in (every, accept) for k in ("", "authorization", "cookie")
        ]
        for mark in [*marks, marks[0]]:
            await cache.mark(KEY, mark)
        assert set((await cache.lookup(KEY)).marks) == set(marks)
        began = await now(cache)
        await cache.put(KEY, kept(began), HOUR)
        left = {mark for mark in marks if mark != Mark(every, "", until)}
        assert set((await cache.lookup(KEY)).marks) == left
        await cache.put(KEY, kept(began, vary=accept, authorized=True, unkeyed_cookie=True), HOUR)
        assert list((await cache.lookup(KEY)).marks) == []
        assert len(await found(cache)) == 2


async def test_long_values_of_vary_fields_take_no_room(redis_server):
    """An answer and a mark, selected by 30 KB that a client chose."""
    names, request = (
        ("accept", "x-list"),
        Fields([("Accept", "a" * 30_000), ("X-List", "1, 2" * 9)]),
    )
    other = Fields([("Accept", "a" * 29_999), ("X-List", "1, 2" * 9)])
    varied = vary.values(names, request)
    async with a_cache(redis_server) as cache:
        await cache.put(KEY, kept(await now(cache), vary=varied), HOUR)
        await cache.mark(KEY, Mark(varied, "cookie", 2**43))
        assert redis_server.call("STRLEN", NAMES.entries(KEY)) < 1500
        looked = await cache.lookup(KEY)
        stored = [one.stored for one in looked.variants]
        assert vary.select(stored, request, "GET") == stored[0]
        assert vary.select(stored, other, "GET") is None
        (mark,) = looked.marks
        assert vary.matches(mark.vary, request)
        assert not vary.matches(mark.vary, other)


async def test_a_mark_ends(redis_server):
    async with a_cache(redis_server) as cache:
        wall = int(cache._wall() * 1000)
        await cache.mark(KEY, Mark((), "", wall - 1))
        assert redis_server.call("EXISTS", NAMES.entries(KEY)) == 0
        await cache.mark(KEY, Mark((), "", wall + 60_000))
        assert 50_000 < redis_server.call("PTTL", NAMES.entries(KEY)) <= 60_000


async def test_a_lookup_is_one_call_and_a_put_two(redis_server):
    async with a_cache(redis_server, listener=Listener()) as cache:
        began = await now(cache)
        await cache.put(KEY, kept(began, tags=("a",)), HOUR)

        def calls() -> int:
            stats = redis_server.call("INFO", "commandstats")
            return sum(told["calls"] for name, told in stats.items() if "eval" in name)

        before = await blocking(calls)
        await cache.lookup(KEY)
        assert await blocking(calls) == before + 1
        await cache.put(KEY, kept(began, tags=("a",)), HOUR)
        assert await blocking(calls) == before + 3


async def test_a_large_body_delays_no_lookup(redis_server):
    """They go other ways: 8 MiB are under way while a small head is asked for."""
    async with a_cache(redis_server, timeout=0.5) as cache:
        one: Kept = kept(await now(cache), b"x" * 8_388_608)
        writing = asyncio.ensure_future(cache.put(KEY, one, HOUR))
        await asyncio.sleep(0)
        for _ in range(20):
            await cache.lookup(OTHER)
        await writing
        assert await found(cache) == [(one.stored, one.body)]
