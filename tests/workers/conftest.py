"""Starts gateways of several processes, and the origin behind them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from fleet_kit import BIG, Fleet
from rawhttp import RawOrigin, Script, echo


@pytest.fixture
async def start_fleet(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Fleet]]]:
    fleets: list[Fleet] = []
    origins: list[RawOrigin] = []

    async def start(
        script: Script = echo,
        *options: str,
        workers: int = 2,
        server: str = "",
        rate: int = BIG,
        listen: str | None = None,
    ) -> Fleet:
        origins.append(await RawOrigin(script).start())
        fleet = Fleet(tmp_path, origins[0].port, workers, server, rate)
        if listen is not None:
            fleet.listen = listen
            fleet.write("first")
        fleets.append(fleet)
        return await fleet.start(*options)

    yield start
    for fleet in fleets:
        await fleet.stop()
    for origin in origins:
        await origin.stop()
