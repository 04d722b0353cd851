"""The names that the shared tier of the cache has in Redis.

    PREFIX:c:{KEY}            the entries of a primary key: variants and marks, small bodies in them
    PREFIX:b:{KEY}:NAME       a body that is kept apart; each one that is stored has a new NAME
    PREFIX:f:{KEY}            the lease of who fetches for everybody
    PREFIX:{purges}:numbers   the numbers of purges, by tag      PREFIX:{purges}:bans  by prefix
    PREFIX:purges, PREFIX:released   channels: purges; leases let go. Channels know no databases, so
                              the number of one that is not 0 follows, as in PREFIX:purges@3

KEY is the 16 bytes of a primary key in base64; it decides the slot. Purges have one slot, as they
have one sequence of numbers.
"""

from binascii import b2a_base64
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from os import urandom
from typing import Final

from proxy.core.cache import keys
from proxy.core.cache.record import Stored

NO_BODY: Final = bytes(8)
"""In place of a body's name where there is none apart."""


class CacheNames:
    """Names under one prefix, in one database."""

    __slots__ = ("_body", "_entries", "_lease", "bans", "numbers", "purges", "released")

    def __init__(self, prefix: str, database: int = 0) -> None:
        if "{" in prefix or "}" in prefix:
            raise ValueError("a prefix with braces would decide the slot of every key")
        self._entries = f"{prefix}:c:{{".encode()
        self._body = f"{prefix}:b:{{".encode()
        self._lease = f"{prefix}:f:{{".encode()
        self.numbers = f"{prefix}:{{purges}}:numbers".encode()
        self.bans = f"{prefix}:{{purges}}:bans".encode()
        place = f"@{database}" if database else ""
        self.purges = f"{prefix}:purges{place}"
        self.released = f"{prefix}:released{place}"

    def entries(self, key: bytes) -> bytes:
        return self._entries + _text(key) + b"}"

    def bodies(self, key: bytes) -> bytes:
        """What the keys of this primary key's bodies begin with; their names follow."""
        return self._body + _text(key) + b"}:"

    def lease(self, key: bytes) -> bytes:
        return self._lease + _text(key) + b"}"


def _text(key: bytes) -> bytes:
    return b2a_base64(key, newline=False)[:22]


def new_body() -> bytes:
    """A name for a body: 8 bytes."""
    return b2a_base64(urandom(6), newline=False)


_USUAL_TAG: Final = 256
"""Characters of a tag beyond which its hash is not remembered: a URL's has the client's path."""


def tag_hash(tag: str) -> bytes:
    """A tag as Redis knows it: 8 bytes. Two tags that share them are purged together."""
    return _usual_hash(tag) if len(tag) <= _USUAL_TAG else _hash(tag)


@lru_cache(maxsize=4096)
def _usual_hash(tag: str) -> bytes:
    return _hash(tag)


def _hash(tag: str) -> bytes:
    return blake2b(tag.encode("latin-1"), digest_size=8).digest()


def tag_hashes(tags: Iterable[str]) -> bytes:
    return b"".join([tag_hash(tag) for tag in tags])


def variant_id(key: bytes, stored: Stored) -> bytes:
    """16 bytes: an answer with the same ones takes its place."""
    return _method(stored.method, keys.variant(key, stored.vary))


def mark_id(key: bytes, vary: tuple[tuple[str, str | None], ...], kind: str) -> bytes:
    """16 bytes, of no variant's."""
    return _method(f"mark:{kind}", keys.variant(key, vary))


def _method(what: str, variant: bytes) -> bytes:
    return blake2b(variant, digest_size=16, key=what.encode("latin-1")).digest()
