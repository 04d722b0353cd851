"""Which endpoints of an upstream may be taken. Pure: time is an argument, in seconds of one clock
that never goes back.

Two things are known of an endpoint:
- its health, by active checks: up until `unhealthy_after` checks in a row fail, down until
  `healthy_after` in a row succeed;
- its ejection, by what requests meet: a failed connect takes it out for 1 s, doubling with each
  failure in a row up to 30 s; a connect that succeeds ends it.

Rules:
- Connects that fail together count once. Only one that began after the ejection was over is the
  next in a row, or a hundred requests at once would take an endpoint out for 30 s by one hiccup.
- After an ejection one connect at a time tries the endpoint, and the others keep away until it
  ends, or for 1 s: where packets vanish, one request waits for the connect timeout, not all.
- Taken are the endpoints that are up and not ejected. If there is none, those that are up: an
  ejection is a guess, and the last ones standing are tried rather than refused. Those that are
  down never are.
- What is known of an endpoint goes on where its upstream is made anew by a reload; but not its
  health by a check that is another one now.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Final

FIRST_EJECTION: Final = 1.0
LONGEST_EJECTION: Final = 30.0
TRIAL: Final = 1.0


@dataclass(frozen=True)
class HealthTerms:
    """What `health_check` says. Times in seconds."""

    path: str
    interval: float = 5.0
    timeout: float = 1.0
    unhealthy_after: int = 3
    healthy_after: int = 2


class Health:
    """One endpoint's health. `up` is to be read."""

    __slots__ = ("_against", "_healthy_after", "_unhealthy_after", "up")

    def __init__(self, *, unhealthy_after: int, healthy_after: int) -> None:
        """It starts up: a gateway that has just begun refuses nobody on a guess."""
        self.up = True
        self._unhealthy_after = unhealthy_after
        self._healthy_after = healthy_after
        self._against = 0  # checks in a row that speak against `up`

    def checked(self, ok: bool) -> bool:
        """A check has ended; whether that changed `up`."""
        if ok == self.up:
            self._against = 0
            return False
        self._against += 1
        if self._against < (self._unhealthy_after if self.up else self._healthy_after):
            return False
        self.up = ok
        self._against = 0
        return True


class Ejection:
    """One endpoint's ejection. `until` is to be read: out until then; -inf where all is well."""

    __slots__ = ("_length", "_over", "until")

    def __init__(self) -> None:
        self._length = FIRST_EJECTION
        self._over = -inf  # when the last ejection is over, trials not counted
        self.until = -inf

    def trying(self, now: float) -> bool:
        """A connect begins; whether the others must keep away for its time."""
        if self.until == -inf or now < self.until:
            return False
        self.until = now + TRIAL
        return True

    def failed(self, began: float, now: float) -> bool:
        """A connect that began at `began` has failed; whether that ejects the endpoint (anew)."""
        if began < self._over:
            return False
        self._over = self.until = now + self._length
        self._length = min(2 * self._length, LONGEST_EJECTION)
        return True

    def inherit(self, other: "Ejection") -> None:
        """Goes on where another one is."""
        self._length, self._over, self.until = other._length, other._over, other.until

    def connected(self) -> bool:
        """A connect succeeded; whether that changed anything."""
        if self.until == -inf:
            return False
        self._length = FIRST_EJECTION
        self._over = self.until = -inf
        return True


class Roster:
    """The endpoints of an upstream and which of them may be taken. `healths` and `ejections`, by
    the endpoint's place, are to be read; what happens to them is told here."""

    __slots__ = ("_again", "_path", "_usable", "ejections", "healths")

    def __init__(self, count: int, terms: HealthTerms | None) -> None:
        """`count` endpoints; without terms they are never checked, and stay up."""
        self._path = None if terms is None else terms.path
        checks = HealthTerms("/") if terms is None else terms
        self.healths = tuple(
            Health(unhealthy_after=checks.unhealthy_after, healthy_after=checks.healthy_after)
            for _ in range(count)
        )
        self.ejections = tuple(Ejection() for _ in range(count))
        self._usable: tuple[int, ...] = tuple(range(count))
        self._again = inf  # until then `_usable` holds, if nothing happens

    def usable(self, now: float) -> tuple[int, ...]:
        """The places of those that may be taken, ascending; empty if none is up."""
        if now >= self._again:
            self._look(now)
        return self._usable

    def inherit(self, place: int, other: "Roster", there: int) -> None:
        """The endpoint was at `there` of another roster: what that knows of it holds here too."""
        if self._path is not None and self._path == other._path:
            self.healths[place].up = other.healths[there].up
        self.ejections[place].inherit(other.ejections[there])
        self._changed(True)

    def checked(self, place: int, ok: bool) -> bool:
        """See `Health.checked`."""
        return self._changed(self.healths[place].checked(ok))

    def trying(self, place: int, now: float) -> None:
        """A connect to the endpoint begins."""
        self._changed(self.ejections[place].trying(now))

    def failed(self, place: int, began: float, now: float) -> bool:
        """See `Ejection.failed`."""
        return self._changed(self.ejections[place].failed(began, now))

    def connected(self, place: int) -> bool:
        """See `Ejection.connected`."""
        return self._changed(self.ejections[place].connected())

    def _changed(self, changed: bool) -> bool:
        if changed:
            self._again = -inf
        return changed

    def _look(self, now: float) -> None:
        up = tuple(place for place, health in enumerate(self.healths) if health.up)
        ends = {place: self.ejections[place].until for place in up}
        self._usable = tuple(place for place in up if ends[place] <= now) or up
        self._again = _earliest(end for end in ends.values() if end > now)


def _earliest(times: Iterable[float]) -> float:
    return min(times, default=inf)
