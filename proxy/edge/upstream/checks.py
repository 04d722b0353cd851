"""Active health checks: every endpoint is asked, whether or not requests go to it.

A check is a GET on a connection of its own, so that it also shows whether the endpoint accepts
any. 2xx and 3xx are healthy; anything else, and silence for `timeout` seconds, is not. What the
results mean is core/health.py's business. Every process checks for itself.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final, Protocol

from proxy import __version__
from proxy.core.health import HealthTerms
from proxy.core.http1.body import FramingError
from proxy.core.http1.response import InvalidResponse, ResponseParser
from proxy.core.message import UpstreamError
from proxy.edge.upstream.connection import Connection
from proxy.policy.snapshot import Endpoint

log = logging.getLogger(__name__)

_JITTER: Final = 0.1
"""Up to this share of the interval is added or taken off: replicas do not check in step."""


_UNCHECKED: Final = "unchecked"


class Dialler(Protocol):
    """Where connections come from: the upstream's pool."""

    async def connect(self, index: int) -> Connection:
        """Raises UpstreamError."""


class Checks:
    """The checks of one upstream. `tell(index, failure)` hears of each result, None where well."""

    def __init__(
        self,
        terms: HealthTerms,
        endpoints: tuple[Endpoint, ...],
        pool: Dialler,
        tell: Callable[[int, str | None], None],
    ) -> None:
        self._terms = terms
        self._endpoints = endpoints
        self._pool = pool
        self._tell = tell
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins, on the running event loop; once."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._keep(index), name=f"check of {endpoint.authority}")
            for index, endpoint in enumerate(self._endpoints)
        ]

    def stop(self) -> None:
        """Ends; harmless twice, and before the start."""
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    async def _keep(self, index: int) -> None:
        terms = self._terms
        while True:
            try:
                async with asyncio.timeout(terms.timeout):
                    failure = await self._check(index)
            except TimeoutError:
                failure = f"no answer within {terms.timeout:g} s"
            except Exception:  # of our own making; no more checks at all would be worse
                log.exception("a check of %s failed", self._endpoints[index].authority)
                failure = _UNCHECKED
            if failure != _UNCHECKED:
                self._tell(index, failure)
            await asyncio.sleep(terms.interval * random.uniform(1 - _JITTER, 1 + _JITTER))

    async def _check(self, index: int) -> str | None:
        """What is wrong with the endpoint, if anything is; _UNCHECKED where that is not known."""
        endpoint = self._endpoints[index]
        try:
            connection = await self._pool.connect(index)
        except UpstreamError as error:
            if error.reason == "no_socket":
                log.warning("the check of %s was left out: %s", endpoint.authority, error.detail)
                return _UNCHECKED
            return error.of_endpoint
        try:
            asked = _Asked(asyncio.get_running_loop())
            connection.call = asked
            if connection.closed:
                return "the connection was closed at once"
            connection.transport.write(
                f"GET {endpoint.path}{self._terms.path} HTTP/1.1\r\n"
                f"Host: {endpoint.authority}\r\n"
                f"User-Agent: sluicegate/{__version__} (health check)\r\n"
                "Connection: close\r\n\r\n".encode("latin-1")
            )
            return await asked.said
        finally:
            connection.call = None
            connection.abort()


class _Asked:
    """What an endpoint says to a check. Implements `connection.Receiver`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._parser = ResponseParser("GET", upgrade=False)
        self.said: asyncio.Future[str | None] = loop.create_future()

    def feed(self, data: bytes) -> None:
        try:
            heads = self._parser.feed(data)
        except (InvalidResponse, FramingError) as error:
            self._say(error.detail)
            return
        for head in heads:
            if head.status >= 200:
                self._say(None if head.status < 400 else f"status {head.status}")

    def ended(self) -> bool:
        self._say("the connection was closed without an answer")
        return False

    def lost(self, error: Exception | None) -> None:
        self._say("the connection was closed without an answer")

    def _say(self, failure: str | None) -> None:
        if not self.said.done():
            self.said.set_result(failure)
