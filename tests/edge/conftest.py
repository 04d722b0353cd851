"""A gateway of real parts in this process: YAML on disk, real listeners, a raw origin behind."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop
from edge_kit import GATEWAY, ROUTE, Running, StartGateway, StartOrigin
from lanes_kit import Gate, Scene, StartScene, start
from rawhttp import RawOrigin, Script, echo, free_port

from proxy import logs
from proxy.app import Gateway

ON_BOTH = (
    "test_turn",
    "test_driving",
    "test_lanes",
    "test_bounds",
    "test_drain",
    "test_client_disconnect",
)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """asyncio's own loop; the lanes and what drives them on uvloop, too, which production uses."""
    loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    if not item.path.name.startswith(ON_BOTH):
        del loops["uvloop"]
    return loops


def indent(text: str, depth: int) -> str:
    return "".join(" " * depth + line + "\n" for line in text.strip().splitlines())


@pytest.fixture
async def start_origin() -> AsyncIterator[StartOrigin]:
    origins: list[RawOrigin] = []

    async def start(script: Script = echo, **options: object) -> RawOrigin:
        origin = await RawOrigin(script, **options).start()  # type: ignore[arg-type]
        origins.append(origin)
        return origin

    yield start
    for origin in origins:
        await origin.stop()


@pytest.fixture
async def start_scene(
    tmp_path: Path, start_gateway: StartGateway, start_origin: StartOrigin
) -> AsyncIterator[StartScene]:
    """Takes what the files of gateway and origin may say, and `limit` for a client that reads no
    more than it has to."""
    scenes: list[Scene] = []

    async def start_one(
        script: Script | None = None,
        *,
        read_body: bool = True,
        server: str = "",
        upstream: str = "",
        limit: int = 65536,
    ) -> Scene:
        gate = Gate(script)
        origin = await start_origin(gate, read_body=read_body)
        running = await start(start_gateway, origin, tmp_path, server=server, upstream=upstream)
        scenes.append(await Scene(running, origin, gate).open(limit=limit))
        return scenes[-1]

    yield start_one
    for scene in scenes:
        scene.client.writer.transport.abort()
        await scene.client.close()


@pytest.fixture
async def start_gateway(tmp_path: Path) -> AsyncIterator[StartGateway]:
    running: list[Gateway] = []

    async def start(
        origin: int | RawOrigin,
        *,
        server: str = "",
        upstream: str = "",
        routes: str = ROUTE,
        limits: str = "",
        text: str | None = None,
    ) -> Running:
        port, admin = free_port(), free_port()
        (tmp_path / "policies").mkdir(exist_ok=True)
        (tmp_path / "policies" / "limits.yaml").write_text(
            limits and f"limits:\n{indent(limits, 2)}"
        )
        path = tmp_path / "gateway.yaml"
        path.write_text(
            (text or GATEWAY).format(
                port=port,
                admin=admin,
                origin=origin if isinstance(origin, int) else origin.port,
                server=indent(server, 2),
                upstream=indent(upstream, 4),
                routes=routes,
            )
        )
        gateway = Gateway(path)
        running.append(gateway)
        await gateway.start()
        return Running(gateway, port, admin, path)

    yield start
    for gateway in running:
        await gateway.stop()
    await asyncio.to_thread(logs.shutdown)
