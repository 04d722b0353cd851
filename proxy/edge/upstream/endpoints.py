"""An upstream's endpoints: which of them may be taken, how busy they are, and which is next.

What is known of them comes from health checks (`checks`) and from what requests meet when they
connect; core/health.py says what it means, core/balance.py which endpoint is taken.
"""

import logging

from proxy.core.balance import balance
from proxy.core.health import Roster
from proxy.core.message import Outgoing, UpstreamError
from proxy.edge.upstream.checks import Checks, Dialler
from proxy.policy.snapshot import UpstreamPlan

log = logging.getLogger(__name__)


class Endpoints:
    """The endpoints of one upstream, known by their place in its list. Times are the loop's."""

    __slots__ = (
        "_balance",
        "_checks",
        "_failures",
        "_load",
        "_name",
        "_roster",
        "_texts",
        "_unconnected",
    )

    def __init__(self, plan: UpstreamPlan, pool: Dialler) -> None:
        self._name = plan.name
        self._texts = [str(endpoint) for endpoint in plan.endpoints]
        self._load = [0] * len(plan.endpoints)
        self._balance = balance(
            plan.balance, [endpoint.weight for endpoint in plan.endpoints], self._texts
        )
        self._roster = Roster(len(plan.endpoints), plan.health)
        self._failures: list[str | None] = [None] * len(plan.endpoints)
        self._unconnected: list[str | None] = [None] * len(plan.endpoints)
        """What kept the last connect to each from coming about."""
        self._checks: Checks | None = None
        if plan.health is not None:
            self._checks = Checks(plan.health, plan.endpoints, pool, self._checked)

    # For requests.

    def ensure(self, now: float) -> None:
        """Raises UpstreamError(no_endpoint) where none is up: nobody waits in line for nothing."""
        if not self._roster.usable(now):
            raise UpstreamError("no_endpoint", "every endpoint is down", sent=False)

    def choose(self, request: Outgoing, now: float) -> int:
        """The endpoint for this request, one that it has not been sent to if there is one. It
        counts as busy with it until `left`. Raises UpstreamError(no_endpoint)."""
        usable = self._roster.usable(now)
        tried = request.tried
        if tried:
            usable = tuple([index for index in usable if index not in tried]) or usable
        if not usable:
            raise UpstreamError("no_endpoint", "every endpoint is down", sent=False)
        load = self._load
        index = self._balance.pick(load, usable, request.affinity)
        request.tried = (*tried, index)
        load[index] += 1
        return index

    def left(self, index: int) -> None:
        """A request that had chosen this endpoint is over."""
        self._load[index] -= 1

    def trying(self, index: int, now: float) -> None:
        """A connect begins."""
        self._roster.trying(index, now)

    def connected(self, index: int) -> None:
        """The endpoint has accepted a connection."""
        self._unconnected[index] = None
        if self._roster.connected(index):
            log.info("upstream %s: %s accepts connections again", self._name, self._texts[index])

    def failed(self, index: int, began: float, now: float, detail: str) -> None:
        """A connect that began at `began` came to nothing."""
        self._unconnected[index] = detail
        if self._roster.failed(index, began, now):
            seconds = self._roster.ejections[index].until - now
            log.warning(
                "upstream %s: %s is avoided for %g s: %s",
                *(self._name, self._texts[index], seconds, detail),
            )

    def inherit(self, before: "Endpoints") -> None:
        """What the upstream's endpoints before a reload knew goes on for those that are still
        there."""
        for index, text in enumerate(self._texts):
            if text in before._texts:
                self._roster.inherit(index, before._roster, before._texts.index(text))

    # Health checks.

    def start(self) -> None:
        """Begins the health checks, if there are any; once."""
        if self._checks is not None:
            self._checks.start()

    def stop(self) -> None:
        if self._checks is not None:
            self._checks.stop()

    def _checked(self, index: int, failure: str | None) -> None:
        self._failures[index] = failure
        if failure is None:
            self.connected(index)
        if self._roster.checked(index, failure is None):
            if failure is None:
                log.info("upstream %s: %s is up", self._name, self._texts[index])
            else:
                log.warning("upstream %s: %s is down: %s", self._name, self._texts[index], failure)

    def status(self, now: float) -> list[dict[str, object]]:
        """Per endpoint: requests in flight, whether checks find it up, how long it is avoided,
        what the last check found wrong, and why the last connect came to nothing."""
        said = []
        for index, text in enumerate(self._texts):
            line: dict[str, object] = {
                "endpoint": text,
                "in_flight": self._load[index],
                "up": self._roster.healths[index].up,
                "avoided_s": round(max(0.0, self._roster.ejections[index].until - now), 3),
            }
            if (failure := self._failures[index]) is not None:
                line["check"] = failure
            if (failure := self._unconnected[index]) is not None:
                line["connect"] = failure
            said.append(line)
        return said
