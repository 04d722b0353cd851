"""Where: the route, or the answer that says why there is none."""

from proxy.core.headers import max_forwards
from proxy.core.matching import (
    COMMON_METHODS,
    MAX_METHOD_BYTES,
    Match,
    MethodNotAllowed,
    Misdirected,
    Verdict,
    split_path,
)
from proxy.core.message import Reply
from proxy.core.problems import problem
from proxy.exchange import Exchange

_USUAL = frozenset(COMMON_METHODS) - {"OPTIONS"}


def find(ex: Exchange) -> Reply | None:
    """Sets route and captures. Answers what is not to be forwarded: CONNECT and TRACE
    (405), `OPTIONS *` and OPTIONS whose Max-Forwards is used up (204), a path that an origin could
    read otherwise (400), and requests without a route (404, 405, 421)."""
    table = ex.snapshot.table
    method = ex.method
    if method not in _USUAL and (reply := _peculiar(ex)) is not None:
        return reply
    try:
        found = table.find(method, ex.host, ex.path, ex.fields)
    except ValueError as refused:
        return problem("bad-request", str(refused))
    if not isinstance(found, Match):
        return _refusal(method, found)
    if method == "OPTIONS" and max_forwards(ex.fields.index.get("max-forwards")) == 0:
        return _options(table.allow(ex.host, split_path(ex.path), ex.fields))
    ex.route = found.item
    ex.captures = found.captures
    return None


def _peculiar(ex: Exchange) -> Reply | None:
    """The answer to a method that is not forwarded as such, whatever the path."""
    method = ex.method
    table = ex.snapshot.table
    if method in ("CONNECT", "TRACE"):
        return _not_allowed(method, table.methods)
    if ex.target == "*" and method == "OPTIONS":
        return _options(table.methods)
    if len(method) > MAX_METHOD_BYTES:
        return problem("bad-request", f"The method is longer than {MAX_METHOD_BYTES} bytes.")
    return None


def _refusal(method: str, verdict: Verdict) -> Reply:
    match verdict:
        case MethodNotAllowed(allow):
            return _not_allowed(method, allow)
        case Misdirected():
            return problem("misdirected", "This gateway does not serve this host.")
        case _:
            return problem("no-route", "No route matches this request.")


def _not_allowed(method: str, allow: tuple[str, ...]) -> Reply:
    # RFC 9110 §15.5.6: a 405 says what is allowed.
    return problem(
        "method-not-allowed",
        f"{method} is not allowed here.",
        fields=(("Allow", ", ".join(allow)),),
        # What follows a refused CONNECT is the tunnel's, not a request.
        close=method == "CONNECT",
    )


def _options(allow: tuple[str, ...]) -> Reply:
    return Reply(204, [("Allow", ", ".join(allow))])
