"""What every test gets: a guard against blocking calls on the event loop. And what flow tests ask
for: both lanes of the edge."""

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from proxy.edge.server import Front


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[BlockBuster]:
    """A blocking call from `proxy` inside a running event loop fails the test."""
    with blockbuster_ctx("proxy") as blockbuster:
        yield blockbuster


@pytest.fixture(params=["express", "queue"])
def lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each lane in turn, for the gateways in this process: simple requests are answered in the
    call that brings them, or stand in aiohttp's queue like all others."""
    if request.param == "queue":
        monkeypatch.setattr(Front, "express", False)
    return str(request.param)
