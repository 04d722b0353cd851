"""What every test gets: a guard against blocking calls on the event loop."""

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[BlockBuster]:
    """A blocking call from `proxy` inside a running event loop fails the test."""
    with blockbuster_ctx("proxy") as blockbuster:
        yield blockbuster
