"""A shortage or a fault of our own: that says nothing of the upstream."""

import asyncio
import contextlib
import os
import resource
from collections.abc import Iterator
from time import monotonic

import pytest
from origins import Lab, Peer, request

from proxy.core.breaker import Breaker, BreakerTerms, Permit, State
from proxy.core.health import HealthTerms
from proxy.core.message import UpstreamError
from proxy.edge.upstream.checks import Checks
from proxy.edge.upstream.connection import Connection
from proxy.policy.snapshot import Endpoint
from proxy.stages.upstream.circuit import unanswered


async def polite(peer: Peer) -> None:
    while await peer.head():
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for one in taken:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_a_connection_that_cannot_be_opened_is_nobodys_failure(lab: Lab) -> None:
    both = [(await lab.origin(polite))[1] for _ in range(2)]
    upstream = lab.upstream(*both)
    with no_descriptor_left():
        for _ in range(4):
            with pytest.raises(UpstreamError) as failed:
                await upstream.send(request())
            assert (failed.value.reason, failed.value.sent) == ("no_socket", False)
    for _ in range(4):
        assert (await upstream.send(request())).status == 200
    # Neither was put aside: they take turns.
    assert [len(origin.peers) > 0 for origin in lab.origins] == [True, True]


async def test_a_check_that_cannot_be_made_says_nothing() -> None:
    asked = asyncio.Event()

    class NoSocket:
        async def connect(self, index: int) -> Connection:
            if index:
                raise UpstreamError("connect_error", "it refuses", sent=False)
            asked.set()
            raise UpstreamError("no_socket", "none is left", sent=False)

    said: list[tuple[int, str | None]] = []
    told = asyncio.Event()

    def tell(index: int, failure: str | None) -> None:
        said.append((index, failure))
        if len(said) >= 3:
            told.set()

    endpoint = Endpoint("http", "127.0.0.1", 9, "")
    terms = HealthTerms("/", interval=0.01, timeout=1.0, unhealthy_after=1, healthy_after=1)
    checks = Checks(terms, (endpoint, endpoint), NoSocket(), tell)
    checks.start()
    try:
        async with asyncio.timeout(10):
            await asked.wait()
            await told.wait()
    finally:
        checks.stop()
    assert set(said) == {(1, "it refuses")}


async def test_a_check_that_fails_by_itself_is_made_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        asked = 0

        async def connect(self, index: int) -> Connection:
            self.asked += 1
            if self.asked == 1:
                raise ValueError("a fault of ours")
            raise UpstreamError("connect_error", "it refuses", sent=False)

    said: list[str | None] = []
    told = asyncio.Event()

    def tell(index: int, failure: str | None) -> None:
        said.append(failure)
        told.set()

    terms = HealthTerms("/", interval=0.01, timeout=1.0, unhealthy_after=1, healthy_after=1)
    checks = Checks(terms, (Endpoint("http", "127.0.0.1", 9, ""),), Broken(), tell)
    checks.start()
    try:
        async with asyncio.timeout(10):
            await told.wait()
    finally:
        checks.stop()
    assert said == ["it refuses"]
    assert "a check of 127.0.0.1:9 failed" in caplog.text


@pytest.mark.parametrize(
    ("reason", "state"), [("no_socket", State.CLOSED), ("connect_error", State.OPEN)]
)
def test_what_a_breaker_hears_of_it(reason: str, state: State) -> None:
    breaker = Breaker(BreakerTerms(consecutive_failures=1), lambda: 0.0)
    now = monotonic()
    permit = breaker.admit(now)
    assert isinstance(permit, Permit)
    unanswered(breaker, permit, UpstreamError(reason, "", sent=False))
    assert breaker.state(now) is state
