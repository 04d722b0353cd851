"""Who may ask: the checks before every call, and what becomes of errors after it.

Rules:
- Host must be an IP literal, localhost or one of admin.hosts, whatever the port: a web page that
  rebinds its own name to this address sends its own name (421).
  An absolute target would bring a host of its own (RFC 9112 §3.2.2): it is refused (400).
- With admin.token set, every call but /livez and /readyz needs it as a bearer token (401). The
  comparison takes the same time wherever it differs.
- What a page of another site has a browser send changes nothing (403): browsers name the site in
  Origin (Fetch §3.2) and its relation to this one in Sec-Fetch-Site, of which `same-site` is
  another port or name, too.
- A body needs `Content-Type: application/json` (415), which no web page can send here without
  asking first, and nobody here answers such a question.
- Token and hosts are read from the configuration in use, so a reload changes them.
"""

import hmac
import logging
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from proxy.admin.answers import Refusal
from proxy.policy.snapshot import AdminPlan
from proxy.store.ports import StoreError

PUBLIC: Final = frozenset(("/livez", "/readyz"))
"""Paths that need no token: an orchestrator's probes carry none."""

log = logging.getLogger(__name__)


def guard(plan: Callable[[], AdminPlan]) -> Middleware:
    """Checks Host, token, site and Content-Type, in this order, by the plan of the moment."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        admin = plan()
        if not request.raw_path.startswith("/"):
            raise Refusal(400, "the request target must be a path")
        if not host_is_ours(request.headers.getall("Host", []), admin.hosts):
            raise Refusal(421, "Host must be an IP address, localhost or one of admin.hosts")
        if (
            admin.token is not None
            and request.path not in PUBLIC
            and not bears(request.headers.getall("Authorization", []), admin.token)
        ):
            raise Refusal(
                401,
                "this call needs the admin token as a bearer token",
                ("WWW-Authenticate", 'Bearer realm="sluicegate"'),
            )
        if request.method not in ("GET", "HEAD") and is_of_another_site(
            request.headers.getall("Origin", []),
            request.headers.getall("Sec-Fetch-Site", []),
            request.headers["Host"],
        ):
            raise Refusal(403, "a page of another site may not call this")
        if (
            request.body_exists
            and request.method not in ("GET", "HEAD")
            and request.match_info.http_exception is None
            and request.content_type != "application/json"
        ):
            raise Refusal(
                415,
                "a body needs Content-Type: application/json",
                ("Accept", "application/json"),
            )
        return await handler(request)

    return check


def host_is_ours(values: list[str], hosts: frozenset[str]) -> bool:
    """Whether the one Host line names us: an IP literal, localhost or one of `hosts`."""
    if len(values) != 1:
        return False
    name, bracket, after = values[0].strip().rpartition("]")
    if bracket:
        return name.startswith("[") and _is_address(name[1:]) and _is_port(after)
    name, colon, port = after.partition(":")
    if not _is_port(colon + port):
        return False
    name = name.lower().removesuffix(".")
    return name == "localhost" or name in hosts or _is_address(name)


def is_of_another_site(origins: list[str], relations: list[str], host: str) -> bool:
    """Whether a browser sends this for a page that did not come from here. What is no browser
    sends neither field."""
    if any(origin.partition("://")[2].lower() != host.strip().lower() for origin in origins):
        return True
    return any(one.strip() not in ("same-origin", "none") for one in relations)


def _is_port(text: str) -> bool:
    return not text or (text[0] == ":" and (text[1:].isdecimal() or text == ":"))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def bears(values: list[str], token: str) -> bool:
    """Whether the one Authorization line is `Bearer TOKEN`."""
    if len(values) != 1:
        return False
    scheme, _, given = values[0].partition(" ")
    same = hmac.compare_digest(_bytes(given.strip()), _bytes(token))
    return same and scheme.lower() == "bearer"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@web.middleware
async def tell_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turns every error into a problem, and marks every answer as not to be kept."""
    try:
        response = await handler(request)
    except Refusal as refusal:
        response = refusal.response()
    except StoreError as trouble:
        response = _refusal_for_store(trouble).response()
    except web.HTTPException as error:
        response = _refusal_for(error).response()
    except Exception:
        log.exception("admin: %s %s failed", request.method, request.path)
        response = Refusal(500, "the gateway failed at this call; its log says why").response()
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Server"] = "sluicegate"
    return response


def _refusal_for_store(trouble: StoreError) -> Refusal:
    return Refusal(
        503,
        f"the store gave no answer to rely on: {trouble.reason}: {trouble.detail}",
        ("Retry-After", "1"),
        name="store-unavailable",
    )


def _refusal_for(error: web.HTTPException) -> Refusal:
    match error:
        case web.HTTPNotFound():
            return Refusal(404, "there is nothing at this path")
        case web.HTTPMethodNotAllowed():
            allow = ", ".join(sorted(error.allowed_methods))
            return Refusal(405, f"this path takes {allow}", ("Allow", allow))
        case web.HTTPRequestEntityTooLarge():
            return Refusal(413, "the body is larger than any call needs")
    return Refusal(error.status, error.reason)
