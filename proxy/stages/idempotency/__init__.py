"""Have we seen it: requests with an Idempotency-Key are executed once, and answered again.

through    the stage: the key, what is known of it, and what the client gets for that
execution  a request under its claim, which goes on though its client leaves
claim      the claim: marked as sent before the first upstream byte, held while it is at work
"""

from proxy.stages.idempotency.execution import Replaying
from proxy.stages.idempotency.through import record_of, through

__all__ = ["Replaying", "record_of", "through"]
