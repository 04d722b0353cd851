"""`sluicegate demo`: an example origin to stand behind the gateway, and curl lines to try.

It goes with `config/demo.yaml`. The origin is a plain aiohttp application without any idea of a
gateway: what limits, caches, rewrites and times out is the YAML.
"""

import asyncio
import json
from datetime import UTC, datetime

from aiohttp import WSMsgType, web
from aiohttp.typedefs import Handler

REPORT_SECONDS = 1.0
NAMES = ("Ada", "Grace", "Barbara", "Edsger", "Leslie", "Radia", "Tony", "Frances")


async def start_origin(host: str, port: int) -> web.AppRunner:
    """Serves the example origin on `host`:`port`. `await runner.cleanup()` ends it."""
    app = web.Application(middlewares=[_quietly])
    app.add_routes(
        [
            web.get("/users/{id}", _user),
            web.get("/report", _report),
            web.get("/slow", _slow),
            web.get("/stream", _stream),
            web.post("/echo", _echo),
            web.get("/ws", _websocket),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner


@web.middleware
async def _quietly(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A client that leaves in the middle is no error worth a traceback."""
    try:
        return await handler(request)
    except ConnectionError:
        return web.Response()


async def _user(request: web.Request) -> web.Response:
    """One user, and the forwarded fields, to show what the gateway sends."""
    name = request.match_info["id"]
    number = sum(name.encode())
    seen = {
        field: request.headers[field]
        for field in ("X-Forwarded-For", "X-Forwarded-Proto", "X-Request-Id", "Via")
        if field in request.headers
    }
    document = {"id": name, "name": NAMES[number % len(NAMES)], "seen": seen}
    return web.json_response(document, headers={"X-Powered-By": "the demo origin"})


async def _report(request: web.Request) -> web.Response:
    """What takes a second to make, and may be kept for half a minute."""
    await asyncio.sleep(REPORT_SECONDS)
    made = datetime.now(UTC).isoformat(timespec="milliseconds")
    return web.json_response({"made": made}, headers={"Cache-Control": "max-age=30"})


async def _slow(request: web.Request) -> web.Response:
    """Answers after `?s=` seconds (2 where left out, 60 at most)."""
    try:
        seconds = min(max(float(request.query.get("s", "2")), 0.0), 60.0)
    except ValueError:
        raise web.HTTPBadRequest(text="s is a number of seconds\n") from None
    await asyncio.sleep(seconds)
    return web.json_response({"slept": seconds})


async def _stream(request: web.Request) -> web.StreamResponse:
    """Server-sent events: the time, twice a second, ten times."""
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    )
    await response.prepare(request)
    for number in range(10):
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        await response.write(f"id: {number}\ndata: {now}\n\n".encode())
        await asyncio.sleep(0.5)
    await response.write_eof()
    return response


async def _echo(request: web.Request) -> web.StreamResponse:
    """Sends the request's body back while it is still arriving."""
    response = web.StreamResponse(headers={"Content-Type": request.content_type})
    await response.prepare(request)
    async for chunk in request.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


async def _websocket(request: web.Request) -> web.WebSocketResponse:
    """Says every message again, as JSON with a count."""
    socket = web.WebSocketResponse(heartbeat=30.0)
    await socket.prepare(request)
    count = 0
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            count += 1
            await socket.send_str(json.dumps({"count": count, "said": message.data}))
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


def curl_lines(base_url: str) -> str:
    """What to type next, for a gateway at `base_url` (such as http://127.0.0.1:8080)."""
    return f"""\
Sluicegate answers on {base_url}. Try, in another terminal:

  a user, through the gateway; see RateLimit and Via in the answer
    curl -i {base_url}/api/users/ada

  more than the limit allows: the last answers are 429 with Retry-After
    for i in $(seq 15); do curl -so /dev/null -w '%{{http_code}} ' {base_url}/api/users/ada; done

  a key of one's own has a bucket of its own
    curl -i -H 'X-Api-Key: mine' {base_url}/api/users/ada

  a report that takes a second to make, once; then from the cache: see Cache-Status and Age
    curl -i {base_url}/report

  made anew by whoever asks next
    curl -H 'Content-Type: application/json' -d '{{"tags": ["reports"]}}' http://127.0.0.1:9090/cache/purge

  server-sent events, as they come
    curl -N {base_url}/stream

  an upload, streamed there and back
    head -c 50000000 /dev/zero | curl -s -X POST -T - {base_url}/echo | wc -c

  an upstream that takes too long: 504 as problem+json
    curl -i '{base_url}/slow?s=30'

  what the gateway counted
    curl -s http://127.0.0.1:9090/metrics | grep sluicegate_limit_decisions_total

Ctrl-C ends it.
"""
