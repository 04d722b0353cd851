"""The real flow over an origin that keeps a record: what it was asked, by whom, and what it said.

Every answer names the exchange that it comes from: X-Serial the one that brought its body, X-Said
the last one that spoke of it (a 304 or a HEAD names only itself there, and so renames what it
freshens). The body says whom it was made for, and no two bodies have the same length. Time is
whole seconds, and moves when a test says so; `tick` counts events.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from proxy.admin.purge import read_purge
from proxy.buffer import BodyRoom
from proxy.core.dates import imf_fixdate
from proxy.core.fields import Fields, Lines
from proxy.core.message import Outgoing, Reply, StreamCut, Upstream, UpstreamError
from proxy.exchange import Exchange
from proxy.handler import Flow
from proxy.metrics import Metrics
from proxy.policy.compile import Live, compile_snapshot
from proxy.policy.load import Loaded
from proxy.policy.snapshot import Snapshot, UpstreamPlan
from proxy.stages.cache import Caching
from proxy.stages.idempotency import Replaying
from proxy.store.memory.limits import MemoryLimits

SECOND = 1000
EPOCH = 1_800_000_000 * SECOND
HOST = "h.test"


@dataclass(frozen=True)
class Say:
    """Directives of an answer. Spans in seconds."""

    no_store: bool = False
    no_cache: bool = False
    private: bool = False
    public: bool = False
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    must_understand: bool = False
    immutable: bool = False
    mine: bool = False
    """private="x-mine": that field alone is for the asker."""
    max_age: int | None = None
    s_maxage: int | None = None
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None

    @property
    def text(self) -> str:
        said = ['private="x-mine"'] if self.mine else []
        for name, value in vars(self).items():
            if name != "mine" and value is not None and value is not False:
                word = name.replace("_", "-")
                said.append(word if value is True else f"{word}={value}")
        return ", ".join(said)


@dataclass(frozen=True)
class Answer:
    """What the origin does when it is asked. Spans in seconds."""

    status: int = 200
    say: Say | None = None
    cdn: Say | None = None
    vary: str = ""
    validator: str = ""
    """strong, weak, date or none."""
    expires: int | None = None
    dated: int | None = 0
    """How old Date is; None: there is none."""
    age: int | None = None
    cookie: bool = False
    tag: str = ""
    trouble: str = ""
    """reset, timeout, or cut: the body breaks off."""
    whole: bool = False
    """The body comes with the head."""
    sized: bool = True
    unchanged: str = "yes"
    """To a condition that names what it has made: yes (304), no (a new body), other (304 about
    something else). A HEAD tells of the last body where `yes`."""
    latency: int = 0


@dataclass(frozen=True)
class Ask:
    """A request."""

    method: str = "GET"
    target: str = "/a"
    user: str = ""
    by: str = "authorization"
    """Or cookie."""
    lines: tuple[tuple[str, str], ...] = ()
    condition: tuple[str, int] | None = None
    """if-none-match, if-modified-since or if-range, and which of the validators seen so far."""
    directives: tuple[tuple[str, int | None], ...] = ()
    answer: Answer = Answer()
    leaves: bool = False
    """Reads one piece of the body."""


@dataclass
class Sent:
    """One exchange with the origin."""

    id: int
    rid: int
    """The request of the client that it was for."""
    method: str
    target: str
    fields: Fields
    answer: Answer
    began: int
    requested: int
    body: bytes = b""
    answered: int = -1
    ended: int = -1
    """Ticks; -1: not yet."""
    received: int = 0
    status: int = 0
    failed: bool = False
    names: int = 0
    """The exchange whose body this one speaks of; its own where it brought one."""
    told: Answer = Answer()
    """What its lines were made of."""
    say: Say | None = None
    expires: int | None = None
    date: int = 0
    etag: str = ""
    modified: int | None = None

    @property
    def cut(self) -> bool:
        broken = self.answer.trouble == "cut" and self.method == "GET"
        return broken and self.answer.status != 204


@dataclass
class Got:
    """A request that has been answered."""

    ask: Ask
    rid: int
    fields: Fields
    began: int
    start: int
    """ms."""
    answered: int = 0
    at: int = 0
    """ms."""
    reply: Reply | None = None
    said: Fields = field(default_factory=Fields)
    body: bytes = b""
    cut: bool = False
    left: bool = False


class Body:
    """A ReplyStream of a few pieces."""

    def __init__(self, world: "World", sent: Sent) -> None:
        self._world = world
        self._sent = sent
        step = len(sent.body) // 3 + 1
        self._pieces = [sent.body[i : i + step] for i in range(0, len(sent.body), step)]
        if sent.cut:
            self._pieces.pop()

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        if self._pieces:
            return self._pieces.pop(0)
        self._sent.ended = self._world.next_tick()
        if self._sent.cut:
            raise StreamCut("as the test wants it")
        return b""

    def close(self) -> None:
        if self._sent.ended < 0:
            self._sent.ended = self._world.next_tick()


class World(Live):
    """Origin, gateway and clients. An Upstream, and the `Live` of the snapshot."""

    name = "origin"

    def __init__(self, loaded: Loaded) -> None:
        self.metrics = Metrics()
        self.now = EPOCH
        self.tick = 0
        self.sent: list[Sent] = []
        self.gates: list[asyncio.Event] | None = None
        """Where a test holds answers back: one for each that waits."""
        self.asks: dict[int, Ask] = {}
        self.purges: list[tuple[int, int, str, str, bool]] = []
        """(tick, time, selector, value, soft)."""
        self.writes: list[tuple[int, int, str]] = []
        """(tick of the origin's answer, tick when the client had it, target)."""
        self.snapshot: Snapshot = compile_snapshot(loaded, self)
        self.caching = Caching(self.metrics, 1 << 20, clock=lambda: self.now)
        self.flow = Flow(
            MemoryLimits(lambda: self.now * 1000, self.metrics), Replaying(BodyRoom()), self.caching
        )

    def upstream(self, plan: UpstreamPlan) -> Upstream:
        return self

    def next_tick(self) -> int:
        self.tick += 1
        return self.tick

    # The origin.

    async def send(self, request: Outgoing) -> Reply:
        fields = Fields(request.lines)
        rid = int(fields.index["x-rid"])
        answer = self.asks[rid].answer
        sent = Sent(
            len(self.sent) + 1, rid, request.method, request.target, fields, answer,
            self.next_tick(), self.now,
        )  # fmt: skip
        self.sent.append(sent)
        if request.announced is not None:
            request.announced.written = True
        if self.gates is not None:
            gate = asyncio.Event()
            self.gates.append(gate)
            await gate.wait()
        self.now += answer.latency * SECOND
        sent.received, sent.answered = self.now, self.next_tick()
        if answer.trouble in ("reset", "timeout"):
            sent.failed = True
            raise UpstreamError(answer.trouble, "as the test wants it", sent=True)
        return self._reply(sent)

    def _reply(self, sent: Sent) -> Reply:
        answer = sent.answer
        sent.date = sent.received - (answer.dated or 0) * SECOND
        known = self._asked_about(sent) if answer.unchanged != "no" else None
        if known is not None and (sent.method != "HEAD" or "if-none-match" in sent.fields):
            return self._not_modified(sent, known)
        last = self._last(sent.target)
        if sent.method == "HEAD" and answer.unchanged == "yes" and last is not None:
            sent.status, sent.names, body = 200, last.id, last.body
            self._like(sent, last)
            told = replace(last.answer, say=answer.say, dated=answer.dated)
            lines = self._lines(sent, told)
            return Reply(200, lines, length=len(body), origin=True)
        sent.status, sent.names, sent.say = answer.status, sent.id, answer.cdn or answer.say
        if answer.expires is not None and answer.cdn is None:
            sent.expires = sent.date + answer.expires * SECOND
        if answer.validator in ("strong", "weak"):
            sent.etag = f'{"W/" if answer.validator == "weak" else ""}"e{sent.id}"'
        if answer.validator == "date":
            sent.modified = EPOCH - (1000 + sent.id) * SECOND
        who = sent.fields.get("authorization") or sent.fields.get("cookie") or "anybody"
        sent.body = f"serial={sent.id};for={who};at={sent.target};".encode().ljust(
            80 + sent.id, b"."
        )
        lines = self._lines(sent, answer)
        if sent.status == 206:
            lines.append(("Content-Range", f"bytes 0-{len(sent.body) - 1}/100000"))
        length = len(sent.body) if answer.sized else None
        if sent.method == "HEAD" or sent.status == 204:
            return Reply(sent.status, lines, length=length, origin=True)
        if answer.whole and not sent.cut:
            sent.ended = self.next_tick()
            return Reply(sent.status, lines, sent.body, origin=True)
        return Reply(sent.status, lines, stream=Body(self, sent), length=length, origin=True)

    def _not_modified(self, sent: Sent, known: Sent) -> Reply:
        sent.status = 304
        if sent.answer.unchanged == "other":
            return Reply(304, [("ETag", '"another"'), ("X-Said", str(sent.id))], origin=True)
        sent.names = known.id
        self._like(sent, known)
        answer = sent.answer
        told = Answer(say=answer.say, dated=answer.dated, age=answer.age, cookie=answer.cookie)
        lines = self._lines(sent, told)
        return Reply(304, [line for line in lines if line[0] != "X-Serial"], origin=True)

    def _like(self, sent: Sent, known: Sent) -> None:
        """The same as before, but for what is said of its use."""
        sent.say = known.answer.cdn or sent.answer.say
        sent.etag, sent.modified, sent.expires = known.etag, known.modified, known.expires

    def _lines(self, sent: Sent, answer: Answer) -> Lines:
        sent.told = answer
        lines = [("X-Serial", str(sent.names)), ("X-Said", str(sent.id)), ("X-Mine", str(sent.rid))]
        lines.append(("Cache-Control", "" if answer.say is None else answer.say.text))
        if answer.cdn is not None:
            lines.append(("CDN-Cache-Control", answer.cdn.text))
        if answer.dated is not None:
            lines.append(("Date", imf_fixdate(sent.date // SECOND)))
        if sent.expires is not None and answer.expires is not None:
            lines.append(("Expires", imf_fixdate(sent.expires // SECOND)))
        if sent.etag:
            lines.append(("ETag", sent.etag))
        if sent.modified is not None:
            lines.append(("Last-Modified", imf_fixdate(sent.modified // SECOND)))
        for name, value in (("Vary", answer.vary), ("Surrogate-Key", answer.tag)):
            if value:
                lines.append((name, value))
        if answer.age is not None:
            lines.append(("Age", str(answer.age)))
        if answer.cookie:
            lines.append(("Set-Cookie", f"sid={sent.rid}"))
        return lines

    def bodies(self, target: str) -> Iterator[Sent]:
        """The exchanges that brought a body for this URL."""
        for sent in self.sent:
            if sent.target == target and sent.method == "GET" and sent.names == sent.id:
                yield sent

    def _last(self, target: str) -> Sent | None:
        known = [sent for sent in self.bodies(target) if sent.status == 200]
        return known[-1] if known else None

    def _asked_about(self, sent: Sent) -> Sent | None:
        tags = sent.fields.get("if-none-match")
        since = sent.fields.get("if-modified-since")
        for known in self.bodies(sent.target):
            if tags is not None and known.etag and known.etag in tags:
                return known
            dated = None if known.modified is None else imf_fixdate(known.modified // SECOND)
            if tags is None and dated is not None and since == dated:
                return known
        return None

    # The clients.

    async def ask(self, ask: Ask) -> Got:
        rid = len(self.asks) + 1
        self.asks[rid] = ask
        fields = Fields([*self._request_lines(ask), ("X-Rid", str(rid))])
        got = Got(ask, rid, fields, self.next_tick(), self.now)
        ex = Exchange(
            self.snapshot, ask.method, ask.target, 11, fields,
            authority=HOST, scheme="http", peer="192.0.2.1",
        )  # fmt: skip
        reply = got.reply = await self.flow.answer(ex)
        got.answered, got.at = self.next_tick(), self.now
        got.said = Fields(reply.fields)
        if ask.method not in ("GET", "HEAD"):
            self._written(got)
        got.body = reply.body
        try:
            while reply.stream is not None and (piece := await reply.stream.read()):
                got.body += piece
                if ask.leaves:
                    got.left = True
                    break
        except StreamCut:
            got.cut = True
        finally:
            if reply.stream is not None:
                reply.stream.close()
        return got

    def _written(self, got: Got) -> None:
        for sent in self.sent:
            done = sent.failed or 200 <= sent.status < 400  # who knows, and yes
            if sent.rid == got.rid and done and got.ask.method != "OPTIONS":
                self.writes.append((sent.answered, got.answered, got.ask.target))

    def _request_lines(self, ask: Ask) -> Lines:
        lines = list(ask.lines)
        if ask.user:
            lines.append(
                (ask.by, f"Bearer {ask.user}" if ask.by == "authorization" else f"sid={ask.user}")
            )
        if ask.directives:
            texts = [n if v is None else f"{n}={v}" for n, v in ask.directives]
            lines.append(("Cache-Control", ", ".join(texts)))
        if ask.condition is not None:
            name, which = ask.condition
            known = [s for s in self.bodies(ask.target) if s.etag or s.modified is not None]
            if known:
                one = known[which % len(known)]
                date = imf_fixdate((one.modified or EPOCH - 2000 * SECOND) // SECOND)
                tag = one.etag or '"nothing"'
                lines.append((name, date if name == "if-modified-since" else tag))
        return lines

    async def purge(self, selector: str, value: str, soft: bool) -> None:
        given: Any = {"prefix": value, "all": True}.get(selector, [value])
        asked = read_purge({selector: given, "soft": soft}, self.snapshot.cache_rules)
        await self.caching.purge(asked.purge)
        self.purges.append((self.next_tick(), self.now, selector, value, soft))

    async def quiet(self) -> None:
        """Until nothing is on its way."""
        for _ in range(1000):
            if not self.caching.busy:
                return
            await asyncio.sleep(0)
        raise AssertionError("a fetch does not end")
