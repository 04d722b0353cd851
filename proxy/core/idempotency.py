"""Idempotent replay: what is known of a request that may come again, and what follows from it.

A record belongs to one policy, host, scope and key. Whoever comes first claims it under a lease; it
is marked as sent before the upstream can have seen a byte; then its answer is recorded, or that
nobody knows what became of it. `TRANSITIONS` is the table.

Rules:
- Lazy: a claim whose lease is over is no claim, as nothing was sent. What was sent under a lease
  that is over is unknown to others, though its owner may still settle it while nobody has taken
  it over.
- Only the owner, known by its token, settles or lets go. An operator may free any record.
- A store may lose a record while its request is at work (a failover). Where nobody else has the key
  by then, the owner's word makes it anew: without it the request would be executed again.
- The fingerprint is compared before anything else is said of a record: whoever comes with another
  request learns nothing of the first.
- Names are hashes: neither keys nor scopes can be read off a store.

Source: draft-ietf-httpapi-idempotency-key-header-06; what it leaves open, as Stripe does it.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b, sha256
from typing import Final, NamedTuple

from proxy.core.fields import Lines

LEASE: Final = 10_000
"""Milliseconds that a claim holds without being renewed."""
LONGEST_KEY: Final = 255
MEMORY_BYTES: Final = 64 * 1024 * 1024
"""What a store in memory has for all records together."""


class State(Enum):
    """What a record says. The values are what stores write."""

    CLAIMED = "claimed"
    """Somebody is about to send the request; nothing has left yet."""
    SENT = "sent"
    """The upstream may have seen it."""
    RECORDED = "recorded"
    TOO_LARGE = "too_large"
    """It was executed; its answer was too large to keep."""
    UNKNOWN = "unknown"
    """It was sent, and nobody knows what became of it."""


class Event(Enum):
    """What happens to a record. All but CLAIM, LEASE_OVER and FREE are its owner's to say."""

    CLAIM = "claim"
    MARK_SENT = "mark_sent"
    RECORD = "record"
    OUTGROW = "outgrow"
    LOSE = "lose"
    """The upstream timed out or broke off after sending."""
    RELEASE = "release"
    """Nothing was sent, or the answer is of a kind that is not kept."""
    LEASE_OVER = "lease_over"
    TAKE_OVER = "take_over"
    """A claim where unknown ones are given out again (on_unknown: release)."""
    TTL_OVER = "ttl_over"
    FREE = "free"


_S, _E = State, Event

TRANSITIONS: Final[dict[tuple[State | None, Event], State | None]] = {
    (None, _E.CLAIM): _S.CLAIMED,
    (None, _E.RECORD): _S.RECORDED,
    (None, _E.OUTGROW): _S.TOO_LARGE,
    (None, _E.LOSE): _S.UNKNOWN,
    (_S.CLAIMED, _E.MARK_SENT): _S.SENT,
    (_S.CLAIMED, _E.RELEASE): None,
    (_S.CLAIMED, _E.LEASE_OVER): None,
    (_S.CLAIMED, _E.FREE): None,
    (_S.SENT, _E.RECORD): _S.RECORDED,
    (_S.SENT, _E.OUTGROW): _S.TOO_LARGE,
    (_S.SENT, _E.LOSE): _S.UNKNOWN,
    (_S.SENT, _E.RELEASE): None,
    (_S.SENT, _E.LEASE_OVER): _S.UNKNOWN,
    (_S.SENT, _E.TTL_OVER): None,
    (_S.SENT, _E.FREE): None,
    (_S.UNKNOWN, _E.RECORD): _S.RECORDED,
    (_S.UNKNOWN, _E.OUTGROW): _S.TOO_LARGE,
    (_S.UNKNOWN, _E.LOSE): _S.UNKNOWN,
    (_S.UNKNOWN, _E.RELEASE): None,
    (_S.UNKNOWN, _E.TAKE_OVER): _S.CLAIMED,
    (_S.UNKNOWN, _E.TTL_OVER): None,
    (_S.UNKNOWN, _E.FREE): None,
    (_S.RECORDED, _E.RECORD): _S.RECORDED,
    (_S.RECORDED, _E.TTL_OVER): None,
    (_S.RECORDED, _E.FREE): None,
    (_S.TOO_LARGE, _E.OUTGROW): _S.TOO_LARGE,
    (_S.TOO_LARGE, _E.TTL_OVER): None,
    (_S.TOO_LARGE, _E.FREE): None,
}
"""All of it; None is no record. What is not here changes nothing and is refused. An owner whose
lease is over finds UNKNOWN, and may still say what came of it; so may one that finds nothing, as
its record was lost, freed or is over. The same may be said again, as the first word may have had no
answer."""


