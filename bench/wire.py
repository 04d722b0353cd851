"""A wire with a length: passes TCP on to a port of this machine, every byte so much later.

    python -m bench.wire PORT TARGET MILLISECONDS

Killed (SIGKILL), it takes with it what is under way, as a host does that loses its power.
"""

import asyncio
import sys
from collections.abc import Callable


class _End(asyncio.Protocol):
    """One end of a connection. `other` is there once the target has accepted."""

    def __init__(self, delay: float) -> None:
        self.other: asyncio.Future[_End] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport
        self._delay = delay
        self._work: asyncio.Queue[tuple[float, Callable[[_End], None]]] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._passing = asyncio.get_running_loop().create_task(self._pass_on())

    def data_received(self, data: bytes) -> None:
        self._later(lambda other: other.transport.write(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self._later(lambda other: other.transport.close())

    def _later(self, act: "Callable[[_End], None]") -> None:
        self._work.put_nowait((asyncio.get_running_loop().time() + self._delay, act))

    async def _pass_on(self) -> None:
        loop = asyncio.get_running_loop()
        other = await self.other
        while not (other.transport.is_closing() and self.transport.is_closing()):
            due, act = await self._work.get()
            await asyncio.sleep(due - loop.time())
            act(other)


async def run(port: int, target: int, delay: float) -> None:
    loop = asyncio.get_running_loop()
    joining = set()

    def accept() -> _End:
        near = _End(delay)
        task = loop.create_task(join(near))
        joining.add(task)
        task.add_done_callback(joining.discard)
        return near

    async def join(near: _End) -> None:
        _, far = await loop.create_connection(lambda: _End(delay), "127.0.0.1", target)
        far.other.set_result(near)
        near.other.set_result(far)

    server = await loop.create_server(accept, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000))
