"""Ask: the request goes upstream, rebuilt from parsed parts; a failure becomes a problem."""

import logging

from proxy.core.headers import apply_edits, forward_request_lines, forward_response_lines
from proxy.core.message import BodyError, Outgoing, Reply, UpstreamError
from proxy.core.problems import problem
from proxy.exchange import Exchange

log = logging.getLogger(__name__)

_BODY_PROBLEMS = {400: "bad-request", 408: "request-timeout", 413: "body-too-large"}

# UpstreamError.reason → (problem, the sentence for the client). Details stay in the log.
_FAILURES: dict[str, tuple[str, str]] = {
    "connect_error": ("upstream-unreachable", "The upstream could not be reached."),
    "reset": ("upstream-invalid", "The upstream closed the connection without an answer."),
    "invalid": ("upstream-invalid", "The upstream's answer is not valid HTTP."),
    "timeout": ("upstream-timeout", "The upstream did not answer in time."),
    "deadline": ("upstream-timeout", "The upstream did not answer before the deadline."),
    "queue_full": ("overloaded", "Too many requests wait for this upstream."),
    "queue_timeout": ("overloaded", "No connection to this upstream came free in time."),
    "no_endpoint": ("no-endpoint", "No endpoint of this upstream is available."),
}
_RETRY_SOON = (("Retry-After", "1"),)


async def ask(ex: Exchange) -> Reply:
    """The upstream's answer, or the problem that stands for it.

    Raises BodyError(499) where the client left while its body was being read.
    """
    route = ex.route
    assert route is not None
    try:
        reply = await route.upstream.send(outgoing(ex))
    except UpstreamError as failed:
        log.warning("upstream %s: %s: %s", route.upstream.name, failed.reason, failed.detail)
        name, sentence = _FAILURES[failed.reason]
        fields = _RETRY_SOON if name in ("overloaded", "no-endpoint") else ()
        return problem(name, sentence, fields=fields)
    except BodyError as failed:
        if failed.status not in _BODY_PROBLEMS:
            raise
        return problem(_BODY_PROBLEMS[failed.status], failed.detail, close=True)
    reply.fields = forward_response_lines(reply.fields)
    return reply


def outgoing(ex: Exchange) -> Outgoing:
    """The request as it goes upstream."""
    route = ex.route
    assert route is not None
    path = ex.path if route.rewrite is None else route.rewrite.apply(ex.path, ex.captures)
    lines = forward_request_lines(ex)
    edits = route.request_headers
    if edits is not None:
        lines = apply_edits(lines, edits.remove, edits.set)
    preserve = route.host_header == "preserve" and ex.authority
    return Outgoing(
        ex.method,
        path if ex.query is None else f"{path}?{ex.query}",
        ex.authority if preserve else None,
        lines,
        ex.body,
        expect_continue=ex.expect_continue,
        upgrade=ex.upgrade,
        inform=ex.inform,
    )
