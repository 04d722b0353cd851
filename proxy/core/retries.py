"""Whether a failed try is made again, and after how long. Pure: time and chance are arguments.

Rules:
- What the upstream may have seen is sent again only where that is harmless: idempotent methods
  (RFC 9110 §9.2.2) that the terms name. Any other method only where no byte of it was sent, and
  then whatever the terms name.
- An answer counts as sent, whatever else is known: whoever answers may have acted.
- The wait has full jitter (Brooker, "Exponential Backoff and Jitter", 2015), so that clients that
  failed together do not come back together.
- An upstream's Retry-After is the least wait. One that is longer than `backoff_max`, or than the
  time left, is obeyed by not trying again.
- The budget bounds what retries add to an upstream that is in trouble. It is asked last, by the
  caller: what is stopped for another reason must not spend of it.
"""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from proxy.core.dates import parse_http_date

IDEMPOTENT: Final = frozenset((
    "ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "COPY", "DELETE", "GET", "HEAD",
    "LABEL", "LINK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF",
    "MKWORKSPACE", "MOVE", "OPTIONS", "ORDERPATCH", "PROPFIND", "PROPPATCH", "PUT", "QUERY",
    "REBIND", "REPORT", "SEARCH", "TRACE", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE",
    "UPDATEREDIRECTREF", "VERSION-CONTROL",
))  # fmt: skip
"""The idempotent methods of IANA's registry."""

SPARE: Final = 10
"""Retries in `WINDOW` seconds that need no requests to stand on, so that quiet upstreams have
some too."""
WINDOW: Final = 10

_MILLION: Final = 1_000_000
_LONGEST_SHIFT: Final = 62  # doubling on would overflow a float, and helps nobody


@dataclass(frozen=True)
class RetryTerms:
    """What `retries` says. Times in seconds, shares from 0 to 1."""

    attempts: int = 3
    """Tries in all."""
    backoff: float = 0.05
    """The longest wait before the second try; doubled for each one after."""
    backoff_max: float = 1.0
    budget: float = 0.2
    on: frozenset[str] = frozenset(("connect_error", "reset", "502", "503", "504"))
    """connect_error, reset, timeout, and statuses as text."""
    methods: frozenset[str] = frozenset(("GET", "HEAD", "PUT", "DELETE", "OPTIONS"))
    """What may be sent twice; of these only idempotent methods are."""

    def sends_again(self, method: str) -> bool:
        """Whether a request of this method goes out again though the upstream may have seen it."""
        return method in self.methods and method in IDEMPOTENT


class Failure(NamedTuple):
    """What became of a try."""

    reason: str
    """The word of an UpstreamError, or the answer's status as text."""
    sent: bool
    """Whether any byte of the request was written."""
    retry_after: float | None = None
    """Seconds from now that the answer asked for."""


class Wait(NamedTuple):
    """Try again after `seconds`, if the budget has one left."""

    seconds: float


class Stop(NamedTuple):
    """Do not try again.

    reason: the failure is not in `on`. attempts: there have been as many as allowed. method: it
    may have been seen, and must not be seen twice. body: it cannot be sent again. retry_after:
    the upstream wants a longer wait than `backoff_max`. time: the wait is no shorter than the time
    left.
    """

    why: Literal["reason", "attempts", "method", "body", "retry_after", "time"]


def decide(
    terms: RetryTerms,
    method: str,
    attempt: int,
    failure: Failure,
    *,
    replayable: bool,
    time_left: float,
    random: float,
) -> Wait | Stop:
    """What follows a failed try. The budget is the caller's to ask, after a Wait.

    `attempt`: tries made so far, this one among them. `replayable`: the body can be sent once more
    from its beginning (true without one). `time_left`: seconds to the deadline. `random`: a fresh
    number from [0, 1).
    """
    reason = failure.reason
    if reason not in terms.on:
        return Stop("reason")
    if attempt >= terms.attempts:
        return Stop("attempts")
    if failure.sent or reason.isdecimal():
        if not terms.sends_again(method):
            return Stop("method")
        if not replayable:
            return Stop("body")
    wait = backoff(terms, attempt, random)
    asked = failure.retry_after
    if asked is not None:
        if asked > terms.backoff_max:
            return Stop("retry_after")
        wait = max(wait, asked)
    return Wait(wait) if wait < time_left else Stop("time")


def backoff(terms: RetryTerms, attempt: int, random: float) -> float:
    """Seconds to wait after `attempt` tries: evenly from nothing to the doubled `backoff`, at most
    `backoff_max`. `random` is from [0, 1)."""
    doubled = terms.backoff * (1 << min(attempt - 1, _LONGEST_SHIFT))
    return random * min(terms.backoff_max, doubled)


def retry_after(text: str | None, now: float) -> float | None:
    """The seconds from `now` (since the epoch) that a Retry-After asks for; 0 for a date that is
    over, None without one and for what is neither delta-seconds nor an HTTP-date (RFC 9110
    §10.2.3)."""
    if text is None:
        return None
    if text.isascii() and text.isdecimal():
        return float(text)
    date = parse_http_date(text, int(now * 1000))
    return None if date is None else max(0.0, date / 1000 - now)


class Budget:
    """How many retries an upstream has left: a share of its requests, and `SPARE`.

    Counted in buckets of one second, by one clock that never goes back. Requests are counted over
    the running second and the nine before, retries over the running second and the ten before. So
    at the moment of every retry, and with it counted:

        retries of the last 10 s ≤ share × requests of the last 10 s + SPARE

    exactly, whatever the second's beginning. The price is up to one second: a request may count
    for 9 s only, a retry for up to 11 s. Requests that age out afterwards take no retry back.
    """

    __slots__ = ("_million_share", "_place", "_requests", "_retries", "_second")

    def __init__(self, share: float) -> None:
        """`share`: retries per request, from 0 to 1."""
        # Millionths: 29 % of 100 is 29, not 28.999….
        self._million_share = round(share * _MILLION)
        self._requests = [0] * (WINDOW + 1)
        self._retries = [0] * (WINDOW + 1)
        self._second = -1
        self._place = 0

    def request(self, now: float) -> None:
        """A client's request was tried the first time; whether it failed is not asked."""
        if int(now) > self._second:
            self._turn(int(now))
        self._requests[self._place] += 1

    def spend(self, now: float) -> bool:
        """Takes one retry, if one is left."""
        if int(now) > self._second:
            self._turn(int(now))
        retries = sum(self._retries) + 1
        # The next place in the ring holds the oldest second, 10 s ago: too old for requests.
        requests = sum(self._requests) - self._requests[(self._place + 1) % (WINDOW + 1)]
        if (retries - SPARE) * _MILLION > self._million_share * requests:
            return False
        self._retries[self._place] += 1
        return True

    def _turn(self, second: int) -> None:
        """Goes on to `second`; the seconds that are over make room."""
        size = WINDOW + 1
        for over in range(max(self._second + 1, second - WINDOW), second + 1):
            self._requests[over % size] = self._retries[over % size] = 0
        self._second = second
        self._place = second % size
