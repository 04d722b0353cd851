"""Idempotency records as Redis has them: their names, their answers, and what the scripts say.

    PREFIX:i:{RECORD}     one record, a hash (lua/include/idempotency_record.lua)
    PREFIX:idempotency    the channel: the 16 bytes of each record that was settled, let go or
                          freed. Channels know no databases, so the number of one that is not 0
                          follows, as in PREFIX:idempotency@3

RECORD is the record's 16 bytes in base64; it decides the slot.

An answer is a head, JSON of form, status, reason and lines, and its body as it is. What cannot be
read is an error, and never no record: that would execute a request again.
"""

import json
import re
from binascii import b2a_base64
from typing import Any, Final

from proxy.core.fields import Lines
from proxy.core.idempotency import (
    Answer,
    Mine,
    Mismatch,
    Replay,
    Running,
    TooLarge,
    Unknown,
    Verdict,
)
from proxy.store.ports import StoreError

_FORM: Final = 1
_WIRE: Final = re.compile(r"[\x01-\x09\x0b\x0c\x0e-\xff]*")
"""Wire text: latin-1, without what ends a line (RFC 9110 §5.5)."""


class IdempotencyNames:
    """Names under one prefix, in one database."""

    __slots__ = ("_head", "channel")

    def __init__(self, prefix: str, database: int = 0) -> None:
        if "{" in prefix or "}" in prefix:
            raise ValueError("a prefix with braces would decide the slot of every key")
        self._head = f"{prefix}:i:{{".encode()
        self.channel = f"{prefix}:idempotency" + (f"@{database}" if database else "")

    def record(self, record: bytes) -> bytes:
        return self._head + b2a_base64(record, newline=False)[:22] + b"}"


def write_head(answer: Answer) -> bytes:
    """All of an answer but its body."""
    lines = [part for line in answer.lines for part in line]
    return json.dumps([_FORM, answer.status, answer.reason, lines], separators=(",", ":")).encode()


def read_answer(head: bytes, body: bytes) -> Answer:
    """The answer. Raises StoreError where it is none that this release has written: another one's,
    or a damaged one, of which an answer must not be split or broken off."""
    try:
        form, status, reason, flat = json.loads(head)
        parts = iter(flat)
        lines: Lines = list(zip(parts, parts, strict=True))
        whole = _WIRE.fullmatch("".join([reason, *flat]))
    except (ValueError, TypeError, RecursionError) as error:
        raise _unreadable() from error
    if form != _FORM or whole is None or type(status) is not int or not 200 <= status <= 599:
        raise _unreadable()
    return Answer(status, reason, lines, body)


_PLAIN: Final[dict[bytes, Verdict]] = {
    b"mine": Mine(),
    b"mismatch": Mismatch(),
    b"unknown": Unknown(),
    b"too_large": TooLarge(),
}


def read_verdict(reply: list[Any]) -> Verdict | None:
    """What idempotency_claim.lua says; None where the answer's body has to be asked for. Raises
    StoreError."""
    word = reply[0]
    if word == b"running":
        return Running(int(reply[1]))
    if word == b"replay":
        _, head, body, _ = reply
        return None if body is None else Replay(read_answer(head, body))
    verdict = _PLAIN.get(word)
    if verdict is None:
        raise _unreadable()
    return verdict


def _unreadable() -> StoreError:
    return StoreError("refused", "a record that this release cannot read")
