"""What the gateway asks of a store. Every store passes the same conformance suite per port.

A store that needs no I/O never suspends, so a request that the memory store denies costs no task.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

from proxy.core.cache.record import Stored
from proxy.core.limits.decision import Decision
from proxy.store.charge import Charge


class StoreError(Exception):
    """A shared store that gave no answer to rely on.

    `reason`: timeout (no reply in time), down (no connection), refused (an error reply).
    `partial`: one of several servers is in trouble, is asked no more, and most others are well:
    the trouble of its keys, not of the store.
    """

    def __init__(
        self,
        reason: Literal["timeout", "down", "refused"],
        detail: str,
        *,
        partial: bool = False,
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.partial = partial


class NobodyTold(StoreError):
    """A purge that the store has kept, and no other process has heard of. To say it again is of no
    use: those that hear nothing ask the store."""

    def __init__(self, detail: str) -> None:
        super().__init__("refused", detail)


class Unavailable(Exception):
    """A limit that must not be guessed (`on_failure: deny`) cannot be asked: 503."""

    def __init__(self, limit: str) -> None:
        super().__init__(limit)
        self.limit = limit


class LimitStore(Protocol):
    """Where limits count."""

    async def admit(self, charges: Sequence[Charge]) -> "Sequence[Decision | None]":
        """Checks all, then charges all or none; one Decision per charge, in order. It is NOT_ASKED
        for a limit that was not asked, as another one had refused the request.

        None is a limit that let the request through uncounted, as its store is in trouble and it
        says `on_failure: allow`. Raises Unavailable where one says `deny`.
        """

    async def give_back(self, charges: Sequence[Charge]) -> None:
        """Refunds what `admit` has charged, where a later limit refused the request: never more
        than the charge still weighs, and no leaky_bucket. Never raises: what cannot be refunded
        stays charged."""

    async def peek(self, charge: Charge) -> Decision:
        """What `admit` would answer for this charge alone, charging nothing."""

    async def reset(self, space: str, key: bytes) -> None:
        """Forgets one key of one limit space."""

    async def close(self) -> None:
        """Lets go of everything."""


class SharedLimits(LimitStore, Protocol):
    """A LimitStore on a server that others count on, too."""

    asked: int
    """How often the server was asked. What is answered without it says nothing of it."""


# The shared tier of the cache.


class Purge(NamedTuple):
    """What is purged: stored answers with one of the `tags`, or whose target begins with `prefix`
    (in the spelling of `core.cache.urls.plain_target`; "" is everything).

    A `soft` purge leaves them to be validated, or served where stale answers may be.
    """

    tags: tuple[str, ...] = ()
    """Hidden tags of URLs and groups among them; wire text."""
    prefix: str | None = None
    soft: bool = False


LEAST_BLIND: Final = 1.0
"""Seconds after which a subscription that died without a sign is given up, at least: pings take
their time."""


class PurgeListener(Protocol):
    """A process's own knowledge of purges. Every purge has a number, later ones greater ones
    (`SharedCache.purge`); telling it one twice, or late, changes nothing."""

    def purged(self, purge: Purge, number: int) -> None:
        """What the purge covers and what began before it (`Kept.began` < number) is void; by a
        soft one it is stale since then, which is number // 1000 in ms since the epoch."""

    def tags(self) -> Collection[str]:
        """Every tag whose purges this process must not miss: what to ask for after a loss."""

    def lost(self) -> None:
        """From here on purges may go unheard."""

    def alive(self, ago: float) -> None:
        """Nothing was lost until `ago` seconds ago."""

    def back(self, number: int) -> None:
        """Everything is heard again, and what was missed has been told: for the tags of `tags()`
        and every prefix. `number` is the last purge's."""


@dataclass(slots=True)
class Kept:
    """One stored answer as the shared tier has it."""

    stored: Stored
    target: str
    """What `Purge.prefix` is compared with (`core.cache.urls.keyed_target`)."""
    began: int
    """The last purge's number when the fetch began: later ones may void it."""
    body: bytes | None
    """None: apart, see `SharedCache.body`."""
    place: bytes = b""
    """The store's own word for where it is; b"" before it is stored."""
    hidden: tuple[str, ...] = ()
    """The tags of its URL (`core.cache.keys.implicit_tags`), by which it is purged, too."""

    @property
    def tags(self) -> tuple[str, ...]:
        """All tags by which it is purged."""
        return self.hidden + self.stored.tags


class Mark(NamedTuple):
    """Hit-for-miss: nobody should wait for this answer, as it will not be stored."""

    vary: tuple[tuple[str, str | None], ...]
    """As in Stored: the requests that it is for; () is all of them."""
    kind: str
    """"" for every request; "authorization" and "cookie" for those that have one."""
    until: int
    """ms since the epoch."""


class Looked(NamedTuple):
    """What the shared tier has under a primary key."""

    variants: Sequence[Kept]
    marks: Sequence[Mark]
    number: int
    """The last purge's, as the store has it now: what is fetched from here on `began` with it."""


class SharedCache(Protocol):
    """What processes share of the cache. Keys are the 16 bytes of `core.cache.keys.primary`.

    Before `lookup` returns, the listener has been told every purge that concerns what is returned.
    Whatever is asked may raise StoreError: the caller then goes on without the tier.

    Numbers of purges never go back, not even where the store has lost its data: each is the
    larger of the last one's plus 1 and the store's time in µs.
    """

    async def lookup(self, key: bytes) -> Looked:
        """Everything under a key, in one round trip."""

    async def body(self, key: bytes, kept: Kept) -> bytes | None:
        """A body that is kept apart; None where it has gone meanwhile."""

    async def put(self, key: bytes, kept: Kept, ttl: int) -> None:
        """Keeps an answer for `ttl` ms, in place of the one of the same variant (method and
        `stored.vary`), and takes off the marks that it proves wrong."""

    async def drop(self, key: bytes, kept: Kept) -> None:
        """Takes one variant out."""

    async def mark(self, key: bytes, mark: Mark) -> None:
        """Has everybody know."""

    async def lease(self, key: bytes, ttl: int) -> bytes | None:
        """The right to fetch for everybody, for at most `ttl` ms: its token, or None where another
        has it."""

    async def renew(self, key: bytes, token: bytes, ttl: int) -> bool:
        """Holds it on; False where it is lost."""

    async def awaited(self, key: bytes, token: bytes, ttl: int) -> bool:
        """Whether anybody has been refused this lease, which is still one's own; holds it on."""

    async def release(self, key: bytes, token: bytes, said: bytes = b"") -> None:
        """Lets go of a lease that is still one's own, and wakes who waits for it: once what was
        fetched is put, or it is known that it will not be. `said` is what they are told."""

    async def released(self, key: bytes, timeout: float) -> bytes | None:
        """Waits until the lease of this key is let go, at most `timeout` seconds: what was `said`,
        None where that was not heard. Look up again in any case."""

    async def purge(self, purge: Purge) -> int:
        """Numbers a purge, keeps it for the longest retention, and tells every process. Its
        number. Raises NobodyTold where it is kept but nobody could be told."""

    def listen(self, listener: PurgeListener, retention: Callable[[], int]) -> None:
        """Who hears of purges from here on. `retention`: the longest time in ms for which anything
        may be kept."""

    def status(self) -> dict[str, object]:
        """`healthy`, and what an operator wants to know."""

    async def close(self) -> None:
        """Lets go of everything."""
