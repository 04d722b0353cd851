"""The names of keys in Redis.

    PREFIX:l:{KEY}:SPACE      the state of one limit for one key

KEY is the 128-bit hash of the request's key parts, in base64. As the hash tag it decides the slot,
so all limits that count the same caller are in one slot and cost one round trip together. SPACE is
a 64-bit hash of the limit's space. Neither says who the caller is.
"""

from binascii import b2a_base64
from hashlib import blake2b
from typing import Final

KEY_LENGTH: Final = 22
"""Characters of KEY."""


def key_text(key: bytes) -> bytes:
    """KEY of a 16-byte hash."""
    return b2a_base64(key, newline=False)[:KEY_LENGTH]


class LimitKeys:
    """Builds the names of limit states under one prefix."""

    __slots__ = ("head", "reset_channel")

    def __init__(self, prefix: str) -> None:
        if "{" in prefix or "}" in prefix:
            raise ValueError("a prefix with braces would decide the slot of every key")
        self.head = f"{prefix}:l:{{".encode()
        """What stands before KEY."""
        self.reset_channel = f"{prefix}:reset"
        """Where the names of keys that were reset are published."""

    def tail(self, space: str) -> bytes:
        """What the names of one limit space end in: worth keeping, as it takes a hash."""
        digest = blake2b(space.encode(), digest_size=8).digest()
        return b"}:" + b2a_base64(digest, newline=False).rstrip(b"=")

    def name(self, key: bytes, tail: bytes) -> bytes:
        """The name for a 16-byte key hash and the `tail` of a space."""
        return self.head + key_text(key) + tail
