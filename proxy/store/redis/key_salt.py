"""The salt of the hashes that keys are shown by, where the YAML names none: one for all processes
on a store.

    PREFIX:key_salt           32 random bytes

Rules:
- Whoever comes first makes it; there is no time to live.
- It is read each time, as operators ask seldom. Where the store has lost it, the first process that
  still knows it puts it back, so what was shown before stays true.
- Without the store's word nothing is shown by a salt that another process might not have.
"""

import secrets
from typing import Final

from proxy.store.ports import StoreError
from proxy.store.redis.road_port import Road
from proxy.store.scripts import script

_SALT: Final = script("key_salt")


class KeySalt:
    """The salt under one prefix."""

    def __init__(self, road: Road, prefix: str) -> None:
        self._road = road
        self._name = f"{prefix}:key_salt".encode()
        self._salt = secrets.token_bytes(32)
        self._is_shared = False

    async def read(self) -> bytes | None:
        """The salt; None where the store has not given it yet, and gives no answer."""
        _SALT.check(1, 1)
        try:
            self._salt = await self._road.run(_SALT, (self._name,), (self._salt,))
            self._is_shared = True
        except StoreError:
            pass
        return self._salt if self._is_shared else None
