"""The express lane: a simple request is answered in the call that brought its bytes.

Simple is what comes alone at a message boundary, whole in one read, well-formed, as HTTP/1.1 with
keep-alive, without a body or an upgrade. It goes past aiohttp's queue, its waiter and its task for
each request; as far as nothing has to be waited for, it needs no task, future or coroutine at all.
What has to wait is driven on from there, and what comes behind it is held until it is answered.

A request that came before, byte for byte and from the same peer, is not read again: who sends it,
where it goes and what it is counted and filed under are remembered (`exchange.Memo`). Of a
traceparent line only the place counts, as each request of a trace has another one.

What is not taken here has neither been consumed nor charged: the other lane reads it anew, and says
what is wrong with it, if anything is.
"""

import asyncio
import logging
from collections.abc import Awaitable
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from proxy.core.http1.request import HeadError, RequestHead, parse_request_head
from proxy.core.message import Reply
from proxy.core.recent import Recent
from proxy.edge.driving import ENDED, Driven, begun
from proxy.edge.serving import END, KEEP, Client, Outcome, Serving
from proxy.edge.writer import ClientGone
from proxy.exchange import Exchange, Memo
from proxy.policy.usual import goes_by

if TYPE_CHECKING:
    from proxy.policy.snapshot import ServerPlan, Snapshot

log = logging.getLogger(__name__)

_HELD: Final = 64 * 1024
"""Bytes of further requests that are read while one waits for its answer."""
_MAX_MEMO_BYTES: Final = 2048
"""Longer heads are not remembered."""

# A trace's line (W3C Trace Context §3.2): the name as it is to be sent, and 55 characters.
_TRACE: Final = b"\r\ntraceparent: "
_TRACE_NAME: Final = len(_TRACE)
_TRACE_LINE: Final = len(_TRACE) + 55
_NEWLINE: Final = 10

Memos = Recent[tuple[bytes, str], Memo]
"""By head (without its trace) and caller."""
MEMOS: Final = 4096
"""Requests that are remembered at least, where so many come again and again."""
MEMO_BYTES: Final = 32 * 1024 * 1024
"""What they hold at most together."""
_KEY_BYTES: Final = 200
"""What an entry costs beside the memo and the bytes of the head: the pair that is its key, the
caller's name, a place in a dict."""
REFUSAL_BYTES: Final = 2048
"""What a refusal adds to a memo: its answer, and what the limits said."""


def memos(most: int = MEMOS) -> Memos:
    """Nothing remembered yet."""
    return Recent(most, MEMO_BYTES, _weigh)


def _weigh(key: tuple[bytes, str], memo: Memo) -> int:
    # The head is there twice: as it came, and as it goes upstream.
    size = _KEY_BYTES + 2 * len(key[0]) + memo.size()
    return size + REFUSAL_BYTES if memo.was_refused else size


NO_MEMOS: Final[Memos] = memos(0)


