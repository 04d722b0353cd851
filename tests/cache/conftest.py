"""Gateways with a cache, and the origins behind them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cache_kit
import pytest
from cache_kit import Cached, Origin, StartCached
from rawhttp import free_port

from proxy import logs


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    made = Origin()
    await made.raw.start(backlog=1024)
    yield made
    made.release()
    await made.raw.stop()


@pytest.fixture
async def start_cached(tmp_path: Path, origin: Origin) -> AsyncIterator[StartCached]:
    running: list[Cached] = []

    async def start(**settings: Any) -> Cached:
        cached = await cache_kit.start(tmp_path, origin, (free_port(), free_port()), **settings)
        running.append(cached)
        return cached

    yield start
    for cached in running:
        await cached.quiet()
        await cached.gateway.stop()
    await asyncio.to_thread(logs.shutdown)


@pytest.fixture
async def cached(start_cached: StartCached) -> Cached:
    """One with nothing out of the ordinary."""
    return await start_cached()
