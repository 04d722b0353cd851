"""The body of `POST /explain`: a request, described.

Texts become wire text, that is UTF-8 with one character per byte, as a client would send them.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from proxy.admin.answers import Refusal
from proxy.core.addresses import parse_address
from proxy.core.matching import MAX_METHOD_BYTES
from proxy.policy.problem import suggest

_MEMBERS = ("method", "target", "headers", "ip")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(r"[^\x00-\x20\x7f#]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


class Question(NamedTuple):
    """The request to explain: wire text, and the address that it comes from."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    ip: str

    @classmethod
    def of(cls, told: Sequence[Any]) -> "Question":
        """One that came as JSON from another process of this gateway."""
        method, target, headers, ip = told
        return cls(method, target, [(name, value) for name, value in headers], ip)


def read_question(document: Any) -> Question:
    """Reads `{method, target, headers: [[name, value]], ip}`; headers and ip may be left out.
    Raises Refusal 422 that says which member is wrong."""
    if not isinstance(document, dict):
        raise Refusal(422, "the body must be an object with method, target, headers and ip")
    for member in document:
        if member not in _MEMBERS:
            raise Refusal(422, f"there is no member of this name{suggest(member, _MEMBERS)}")
    method = _text(document, "method")
    if not _TOKEN.fullmatch(method) or len(method) > MAX_METHOD_BYTES:
        raise Refusal(422, f"method must be a token of at most {MAX_METHOD_BYTES} bytes")
    target = _text(document, "target")
    if not _TARGET.fullmatch(target):
        raise Refusal(422, "target must be a path with query, or a URL, as it stands on the wire")
    return Question(method, target, _headers(document.get("headers", [])), _ip(document))


def _text(document: dict[str, Any], member: str) -> str:
    value = document.get(member)
    if not isinstance(value, str):
        missing = "is missing" if member not in document else "must be a string"
        raise Refusal(422, f"{member} {missing}")
    return _wire(value, member)


def _wire(text: str, member: str) -> str:
    try:
        return text.encode().decode("latin-1")
    except UnicodeEncodeError:
        raise Refusal(422, f"{member} has half a surrogate pair, which no wire carries") from None


def _headers(pairs: Any) -> list[tuple[str, str]]:
    wrong = Refusal(422, "headers must be a list of [name, value] pairs of strings")
    if not isinstance(pairs, list):
        raise wrong
    headers = []
    for pair in pairs:
        if not (
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(t, str) for t in pair)
        ):
            raise wrong
        name, value = pair[0], _wire(pair[1], "headers").strip(" \t")
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise Refusal(422, "headers has a name or value that no request can carry")
        headers.append((name, value))
    return headers


def _ip(document: dict[str, Any]) -> str:
    if "ip" not in document:
        return "127.0.0.1"
    text = _text(document, "ip")
    try:
        if text != "unix":
            parse_address(text)
    except ValueError:
        raise Refusal(422, 'ip must be an IP address, or "unix"') from None
    return text
