"""A request under its claim, from its sending to the record of its answer.

Rules:
- It runs beside its client: one that leaves ends nothing, and the answer is recorded all the same.
- The answer is recorded before its client has seen the end of it: whoever has read it finds it
  again.
- Nothing was written: the key is free. Something was, and no whole answer came: the outcome is
  unknown. An answer of a status that is not kept frees the key.
- An answer that outgrows `max_body` goes on to its client, and is known to be too large. Once its
  client has left, nobody needs more of it: it may have no end.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from proxy.buffer import BodyRoom, Buffer, TakenRoom
from proxy.core.idempotency import Answer, State, replayable_lines
from proxy.core.message import Reply, ReplyStream, StreamCut
from proxy.core.problems import problem
from proxy.exchange import Exchange
from proxy.policy.snapshot import IdempotencyPlan
from proxy.stages.idempotency.claim import Claim, Untold, Withheld, unknown
from proxy.store.idempotency import IdempotencyStore

log = logging.getLogger(__name__)

Fetch = Callable[[Exchange], Awaitable[Reply]]


class Replaying:
    """What the idempotent requests of this process share: the store, and those at work."""

    def __init__(self, bodies: BodyRoom) -> None:
        self.bodies = bodies
        self.store: IdempotencyStore | None = None
        """There before the first route that needs it."""
        self.untold = Untold()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, execution: "Execution", room: TakenRoom | None) -> None:
        """Runs it beside its client; its body has this room until the end."""
        task = asyncio.get_running_loop().create_task(execution.run())
        if room is not None:
            held = room
            held.hold()
            task.add_done_callback(lambda _: held.give_back())
        self.keep(task)

    def keep(self, task: "asyncio.Task[None]") -> None:
        """Waits for the task at the end."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def status(self) -> dict[str, object]:
        """For an operator: requests at work, and the store."""
        if self.store is None:
            return {}
        return {"in_flight": len(self._tasks), "store": self.store.status()}

    async def close(self, patience: float) -> None:
        """Lets what is at work end, for so many seconds at most. What is cut off then has its
        outcome noted as unknown, if it was sent; a store that does not take that has its lease
        run out."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)


class Execution:
    """One request's. `answer` is for its client."""

    def __init__(
        self,
        ex: Exchange,
        plan: IdempotencyPlan,
        claim: Claim,
        fetch: Fetch,
        replaying: Replaying,
    ) -> None:
        self._ex = ex
        self._plan = plan
        self._claim = claim
        self._fetch = fetch
        self._replaying = replaying
        self._head: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._buffer = Buffer(plan.max_body, _nothing)

    async def answer(self) -> Reply:
        """The answer, as soon as its head is there; for a whole one, once it is recorded."""
        try:
            return await self._head
        except asyncio.CancelledError:  # the client left; a head that was to come is cancelled, too
            if self._head.done() and not self._head.cancelled():
                self._head.result().let_go()
            raise

    async def run(self) -> None:
        """Executes, and settles the claim. Never raises but for cancellation."""
        claim = self._claim
        try:
            await self._settle(await self._fetch(self._ex))
        except Withheld as withheld:
            await self._lost()
            self._give(unknown() if claim.written else withheld.reply)
        except asyncio.CancelledError:
            await self._lost()
            raise
        except Exception:
            log.exception("an idempotent request failed inside the gateway")
            await self._lost()
        finally:
            claim.stop()
            if not self._head.done():
                self._give(problem("internal", "The gateway failed to execute this request."))
            if claim.owed is not None:
                self._replaying.keep(claim.owed)

    async def _settle(self, reply: Reply) -> None:
        """Says what came of it, and gives the answer to its client."""
        claim = self._claim
        if not reply.origin:
            await self._lost()
            self._give(reply)
        elif reply.tunnel is not None or reply.status not in self._plan.kept:
            await claim.release()
            self._give(reply)
        elif reply.stream is None:
            await self._record(reply, reply.body)
            self._give(reply)
        else:
            await self._stream(reply, reply.stream)

    async def _lost(self) -> None:
        """There is no answer: was it sent?"""
        if self._claim.written:
            await self._claim.settle(State.UNKNOWN)
        else:
            await self._claim.release()

    async def _record(self, reply: Reply, body: bytes) -> None:
        if len(body) > self._plan.max_body:
            await self._claim.settle(State.TOO_LARGE)
            return
        answer = Answer(reply.status, reply.reason, replayable_lines(reply.fields), body)
        await self._claim.settle(State.RECORDED, answer)

    async def _stream(self, reply: Reply, stream: ReplyStream) -> None:
        """Has its client read it as it comes. Where its length is known, the piece that completes
        it waits for the record: its client needs nothing more to know that this is the end."""
        buffer, length, most = self._buffer, reply.length, self._plan.max_body
        recorded = Reply(reply.status, list(reply.fields), reason=reply.reason)
        reply.stream = buffer.reader()
        self._give(reply)
        size = 0
        try:
            while piece := await stream.read():
                size += len(piece)
                if size > most:
                    await self._claim.settle(State.TOO_LARGE)
                elif size == length:
                    await self._record(recorded, buffer.whole() + piece)
                if size > most and not buffer.readers:
                    return
                buffer.add(piece)
                if buffer.outgrown:
                    await buffer.paced()
            if size <= most:
                await self._record(recorded, buffer.whole())
            buffer.end()
        except StreamCut:
            await self._lost()
        finally:
            buffer.end(cut=True)
            stream.close()

    def _give(self, reply: Reply) -> None:
        if self._head.done():
            reply.let_go()
        else:
            self._head.set_result(reply)


def _nothing() -> None:
    """A reader that leaves ends nothing."""
