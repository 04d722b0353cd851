"""The yardstick: the least that an aiohttp server with an aiohttp client behind it can do.

    python -m bench.bare_aiohttp PORT UPSTREAM_URL

No routing, no limits, no checks: drop the hop-by-hop fields, ask, stream the answer. On uvloop,
with the low-level server (no Application), without an access log, cookies or decompression: what
somebody writes who wants aiohttp to be fast. It is not a proxy to use.
"""

import asyncio
import logging
import sys

import uvloop
from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web
from yarl import URL

HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"}
)
INVENTED = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")


async def main(port: int, upstream: str) -> None:
    session = ClientSession(
        connector=TCPConnector(limit=0),
        cookie_jar=DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=INVENTED,
    )

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        headers = [
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in HOP_BY_HOP
        ]
        async with session.request(
            request.method,
            URL(upstream + request.raw_path, encoded=True),
            headers=headers,
            data=request.content if request.can_read_body else None,
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    response.headers.add(name, value)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    runner = web.ServerRunner(web.Server(handler, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    # wrk leaves in the middle of its last requests: that is no news.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
