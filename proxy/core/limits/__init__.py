"""The five algorithms by name: YAML word = module = Lua fragment."""

from proxy.core.limits.decision import Algorithm
from proxy.core.limits.fixed_window import FixedWindow
from proxy.core.limits.leaky_bucket import LeakyBucket
from proxy.core.limits.sliding_log import SlidingLog
from proxy.core.limits.sliding_window import SlidingWindow
from proxy.core.limits.token_bucket import TokenBucket

_ALL: tuple[Algorithm, ...] = (
    FixedWindow(),
    SlidingWindow(),
    SlidingLog(),
    TokenBucket(),
    LeakyBucket(),
)
ALGORITHMS: dict[str, Algorithm] = {algorithm.name: algorithm for algorithm in _ALL}
