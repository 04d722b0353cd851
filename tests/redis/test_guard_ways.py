"""What becomes of each limit while nobody can be asked: its own `on_failure`, together with the
others of the same request."""

import asyncio
import logging

import pytest
from guard_kit import Guarded, charge, guarded, limit
from redisservers import RedisServer, RedisServers
from road_kit import blocking, eventually

from proxy.exposition import render
from proxy.policy.limit_plans import LimitVariant
from proxy.store.ports import StoreError, Unavailable

NOWHERE = "redis://127.0.0.1:1"

LOCAL = limit("local", 2, "local")
WIDE = limit("wide", 9, "local")
ALLOW = limit("allow", 2, "allow")
DENY = limit("deny", 2, "deny")
SHADOW = limit("shadow", 1, "local", shadow=True)
SHADOW_DENY = limit("shadow-deny", 1, "deny", shadow=True)


@pytest.mark.parametrize(
    ("rule", "variants", "answers"),
    [
        ("local counts", [LOCAL], ["1", "0", "-"]),
        ("allow says nothing", [ALLOW], ["?", "?", "?"]),
        ("local beside allow, in order", [ALLOW, LOCAL], ["?1", "?0", "?-"]),
        ("allow beside local, in order", [LOCAL, ALLOW], ["1?", "0?", "-?"]),
        ("all local ones or none", [WIDE, LOCAL], ["81", "70", "7-"]),
        ("deny ends it", [DENY], ["deny", "deny", "deny"]),
        ("deny wins over all", [LOCAL, ALLOW, DENY], ["deny", "deny", "deny"]),
        ("a shadow blocks nothing", [SHADOW, WIDE], ["08", "-7", "-6"]),
        ("nor does one that says deny", [SHADOW_DENY, WIDE], ["?8", "?7", "?6"]),
        ("and alone it lets through", [SHADOW_DENY], ["?", "?", "?"]),
    ],
)
async def test_each_limit_goes_its_own_way(
    rule: str, variants: list[LimitVariant], answers: list[str]
) -> None:
    """`1`: what is left; `-`: refused; `?`: let through uncounted."""
    async with guarded(NOWHERE, up=False) as made:
        for expected in answers:
            call = made.limits.admit([charge(v) for v in variants])
            if expected == "deny":
                with pytest.raises(Unavailable, match=r"^deny$"):
                    await call
                continue
            decisions = await call
            said = ("?" if d is None else str(d.remaining) if d.allowed else "-" for d in decisions)
            assert "".join(said) == expected, rule
        for variant in variants:
            assert made.metrics.limit(variant.limit).degraded == len(answers)


async def test_deny_charges_nobody() -> None:
    async with guarded(NOWHERE, up=False) as made:
        for _ in range(5):
            with pytest.raises(Unavailable):
                await made.limits.admit([charge(LOCAL), charge(DENY)])
        (decision,) = await made.limits.admit([charge(LOCAL)])
        assert decision is not None
        assert decision.remaining == 1


async def test_without_the_store_nothing_suspends() -> None:
    """A request that this process decides alone costs no task, no future, no wait."""
    async with guarded(NOWHERE, up=False) as made:
        with pytest.raises(StopIteration):
            made.limits.admit([charge(LOCAL)]).send(None)  # type: ignore[attr-defined]


async def test_the_first_check_says_how_it_stands(redis_server: RedisServer) -> None:
    async with guarded(NOWHERE, up=False) as made:
        status = made.limits.status()
        assert (status["healthy"], status["degraded"]) == (False, True)
        assert str(status["reason"]).startswith("down: ")
        assert made.metrics.store_alarms["degraded"] == 1
    async with guarded(redis_server.url) as made:
        assert made.limits.status() == {"healthy": True, "degraded": False}
        assert made.metrics.store_alarms["degraded"] == 0


async def test_an_operator_is_told_that_it_cannot_be_known(redis_server: RedisServer) -> None:
    async with guarded(NOWHERE, up=False) as made:
        with pytest.raises(StoreError):
            await made.limits.peek(charge(LOCAL))
        with pytest.raises(StoreError):
            await made.limits.reset(LOCAL.space, charge(LOCAL).key)
    async with guarded(redis_server.url) as made:
        await made.limits.admit([charge(LOCAL)])
        assert (await made.limits.peek(charge(LOCAL, cost=0))).remaining == 1
        await made.limits.reset(LOCAL.space, charge(LOCAL).key)
        assert (await made.limits.peek(charge(LOCAL, cost=0))).remaining == 2


async def test_a_reset_holds_here_too() -> None:
    async with guarded(NOWHERE, up=False) as made:
        assert await made.admitted(LOCAL, 5) == 2
        with pytest.raises(StoreError):
            await made.limits.reset(LOCAL.space, charge(LOCAL).key)
        assert await made.admitted(LOCAL, 5) == 2


