"""What outlives a snapshot: upstreams, breakers and retry budgets, by name and settings.

A reload keeps what it does not change, with its connections, its circuit and its counts. What no
snapshot uses any more ends after its last request.
"""

import logging
import random
from collections.abc import Callable
from time import monotonic

from proxy.core.breaker import Breaker, BreakerTerms, Order, State, Transition
from proxy.core.retries import Budget
from proxy.edge.upstream.client import HttpUpstream
from proxy.metrics import Metrics
from proxy.policy.snapshot import Endpoint, UpstreamPlan

log = logging.getLogger(__name__)

Tell = Callable[[str, State, float], None]
"""Tells other processes: an upstream's circuit is in this state, for so many seconds if open."""


class Circuit:
    """One upstream's breaker, and what it was made for."""

    __slots__ = ("breaker", "endpoints", "policy")

    def __init__(self, breaker: Breaker, policy: str, endpoints: tuple[Endpoint, ...]) -> None:
        self.breaker = breaker
        self.policy = policy
        self.endpoints = endpoints


class Live:
    """The live parts of this process. Implements `proxy.policy.compile.Live`.

    What is made for a snapshot counts once that is in use (`commit`), or is forgotten
    (`roll_back`).
    """

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.tell: Tell | None = None
        """Where transitions of shared circuits go, once there is a store to tell them through."""
        self._upstreams: dict[str, HttpUpstream] = {}
        self._circuits: dict[str, Circuit] = {}
        self._budgets: dict[str, tuple[float, Budget]] = {}
        self._new_upstreams: dict[str, HttpUpstream] = {}
        self._new_circuits: dict[str, Circuit] = {}
        self._new_budgets: dict[str, tuple[float, Budget]] = {}

    # For a snapshot that is being built.

    def upstream(self, plan: UpstreamPlan) -> HttpUpstream:
        made = self._upstreams.get(plan.name)
        if made is None or made.plan != plan:
            made = HttpUpstream(plan, self.metrics.upstream(plan.name))
        self._new_upstreams[plan.name] = made
        return made

    def breaker(self, plan: UpstreamPlan, policy: str, terms: BreakerTerms) -> Breaker:
        held = self._circuits.get(plan.name)
        if held is None or held.breaker.terms != terms or held.endpoints != plan.endpoints:
            held = Circuit(Breaker(terms, random.random), policy, plan.endpoints)
        self._new_circuits[plan.name] = Circuit(held.breaker, policy, plan.endpoints)
        return held.breaker

    def budget(self, upstream: str, share: float) -> Budget:
        held = self._budgets.get(upstream)
        if held is None or held[0] != share:
            held = share, Budget(share)
        self._new_budgets[upstream] = held
        return held[1]

    def commit(self) -> None:
        """The snapshot is in use."""
        for name, upstream in self._upstreams.items():
            if self._new_upstreams.get(name) is not upstream:
                upstream.retire()
        for name, upstream in self._new_upstreams.items():
            before = self._upstreams.get(name)
            if before is not upstream:
                upstream.start(before)
        for name, circuit in self._new_circuits.items():
            self._adopt(name, circuit)
        for name in self._circuits.keys() - self._new_circuits.keys():
            self._circuits[name].breaker.on_transition = None
            self.metrics.breaker(name).state = int(State.CLOSED)
        self._upstreams, self._new_upstreams = self._new_upstreams, {}
        self._circuits, self._new_circuits = self._new_circuits, {}
        self._budgets, self._new_budgets = self._new_budgets, {}

    def roll_back(self) -> None:
        """The snapshot was refused. What was made for it has not connected to anything."""
        self._new_upstreams, self._new_circuits, self._new_budgets = {}, {}, {}

    def _adopt(self, name: str, circuit: Circuit) -> None:
        before = self._circuits.get(name)
        breaker = circuit.breaker
        if before is not None and before.breaker is breaker:
            return

        def turned(transition: Transition) -> None:
            self._turned(name, breaker, transition)

        breaker.on_transition = turned
        if before is None:
            return
        before.breaker.on_transition = None  # what its last requests say is nobody's news
        if before.breaker.forced is not None:
            breaker.force(before.breaker.forced, monotonic())  # by hand, so by hand it ends

    def _turned(self, name: str, breaker: Breaker, transition: Transition) -> None:
        old, new = transition.old, transition.new
        to = label(new)
        transitions = self.metrics.breaker(name).transitions
        transitions[to] = transitions.get(to, 0) + 1
        level = logging.WARNING if new is State.OPEN else logging.INFO
        asked = transition.retry_in > 0 and breaker.forced is None
        more = f"; asked again in {transition.retry_in:.1f} s" if asked else ""
        log.log(
            level, "breaker of %s: %s, was %s: %s%s",
            *(name, to, label(old), transition.reason, more),
        )  # fmt: skip
        if transition.news and breaker.terms.shared and self.tell is not None:
            self.tell(name, new, transition.retry_in)

    # For an operator, and for other processes.

    def told(self, name: str, state: Order, seconds: float) -> None:
        """Another process says that the upstream's circuit is open, for so long, or closed."""
        circuit = self._circuits.get(name)
        if circuit is not None and circuit.breaker.terms.shared:
            circuit.breaker.told(state, monotonic(), seconds)

    def force(self, name: str, state: Order | None) -> None:
        """Opens or closes a circuit by hand; None lets it decide again. Raises KeyError."""
        by_hand = "decides for itself again" if state is None else f"is kept {label(state)} by hand"
        log.warning("breaker of %s: %s", name, by_hand)
        self._circuits[name].breaker.force(state, monotonic())

    def observe(self) -> None:
        """Has the metrics say each circuit's state of this moment: that an open time is over,
        nobody hears of before the next request."""
        now = monotonic()
        for name, circuit in self._circuits.items():
            self.metrics.breaker(name).state = int(circuit.breaker.state(now))

    def breakers(self) -> list[dict[str, object]]:
        """Each circuit's state, as `GET /breakers` shows it, and its figures."""
        now = monotonic()
        return [
            {
                "upstream": name,
                "state": label(circuit.breaker.state(now)),
                "forced": circuit.breaker.forced is not None,
                "reason": circuit.breaker.reason,
                "retry_in_s": round(circuit.breaker.retry_in(now), 3),
                "policy": circuit.policy,
                "probes": circuit.breaker.probes(now),
                **circuit.breaker.counts(now)._asdict(),
            }
            for name, circuit in self._circuits.items()
        ]

    def upstreams(self) -> list[dict[str, object]]:
        """Each upstream's name and figures."""
        return [{"name": name} | upstream.status() for name, upstream in self._upstreams.items()]

    async def close(self) -> None:
        """Closes every connection."""
        for upstream in self._upstreams.values():
            await upstream.close()


def label(state: State) -> str:
    """A circuit's state as metrics, logs and the admin API name it."""
    return state.name.lower().replace("_", "-")