class Terms(NamedTuple):
    """How long things hold, in ms."""

    ttl: int
    """Of what was sent, from then on; anew from the settling."""
    release_unknown: bool = False
    """Whether a request of unknown outcome may be executed again."""
    lease: int = LEASE

    @property
    def renew(self) -> int:
        """Between two renewals: two may fail before the lease is over."""
        return self.lease * 3 // 10


class Answer(NamedTuple):
    """An answer as it is replayed: end-to-end lines in order, those left out that every answer
    has of its own (`replayable_lines`)."""

    status: int
    reason: str
    lines: Lines
    body: bytes


# What a claim finds. Those that say nothing more are no tuples: empty ones would all be equal.


@dataclass(frozen=True)
class Mine:
    """Nothing was there: the caller owns the record now, and executes."""


class Replay(NamedTuple):
    """It was executed, and this is its answer."""

    answer: Answer


class Running(NamedTuple):
    """Somebody else executes it; the lease holds for `left` ms without being renewed."""

    left: int


@dataclass(frozen=True)
class Mismatch:
    """The key stands for another request."""


@dataclass(frozen=True)
class Unknown:
    """It was sent, and nobody knows what became of it."""


@dataclass(frozen=True)
class TooLarge:
    """It was executed; its answer could not be kept."""


Verdict = Mine | Replay | Running | Mismatch | Unknown | TooLarge


class Record:
    """One record: its state by the last event, its owner, and its times in ms of the store's
    clock."""

    __slots__ = ("answer", "ends", "fingerprint", "lease_ends", "state", "token")

    def __init__(self, token: bytes, fingerprint: bytes, lease_ends: int) -> None:
        self.state = State.CLAIMED
        self.token = token
        self.fingerprint = fingerprint
        self.lease_ends = lease_ends
        self.ends: int | None = None
        """When it is forgotten; None while it is only claimed: then the lease says."""
        self.answer: Answer | None = None

    def at(self, now: int) -> State | None:
        """What it says at this moment; None where it is over."""
        if self.ends is not None and now >= self.ends:
            return None
        if self.state in (State.CLAIMED, State.SENT) and now >= self.lease_ends:
            return TRANSITIONS[self.state, Event.LEASE_OVER]
        return self.state


def claim(
    record: Record | None, token: bytes, fingerprint: bytes, terms: Terms, now: int
) -> tuple[Record | None, Verdict]:
    """What a request finds, and the record from then on."""
    state = None if record is None else record.at(now)
    if record is None or state is None:
        return Record(token, fingerprint, now + terms.lease), Mine()
    if record.fingerprint != fingerprint:
        return record, Mismatch()
    if state is State.RECORDED:
        assert record.answer is not None
        return record, Replay(record.answer)
    if state is State.TOO_LARGE:
        return record, TooLarge()
    if state is State.UNKNOWN:
        if not terms.release_unknown:
            return record, Unknown()
        return Record(token, fingerprint, now + terms.lease), Mine()
    return record, Running(record.lease_ends - now)


def mark_sent(record: Record | None, token: bytes, terms: Terms, now: int) -> bool:
    """Whether the owner may send now; once marked, again is harmless."""
    if record is None or record.token != token:
        return False
    state = record.at(now)
    if state is State.CLAIMED:
        record.state = TRANSITIONS[state, Event.MARK_SENT] or state
        record.ends = now + terms.ttl
    elif state is not State.SENT:
        return False
    record.lease_ends = now + terms.lease
    return True


