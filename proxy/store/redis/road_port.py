"""What the store's parts ask of the road to Redis, whatever stands at its end."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from proxy.store.ports import StoreError

PROBE_EXPIRY: Final = 1000
"""Milliseconds that a probe's key lives."""


class Script(Protocol):
    """A Lua script, ready to run."""

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> bytes: ...

    @property
    def sha(self) -> str:
        """SHA-1 of the source, lower-case hex."""


class Direct(Protocol):
    """The short way to one server, for calls that were packed beforehand."""

    def post(self, command: bytes) -> Awaitable[Any]:
        """Sends it, with the store's own timeout. What is awaited is the reply, or the ErrorReply
        or StoreError in its place. Raises StoreError where it cannot be sent."""

    def failure(self, reply: Exception) -> StoreError:
        """What such an error means to whoever wanted to count."""


class Road(Protocol):
    """Calls to one Redis server, to the primary that Sentinels name, or to a Cluster."""

    @property
    def cluster(self) -> bool: ...

    @property
    def direct(self) -> Direct | None:
        """None where a call has to find its server, or may have to follow it to another one."""

    def slot(self, key: bytes) -> int:
        """The key's hash slot; 0 where there is no cluster."""

    async def run(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[bytes | int | str],
        *,
        timeout: float | None = None,
    ) -> Any:
        """One script on the server of keys[0]: EVALSHA, and EVAL where that is not known there.

        `timeout` (seconds) instead of the store's own. Raises StoreError.
        """

    async def run_and_wait(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[bytes | int | str],
        replicas: int,
        *,
        timeout: float | None = None,
    ) -> tuple[Any, int]:
        """As `run`, and then how many replicas of that server have acknowledged what the script
        wrote: `replicas` (at least 1) of them or more, or how many after `timeout`. Both go over
        one connection together (WAIT counts what its own connection wrote), which holds up
        whatever follows on it."""

    async def ask(
        self, command: Sequence[bytes | int | str], *, timeout: float | None = None
    ) -> Any:
        """One command, whose second word is its key: for what is large, as a script's arguments
        and replies are copied twice more. Otherwise as `run`."""

    async def probe(self) -> None:
        """Writes one small key that expires, on every server that has a part of the keys: whether
        the store could count now. Raises StoreError, a partial one where most servers could."""

    async def publish(self, channel: str, message: bytes) -> None:
        """Raises StoreError."""

    def subscribe(
        self,
        channel: str,
        callback: Callable[[bytes], None],
        lost: Callable[[], None],
        back: Callable[[], None] | None = None,
        alive: Callable[[float], None] | None = None,
        ping_every: float = 2.0,
    ) -> None:
        """`callback` gets every message from now on, as far as the subscription holds; `lost` is
        called whenever messages may have been missed. It is renewed by itself: `back` is called
        whenever it holds, from the first time on. While it holds, `alive` is called with how many
        seconds ago everything published had been heard: with each message, and where there is none
        about every `ping_every` seconds."""

    async def up(self, seconds: float) -> bool:
        """Waits for the first connection, for so long at most; whether there is one."""

    def status(self) -> dict[str, object]:
        """For the operator: where it leads, whether it is connected, what is wrong."""

    async def close(self) -> None:
        """Ends every connection."""
