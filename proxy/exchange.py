"""One request's facts on its way through the flow.

Nothing here knows aiohttp, sockets or the lane a request came in by. Stages read and write an
`Exchange`; the edge turns the `Reply` into bytes. Made once per request, so slotted, not frozen.
"""

from collections.abc import Callable, Sequence
from random import getrandbits
from sys import getsizeof
from typing import TYPE_CHECKING, Final

from proxy.core.fields import Fields, Lines
from proxy.core.http1.request import RECURRING
from proxy.core.message import Announced, RequestBody

if TYPE_CHECKING:
    from proxy.core.limits.decision import Decision
    from proxy.metrics import LimitTally
    from proxy.policy.limit_plans import LimitVariant
    from proxy.policy.snapshot import RoutePlan, Snapshot
    from proxy.store.charge import Charge
    from proxy.store.memory.limits import Denial


class Exchange:
    """One request on its way through the sentence: who, where, may they, ask, answer."""

    __slots__ = (
        "_fields",
        "_unjoined",
        "admission",
        "authority",
        "body",
        "captures",
        "charges",
        "claim",
        "client_ip",
        "denied",
        "expect_continue",
        "host",
        "inform",
        "memo",
        "method",
        "path",
        "peer",
        "query",
        "request_id",
        "route",
        "said",
        "scheme",
        "shadow_denied",
        "snapshot",
        "target",
        "trace",
        "trusted",
        "upgrade",
        "version",
    )

    def __init__(
        self,
        snapshot: "Snapshot",
        method: str,
        target: str,
        version: int,
        fields: Fields,
        authority: str,
        scheme: str,
        peer: str,
        body: RequestBody | None = None,
        expect_continue: bool = False,
        upgrade: str | None = None,
        inform: Callable[[int, Lines], None] | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.method = method
        self.target = target
        """Origin-form, raw, as received (absolute-form is already resolved); `*` for OPTIONS *."""
        self.path, mark, query = target.partition("?")
        self.query: str | None = query if mark else None
        """Raw; None without a "?" (an empty query is "")."""
        self.version, self._fields, self._unjoined = version, fields, ""  # 10 or 11
        self.authority = authority
        """The Host as received (or absolute-form's authority): what is preserved upstream."""
        self.scheme, self.peer = scheme, peer
        """The connection's peer: an IP address as text, or "unix"."""
        self.body = body
        self.expect_continue = expect_continue
        self.upgrade = upgrade
        self.inform = inform

        # Who: set by stages.identity.
        self.host = ""
        """For matching: lower case, no port, no final dot."""
        self.trusted = False
        """Whether the peer is one of server.trusted_proxies."""
        self.client_ip = ""
        """The client's address as text (IPv4-mapped as IPv4), or "unix"."""
        self.request_id = ""

        # Where: set by stages.route.
        self.route: RoutePlan | None = None
        self.captures: dict[str, str] = {}
        """The route pattern's captures, as received (raw); not to be changed."""

        # May they: set by stages.limits, read by stages.response.
        self.admission = ""
        """RateLimit fields for the answer, as text (`core.fields.written`)."""
        self.said: list[tuple[LimitVariant, Decision]] = []
        self.charges: Sequence[Charge] = ()
        """What the enforced limits said; what was charged last, to be given back in need."""
        self.denied: tuple[str, ...] = ()
        self.shadow_denied: tuple[str, ...] = ()
        """Names of the limits that refused this request; of the shadow limits that would have."""
        self.claim: Announced | None = None
        """Have we seen it: the claim under which it goes upstream (stages.idempotency)."""
        self.memo: Memo | None = None
        self.trace = ""
        """What is known of the same request; the value of its traceparent line, which is not."""

    @property
    def fields(self) -> Fields:
        """The request's field lines. A memo's traceparent joins them when they are first looked
        at: most of what is answered here is so without."""
        if self._unjoined:
            self._fields = self._fields.joined("traceparent", self._unjoined)
            self._unjoined = ""
        return self._fields

    @fields.setter
    def fields(self, fields: Fields) -> None:
        self._fields = fields
        self._unjoined = ""

    def copy(self) -> "Exchange":
        """The request as it is now, to be asked about in another way."""
        ex = Exchange(
            self.snapshot,
            self.method,
            self.target,
            self.version,
            self.fields,
            self.authority,
            self.scheme,
            self.peer,
            self.body,
            self.expect_continue,
            self.upgrade,
            self.inform,
        )
        ex.host, ex.trusted = self.host, self.trusted
        ex.client_ip, ex.request_id = self.client_ip, self.request_id
        ex.route, ex.captures = self.route, self.captures
        ex.admission, ex.said, ex.charges = self.admission, self.said, self.charges
        ex.denied, ex.shadow_denied = self.denied, self.shadow_denied
        ex.claim, ex.memo, ex.trace = self.claim, self.memo, self.trace
        return ex


def new_request_id() -> str:
    """An identifier, not a secret: it need not be unguessable, only unlikely to come twice."""
    return getrandbits(128).to_bytes(16).hex()


_MEMO_BYTES: Final = 1200
"""What a memo holds beside the fields: itself, its keys, and what is added to its head upstream."""
_LINE_BYTES: Final = 240
"""What a field line costs beside its text: a pair, a name in two spellings, a value."""
_SHARED_LINE_BYTES: Final = 100
"""That of one that most heads share with others, on average."""


class Memo:
    """Who and where of a request without a body, worked out once: the same snapshot would say the
    same whenever the same bytes come from the same peer.

    Stages keep here what else is the same each time, and may leave it unset.
    """

    __slots__ = (
        "_authority",
        "_captures",
        "_client_ip",
        "_fields",
        "_host",
        "_peer",
        "_request_id",
        "_scheme",
        "_snapshot",
        "_target",
        "_trusted",
        "forwarded",
        "limit_keys",
        "method",
        "plain_key",
        "refusal",
        "route",
        "was_refused",
    )

    def __init__(self, ex: Exchange) -> None:
        received = ex.fields.index.get("x-request-id")
        self._snapshot = ex.snapshot
        self.method = ex.method
        self._target = ex.target
        self._fields = ex.fields
        self._authority = ex.authority
        self._scheme = ex.scheme
        self._peer = ex.peer
        self._host = ex.host
        self._trusted = ex.trusted
        self._client_ip = ex.client_ip
        self._request_id = ex.request_id if ex.request_id == received else ""
        self.route = ex.route
        self._captures = ex.captures
        self.limit_keys: list[bytes] | None = None
        """stages.limits: what it is counted under, by usual limit."""
        self.plain_key: bytes | None = None
        """stages.cache: what it is filed under; b"" where no plain hit may answer it."""
        self.forwarded: str | None = None
        """stages.upstream: what goes upstream of its head, but for X-Request-Id and trace; "" where
        each time has to be looked at by itself."""
        self.refusal: Refusal | None = None
        """stages.limits: what it was refused for, the last time that it was."""
        self.was_refused = False
        """The edge: whether its size counts a refusal."""

    def size(self) -> int:
        """The bytes that it holds, and that stages may add to it, its refusal aside."""
        fields = self._fields
        held = _MEMO_BYTES + getsizeof(fields.index) + len(self._target)
        repeats = len(fields.index) < len(fields.lines)
        for name, value in fields.lines:
            if not repeats and name.lower() in RECURRING:
                held += _SHARED_LINE_BYTES + len(value)
            else:
                held += _LINE_BYTES + 3 * len(name) + 2 * len(value)
        return held

    def name(self) -> str:
        """The X-Request-Id of the request once more."""
        return self._request_id or new_request_id()

    def exchange(self, trace: str, inform: Callable[[int, Lines], None] | None) -> Exchange:
        """The request once more. `trace` is the value of its traceparent line, "" without one."""
        ex = Exchange(
            self._snapshot,
            self.method,
            self._target,
            11,
            self._fields,
            self._authority,
            self._scheme,
            self._peer,
            None,
            False,
            None,
            inform,
        )
        ex.host = self._host
        ex.trusted = self._trusted
        ex.client_ip = self._client_ip
        ex.request_id = self.name()
        ex.route = self.route
        ex.captures = self._captures
        ex.memo = self
        ex.trace = ex._unjoined = trace
        return ex


class Refusal:
    """A request's 429, as it is sent once more while what it was refused for stands."""

    __slots__ = ("after", "allowed", "before", "date", "denial", "denied", "names", "sent")

    def __init__(
        self,
        denial: "Denial",
        names: tuple[str, ...],
        denied: "list[LimitTally]",
        allowed: "list[LimitTally]",
    ) -> None:
        self.denial = denial
        self.names = names
        """Of the limits that refuse it."""
        self.denied, self.allowed = denied, allowed
        """The tallies of those, and of the others."""
        # The answer's bytes, once the edge has sent it.
        self.before = self.after = b""
        """What stands around the value of X-Request-Id."""
        self.date = ""
        """The Date that is in them."""
        self.sent = 0
        """How many of them are the body's."""
