"""Every test of this room runs on asyncio's own loop and on uvloop, which production uses."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop
from origins import Lab, settled, tcp_sockets


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    before = tcp_sockets()
    async with contextlib.AsyncExitStack() as stack:
        lab = Lab(stack)
        yield lab
    assert [error for origin in lab.origins for error in origin.failures] == []
    await settled(lambda: len(asyncio.all_tasks()) == 1)
    await settled(lambda: tcp_sockets() <= before)
