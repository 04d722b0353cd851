"""Calls on the road to one server: whose answer is whose, what a deadline judges, what is
tried again and what is not. On both event loops."""

import asyncio
import time

import pytest
from redisservers import RedisServer, RedisServers
from road_kit import (
    ECHO,
    INCR,
    SILENCE,
    Lua,
    Relay,
    a_road,
    at_once,
    blocking,
    eventually,
    outcome,
    sooner_or_later,
    warm,
)

from proxy.store.ports import StoreError

FAILS = Lua("fails", "return redis.error_reply('MINE it went wrong')")
WRONG = Lua("wrong", "return redis.call('LPUSH', KEYS[1], 'x')")


async def test_each_call_gets_its_own_answer(redis_server: RedisServer) -> None:
    async with a_road(redis_server.url) as road:
        words = [b"%d" % n for n in range(2_000)]
        assert await asyncio.gather(*(road.run(ECHO, [b"k"], [word]) for word in words)) == words


async def test_what_is_asked_in_one_turn_goes_out_together(redis_server: RedisServer) -> None:
    async with Relay(redis_server.port) as relay, a_road(f"redis://127.0.0.1:{relay.port}") as road:
        await road.run(INCR, [b"k"], [])
        before = relay.requests
        await asyncio.gather(*(road.run(INCR, [b"k"], []) for _ in range(100)))
        assert relay.requests - before <= 3


async def test_a_script_that_is_unknown_is_sent_once(redis_server: RedisServer) -> None:
    """SCRIPT FLUSH under load: hundreds are under way, one brings the source again."""
    async with a_road(redis_server.url) as road:
        await road.run(INCR, [b"k"], [])
        await blocking(redis_server.call, "SCRIPT", "FLUSH")
        await blocking(redis_server.call, "CONFIG", "RESETSTAT")
        counts = await asyncio.gather(*(road.run(INCR, [b"k"], []) for _ in range(500)))
        assert sorted(counts) == list(range(2, 502))
        stats = await blocking(redis_server.call, "INFO", "commandstats")
        assert stats["cmdstat_eval"]["calls"] == 1


async def test_a_new_server_has_the_scripts_before_the_calls(redis_servers: RedisServers) -> None:
    server = await blocking(redis_servers.start)
    async with a_road(server.url) as road:
        await road.run(INCR, [b"k"], [])
        await blocking(server.restart)
        await eventually(lambda: road.run(INCR, [b"k"], []))
        stats = await blocking(server.call, "INFO", "commandstats")
        assert "cmdstat_eval" not in stats


@pytest.mark.parametrize(
    ("script", "says"), [(FAILS, "MINE it went wrong"), (WRONG, "WRONGTYPE"), (INCR, "OOM")]
)
async def test_an_error_reply_is_refused(
    redis_servers: RedisServers, script: Lua, says: str
) -> None:
    server = await blocking(redis_servers.start)
    await blocking(server.call, "SET", "k", 1)
    if says == "OOM":
        await blocking(server.call, "CONFIG", "SET", "maxmemory", 1)
    async with a_road(server.url) as road:
        with pytest.raises(StoreError, match=says) as refused:
            await road.run(script, [b"k"], [])
        assert refused.value.reason == "refused"
        assert await road.run(ECHO, [b"k"], [b"on"]) == b"on", "the connection is as before"


async def test_a_server_that_is_silent_costs_one_deadline(redis_servers: RedisServers) -> None:
    server = await blocking(redis_servers.start)
    async with a_road(server.url, timeout=0.05) as road:
        await warm(road)
        with server.paused():
            began = time.monotonic()
            first = await asyncio.gather(*(outcome(road.run(INCR, [b"k"], [])) for _ in range(100)))
            waited = time.monotonic() - began
            assert first == ["timeout"] * 100
            assert 0.04 <= waited < 2.5, "one after the other they would take 5 s"
        await eventually(lambda: road.run(ECHO, [b"k"], [b"back"]))


async def test_a_late_answer_is_never_anothers(redis_servers: RedisServers) -> None:
    """Replies to calls that have failed are read in their turn and dropped."""
    server = await blocking(redis_servers.start)
    async with a_road(server.url, timeout=0.05) as road:
        await warm(road)
        with server.paused():
            late = await asyncio.gather(
                *(outcome(road.run(ECHO, [b"k"], [b"late%d" % n])) for n in range(50))
            )
        assert late == ["timeout"] * 50
        await eventually(lambda: road.run(ECHO, [b"k"], [b"on"]))
        words = [b"%d" % n for n in range(200)]
        calls = (road.run(ECHO, [b"k"], [word], timeout=5.0) for word in words)
        assert await asyncio.gather(*calls) == words


