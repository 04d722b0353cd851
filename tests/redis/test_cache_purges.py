"""Purges over the fleet: every process hears of each, and nothing that was purged comes back."""

import asyncio

import pytest
from relay import SILENCE, Relay
from road_kit import blocking, eventually
from shared_kit import HOUR, KEY, Listener, a_cache, kept, now

from proxy.store.clock import milliseconds
from proxy.store.memory.purges import SOFT, VALID, VOID, Purgeable, Purges
from proxy.store.ports import Purge
from proxy.store.redis.cache_names import CacheNames, tag_hash

NAMES = CacheNames("t")
EVERYTHING = Purge(prefix="", soft=True)
PURGES = [
    Purge(("a", "\xe4 b")),
    Purge(("\0path:1",), soft=True),
    Purge(prefix="/api/\xe4"),
    Purge(prefix="", soft=True),
    Purge(("both",), "/x"),
]


def scores(server, key: bytes) -> dict[bytes, int]:
    with server.client() as client:
        return {name: int(score) for name, score in client.zrange(key, 0, -1, withscores=True)}


async def a_forgetful_server(server) -> None:
    """What eviction does to the numbers."""
    assert await blocking(server.call, "DEL", NAMES.numbers) == 1


@pytest.mark.parametrize("purge", PURGES, ids=lambda purge: str((*purge.tags, purge.prefix)))
async def test_another_process_hears_of_a_purge(redis_server, purge):
    here, there = Listener(), Listener()
    async with (
        a_cache(redis_server, listener=here) as one,
        a_cache(redis_server, listener=there),
    ):
        number = await one.purge(purge)
        assert here.heard[-1] == (purge, number)
        await eventually(lambda: there.heard[-1] == (purge, number))


async def test_in_a_cluster_too(redis_cluster):
    there = Listener()
    async with (
        a_cache(*redis_cluster, kind="cluster") as one,
        a_cache(*redis_cluster, kind="cluster", listener=there),
    ):
        number = await one.purge(Purge(("a",)))
        await eventually(lambda: there.heard[-1] == (Purge(("a",)), number))


async def test_numbers_grow_and_are_the_servers_time(redis_server):
    async with a_cache(redis_server) as one, a_cache(redis_server) as two:
        numbers = [await cache.purge(Purge(("a",))) for cache in (one, two) * 20]
        assert numbers == sorted(set(numbers))
        seconds, micros = redis_server.call("TIME")
        assert 0 <= int(seconds) * 1_000_000 + int(micros) - numbers[-1] < 10_000_000
        assert (await one.lookup(KEY)).number == numbers[-1]


async def test_only_what_has_the_tag_goes(redis_server):
    async with a_cache(redis_server) as cache:
        began = await now(cache)
        tagged = {1: ("a",), 2: ("a", "b"), 3: ("b",), 4: (), 5: ("A",), 6: ("aa",)}
        for number, tags in tagged.items():
            await cache.put(number.to_bytes(16, "big"), kept(began, tags=tags), HOUR)
        await cache.purge(Purge(("a", "")))
        left = [n for n in tagged if (await cache.lookup(n.to_bytes(16, "big"))).variants]
        assert left == [3, 4, 5, 6]


async def test_a_url_is_purged_by_the_tags_that_nobody_sees(redis_server):
    async with a_cache(redis_server) as cache:
        await cache.put(KEY, kept(await now(cache), tags=("a",), hidden=("\0url:1",)), HOUR)
        (one,) = (await cache.lookup(KEY)).variants
        assert one.tags == ("\0url:1", "a")
        late = Listener()
        await cache.purge(Purge(("\0url:1",), soft=True))
        async with a_cache(redis_server, listener=late) as other:
            assert len((await other.lookup(KEY)).variants) == 1
            assert Purge(("\0url:1",), soft=True) in late.purges()
            await other.purge(Purge(("\0url:1",)))
        assert (await cache.lookup(KEY)).variants == []


