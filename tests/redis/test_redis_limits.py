"""RedisLimits on a real server: errors are no admissions, hammering stays here, resets go
everywhere."""

import asyncio
from itertools import pairwise

import pytest
from limits_kit import DAY, NAMES, calls, charge, limits_on, variant

from proxy.core.limits.decision import Decision, Rate
from proxy.store.ports import StoreError
from proxy.store.redis.limits import RedisLimits


async def eventually(condition, patience=5.0):
    async with asyncio.timeout(patience):
        while not condition():
            await asyncio.sleep(0.005)


async def test_no_limits_need_no_server(redis_servers):
    server = redis_servers.start()
    async with limits_on(server) as store:
        server.kill()
        assert await store.admit([]) == []


async def test_one_call_for_many_limits(redis_server):
    made = [variant(name, Rate(9, DAY), space=f"{name}{n}") for name in NAMES for n in (1, 2)]
    async with limits_on(redis_server) as store:
        await store.admit([charge(limit) for limit in made])
        redis_server.call("CONFIG", "RESETSTAT")
        await store.admit([charge(limit) for limit in made])
    assert calls(redis_server) == 1


@pytest.mark.parametrize("name", NAMES)
async def test_hammering_does_not_reach_the_server(redis_server, name):
    limit = variant(name, Rate(2, DAY), 1 if name == "leaky_bucket" else None)
    async with limits_on(redis_server, forgetful=False) as store:
        for _ in range(2):
            assert (await store.admit([charge(limit)]))[0].allowed
        redis_server.call("CONFIG", "RESETSTAT")
        told = [(await store.admit([charge(limit)]))[0] for _ in range(500)]
        # Hammered for less than a second or for more: once a second at most.
        assert 1 <= calls(redis_server) <= 3
    assert not any(decision.allowed for decision in told)
    assert all(a.retry_after >= b.retry_after for a, b in pairwise(told))


async def test_a_denial_that_is_remembered_lets_others_pass(redis_server):
    limit = variant("fixed_window", Rate(3, DAY))
    async with limits_on(redis_server, forgetful=False) as store:
        assert (await store.admit([charge(limit, cost=2)]))[0].allowed
        assert not (await store.admit([charge(limit, cost=2)]))[0].allowed
        assert (await store.admit([charge(limit, key=2, cost=2)]))[0].allowed
        assert (await store.admit([charge(limit, cost=1)]))[0].allowed


async def test_a_reset_is_heard_by_every_process(redis_server):
    limit = variant("fixed_window", Rate(1, DAY))
    async with (
        limits_on(redis_server, forgetful=False) as here,
        limits_on(redis_server, forgetful=False) as there,
    ):
        await eventually(lambda: redis_server.call("PUBSUB", "NUMSUB", "t:reset")[1] == 2)
        for store in (here, there, there):
            await store.admit([charge(limit)])
        assert len(there._denials) == 1
        await here.reset(limit.space, charge(limit).key)
        await eventually(lambda: not there._denials)
        assert (await there.admit([charge(limit)]))[0].allowed


async def test_a_reset_here_holds_at_once(redis_server):
    limit = variant("fixed_window", Rate(1, DAY))
    async with limits_on(redis_server, forgetful=False) as store:
        for _ in range(2):
            await store.admit([charge(limit)])
        await store.reset(limit.space, charge(limit).key)
        assert (await store.admit([charge(limit)]))[0].allowed


async def test_a_lost_subscription_forgets_all(redis_server):
    limit = variant("fixed_window", Rate(1, DAY))
    async with limits_on(redis_server, forgetful=False, monotonic=lambda: 1.0) as store:
        await eventually(lambda: redis_server.call("PUBSUB", "NUMSUB", "t:reset")[1] == 1)
        for _ in range(2):
            await store.admit([charge(limit)])
        assert len(store._denials) == 1
        redis_server.call("CLIENT", "KILL", "TYPE", "pubsub")
        await eventually(lambda: not store._denials)


@pytest.mark.parametrize("direct", [False, True])
async def test_an_answer_that_is_none_is_an_error(redis_server, direct):
    """Whatever answers: a script of that hash that says something else."""
    limit = variant("fixed_window", Rate(1, DAY))

    class Wrong:
        cluster = False

        def __init__(self, direct):
            self.direct = self if direct else None

        def subscribe(self, *_):
            pass

        async def post(self, command):
            return [1, 0, 0]

        async def run(self, script, keys, args, *, timeout=None):
            return [1, 0, 0]

        async def close(self):
            pass

    with pytest.raises(StoreError) as error:
        await RedisLimits(Wrong(direct), "t").admit([charge(limit)])
    assert error.value.reason == "refused"


async def test_a_server_that_is_gone_is_an_error(redis_servers):
    server = redis_servers.start()
    limit = variant("fixed_window", Rate(1, DAY))
    async with limits_on(server, timeout=2.0) as store:
        await store.admit([charge(limit)])
        server.kill()
        for ask in (store.admit([charge(limit)]), store.peek(charge(limit)),
                    store.reset("a", b"b" * 16)):  # fmt: skip
            with pytest.raises(StoreError):
                await ask


async def test_costs_without_number_are_kept_in_bounds(redis_server):
    limit = variant("fixed_window", Rate(10**9, DAY))
    async with limits_on(redis_server) as store:
        for cost in range(200):
            assert (await store.admit([charge(limit, cost=cost)]))[0].allowed
        (decision,) = await store.admit([charge(limit, cost=0)])
        assert decision == Decision(True, 10**9 - 199 * 100, decision.reset, 0, 0)
        assert max(len(words._charges) for words in store._spelling._words.values()) <= 64
