"""The circuit breaker of an upstream: when to stop asking it, and when to ask it again.

`terms` are its settings and words, `window` the rolling counts, `circuit` the breaker itself.
"""

from proxy.core.breaker.circuit import Breaker
from proxy.core.breaker.terms import (
    TRANSITIONS,
    BreakerTerms,
    Event,
    Order,
    Permit,
    Refused,
    State,
    Transition,
)
from proxy.core.breaker.window import Counts

__all__ = [
    "TRANSITIONS",
    "Breaker",
    "BreakerTerms",
    "Counts",
    "Event",
    "Order",
    "Permit",
    "Refused",
    "State",
    "Transition",
]