async def test_a_purge_costs_the_same_whatever_it_covers(redis_server):
    """100,000 answers with one tag: as many commands as with none, and what they have is not
    touched."""

    async def purging(cache) -> dict[str, int]:
        await blocking(redis_server.call, "CONFIG", "RESETSTAT")
        await cache.purge(Purge(("popular",)))
        stats = await blocking(redis_server.call, "INFO", "commandstats")
        return {name: told["calls"] for name, told in stats.items() if "info" not in name}

    async with a_cache(redis_server) as cache:
        await purging(cache)  # the first brings the script
        commands = await purging(cache)
        began = await now(cache)
        await cache.put(KEY, kept(began, tags=("popular",)), HOUR)
        text = redis_server.call("GET", NAMES.entries(KEY))

        def fill() -> None:
            with redis_server.client() as client:
                for first in range(0, 100_000, 10_000):
                    keys = [n.to_bytes(16, "big") for n in range(first, first + 10_000)]
                    client.mset({NAMES.entries(key): text for key in keys})

        await blocking(fill)
        some = [number.to_bytes(16, "big") for number in range(0, 100_000, 9_999)]
        assert all([(await cache.lookup(key)).variants for key in some])
        assert await purging(cache) == commands
        assert not any([(await cache.lookup(key)).variants for key in some])


async def test_what_was_being_fetched_is_not_stored(redis_server):
    async with a_cache(redis_server) as cache, a_cache(redis_server) as other:
        fetched = kept(await now(cache), tags=("a",))
        await other.purge(Purge(("a",)))
        await cache.put(KEY, fetched, HOUR)
        assert await blocking(redis_server.call, "EXISTS", NAMES.entries(KEY)) == 0
        await cache.put(KEY, kept(await now(cache), tags=("a",)), HOUR)
        assert len((await cache.lookup(KEY)).variants) == 1


async def test_a_late_head_that_still_came_to_be_is_void(redis_server):
    """The purge comes between the two calls of a put."""
    async with a_cache(redis_server) as cache:
        fetched = kept(await now(cache), tags=("a",))
        await cache.purge(Purge(("a",)))
        assert await cache._put(KEY, fetched, HOUR, b"", b"hello") == 1
        assert (await cache.lookup(KEY)).variants == []


async def test_a_process_that_begins_later_is_told_of_what_it_finds(redis_server):
    """It knows neither the soft purge nor the bans that came after the answer was stored."""
    async with a_cache(redis_server) as first:
        one = kept(await now(first), tags=("a", "b", "c"))
        await first.put(KEY, one, HOUR)
        await first.purge(Purge(("b",), soft=True))
        await first.purge(Purge(prefix="/api"))
        await first.purge(Purge(("other",)))
    late = Listener()
    async with a_cache(redis_server, listener=late) as cache:
        assert len((await cache.lookup(KEY)).variants) == 1
        assert set(late.purges()) - {EVERYTHING} == {Purge(("b",), soft=True), Purge(prefix="/api")}
        assert all(number > one.began for purge, number in late.heard if purge != EVERYTHING)


async def test_a_lookup_tells_what_its_messages_have_not(redis_server):
    """Somebody who hears nothing learns of purges from the lookup itself."""
    deaf = Listener()
    async with a_cache(redis_server, listener=deaf) as cache, a_cache(redis_server) as other:
        await cache.put(KEY, kept(await now(cache), tags=("a",)), HOUR)
        cache._purges._hear = lambda message: None
        cache._heads.road._subscriptions._channels[NAMES.purges.encode()] = []
        soft = Purge(("a",), soft=True)
        first, second = await other.purge(soft), await other.purge(Purge(prefix="/b"))
        assert (await cache.lookup(KEY)).number == second
        assert {(soft, first), (Purge(prefix="/b"), second)} <= set(deaf.heard)


async def test_databases_of_one_server_are_apart(redis_server):
    """Though channels are not: a foreign purge's number would look like one that was lost."""
    here, there = Listener(), Listener()
    async with (
        a_cache(redis_server, listener=here) as one,
        a_cache(redis_server, listener=there, database=3) as two,
    ):
        await one.put(KEY, kept(await now(one), tags=("a",)), HOUR)
        token = await one.lease(KEY, 60_000)
        await two.purge(Purge(("a",)))
        await two.purge(Purge(prefix=""))
        assert await two.lease(KEY, 60_000) != token
        assert len((await one.lookup(KEY)).variants) == 1
        assert set(here.purges()) == {EVERYTHING}
        await one.purge(Purge(("b",)))
        await eventually(lambda: Purge(("b",)) in here.purges())
        assert Purge(("b",)) not in there.purges()


