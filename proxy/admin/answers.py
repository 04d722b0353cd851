"""What the admin application says: JSON, and problems where something is wrong (RFC 9457)."""

import asyncio
import json
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from multidict import CIMultiDict

from proxy.core.problems import typed_problem

_NAMES: Final = {
    400: "bad-request",
    401: "unauthorized",
    403: "cross-site",
    404: "not-found",
    405: "method-not-allowed",
    408: "request-timeout",
    413: "body-too-large",
    415: "unsupported-media-type",
    421: "misdirected",
    422: "unprocessable",
    500: "internal",
    503: "starting",
}


_BODY_SECONDS: Final = 10.0
"""For a call's whole body."""


class Refusal(Exception):
    """Ends a call with a problem. `detail` is one sentence for the operator; `fields` are further
    header lines, `members` further members of the JSON. `name` says more than the status does."""

    def __init__(
        self,
        status: int,
        detail: str,
        *fields: tuple[str, str],
        name: str | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.name = name or _NAMES.get(status, "bad-request")
        self.status = status
        self.detail = detail
        self.fields = fields
        self.members = members

    def response(self) -> web.Response:
        reply = typed_problem(
            f"urn:sluicegate:problem:{self.name}",
            self.status,
            HTTPStatus(self.status).phrase,
            self.detail,
            fields=self.fields,
            **self.members,
        )
        return web.Response(status=reply.status, headers=CIMultiDict(reply.fields), body=reply.body)


def json_response(document: object, status: int = 200) -> web.Response:
    body = json.dumps(document).encode() + b"\n"
    return web.Response(status=status, body=body, content_type="application/json")


async def read_json(request: web.Request, refuse: int = 400) -> Any:
    """The request's JSON; None for an empty body. Raises Refusal with the status `refuse`, also
    where an object names a member twice: of two selectors of a purge, one would be lost."""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            raw = await request.read()
    except TimeoutError:
        raise Refusal(408, f"the body was not here within {_BODY_SECONDS:g} s") from None
    if not raw:
        return None
    try:
        return json.loads(raw, parse_constant=_refuse_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        raise Refusal(refuse, "the body is not JSON, or names a member twice") from None


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a member is named twice")
    return document
