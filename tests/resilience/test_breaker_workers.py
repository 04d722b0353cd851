"""Circuits in a gateway of two processes: each has its own, the admin shows the worst of them and
steers both."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from rawhttp import Answer, Wire
from redisservers import RedisServer, RedisServers, free_port
from resilience_kit import BREAKER, Configured, Origin, ill, refused, request, until, well

CONNECTIONS = 24
"""So many that both workers have some: all but once in eight million times."""


class Fleet(Configured):
    """A supervisor and its two workers; `origin_port` is where they expect the origin."""

    def __init__(self, folder: Path, store: RedisServer) -> None:
        self._store = store
        self.origin_port = free_port()
        endpoints = [f"http://127.0.0.1:{self.origin_port}"]
        config = {
            "server": {"workers": 2},
            "store": {"url": store.url, "timeout": "1s"},
            "upstreams": {
                name: {"endpoints": endpoints, "breaker": name} for name in ("alone", "shared")
            },
            "routes": [
                {"name": name, "match": {"path": f"/{name}"}, "upstream": name}
                for name in ("alone", "shared")
            ],
        }
        policies = {"breakers": {"alone": BREAKER, "shared": BREAKER | {"shared": True}}}
        super().__init__(folder, config, policies)
        self.write()
        self._log = folder / "log"
        with self._log.open("wb") as log:
            command = (sys.executable, "-m", "proxy", "run", "-c", str(self.path))
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    async def ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            return bool((await self.admin("/readyz")).status == 200)
        except ConnectionError:
            return False

    async def hears(self) -> bool:
        """Whether both workers hear what is told of circuits."""
        return bool(self._store.call("PUBSUB", "NUMSUB", "sg:circuits")[1] == 2)

    async def pids(self) -> list[int]:
        workers: Any = (await self.admin("/readyz")).json()["workers"]
        return [worker["pid"] for worker in workers if worker["pid"] is not None]

    async def kill_one(self) -> None:
        """Returns when its successor serves."""
        before = await self.pids()
        os.kill(before[0], signal.SIGKILL)

        async def replaced() -> bool:
            return before[0] not in await self.pids() and await self.ready()

        await until(replaced, 15)

    async def reload(self) -> None:
        self.write()
        assert (await self.admin("/config/reload", "POST", {})).status == 200

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(15)
        finally:
            self._process.kill()
        assert status == 0, self._log.read_text()


@pytest.fixture(scope="module")
def started(
    tmp_path_factory: pytest.TempPathFactory, redis_servers: RedisServers
) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"), redis_servers.start())
    yield fleet
    fleet.stop()


@pytest.fixture
async def fleet(started: Fleet) -> Fleet:
    """All circuits are closed, with nothing counted."""
    await until(started.ready, 30)
    for state in ("closed", "auto"):
        for upstream in ("alone", "shared"):
            assert (await started.force(state, upstream)).json()["state"] == "closed"
    return started


@pytest.fixture
async def origin(started: Fleet) -> AsyncIterator[Origin]:
    origin = Origin()
    origin.port = started.origin_port
    await origin.start()
    yield origin
    await origin.stop()


@pytest.fixture
async def clients(fleet: Fleet) -> AsyncIterator[list[Wire]]:
    """Connections to both workers."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(await fleet.open()) for _ in range(CONNECTIONS)]


async def ask_all(clients: list[Wire], target: str = "/alone") -> list[Answer]:
    return list(await asyncio.gather(*(client.ask(request(target)) for client in clients)))


def count_refused(answers: list[Answer]) -> int:
    for answer in answers:
        if answer.status != 200:
            refused(answer)
    return sum(answer.status != 200 for answer in answers)


async def trip(client: Wire, origin: Origin, target: str = "/alone") -> None:
    """Opens the circuit of the worker that has this connection."""
    origin.script = ill
    for _ in range(2):
        assert (await client.ask(request(target))).body == b"ill"
    origin.script = well


async def test_each_worker_has_its_own(fleet: Fleet, origin: Origin, clients: list[Wire]) -> None:
    before = await fleet.transitions("alone")
    await trip(clients[0], origin)
    first = await ask_all(clients)
    refused(first[0])
    assert 0 < count_refused(first) < CONNECTIONS
    circuit = await fleet.circuit("alone")
    assert (circuit["state"], circuit["forced"]) == ("open", False)
    assert await fleet.metric("breaker_state", upstream="alone") == 2  # the highest, not the sum
    assert (await fleet.transitions("alone"))["open"] == before["open"] + 1
    other = next(
        client for client, answer in zip(clients, first, strict=True) if answer.status == 200
    )
    await trip(other, origin)
    assert count_refused(await ask_all(clients)) == CONNECTIONS
    assert await fleet.metric("breaker_state", upstream="alone") == 2
    assert (await fleet.transitions("alone"))["open"] == before["open"] + 2


async def test_workers_share_what_is_shared(
    fleet: Fleet, origin: Origin, clients: list[Wire]
) -> None:
    await until(fleet.hears)
    await trip(clients[0], origin, "/shared")

    async def all_refuse() -> bool:
        return count_refused(await ask_all(clients, "/shared")) == CONNECTIONS

    await until(all_refuse, 1.0)


async def test_an_order_reaches_both(fleet: Fleet, origin: Origin, clients: list[Wire]) -> None:
    answer = (await fleet.force("open", "alone")).json()
    assert (answer["upstream"], answer["state"], answer["forced"]) == ("alone", "open", True)
    assert count_refused(await ask_all(clients)) == CONNECTIONS
    assert origin.asked == 0
    assert (await fleet.circuit("shared"))["state"] == "closed"
    assert (await fleet.force("closed", "alone")).json()["state"] == "closed"
    origin.script = ill
    for _ in range(3):
        assert {answer.body for answer in await ask_all(clients)} == {b"ill"}
    assert (await fleet.force("auto", "alone")).json()["forced"] is False
    await ask_all(clients)
    await ask_all(clients)
    assert all(refused(answer) for answer in await ask_all(clients))
    assert (await fleet.force("open", "nobody")).status == 404


async def test_what_is_forced_outlives_a_reload_and_a_worker(fleet: Fleet, origin: Origin) -> None:
    await fleet.force("open", "alone")
    fleet.policies["breakers"]["alone"] = BREAKER | {"open_for": "2m"}
    await fleet.reload()
    await fleet.kill_one()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await fleet.open()) for _ in range(CONNECTIONS)]
        assert count_refused(await ask_all(clients)) == CONNECTIONS
        circuit = await fleet.circuit("alone")
        assert (circuit["state"], circuit["forced"]) == ("open", True)
        await fleet.force("auto", "alone")
        assert count_refused(await ask_all(clients)) == 0
