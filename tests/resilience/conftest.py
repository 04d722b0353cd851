"""Gateways with breakers, and origins behind them; all are stopped with their test."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from rawhttp import Script
from redisservers import RedisServers
from resilience_kit import BREAKER, ROUTE, Origin, Running, Settings, StartGateway, StartOrigin

from proxy import logs


@pytest.fixture
async def start_origin() -> AsyncIterator[StartOrigin]:
    origins: list[Origin] = []

    async def start(script: Script | None = None) -> Origin:
        origins.append(Origin(script))
        await origins[-1].start()
        return origins[-1]

    yield start
    for origin in origins:
        await origin.stop()


@pytest.fixture
async def origin(start_origin: StartOrigin) -> Origin:
    return await start_origin()


@pytest.fixture
async def start_gateway(tmp_path: Path) -> AsyncIterator[StartGateway]:
    """One route to the upstream `origin`, whose breaker is `breaker`. `settings` are the
    upstream's, `route` and `policies` are added; `others` are upstreams by name, each an origin or
    an origin with its breaker; `config` is more of the file."""
    started: list[Running] = []

    async def start(
        origin: Origin | int,
        breaker: Settings | None = BREAKER,
        *,
        settings: Settings | None = None,
        route: Settings | None = None,
        policies: Settings | None = None,
        others: dict[str, Origin | tuple[Origin, Settings]] | None = None,
        config: Settings | None = None,
    ) -> Running:
        upstreams: dict[str, Any] = {"origin": _upstream(origin) | dict(settings or {})}
        breakers: dict[str, Any] = {}
        for name, (there, own) in {
            "origin": (origin, breaker),
            **{n: o if isinstance(o, tuple) else (o, None) for n, o in (others or {}).items()},
        }.items():
            upstreams.setdefault(name, _upstream(there))
            if own is not None:
                upstreams[name]["breaker"] = f"of-{name}"
                breakers[f"of-{name}"] = dict(own)
        running = Running(
            tmp_path / f"gateway{len(started)}",
            {"upstreams": upstreams, "routes": [ROUTE | dict(route or {})]} | dict(config or {}),
            {"breakers": breakers} | dict(policies or {}),
        )
        await asyncio.to_thread(running.write)
        started.append(running)
        await running.gateway.start()
        return running

    yield start
    for running in started:
        await running.gateway.stop()
    await asyncio.to_thread(logs.shutdown)


def _upstream(origin: Origin | int) -> dict[str, Any]:
    port = origin if isinstance(origin, int) else origin.port
    return {"endpoints": [f"http://127.0.0.1:{port}"]}


@pytest.fixture(scope="module")
def redis_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServers]:
    servers = RedisServers(tmp_path_factory.mktemp("redis"))
    yield servers
    servers.stop()
