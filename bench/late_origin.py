"""An origin that takes 20 ms for each answer, so that some requests are always with it.

    python -m bench.late_origin PORT

One process without children: a signal to it stops or ends all of it.
"""

import asyncio
import sys

import uvloop
from aiohttp import web

from bench.tools import BODY

LATE = 0.02


async def main(port: int) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(LATE)
        return web.Response(body=BODY, content_type="application/json")

    runner = web.ServerRunner(web.Server(handler, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
