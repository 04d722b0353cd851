"""The memory that the cache of this process may take, shared by everything that the cache keeps.

Stored answers have what the rest leaves. Hit-for-miss marks and the names of purged tags may each
take a share (SHARE) of the whole, as clients can make both: no flood of them pushes out more.
"""

from typing import Final

SHARE: Final = 8
"""One part in so many."""


class Room:
    """`size` bytes in all."""

    __slots__ = ("size", "taken")

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0
        """Bytes in use, as their holders count them."""