async def test_a_caller_that_leaves_disturbs_nobody(redis_server: RedisServer) -> None:
    async with a_road(redis_server.url) as road:
        tasks = [asyncio.ensure_future(road.run(ECHO, [b"k"], [b"%d" % n])) for n in range(100)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert answers[1::2] == [b"%d" % n for n in range(1, 100, 2)]
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
        assert await road.run(ECHO, [b"k"], [b"on"]) == b"on"


async def test_our_own_delay_is_not_the_servers(redis_server: RedisServer) -> None:
    """A loop that is blocked past the deadline finds the answers in the socket."""

    async def blocked() -> bool:
        async with a_road(redis_server.url, timeout=0.05) as road:
            await warm(road)
            calls = [asyncio.ensure_future(outcome(road.run(INCR, [b"k"], []))) for _ in range(50)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            time.sleep(0.12)  # noqa: ASYNC251  # on purpose
            return all(isinstance(said, int) for said in await asyncio.gather(*calls))

    await sooner_or_later(blocked)


async def test_a_burst_on_a_busy_loop_trips_nothing(redis_server: RedisServer) -> None:
    async def burst() -> bool:
        async with a_road(redis_server.url, timeout=0.05) as road:
            await warm(road)
            calls = [
                asyncio.ensure_future(outcome(road.run(INCR, [b"k"], []))) for _ in range(1_000)
            ]
            await asyncio.sleep(0)
            time.sleep(0.08)  # noqa: ASYNC251  # on purpose
            return all(isinstance(said, int) for said in await asyncio.gather(*calls))

    await sooner_or_later(burst)


async def test_a_busy_loop_hides_no_dead_server(redis_servers: RedisServers) -> None:
    """The extensions end: a loop that is always late still finds out."""
    server = await blocking(redis_servers.start)
    async with a_road(server.url, timeout=0.05) as road:
        await warm(road)
        with server.paused():
            call = asyncio.ensure_future(outcome(road.run(INCR, [b"k"], [])))
            for _ in range(20):
                await asyncio.sleep(0)
                time.sleep(0.04)  # noqa: ASYNC251  # on purpose
                if call.done():
                    break
            assert call.done()
            assert await call == "timeout"


async def test_behind_an_owed_answer_nobody_waits(redis_servers: RedisServers) -> None:
    server = await blocking(redis_servers.start)
    async with a_road(server.url, timeout=0.05) as road:
        await warm(road)
        with server.paused():
            assert await outcome(road.run(INCR, [b"k"], [])) == "timeout"
            await asyncio.sleep(0.15)
            for _ in range(20):
                assert at_once(road.run(INCR, [b"k"], [])) in ("timeout", "down")
        await eventually(lambda: road.run(ECHO, [b"k"], [b"back"]))


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_a_connection_into_nowhere_is_given_up(redis_server: RedisServer) -> None:
    """Packets vanish, no FIN ever comes: the road connects anew."""
    async with (
        Relay(redis_server.port) as relay,
        a_road(f"redis://127.0.0.1:{relay.port}", timeout=0.05) as road,
    ):
        await warm(road)
        relay.suffer(SILENCE)
        assert await outcome(road.run(INCR, [b"k"], [])) == "timeout"
        await eventually(lambda: not road.status()["connected"], 5.0)
        relay.recover()
        await eventually(lambda: road.run(INCR, [b"k"], []), 5.0)


async def test_a_slow_server_fails_every_call_and_mixes_none(redis_server: RedisServer) -> None:
    async with (
        Relay(redis_server.port) as relay,
        a_road(f"redis://127.0.0.1:{relay.port}", timeout=0.05) as road,
    ):
        await warm(road)
        relay.delay = 0.2
        slow = [await outcome(road.run(ECHO, [b"k"], [b"%d" % n])) for n in range(10)]
        # One whose deadline passed while this process had no time may have got its answer.
        assert all(said in ("timeout", b"%d" % n) for n, said in enumerate(slow))
        assert slow.count("timeout") > 5
        relay.delay = 0.0
        await eventually(lambda: road.run(ECHO, [b"k"], [b"fast"]))
        words = [b"%d" % n for n in range(20)]
        assert [await road.run(ECHO, [b"k"], [w], timeout=5.0) for w in words] == words


async def test_a_server_that_becomes_slow_is_found_out(redis_server: RedisServer) -> None:
    """Calls under way all the time, and answers as well, each twice the deadline old: those are
    no answers to a burst."""
    async with (
        Relay(redis_server.port) as relay,
        a_road(f"redis://127.0.0.1:{relay.port}", timeout=0.05) as road,
    ):
        await warm(road)
        calls = []
        for turn in range(100):
            relay.delay = 0.001 * turn
            calls.append(asyncio.ensure_future(outcome(road.run(ECHO, [b"k"], [b"x"]))))
            await asyncio.sleep(0.004)
        assert "timeout" in await asyncio.gather(*calls)
        later = [await outcome(road.run(ECHO, [b"k"], [b"x"])) for _ in range(10)]
        assert later.count("timeout") > 5


async def test_a_patient_call_waits_longer(redis_server: RedisServer) -> None:
    async with (
        Relay(redis_server.port) as relay,
        a_road(f"redis://127.0.0.1:{relay.port}", timeout=0.05) as road,
    ):
        await warm(road)
        relay.delay = 0.1
        assert await road.run(ECHO, [b"k"], [b"x"], timeout=5.0) == b"x"


async def test_a_hasty_call_fails_beside_a_patient_one(redis_servers: RedisServers) -> None:
    server = await blocking(redis_servers.start)
    async with a_road(server.url, timeout=5.0) as road:
        await warm(road)
        with server.paused():
            patient = asyncio.ensure_future(road.run(ECHO, [b"k"], [b"p"]))
            assert await outcome(road.run(ECHO, [b"k"], [b"h"], timeout=0.05)) == "timeout"
            assert not patient.done()
        assert await patient == b"p"


async def test_whatever_is_under_way_fails_with_the_connection(
    redis_servers: RedisServers,
) -> None:
    server = await blocking(redis_servers.start)
    async with a_road(server.url, timeout=5.0) as road:
        await warm(road)
        server.pause()
        calls = [asyncio.ensure_future(outcome(road.run(INCR, [b"k"], []))) for _ in range(100)]
        await asyncio.sleep(0.01)
        assert server.process is not None
        server.process.kill()  # as it is: it never wakes up
        assert await asyncio.gather(*calls) == ["down"] * 100
        assert at_once(road.run(INCR, [b"k"], [])) == "down"
