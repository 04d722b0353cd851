"""A gateway in a process of its own, whose resident memory can be read."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from rawhttp import Wire

MB = 1024 * 1024


class Gateway:
    """A gateway process and its resident memory."""

    def __init__(self, pid: int, port: int) -> None:
        self.pid = pid
        self.port = port

    def resident(self) -> int:
        """Bytes, as the kernel counts them."""
        with open(f"/proc/{self.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def running(config: Path, port: int) -> AsyncIterator[Gateway]:
    """Runs a gateway with this file until the end; `port` is its data port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", "run", "-c", str(config)
    )
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    await (await Wire.open(port)).close()
                    break
                except ConnectionError:
                    await asyncio.sleep(0.05)
        yield Gateway(process.pid, port)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