class TestBans:
    async def test_the_last_time_of_each_is_kept(self, redis_server):
        async with a_cache(redis_server) as cache:
            await cache.purge(Purge(prefix="/a"))
            await cache.purge(Purge(prefix="/a", soft=True))
            last = await cache.purge(Purge(prefix="/a"))
            kept_bans = scores(redis_server, NAMES.bans)
            assert set(kept_bans) == {b"h/a", b"s/a"}
            assert kept_bans[b"h/a"] == last

    async def test_the_last_two_soft_ones_are_kept(self, redis_server):
        async with a_cache(redis_server) as cache:
            numbers = [await cache.purge(Purge(prefix="/a", soft=True)) for _ in range(3)]
            kept_bans = scores(redis_server, NAMES.bans)
            assert kept_bans == {b"p/a": numbers[1], b"s/a": numbers[2]}

    async def test_everything_makes_earlier_ones_needless(self, redis_server):
        """But a soft one does not: what was stale before is not stale since then only."""
        async with a_cache(redis_server) as cache:
            for soft in (True, False):
                await cache.purge(Purge(prefix="/a", soft=soft))
            await cache.purge(Purge(prefix="", soft=True))
            assert set(scores(redis_server, NAMES.bans)) == {b"h/a", b"s/a", b"s"}
            await cache.purge(Purge(prefix=""))
            assert set(scores(redis_server, NAMES.bans)) == {b"h"}

    async def test_the_oldest_become_everything_where_there_are_too_many(self, redis_server):
        async with a_cache(redis_server) as cache:
            numbers = [
                await cache.purge(Purge(prefix=f"/{n}", soft=n % 2 == 1)) for n in range(262)
            ]
            left = scores(redis_server, NAMES.bans)
            assert len(left) == 256
            # Nine have gone (0 to 8) for the three that stand for them.
            assert left[b"h"] == numbers[8]
            assert (left[b"p"], left[b"s"]) == (numbers[5], numbers[7])
            assert b"h/8" not in left
            assert b"s/9" in left

        late = Listener()
        async with a_cache(redis_server, listener=late):
            assert (Purge(prefix=""), numbers[8]) in late.heard
            assert len(late.purges()) >= 255

    async def test_bans_that_are_lost_void_everything_before(self, redis_server):
        async with a_cache(redis_server) as cache:
            await cache.put(KEY, kept(await now(cache)), HOUR)
            await cache.purge(Purge(prefix="/b"))
            assert len((await cache.lookup(KEY)).variants) == 1
        assert await blocking(redis_server.call, "DEL", NAMES.bans) == 1
        listener = Listener()
        async with a_cache(redis_server, listener=listener) as cache:
            assert (await cache.lookup(KEY)).variants == []
            assert EVERYTHING in listener.purges()
            await cache.put(KEY, kept(await now(cache)), HOUR)
            assert len((await cache.lookup(KEY)).variants) == 1

    async def test_forgetting_the_last_ban_is_no_loss(self, redis_server):
        async with a_cache(redis_server, retention=1000) as cache:
            number = await cache.purge(Purge(prefix="/b"))
            await age(redis_server, NAMES.bans, b"h/b", number)
            await cache.purge(Purge(("a",)))
            assert await blocking(redis_server.call, "EXISTS", NAMES.bans) == 0
            await cache.put(KEY, kept(await now(cache)), HOUR)
            assert len((await cache.lookup(KEY)).variants) == 1
        async with a_cache(redis_server) as cache:
            assert len((await cache.lookup(KEY)).variants) == 1


async def age(server, key: bytes, member: bytes, number: int, hours: float = 1.1) -> int:
    """Makes a purge older than it is."""
    number -= int(hours * 3600 * 1_000_000)
    await blocking(server.call, "ZADD", key, number, member)
    return number


async def test_purges_are_kept_for_the_longest_retention(redis_server):
    async with a_cache(redis_server, retention=1000) as cache:
        number = await cache.purge(Purge(("a",)))
        member = b"h" + tag_hash("a")
        old = await age(redis_server, NAMES.numbers, member, number)
        await cache.put(KEY, kept(await now(cache)), 600_000)  # longer than any before
        await cache.purge(Purge(("b",)))
        assert member in scores(redis_server, NAMES.numbers)
        assert redis_server.call("PTTL", NAMES.numbers) > HOUR + 590_000
        older = await age(redis_server, NAMES.numbers, member, old)
        await blocking(redis_server.call, "ZADD", NAMES.numbers, -1, "B")
        await cache.purge(Purge(("b",)))
        left = scores(redis_server, NAMES.numbers)
        assert member not in left
        assert b"h" + tag_hash("b") in left
    # What a fetch that began before it would bring is not known to be untouched any more.
    async with a_cache(redis_server) as cache:
        assert await cache._put(KEY, kept(older - 1), HOUR, b"", b"hello") == 1
        assert (await cache.lookup(KEY)).variants == []
        await cache.put(KEY, kept(older), HOUR)
        assert len((await cache.lookup(KEY)).variants) == 1