def renew(record: Record | None, token: bytes, terms: Terms, now: int) -> bool:
    """Whether the owner has it for another lease: also one that was late, if nobody took over."""
    if record is None or record.token != token or record.state not in (State.CLAIMED, State.SENT):
        return False
    if record.at(now) is None:
        return False
    record.lease_ends = now + terms.lease
    return True


_OUTCOMES: Final = {
    State.RECORDED: Event.RECORD,
    State.TOO_LARGE: Event.OUTGROW,
    State.UNKNOWN: Event.LOSE,
}


def settle(
    record: Record | None,
    token: bytes,
    fingerprint: bytes,
    outcome: State,
    answer: Answer | None,
    terms: Terms,
    now: int,
) -> tuple[Record | None, bool]:
    """The owner, which has sent its request, says what came of it: RECORDED (with the answer),
    TOO_LARGE or UNKNOWN. The record from then on, and whether it was the owner's to say."""
    state = None if record is None else record.at(now)
    if (state, _OUTCOMES[outcome]) not in TRANSITIONS:
        return record, False
    if record is None or state is None:
        record = Record(token, fingerprint, now)
    elif record.token != token:
        return record, False
    record.state = outcome
    record.answer = answer
    record.ends = now + terms.ttl
    return record, True


def release(record: Record | None, token: bytes, now: int) -> bool:
    """Whether the owner may let go of it: then it is no more."""
    if record is None or record.token != token:
        return False
    return (record.at(now), Event.RELEASE) in TRANSITIONS


# Keys, names and statuses.


class BadKey(Exception):
    """An Idempotency-Key that is none; the sentence is for the client."""


_BARE: Final = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]{1,255}")
"""Visible ASCII without the double quote, comma, semicolon and backslash."""


def read_key(lines: Collection[str]) -> str | None:
    """The key of a request's Idempotency-Key lines: an SF String (RFC 9651 §3.3.3), or the same
    text bare. None without one. Raises BadKey."""
    if not lines:
        return None
    if len(lines) > 1:
        raise BadKey("The request has several Idempotency-Key fields.")
    text = next(iter(lines)).strip(" \t")
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if not _BARE.fullmatch(text):
        raise BadKey(
            "The Idempotency-Key is not a string of 1 to 255 visible ASCII characters without "
            "quotes, backslashes, commas and semicolons."
        )
    return text


def fingerprint(method: str, target: str, body: bytes) -> bytes:
    """32 bytes that two requests share only if they are the same. Texts are wire text."""
    head = f"{len(method)}:{method}{len(target)}:{target}".encode("latin-1")
    digest = sha256(head)
    digest.update(body)
    return digest.digest()


def record_id(policy: str, host: str, scope: bytes, key: str) -> bytes:
    """The 16 bytes that a record is filed under. `host` is as routes compare it (wire text), and
    `scope` the hash of its parts."""
    digest = blake2b(digest_size=16, person=b"idempotency")
    for part in (policy.encode(), host.encode("latin-1"), scope, key.encode("ascii")):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()


SELDOM_FINAL: Final = frozenset((401, 408, 425, 429, 502, 503, 504))
"""Statuses that say "come again": recorded only where they are named, one by one."""


class Kept:
    """Which statuses are recorded: `2xx`, `404`."""

    __slots__ = ("_kept", "texts")

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(texts)
        kept = set()
        for text in self.texts:
            if text.endswith("xx"):
                hundred = int(text[0]) * 100
                kept |= set(range(hundred, hundred + 100)) - SELDOM_FINAL
        kept |= {int(text) for text in self.texts if not text.endswith("xx")}
        self._kept = frozenset(kept)

    def __contains__(self, status: int) -> bool:
        return status in self._kept


_OWN: Final = frozenset((
    "date", "via", "x-request-id", "idempotent-replayed", "ratelimit", "ratelimit-policy",
    "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset",
))  # fmt: skip


def replayable_lines(lines: Lines) -> Lines:
    """What of an answer's lines is replayed: not those that each answer has of its own."""
    return [line for line in lines if line[0].lower() not in _OWN]
