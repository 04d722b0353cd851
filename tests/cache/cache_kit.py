"""A gateway with a cache in front of an origin whose answers, and their moments, a test chooses."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rawhttp import Answer, RawOrigin, Seen, Wire

from proxy.admin.purge import read_purge
from proxy.app import Gateway
from proxy.metrics import CacheTally
from proxy.stages.cache import Caching

MAX_AGE = ("Cache-Control", "max-age=60")
STALE = ("Cache-Control", "max-age=60, stale-while-revalidate=0")


def respond(
    body: bytes | str = b"hello",
    *lines: tuple[str, str],
    status: str = "200 OK",
    chunked: bool = False,
) -> bytes:
    """An answer's bytes."""
    body = body.encode() if isinstance(body, str) else body
    head = f"HTTP/1.1 {status}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines)
    if chunked:
        head += "Transfer-Encoding: chunked\r\n\r\n"
        return head.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


Reaction = bytes | Callable[[Wire, Seen], Any]


class Origin:
    """A raw origin with an answer per target: bytes, or a script. `gate`, where it is closed
    (`hold`), keeps every answer back until `release`. `asked` counts requests per target."""

    def __init__(self) -> None:
        self.answers: dict[str, Reaction] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.raw = RawOrigin(self._script)
        self.answered = 0

    def hold(self) -> None:
        self.gate.clear()

    def release(self) -> None:
        self.gate.set()

    @property
    def seen(self) -> list[Seen]:
        return self.raw.seen

    def asked(self, target: str = "/a", method: str | None = None) -> int:
        return sum(s.target == target and method in (None, s.method) for s in self.raw.seen)

    async def _script(self, wire: Wire, seen: Seen) -> None:
        await self.gate.wait()
        reaction = self.answers.get(seen.target, respond(b"", status="404 Not Found"))
        if isinstance(reaction, bytes):
            if seen.method == "HEAD":
                reaction = reaction.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            await wire.send(reaction)
        else:
            await reaction(wire, seen)
        self.answered += 1


class Cached:
    """A running gateway whose routes have a cache."""

    def __init__(self, gateway: Gateway, port: int, origin: Origin) -> None:
        self.gateway = gateway
        self.port = port
        self.origin = origin
        self.skew = 0
        """ms that the cache's clock is ahead."""
        clock = self.caching.clock
        self.caching.clock = self.caching.purges._clock = lambda: clock() + self.skew

    @property
    def caching(self) -> Caching:
        assert self.gateway._caching is not None
        return self.gateway._caching

    @property
    def tally(self) -> CacheTally:
        return self.gateway.metrics.cache("things")

    def pass_time(self, seconds: float) -> None:
        self.skew += round(seconds * 1000)

    async def open(self) -> Wire:
        return await Wire.open(self.port)

    async def ask(self, target: str = "/a", *lines: str, method: str = "GET") -> Answer:
        """One request on a connection of its own."""
        async with await self.open() as wire:
            return await wire.ask(request(target, *lines, method=method))

    async def purge(self, kind: Any, *values: str, soft: bool = False) -> int:
        """As `POST /cache/purge` does."""
        snapshot = self.gateway.snapshot()
        assert snapshot is not None
        wanted = {"prefix": values[:1], "all": (True,)}.get(kind)
        document = {kind: list(values) if wanted is None else wanted[0], "soft": soft}
        asked = read_purge(document, snapshot.cache_rules)
        await self.gateway.purge(*asked)
        return asked.number

    async def quiet(self) -> None:
        """Until nothing is on its way; then nothing may be left behind."""
        caching = self.caching
        await until(lambda: not caching.busy)
        assert not caching.flights

    def stored(self) -> int:
        return len(self.caching.memory)


StartCached = Callable[..., Awaitable[Cached]]


def request(target: str = "/a", *lines: str, method: str = "GET") -> str:
    fields = "".join(f"{line}\r\n" for line in lines)
    return f"{method} {target} HTTP/1.1\r\nHost: h.test\r\n{fields}\r\n"


def status_of(answer: Answer) -> str:
    """Our Cache-Status member, without our name."""
    member = answer.all("Cache-Status")[-1]
    assert member.startswith("sluicegate; ")
    return member.removeprefix("sluicegate; ")


async def until(truth: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not truth():
            await asyncio.sleep(0.002)


CONFIG = """\
server: {server}
log: {{level: warning}}
admin: {{listen: "127.0.0.1:{admin}"}}
policies: policies
upstreams:
  origin:
    endpoints: ["http://127.0.0.1:{origin}"]
    max_connections: 1000
    queue: 2000
routes: {routes}
"""
ANY = {"match": {"path": "/{rest:path}"}, "upstream": "origin"}

CACHE = {"early_refresh": 0, "lock_timeout": "30s"}
"""The contract's defaults, but without chance, and more patient than this machine is slow."""


async def start(
    folder: Path,
    origin: Origin,
    ports: tuple[int, int],
    *,
    policies: str = "",
    server: dict[str, Any] | None = None,
    routes: list[dict[str, Any]] | None = None,
    route: dict[str, Any] | None = None,
    **settings: Any,
) -> Cached:
    """A gateway with one cache, `things`: `settings` are its YAML. `server` are further keys of
    the server, `route` of the one route; `routes` stand in its place."""
    port, admin = ports
    (folder / "policies").mkdir(exist_ok=True)
    caches = json.dumps({"things": CACHE | settings})
    (folder / "policies" / "caches.yaml").write_text(f"caches: {caches}\n{policies}")
    one = {"name": "things", "cache": "things"} | (route or {})
    path = folder / "gateway.yaml"
    path.write_text(
        CONFIG.format(
            server=json.dumps({"listen": f"127.0.0.1:{port}"} | (server or {})),
            admin=admin,
            origin=origin.raw.port,
            routes=json.dumps([ANY | given for given in routes or [one]]),
        )
    )
    gateway = Gateway(path)
    await gateway.start()
    return Cached(gateway, port, origin)