class TestLoss:
    async def test_numbers_that_are_evicted_bring_nothing_back(self, redis_server):
        async with a_cache(redis_server) as cache:
            await cache.put(KEY, kept(await now(cache), tags=("a",)), HOUR)
            await cache.purge(Purge(("a",)))
            await a_forgetful_server(redis_server)
            looked = await cache.lookup(KEY)
            assert looked.variants == []
            await cache.put(KEY, kept(looked.number, tags=("a",)), HOUR)
            assert len((await cache.lookup(KEY)).variants) == 1

    async def test_a_fetch_under_way_then_is_void(self, redis_server):
        async with a_cache(redis_server) as cache:
            one = kept(await now(cache), tags=("a",))
            await a_forgetful_server(redis_server)
            await cache.put(KEY, one, HOUR)
            assert (await cache.lookup(KEY)).variants == []

    async def test_memory_is_told_to_ask_again(self, redis_server):
        purges = Purges(lambda: 0)
        async with a_cache(redis_server, listener=purges) as cache:
            one = Purgeable(purges.tagged(("a",)), "/a", await now(cache))
            assert purges.state(one) == VALID
            await a_forgetful_server(redis_server)
            await cache.lookup(KEY)
            assert purges.state(one) == SOFT

    async def test_a_server_that_has_lost_the_last_purge_is_found_out(self, redis_server):
        """As after a failover to a replica that had not heard of it yet."""
        async with a_cache(redis_server) as cache:
            await cache.put(KEY, kept(await now(cache), tags=("a",)), HOUR)
            before = await blocking(redis_server.call, "DUMP", NAMES.numbers)
            number = await cache.purge(Purge(("a",)))
            await blocking(redis_server.call, "RESTORE", NAMES.numbers, HOUR, before, "REPLACE")
            looked = await cache.lookup(KEY)
            assert looked.variants == []
            assert looked.number > number

    async def test_numbers_never_go_back(self, redis_server):
        """Not even where the server's clock has: it is an hour behind what it gave out."""
        async with a_cache(redis_server) as cache:
            cache._purges._last = ahead = await now(cache) + HOUR * 1000
            number = await cache.purge(Purge(("a",)))
            assert number > ahead
            await a_forgetful_server(redis_server)
            assert await cache.purge(Purge(("a",))) > number


