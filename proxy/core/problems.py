"""The gateway's own errors as problem+json (RFC 9457)."""

import json
from typing import Any

from proxy.core.message import BodyError, Reply

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
REDUCED_CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"

# name → (status, title).
TITLES: dict[str, tuple[int, str]] = {
    "bad-request": (400, "Bad Request"),
    "no-route": (404, "Not Found"),
    "method-not-allowed": (405, "Method Not Allowed"),
    "request-timeout": (408, "Request Timeout"),
    "body-too-large": (413, "Content Too Large"),
    "target-too-long": (414, "URI Too Long"),
    "misdirected": (421, "Misdirected Request"),
    "headers-too-large": (431, "Request Header Fields Too Large"),
    "idempotency-missing": (400, "Bad Request"),
    "idempotency-missing-scope": (400, "Bad Request"),
    "idempotency-malformed": (400, "Bad Request"),
    "idempotency-conflict": (409, "Conflict"),
    "idempotency-unknown": (409, "Conflict"),
    "idempotency-too-large": (409, "Conflict"),
    "idempotency-mismatch": (422, "Unprocessable Content"),
    "idempotency-unavailable": (503, "Service Unavailable"),
    "internal": (500, "Internal Server Error"),
    "upstream-invalid": (502, "Bad Gateway"),
    "upstream-unreachable": (502, "Bad Gateway"),
    "no-endpoint": (503, "Service Unavailable"),
    "breaker-open": (503, "Service Unavailable"),
    "overloaded": (503, "Service Unavailable"),
    "upstream-timeout": (504, "Gateway Timeout"),
    "not-cached": (504, "Gateway Timeout"),
    "not-validated": (504, "Gateway Timeout"),
    "loop": (508, "Loop Detected"),
}


def problem(
    name: str,
    detail: str,
    *,
    fields: tuple[tuple[str, str], ...] = (),
    close: bool = False,
    **members: Any,
) -> Reply:
    """An error answer of type `urn:sluicegate:problem:NAME`.

    `detail` is one sentence for the caller, without internals; `fields` are further header lines;
    `members` are extension members of the JSON.
    """
    status, title = TITLES[name]
    return typed_problem(
        f"urn:sluicegate:problem:{name}",
        status,
        title,
        detail,
        fields=fields,
        close=close,
        **members,
    )


_BODY_PROBLEMS = {400: "bad-request", 408: "request-timeout", 413: "body-too-large"}


def body_problem(failed: BodyError) -> Reply:
    """The answer to a client whose body could not be had; its connection ends with it. Raises
    `failed` where the client has left."""
    if failed.status not in _BODY_PROBLEMS:
        raise failed
    return problem(_BODY_PROBLEMS[failed.status], failed.detail, close=True)


def typed_problem(
    type_uri: str,
    status: int,
    title: str,
    detail: str,
    *,
    fields: tuple[tuple[str, str], ...] = (),
    close: bool = False,
    **members: Any,
) -> Reply:
    """As `problem`, for the types that IANA registers."""
    document = {"type": type_uri, "title": title, "status": status, "detail": detail, **members}
    body = json.dumps(document, ensure_ascii=True).encode() + b"\n"
    lines = [("Content-Type", "application/problem+json"), ("Cache-Control", "no-store"), *fields]
    return Reply(status, lines, body, close=close)
