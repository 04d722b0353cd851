"""Is it up, and ask: a request's way to its upstream, attempt by attempt.

asking    the attempts: which failure is worth another one, and when
circuit   what the breaker hears of an attempt that was made under its permit
outgoing  the request as it goes out, and its body while it may have to go out again
answers   what the client gets where the upstream gave nothing
"""

from proxy.stages.upstream.asking import ask
from proxy.stages.upstream.outgoing import outgoing

__all__ = ["ask", "outgoing"]