class Carrier(Client, Protocol):
    """The client connection as the lane needs it."""

    def engaged(self, is_engaged: bool) -> None:
        """A request waits for something; or it no longer does."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def received(self, data: bytes) -> None: ...
    def force_close(self) -> None: ...


class ExpressLane:
    """The lane of one client connection."""

    __slots__ = ("_caller", "_carrier", "_cuts_trace", "_driven", "_held", "_is_held_up", "_memos",
                 "_plan", "_serving", "_snapshot", "rested")  # fmt: skip

    def __init__(self, carrier: Carrier, serving: Serving, plan: "ServerPlan") -> None:
        self._carrier = carrier
        self._serving = serving
        self._plan = plan
        """As it was when the connection was made."""
        self._caller = ""
        """From whom and how, as far as memos differ by it."""
        self._snapshot: Snapshot | None = None
        """For which the memos hold."""
        self._memos = NO_MEMOS
        self._cuts_trace = False
        self._driven: Driven | None = None
        """The request that waits for something."""
        self._held = b""
        """What came behind it."""
        self._is_held_up = False
        """Whether no more of it is read."""
        self.rested = 0.0
        """When the last request came that was answered at once, by the monotonic clock."""

    @property
    def busy(self) -> bool:
        """Whether a request waits for something here."""
        return self._driven is not None

    @property
    def used(self) -> bool:
        """Whether anything has come by this lane."""
        return self._snapshot is not None

    def hold(self, data: bytes) -> None:
        """Keeps what came behind the request that waits."""
        self._held += data
        if len(self._held) > _HELD:
            self._is_held_up = True
            self._carrier.pause_reading()

    def leave(self) -> None:
        """The client left: so does its request."""
        if self._driven is not None:
            self._driven.cancel()

    def takes(self, data: bytes) -> bool:
        """Takes what the socket brought at a message boundary, if it belongs here."""
        if len(data) - 4 >= self._plan.max_header_bytes:
            return False
        started = monotonic()
        serving = self._serving
        if serving.front.snapshot is not self._snapshot:
            self._adopt()
        key, trace = (data, self._caller), b""
        at = data.find(_TRACE) if self._cuts_trace else -1
        # Behind an empty line it would be no part of the head.
        if at > 0 and data[at - 1] != _NEWLINE:
            after = at + _TRACE_LINE
            value = data[at + _TRACE_NAME : after]
            # Nothing that could end the line stands in it, and its end is where it belongs.
            if data[after : after + 2] == b"\r\n" and value.replace(b"-", b"").isalnum():
                key = (data[:at] + data[after:], self._caller)
                trace = value
        memo = self._memos.get(key)
        if memo is None:
            head = self._read(data)
            if head is None:
                return False
            # Nor is it kept that a longer one came once: memory is bounded in bytes, too.
            if len(key[0]) <= _MAX_MEMO_BYTES and self._memos.again(key):
                memo = self._remember(key, head if not trace else self._read(key[0]))
            if memo is None:
                self._serve(serving.exchange(head, None), started)
                return True
        if memo.refusal is not None and serving.refuses(memo, started):
            self._is_answered(started, KEEP)
            return True
        self._serve(memo.exchange(trace.decode("latin-1"), serving.inform), started)
        return True

    def _is_answered(self, started: float, outcome: Outcome) -> None:
        """A request was answered at once."""
        self.rested = started
        if outcome is not KEEP:
            self._serving.front.turn.flush()
            self._carrier.at_rest(outcome)

    def _read(self, data: bytes) -> RequestHead | None:
        """The head, if it is simple, and all that there is."""
        if data.find(b"\r\n\r\n") != len(data) - 4:
            return None
        plan = self._plan
        try:
            head = parse_request_head(data[:-2], plan.max_headers, plan.max_target_bytes)
        except HeadError:
            return None
        if head.version != 11 or not head.keep_alive or head.chunked or head.length or head.upgrade:
            return None
        return head

    def _adopt(self) -> None:
        """A snapshot that this connection has not seen yet."""
        front = self._serving.front
        self._caller = f"{self._serving.scheme} {self._serving.peer}"
        snapshot = self._snapshot = front.snapshot
        self._cuts_trace = not goes_by(snapshot, "traceparent")
        # What one connection has read another one may not read again under stricter bounds.
        same = _bounds(self._plan) == _bounds(snapshot.server)
        self._memos = front.memos if same else NO_MEMOS

    def _remember(self, key: tuple[bytes, str], head: RequestHead | None) -> Memo | None:
        """A memo of a request that is worth one. `head` is read without its trace."""
        if (
            head is None
            or len(head.fields) >= self._plan.max_headers
            or "traceparent" in head.fields.index
        ):
            return None
        ex = self._serving.exchange(head, None)
        if ex.path == ex.snapshot.server.health_path:
            return None  # answered at the door, it is no route's, whatever route it would match
        if self._serving.front.flow.place(ex) is not None:
            return None
        memo = Memo(ex)
        self._memos.put(key, memo)
        return memo

    def _serve(self, ex: Exchange, started: float) -> None:
        """One request; the connection is at rest again, or ended, or the request waits."""
        serving = self._serving
        answer = serving.begin(ex)
        try:
            if isinstance(answer, Reply):
                outcome = serving.finish_at_once(ex, answer, started)
                if outcome is not None:
                    self._is_answered(started, outcome)
                    return
            going = self._go_on(ex, answer, started)
            awaited = begun(going)
        except (Exception, asyncio.CancelledError) as error:
            self._arrived(error)
            return
        if awaited is not ENDED:
            self._driven = Driven(going, awaited, self._arrived)

    async def _go_on(self, ex: Exchange, answer: Reply | Awaitable[Reply], started: float) -> None:
        front = self._serving.front
        carrier = self._carrier
        carrier.engaged(True)
        front.began()
        front.turn.flush()  # of this connection's, none may be left
        outcome = END
        try:
            outcome = await self._serving.conclude(ex, answer, started, True)
        except ClientGone:
            pass
        finally:
            carrier.engaged(False)
            front.ended()
            carrier.at_rest(outcome)

    def _arrived(self, error: BaseException | None) -> None:
        self._driven = None
        if error is not None and not isinstance(error, asyncio.CancelledError):
            log.error("a request failed inside the gateway", exc_info=error)
            self._carrier.force_close()
        if self._is_held_up:
            # First, as what is held may begin a body that pauses for itself.
            self._is_held_up = False
            self._carrier.resume_reading()
        if self._held:
            held, self._held = self._held, b""
            self._carrier.received(held)


def _bounds(plan: "ServerPlan") -> tuple[int, int, int]:
    """What a request's head may be at most."""
    return plan.max_header_bytes, plan.max_headers, plan.max_target_bytes
