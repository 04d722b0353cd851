"""The gateway's flow with a cache, in this process: an origin that changes, and a clock.

What bench/cache_zipf.py and bench/cache_memory.py ask. There is no HTTP on either side, so what is
seen is what the cache decides and keeps.
"""

import asyncio
import tempfile
from pathlib import Path

from proxy.buffer import BodyRoom
from proxy.core.dates import imf_fixdate
from proxy.core.fields import Fields
from proxy.core.message import Outgoing, Reply, Upstream
from proxy.exchange import Exchange
from proxy.handler import Flow
from proxy.metrics import Metrics
from proxy.policy.compile import Live, compile_snapshot
from proxy.policy.load import load
from proxy.policy.snapshot import UpstreamPlan
from proxy.stages.cache import Caching
from proxy.stages.idempotency import Replaying
from proxy.store.memory.limits import MemoryLimits

EPOCH = 1_800_000_000_000
HOST = "api.example.com"
VIEWS = 4
"""URLs of one user; all have the user's tag, and a write changes them all."""

GATEWAY = """
policies: [policies.yaml]
upstreams: {origin: {endpoints: ["http://127.0.0.1:9"]}}
routes:
  - name: read
    match: {path: "/users/{id}/{view}", methods: [GET]}
    upstream: origin
    cache: users
  - name: write
    match: {path: "/users/{id}", methods: [PUT]}
    upstream: origin
    invalidate: ["user:{path.id}"]
"""
POLICIES = """
caches:
  users: {tags: ["user:{path.id}", users]}
"""


def target(url: int) -> str:
    """The path of one of the URLs."""
    user, view = divmod(url, VIEWS)
    return f"/users/{user}/{view}"


class World(Live):
    """The flow, and the origin behind it (an Upstream, and the `Live` of its snapshot).

    `memory`: bytes for stored answers; `size`: bytes of each body.
    """

    name = "origin"

    def __init__(self, urls: int, memory: int, size: int) -> None:
        self.now = EPOCH
        """ms."""
        self.metrics = Metrics()
        self.versions = [0] * (urls // VIEWS + 1)
        """By user: how often it was written."""
        self.fetched = 0
        self.filling = "x" * (size - 12)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "gateway.yaml").write_text(GATEWAY)
            (Path(folder) / "policies.yaml").write_text(POLICIES)
            self.snapshot = compile_snapshot(load(Path(folder) / "gateway.yaml"), self)
        self.caching = Caching(self.metrics, memory, clock=lambda: self.now)
        self.flow = Flow(
            MemoryLimits(lambda: self.now * 1000, self.metrics), Replaying(BodyRoom()), self.caching
        )

    def upstream(self, plan: UpstreamPlan) -> Upstream:
        return self

    async def send(self, request: Outgoing) -> Reply:
        """The origin's answer: its body begins with the user's version."""
        user = int(request.target.split("/")[2])
        if request.method != "GET":
            self.versions[user] += 1
            return Reply(204, [], origin=True)
        self.fetched += 1
        head = (
            f"Server: origin\nDate: {imf_fixdate(self.now // 1000)}\n"
            "Content-Type: application/json\nCache-Control: max-age=3600"
        )
        # Text of its own for each answer, as it is when it comes from a socket.
        lines = [(line[: (at := line.index(":"))], line[at + 2 :]) for line in head.split("\n")]
        body = f"{self.versions[user]:011d} {self.filling}".encode()
        return Reply(200, lines, body, origin=True)

    async def ask(self, method: str, target: str) -> Reply:
        """One request, its body read to the end."""
        fields = Fields([("Host", HOST), ("Accept", "application/json"), ("User-Agent", "trace")])
        ex = Exchange(
            self.snapshot, method, target, 11, fields,
            authority=HOST, scheme="http", peer="192.0.2.1",
        )  # fmt: skip
        reply = await self.flow.answer(ex)
        if reply.stream is not None:
            pieces = []
            while piece := await reply.stream.read():
                pieces.append(piece)
            reply.stream.close()
            reply.body = b"".join(pieces)
        return reply

    async def quiet(self) -> None:
        """Until no fetch is on its way."""
        for _ in range(100_000):
            if not self.caching.busy:
                return
            await asyncio.sleep(0)
        raise RuntimeError("a fetch does not end")
