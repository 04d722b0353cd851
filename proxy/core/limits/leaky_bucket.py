"""leaky_bucket: one request leaves per period/N, the first at once; up to `burst` wait their turn.

State: (debt, last), that of a token_bucket of burst + 1 units. The debt is the line in front of
the next request: it leaves once what was owed before it is paid off, which is its delay.

Rules:
- The slot is taken when the request is admitted. Who leaves early has spent it.
- A request of cost c leaves at its first slot and holds c of them.
- A cost of 0 asks, and waits for nothing.
"""

from proxy.core.limits import bounds
from proxy.core.limits.decision import Algorithm, Decision, Quota, Rate, State
from proxy.core.limits.token_bucket import Params, TokenBucket, compile_bucket

_bucket = TokenBucket()


class LeakyBucket(Algorithm):
    """The algorithm; see the module."""

    __slots__ = ()
    name = "leaky_bucket"

    def compile(self, rate: Rate, burst: int | None, refundable: bool = True) -> Params:
        if burst is not None and burst < 0:
            raise ValueError(f"burst is how many may wait, so at least 0, not {burst}")
        return compile_bucket(self.name, rate, (burst or 0) + 1, False)

    def step(
        self, state: State | None, params: Params, now: int, cost: int
    ) -> tuple[State, Decision]:
        after, decision = _bucket.step(state, params, now, cost)
        if not cost or not decision.allowed:
            return after, decision
        ahead = after[0] - cost * params.period
        if not ahead:
            return after, decision
        now = max(now, after[1] * params.tick)
        delay = (after[1] + bounds.up(ahead, params.amount)) * params.tick - now
        return after, Decision(True, decision.remaining, decision.reset, 0, delay)

    def refund(self, state: State, params: Params, charged: int, now: int, cost: int) -> State:
        return state  # a slot in the line is taken for good

    def idle_at(self, state: State, params: Params, now: int) -> int:
        return _bucket.idle_at(state, params, now)

    def capacity(self, params: Params) -> int:
        return params.size

    def quota(self, params: Params) -> Quota:
        return Quota(params.size, params.window)
