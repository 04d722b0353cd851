"""Messages as data: a Reply, an Outgoing request, and the bodies that travel with them.

The Protocols say how a body is read; who reads it from which socket is the edge's business.
"""

from collections.abc import Callable
from typing import Literal, Protocol

from proxy.core.fields import Lines, read_written


class BodyError(Exception):
    """A request body that cannot be had. `status` 400, 408 or 413; 499 where the client left."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class StreamCut(Exception):
    """An upstream body that ended early: the client must see an abort, never a clean end."""


class RequestBody(Protocol):
    """A request's body, read as it arrives."""

    length: int | None
    """Bytes by Content-Length; None where chunked."""

    async def read(self) -> bytes:
        """The next piece, as it came; b"" at the end. Raises BodyError."""

    def proceed(self) -> None:
        """Sends `100 Continue` to a client that waits for it; once, and only if it asked."""


class ReplyStream(Protocol):
    """An answer's body, read as it arrives from the upstream."""

    async def read(self) -> bytes:
        """The next piece; b"" at the end. Raises StreamCut where the upstream broke off."""

    def close(self) -> None:
        """Lets go of it. Before the end this gives the upstream connection up; harmless twice."""


class Tunnel(Protocol):
    """An upgraded upstream connection (101): bytes both ways until either side ends."""

    idle_timeout: float
    """Seconds without a byte in either direction after which it ends."""

    async def read(self) -> bytes:
        """The next bytes from the upstream; b"" where it ended."""

    async def write(self, data: bytes) -> None:
        """Sends bytes upstream, with back-pressure. Raises ConnectionError."""

    def write_eof(self) -> None:
        """Tells the upstream that the client has ended its half."""

    def close(self) -> None:
        """Gives the connection up; harmless twice."""


class Reply:
    """An answer. Its body is `body` (at hand), or `stream`, or (101) `tunnel`; else empty.

    `head` holds end-to-end field lines only: framing and hop-by-hop fields are the edge's. It is a
    list of them or, of what is sent again and again, text that was made once (`fields.written`):
    without X-Request-Id and RateLimit, and with Date where it came from an upstream. `fields` is
    the list, whichever it is.
    `length` is the Content-Length to announce: of the stream where known, or, for HEAD and 304
    answers, what the upstream said; None otherwise (the edge counts `body` itself).
    `close`: the client connection must end after this answer.
    `origin`: came from an upstream or the cache, not made by the gateway itself.
    `took`: seconds that the upstream needed for the head, from when it had the whole request.
    `trouble`: for an answer made in the upstream's place, what is wrong with it: it cannot be
    reached ("disconnected"), or is not asked for now ("error"). A cache may know better then.
    """

    __slots__ = (
        "body",
        "close",
        "head",
        "length",
        "origin",
        "reason",
        "status",
        "stream",
        "took",
        "trouble",
        "tunnel",
    )

    def __init__(
        self,
        status: int,
        fields: Lines | str,
        body: bytes = b"",
        length: int | None = None,
        reason: str = "",
        origin: bool = False,
        *,
        stream: ReplyStream | None = None,
        tunnel: Tunnel | None = None,
        close: bool = False,
        took: float = 0.0,
    ) -> None:
        self.status = status
        self.head = fields
        self.body = body
        self.stream = stream
        self.length = length
        self.tunnel = tunnel
        self.origin = origin
        self.close = close
        self.reason = reason
        self.took = took
        self.trouble: Literal["disconnected", "error"] = "disconnected"

    @property
    def fields(self) -> Lines:
        """The field lines, as a list from here on."""
        head = self.head
        if isinstance(head, str):
            head = self.head = read_written(head)
        return head

    @fields.setter
    def fields(self, lines: Lines) -> None:
        self.head = lines

    def let_go(self) -> None:
        """Gives up an answer that nobody will read."""
        if self.stream is not None:
            self.stream.close()
        if self.tunnel is not None:
            self.tunnel.close()


class SlowClientReply(Reply):
    """An upstream's error, given after it had waited in vain for more of the request's body. Some
    servers say so with a 5xx, so it is not held against the upstream."""

    __slots__ = ()


class Announced(Protocol):
    """A request that somebody must know of before any byte of it is written."""

    written: bool
    """Set when the first byte is about to be written: from then on it may have been executed."""

    async def announce(self) -> None:
        """Makes it known. Whatever this raises, nothing is written."""


class Outgoing:
    """A request as it goes upstream, rebuilt from parsed parts.

    `target` is the raw path and query after rewriting (an endpoint's own path is put in front by
    the client). `host` is the Host to send, or None for the endpoint's own. `head` are the other
    end-to-end field lines, a list or their text (`fields.written`); framing, Host and Connection
    are the upstream client's to add. `lines` is the list, whichever it is.
    """

    __slots__ = (
        "affinity",
        "announced",
        "body",
        "expect_continue",
        "head",
        "host",
        "inform",
        "method",
        "patience",
        "target",
        "tried",
        "upgrade",
    )

    def __init__(
        self,
        method: str,
        target: str,
        host: str | None,
        head: Lines | str,
        body: RequestBody | None,
        expect_continue: bool = False,
        upgrade: str | None = None,
        inform: Callable[[int, Lines], None] | None = None,
        affinity: int = 0,
        announced: Announced | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.host = host
        self.head = head
        self.body = body
        self.expect_continue = expect_continue
        self.upgrade = upgrade
        """The Upgrade protocol asked for ("websocket"), or None."""
        self.inform = inform
        """Passes an interim answer (102, 103, …; status and end-to-end lines) on to the client."""
        self.affinity = affinity
        """64 bits; with `balance: hash`, requests of one affinity go to one endpoint."""
        self.announced = announced
        self.tried: tuple[int, ...] = ()
        """The endpoints that this request has been sent to; another one comes first."""
        self.patience: float | None = None
        """Seconds left up to the head; None for the upstream's whole deadline."""

    @property
    def lines(self) -> Lines:
        """The end-to-end field lines."""
        head = self.head
        return read_written(head) if isinstance(head, str) else head


class UpstreamError(Exception):
    """An upstream that gave no usable answer.

    `reason` is one of: connect_error, reset, client_slow (a reset while the client kept the
    upstream waiting), timeout (no head within response_timeout), deadline, invalid (broken HTTP),
    queue_full, queue_timeout, no_socket (this process can open none), no_endpoint. `detail` is for
    the log. `sent`: whether any byte of the request was written. Where a connection did not come
    about, `kind` is the Proxy Error Type of RFC 9209 §2.3, and `cause` says what is wrong with the
    endpoint in words that a client may see.
    """

    def __init__(
        self, reason: str, detail: str, *, sent: bool, kind: str = "", cause: str = ""
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.sent = sent
        self.kind = kind
        self.cause = cause

    @property
    def of_endpoint(self) -> str:
        """The detail beside the endpoint's name, without it."""
        return f"{self.kind}: {self.cause}" if self.cause else self.detail


class Upstream(Protocol):
    """A named upstream: its endpoints, their pools, and how one is chosen."""

    name: str

    async def send(self, request: Outgoing) -> Reply:
        """Sends one request and returns at the response head (`origin=True`), the body streamed.
        Raises UpstreamError, or BodyError where the client's body failed."""