async def test_a_client_that_leaves_is_nobodys_failure(redis_servers: RedisServers) -> None:
    server = await blocking(redis_servers.start)
    async with guarded(server.url) as made:
        await made.admitted(WIDE, 1)
        with server.paused():
            for _ in range(30):
                call = asyncio.ensure_future(made.limits.admit([charge(WIDE)]))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
        assert made.breaker.closed
        assert made.errors == 0


async def test_failures_open_the_breaker_and_a_probe_closes_it(
    redis_servers: RedisServers, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has one line each way; the figures count what happened."""
    caplog.set_level(logging.INFO, "proxy.store.guard")
    server = await blocking(redis_servers.start)
    async with guarded(server.url) as made:
        await blocking(server.kill)
        await eventually(lambda: not made.road.status()["connected"])
        for asked in range(1, 6):
            assert made.breaker.closed
            await made.limits.admit([charge(WIDE)])
            assert made.errors == asked
            assert made.metrics.store_alarms["degraded"] == 1, "from the first call on"
        assert not made.breaker.closed
        for _ in range(20):
            await made.limits.admit([charge(WIDE)])
        assert made.errors == 5, "the store is not asked any more"
        await blocking(server.start)
        await eventually(made.healthy)
        await _shows(made)
    records = [record for record in caplog.records if record.name == "proxy.store.guard"]
    said = [(record.levelname, record.getMessage()) for record in records]
    assert [level for level, _ in said] == ["WARNING", "ERROR", "WARNING"]
    assert said[0][1].startswith("the store failed to answer (down: ")
    assert said[1][1].startswith("the store is in trouble (down: ")
    assert said[2][1].startswith("the store answers again")


@pytest.mark.parametrize("lasting", [False, True])
async def test_the_first_call_that_fails_raises_the_alarm(
    redis_servers: RedisServers, lasting: bool
) -> None:
    """It is lowered once calls are answered again, also where there are none but a probe; and where
    probes fail as well, they open the breaker."""
    server = await blocking(redis_servers.start)
    async with guarded(server.url) as made:
        await made.admitted(WIDE, 1)
        await blocking(server.call, "CONFIG", "SET", "maxmemory", 1)
        assert await made.admitted(WIDE, 1) == 1
        assert made.metrics.limit("wide").degraded == 1
        assert made.breaker.closed
        status = made.limits.status()
        assert (status["healthy"], status["degraded"]) == (False, True)
        assert "OOM" in str(status["reason"])
        assert made.metrics.store_alarms["degraded"] == 1
        if lasting:
            await eventually(lambda: not made.breaker.closed)
        await blocking(server.call, "CONFIG", "SET", "maxmemory", 0)
        await eventually(made.healthy)
        assert made.metrics.store_alarms["degraded"] == 0
        assert made.breaker.closed
        assert (made.breaker.generation > 0) is lasting


async def _shows(made: Guarded) -> None:
    _, text = await blocking(render, made.metrics, "")
    lines = text.decode().splitlines()
    assert 'sluicegate_store_errors_total{operation="admit"} 5.0' in lines
    assert 'sluicegate_limit_decisions_total{decision="degraded",limit="wide"} 25.0' in lines
    assert 'sluicegate_store_alarm{alarm="degraded"} 0.0' in lines
    assert any('sluicegate_store_duration_seconds_count{operation="probe"}' in x for x in lines)


async def test_what_is_refused_counts_as_failure(redis_servers: RedisServers) -> None:
    """Out of memory: it answers, at once, and cannot count."""
    server = await blocking(redis_servers.start)
    async with guarded(server.url) as made:
        assert await made.admitted(LOCAL, 1) == 1
        await blocking(server.call, "CONFIG", "SET", "maxmemory", 1)
        assert await made.admitted(LOCAL, 20) == 2
        assert not made.breaker.closed
        assert "OOM" in str(made.limits.status()["reason"])
        await blocking(server.call, "CONFIG", "SET", "maxmemory", 0)
        await eventually(made.healthy)
        assert await made.admitted(LOCAL, 20) == 1, "the store's count goes on"


async def test_what_is_remembered_says_nothing_of_the_server(redis_servers: RedisServers) -> None:
    """A client that hammers a denied key hides no outage from the breaker, nor from the figures."""
    server = await blocking(redis_servers.start)
    async with guarded(server.url) as made:
        once, other = limit("once", 1), limit("other")
        assert await made.admitted(once, 2) == 1
        counts = made.metrics.store("admit").duration.counts
        assert sum(counts) == 2
        assert await made.admitted(once, 100) == 0
        assert sum(counts) == 2
        await blocking(server.call, "CONFIG", "SET", "maxmemory", 1)
        for _ in range(5):
            assert made.breaker.closed
            assert await made.admitted(once, 20) == 0
            assert await made.admitted(other, 1) == 1
        assert not made.breaker.closed
