"""Shops on each store, their origin, and a real Redis behind a relay that can break the way."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from rawhttp import Script
from redisservers import RedisServer, RedisServers
from relay import Relay
from replay_kit import POLICY, Origin, Settings, Shop, StartOrigin, StartShop

from proxy import logs
from proxy.core.idempotency import Terms
from proxy.policy import compile as compiling


@pytest.fixture(scope="session")
def replay_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for the folder. Ask for `redis`, which is empty."""
    servers = RedisServers(tmp_path_factory.mktemp("redis"))
    yield servers.start()
    servers.stop()


@pytest.fixture
def redis(replay_redis: RedisServer) -> RedisServer:
    replay_redis.call("FLUSHALL")
    return replay_redis


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> str:
    """Each store in turn."""
    return str(request.param)


@pytest.fixture
def server(request: pytest.FixtureRequest, store: str) -> RedisServer | None:
    """Where the records are; None where that is this process."""
    return None if store == "memory" else request.getfixturevalue("redis")


@pytest.fixture
async def relay(server: RedisServer | None) -> AsyncIterator[Relay | None]:
    """The way to Redis, where that is the store."""
    if server is None:
        yield None
        return
    async with Relay(server.port) as relay:
        yield relay


@pytest.fixture
async def start_origin() -> AsyncIterator[StartOrigin]:
    origins: list[Origin] = []

    async def start(script: Script | None = None) -> Origin:
        origins.append(Origin(script))
        await origins[-1].start(backlog=1024)
        return origins[-1]

    yield start
    for origin in origins:
        await origin.stop()


@pytest.fixture
async def origin(start_origin: StartOrigin) -> Origin:
    return await start_origin()


@pytest.fixture
async def start_shop(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    relay: Relay | None,
    origin: Origin,
) -> AsyncIterator[StartShop]:
    """One route to `origin` with a policy of scope X-Api-Key, and what `policy` says. `route` and
    `settings` (the upstream's) are added; `policies` and `config` are more of the files;
    `timeout`: the store's. `lease`: ms, in place of the ten seconds that claims have. `hears`:
    whether it must have subscribed before it is asked."""
    started: list[Shop] = []

    async def start(
        policy: Settings | None = None,
        *,
        route: Settings | None = None,
        settings: Settings | None = None,
        policies: Settings | None = None,
        config: Settings | None = None,
        others: dict[str, Settings] | None = None,
        timeout: str = "5s",
        lease: int | None = None,
        hears: bool = True,
    ) -> Shop:
        if lease is not None:

            def terms(ttl: int, release_unknown: bool) -> Terms:
                return Terms(ttl, release_unknown, lease)

            monkeypatch.setattr(compiling, "IdempotencyTerms", terms)
        more = dict(config or {})
        server = {"url": "memory://"} if relay is None else _redis(relay, timeout)
        files: dict[str, Any] = {
            "store": server | more.pop("store", {}),
            "upstreams": {
                "origin": _upstream(origin.port) | dict(settings or {}),
                **(others or {}),
            },
            "routes": [
                {
                    "name": "all",
                    "match": {"path": "/{rest:path}"},
                    "upstream": "origin",
                    "idempotency": POLICY,
                    **(route or {}),
                }
            ],
        }
        payments = {"scope": ["header:X-Api-Key"], **(policy or {})}
        shop = Shop(
            tmp_path / f"shop{len(started)}",
            files | more,
            {"idempotency": {POLICY: payments}, **(policies or {})},
            relay,
        )
        started.append(shop)
        await shop.start(hears)
        return shop

    yield start
    if relay is not None:
        relay.recover()
    for shop in started:
        await shop.gateway.stop()
    await asyncio.to_thread(logs.shutdown)


@pytest.fixture
async def shop(start_shop: StartShop) -> Shop:
    """One with nothing out of the ordinary."""
    return await start_shop()


def _redis(relay: Relay, timeout: str) -> dict[str, Any]:
    return {"url": f"redis://127.0.0.1:{relay.port}", "timeout": timeout}


def _upstream(port: int) -> dict[str, Any]:
    return {"endpoints": [f"http://127.0.0.1:{port}"]}
