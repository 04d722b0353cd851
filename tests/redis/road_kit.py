"""What the road's tests share: small scripts, roads that are closed again, and a primary with a
replica and a Sentinel."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from hashlib import sha1
from typing import Any

from redisservers import RedisServers, wait_for
from relay import SILENCE as SILENCE
from relay import Relay as Relay

from proxy.core.store_urls import read_store_url
from proxy.metrics import Metrics
from proxy.policy.snapshot import StorePlan
from proxy.store.ports import StoreError
from proxy.store.redis.road import open_road
from proxy.store.redis.road_port import Road

PATIENCE = 10.0


class Lua:
    """A script of a test's own."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source.encode()
        self.sha = sha1(self.source).hexdigest()


INCR = Lua("incr", "return redis.call('INCR', KEYS[1])")
ECHO = Lua("echo", "return ARGV[1]")


@asynccontextmanager
async def a_road(
    url: str, *, metrics: Metrics | None = None, up: bool = True, **plan: Any
) -> AsyncIterator[Road]:
    """A road to `url`, connected unless `up` is false, and closed in the end. Its deadline is long
    unless `timeout` says otherwise: the machine may be busy."""
    plan.setdefault("timeout", 2.0)
    road = open_road(StorePlan(read_store_url(url), **plan), metrics or Metrics())
    try:
        if up:
            assert await road.up(PATIENCE), road.status()
        yield road
    finally:
        await road.close()


async def warm(road: Road) -> None:
    """Has the script in place, however long that takes."""
    await road.run(ECHO, [b"k"], [b"warm"], timeout=PATIENCE)


async def eventually(
    condition: Callable[[], Any] | Callable[[], Awaitable[Any]], patience: float = PATIENCE
) -> float:
    """Waits until the condition holds; the seconds that took. A StoreError is a no."""
    began = time.monotonic()
    while True:
        try:
            held = condition()
            if asyncio.iscoroutine(held):
                held = await held
            if held:
                return time.monotonic() - began
        except StoreError:
            pass
        assert time.monotonic() - began < patience, "it never came true"
        await asyncio.sleep(0.005)


async def sooner_or_later(attempt: Callable[[], Awaitable[bool]], times: int = 5) -> None:
    """For what holds on a machine that lets the server run: one attempt of several is enough, as
    whoever is wrong is wrong each time."""
    for _ in range(times):
        if await attempt():
            return
    raise AssertionError(f"{times} attempts, and none went well")


async def outcome(call: Awaitable[Any]) -> Any:
    """What a call answers, or the reason of its StoreError."""
    try:
        return await call
    except StoreError as error:
        return error.reason


def at_once(call: Coroutine[Any, Any, Any]) -> Any:
    """What a call answers, or the reason of its StoreError, where it waits for nothing: not a
    short time, which a busy machine makes long, but no turn of the loop."""
    try:
        call.send(None)
    except StopIteration as done:
        return done.value
    except StoreError as error:
        return error.reason
    call.close()
    raise AssertionError("it waited")


async def blocking(function: Callable[..., Any], *args: Any) -> Any:
    """A blocking call of the tests' own client, beside the event loop."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


DOWN_AFTER = 300  # ms


class Trio:
    """A primary, a replica in step with it, and one Sentinel whose word is enough."""

    def __init__(
        self,
        servers: RedisServers,
        password: str | None = None,
        *,
        sentinel_password: str | None = None,
    ) -> None:
        own = {"repl-diskless-sync-delay": 0}
        if password is not None:
            own |= {"requirepass": password, "masterauth": password}
        self.primary = servers.start(options=own)
        self.replica = servers.start(options={**own, "replicaof": f"127.0.0.1 {self.primary.port}"})
        watch: dict[str, str | int] = {
            "sentinel monitor main 127.0.0.1": f"{self.primary.port} 1",
            "sentinel down-after-milliseconds main": DOWN_AFTER,
            "sentinel failover-timeout main": 3_000,
        }
        if password is not None:
            watch["sentinel auth-pass main"] = password
        if sentinel_password is not None:
            watch["requirepass"] = sentinel_password
        self.sentinel = servers.start(options=watch, mode="sentinel")
        wait_for(self._in_step, "a replica in step")
        wait_for(self._known, "a Sentinel that knows the replica")

    def url(self, credentials: str = "") -> str:
        return f"redis+sentinel://{credentials}127.0.0.1:{self.sentinel.port}/main/0"

    def _in_step(self) -> bool:
        return self.replica.call("INFO", "replication").get("master_link_status") == "up"

    def _known(self) -> bool:
        replicas = self.sentinel.call("SENTINEL", "REPLICAS", "main")
        return bool(replicas) and "disconnected" not in str(replicas)
