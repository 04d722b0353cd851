"""What the client gets where the upstream gave nothing: a problem, or the breaker's fallback."""

from math import ceil
from typing import Final

from proxy.core.breaker import Refused
from proxy.core.message import BodyError, Reply, UpstreamError
from proxy.core.problems import body_problem, problem
from proxy.policy.snapshot import Fallback
from proxy.stages.upstream.circuit import PlaceTaken

# UpstreamError.reason → (problem, the sentence for the client). Details stay in the log.
_FAILURES: Final[dict[str, tuple[str, str]]] = {
    "connect_error": ("upstream-unreachable", "The upstream could not be reached."),
    "reset": ("upstream-invalid", "The upstream closed the connection without an answer."),
    "client_slow": ("request-timeout", "The upstream did not wait for the rest of the request."),
    "invalid": ("upstream-invalid", "The upstream's answer is not valid HTTP."),
    "timeout": ("upstream-timeout", "The upstream did not answer in time."),
    "deadline": ("upstream-timeout", "The upstream did not answer before the deadline."),
    "queue_full": ("overloaded", "Too many requests wait for this upstream."),
    "queue_timeout": ("overloaded", "No connection to this upstream came free in time."),
    "no_socket": ("overloaded", "The gateway has no socket left for this upstream."),
    "no_endpoint": ("no-endpoint", "No endpoint of this upstream is available."),
}
_RETRY_SOON: Final = (("Retry-After", "1"),)


def failure(failed: UpstreamError) -> Reply:
    """The problem that stands for an upstream's answer."""
    name, sentence = _FAILURES[failed.reason]
    if failed.cause:
        sentence = f"{sentence[:-1]} ({failed.kind}): {failed.cause}."
    fields = _RETRY_SOON if name in ("overloaded", "no-endpoint") else ()
    return problem(name, sentence, fields=fields, close=failed.reason == "client_slow")


def refusal(refused: Refused, fallback: Fallback) -> Reply:
    """The answer in place of an upstream that is not asked for now (fallbacks that are other
    upstreams are the caller's)."""
    answer = fallback.answer
    if answer is not None:
        reply = Reply(answer.status, list(answer.fields), answer.body)
    else:
        seconds = max(1, ceil(refused.retry_in))
        detail = "The upstream has been failing; it is not asked for now."
        reply = problem("breaker-open", detail, fields=(("Retry-After", str(seconds)),))
    reply.trouble = "disconnected" if fallback.stale else "error"
    return reply


def unfinished(error: BodyError, fallback: Fallback) -> Reply:
    """The answer to a request whose body did not all go out. Raises `error` where the client has
    left."""
    if not isinstance(error, PlaceTaken):
        return body_problem(error)
    reply = refusal(error.refused, fallback)
    reply.close = True
    return reply