class TestSoft:
    """Since when something is stale is the same for all, whenever they hear of it."""

    @pytest.mark.parametrize("kind", ["standalone", "cluster"])
    @pytest.mark.parametrize("what", [{"tags": ("a",)}, {"prefix": "/a"}, {"prefix": ""}])
    async def test_all_know_since_when(self, request, kind, what):
        found = request.getfixturevalue("redis_cluster" if kind == "cluster" else "redis_server")
        servers = found if kind == "cluster" else [found]
        there, late = Purges(lambda: 0), Purges(lambda: 0)
        soft = Purge(**what, soft=True)
        async with (
            a_cache(*servers, kind=kind) as one,
            a_cache(*servers, kind=kind, listener=there) as two,
        ):
            began: list[int] = []
            numbers: list[int] = []
            for _ in range(4):
                began.append(await now(one))
                await one.put(KEY, kept(began[0], tags=("a",)), HOUR)
                numbers.append(await one.purge(soft))
            await eventually(lambda: there.last >= numbers[-1])
            async with a_cache(*servers, kind=kind, listener=late) as three:
                assert len((await two.lookup(KEY)).variants) == 1
                assert len((await three.lookup(KEY)).variants) == 1
                for purges in (there, late):
                    seen = [
                        Purgeable(purges.tagged(("a",)), "/a", number) for number in sorted(began)
                    ]
                    assert {purges.state(answer) for answer in seen} == {SOFT}
                    since = [answer.stale_at for answer in seen]
                    assert since == [0, 0, 0, numbers[3] // 1000]

    async def test_two_are_told_apart(self, redis_server):
        """Who has begun between two is stale since the second, who has begun before them is not
        fresh for longer by that."""
        late = Purges(lambda: 0)
        async with a_cache(redis_server) as cache:
            early = await now(cache)
            await cache.put(KEY, kept(early, tags=("a",)), HOUR)
            first = await cache.purge(Purge(("a",), soft=True))
            async with a_cache(redis_server, listener=late) as other:
                await other.lookup(KEY)
                answer = Purgeable(late.tagged(("a",)), "/a", early)
                assert late.state(answer) == SOFT
                assert answer.stale_at == first // 1000


class TestSubscription:
    async def test_it_is_back_at_the_beginning(self, redis_server):
        listener = Listener()
        async with a_cache(redis_server, listener=listener) as cache:
            assert listener.states == ["back"]
            assert listener.number == await now(cache)

    async def test_what_was_missed_is_told_before_it_is_back(self, redis_server):
        purges = Purges(lambda: 0)
        states: list[tuple[str, int]] = []

        class Watched:
            def __getattr__(self, name):
                return getattr(purges, name)

            def lost(self) -> None:
                purges.lost()
                states.append(("lost", 0))

            def back(self, number: int) -> None:
                states.append(("back", purges.state(hard) + purges.state(soft)))
                purges.back(number)

        hard = soft = Purgeable((), "/", 0)
        async with (
            a_cache(redis_server, listener=Watched()) as cache,
            a_cache(redis_server) as other,
        ):
            began = await now(cache)
            hard = Purgeable(purges.tagged(("a", "x")), "/a", began)
            soft = Purgeable(purges.tagged(("b",)), "/b/c", began)
            neighbour = Purgeable(purges.tagged(("c",)), "/c", began)
            states.clear()
            channels = cache._heads.road._subscriptions
            held, channels._channels = channels._channels, {}  # so that it misses them
            await blocking(redis_server.call, "CLIENT", "KILL", "TYPE", "pubsub")
            await eventually(lambda: states == [("lost", 0)])
            assert not cache.status()["healthy"]
            await other.purge(Purge(("a",)))
            await other.purge(Purge(prefix="/b/", soft=True))
            assert purges.since is not None
            assert (purges.state(hard), purges.state(soft)) == (VALID, VALID)
            channels._channels = held
            await eventually(lambda: len(states) == 2)
            assert states == [("lost", 0), ("back", VOID + SOFT)]
            assert purges.state(neighbour) == VALID
            await eventually(lambda: cache.status()["healthy"])

    @pytest.mark.parametrize("blind", [0, 3])
    async def test_one_that_dies_silently_counts_from_its_last_answer(self, redis_server, blind):
        purges = Purges(milliseconds, blind * 1000)
        answered = []

        class Watched:
            def __getattr__(self, name):
                return getattr(purges, name)

            def alive(self, ago: float) -> None:
                purges.alive(ago)
                answered.append(ago)

        async with (
            Relay(redis_server.port) as relay,
            a_cache(redis_server, listener=Watched(), port=relay.port, blind=blind),
        ):
            await eventually(lambda: len(answered) >= 3)
            relay.suffer(SILENCE)
            frozen = milliseconds()
            await eventually(lambda: milliseconds() >= purges.since)
            assert not purges.deaf  # nobody has noticed yet
            assert purges.since <= frozen + max(1, blind) * 1000
            await eventually(lambda: purges.deaf)
            assert purges.since <= frozen + blind * 1000

    async def test_many_tags_are_asked_for(self, redis_server):
        listener = Listener(*(f"tag-{number}" for number in range(2_500)))
        async with a_cache(redis_server) as other:
            await other.purge(Purge(("tag-0", "tag-1000", "tag-2499", "none"), soft=True))
            async with a_cache(redis_server, listener=listener):
                assert {purge.tags for purge in listener.purges()} - {()} == {
                    ("tag-0",), ("tag-1000",), ("tag-2499",)
                }  # fmt: skip

    async def test_a_purge_of_many_tags(self, redis_server):
        tags = tuple(f"tag-{number}" for number in range(5_000))
        there = Listener()
        async with a_cache(redis_server) as cache, a_cache(redis_server, listener=there):
            await cache.put(KEY, kept(await now(cache), tags=("tag-4999",)), HOUR)
            await cache.purge(Purge(tags))
            assert (await cache.lookup(KEY)).variants == []
            await eventually(lambda: there.heard[-1][0].tags == tags)

    async def test_what_is_no_purge_is_passed_over(self, redis_server, caplog):
        listener = Listener()
        async with a_cache(redis_server, listener=listener) as cache:
            for text in ("", "1", "1 x", "x []", "1 [1, 2]", "1 [true, null, 3]"):
                await blocking(redis_server.call, "PUBLISH", NAMES.purges, text)
            await cache.purge(Purge(("a",)))
            await asyncio.sleep(0.05)
            assert set(listener.purges()) <= {Purge(("a",)), EVERYTHING}
