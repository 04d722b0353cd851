"""A worker: one serving process under a supervisor, run as `python -m proxy.workers.worker FD`.

FD is its end of the channel, inherited with the sockets it accepts on. What it does it is told:

    start    {path, sources, sockets}  load exactly this, accept on these fds  → [] or the errors
    prepare  {sources}                 build the next configuration            → [] or the errors
    commit, abort                      put it in use, forget it
    figures                            → metrics, connections, status, readiness
    readiness                          → readiness
    reset    {space, key}              forget a limit's key
    purge    {tags, prefix, soft}      purge stored answers
    force    {upstream, state}         open or close a circuit, or let it decide ("auto")
    stored   {key}                     → what is stored under a cache key
    drain                              finish and let go of all                → the last figures

It takes no orders from signals: those of a terminal or of an init system reach the supervisor as
well, which tells it to drain. When the channel ends, it drains (unless it has) and exits.
"""

import asyncio
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from proxy import logs
from proxy.admin.question import Question
from proxy.app import Gateway
from proxy.loops import loop_factory
from proxy.policy.load import Loaded, load
from proxy.policy.problem import ConfigError
from proxy.policy.sources import GivenSources
from proxy.store.ports import Purge, StoreError
from proxy.workers.channel import Channel, Refused
from proxy.workers.purges import unpacked


class Worker:
    """A gateway that takes its orders from a channel."""

    def __init__(self) -> None:
        self._gateway: Gateway | None = None
        self._stopped: asyncio.Task[None] | None = None

    async def answer(self, what: str, order: dict[str, Any]) -> Any:
        """Does what the supervisor says."""
        if what == "start":
            return await self._start(**order)
        gateway = self._gateway
        if gateway is None:
            raise Refused("not started")
        match what:
            case "prepare":
                return await self._prepare(gateway, order["sources"])
            case "commit":
                gateway.commit()
            case "abort":
                gateway.abort()
            case "figures":
                return await _figures(gateway)
            case "readiness":
                return _readiness(gateway)
            case "reset":
                await _reset(gateway, order["space"], bytes.fromhex(order["key"]))
            case "purge":
                await _purge(gateway, unpacked(order))
            case "force":
                await gateway.force_breaker(order["upstream"], order["state"])
            case "stored":
                return await gateway.looked_up(Question.of(order["question"]))
            case "drain":
                await self.stop()
                return await _figures(gateway)
            case _:
                raise Refused(f"there is no order {what!r}")
        return None

    async def stop(self) -> None:
        """Drains, or waits for the drain that goes on."""
        if self._gateway is not None:
            if self._stopped is None:
                self._stopped = asyncio.create_task(self._gateway.stop())
            await asyncio.shield(self._stopped)

    async def _start(self, path: str, sources: dict[str, Any], sockets: list[int]) -> list[str]:
        gateway = Gateway(Path(path), supervised=True)
        try:
            loaded = await asyncio.to_thread(_load, gateway.path, sources)
            await gateway.start_worker(loaded, [socket.socket(fileno=fd) for fd in sockets])
        except ConfigError as failed:
            return [str(problem) for problem in failed.problems]
        except (OSError, RuntimeError) as failed:
            return [str(failed)]
        self._gateway = gateway
        return []

    async def _prepare(self, gateway: Gateway, sources: dict[str, Any]) -> list[str]:
        try:
            loaded = await asyncio.to_thread(_load, gateway.path, sources)
        except ConfigError as failed:
            return [str(problem) for problem in failed.problems]
        return await gateway.prepare(loaded)


def _load(path: Path, sources: dict[str, Any]) -> Loaded:
    return load(path, sources=GivenSources(sources))


async def _reset(gateway: Gateway, space: str, key: bytes) -> None:
    try:
        await gateway.limit_store.reset(space, key)
    except StoreError as error:
        raise Refused(f"{error.reason}: {error.detail}") from error


async def _purge(gateway: Gateway, purge: Purge) -> None:
    try:
        await gateway.apply_purge(purge)
    except StoreError as error:
        raise Refused(f"{error.reason}: {error.detail}") from error


async def _figures(gateway: Gateway) -> dict[str, Any]:
    await gateway.refresh()
    return _readiness(gateway) | {
        "metrics": gateway.metrics.dump(),
        "connections": gateway.connections(),
        "upstreams": gateway.upstream_status(),
        "store": gateway.store_status(),
        "cache": gateway.cache_status(),
        "breakers": gateway.breakers(),
        "idempotency": gateway.idempotency_status(),
    }


def _readiness(gateway: Gateway) -> dict[str, Any]:
    ready, detail = gateway.readiness()
    return {"ready": ready, "detail": detail}


async def _serve(fd: int) -> None:
    worker = Worker()
    channel = await Channel.open(socket.socket(fileno=fd), worker.answer)
    await channel.closed.wait()
    await worker.stop()
    await channel.close()


def main(fd: int) -> None:
    """Serves until the channel `fd` ends."""
    for deaf in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(deaf, signal.SIG_IGN)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_serve(fd))
    finally:
        logs.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
