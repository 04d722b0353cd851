"""How to get in at a Redis server: address, credentials, database, TLS; for our own connections
and for redis-py's.

Every socket of redis-py has explicit timeouts and no retries: whoever calls decides about those.
"""

import asyncio
import inspect
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from proxy.policy.snapshot import StorePlan, StoreTls
from proxy.store.redis.connection import Connection, Word

CONNECT_TIMEOUT: Final = 1.0
"""Seconds for a connection and its handshake, and for one answer to redis-py."""
CLIENT_NAME: Final = "sluicegate"
FAILURES: Final = (RedisError, OSError, RuntimeError)
"""What redis-py raises for what a server does, or the way to it. RuntimeError is uvloop's word for
a transport that closed a moment ago."""


def _left_out() -> dict[str, Any]:
    """What redis-py 8 would send at every connect unless told not to: its own name (for which it
    reads files on the event loop), and a wish for notices that no open server has."""
    known = inspect.signature(Redis.__init__).parameters
    options: dict[str, Any] = {"driver_info": None} if "driver_info" in known else {}
    if "maint_notifications_config" in known:
        options["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    return options


_LEFT_OUT: Final = _left_out()


class Address(NamedTuple):
    """host and port, or a unix socket's path."""

    host: str
    port: int
    socket: str | None = None

    def __str__(self) -> str:
        if self.socket is not None:
            return f"unix:{self.socket}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Access:
    """What every server of one store is asked with."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: StoreTls | None = None
    """None: in the clear."""

    @classmethod
    def of(cls, plan: StorePlan) -> "Access":
        url = plan.url
        return cls(url.username, url.password, url.database, plan.tls if url.tls else None)

    def handshake(self) -> list[tuple[Word, ...]]:
        """The commands that must succeed before any other, in order."""
        commands: list[tuple[Word, ...]] = []
        if self.password is not None:
            user = () if self.username is None else (self.username,)
            commands.append((b"AUTH", *user, self.password))
        if self.database:
            commands.append((b"SELECT", self.database))
        return commands

    async def connect(
        self, address: Address, on_lost: Callable[[Connection, str], None]
    ) -> Connection:
        """A connection without its handshake. Raises OSError."""
        loop = asyncio.get_running_loop()

        def make() -> Any:  # as Connection does not derive from asyncio.Protocol
            return Connection(loop, on_lost)

        connection: Connection
        if address.socket is not None:
            _, connection = await loop.create_unix_connection(make, address.socket)
            return connection
        context = None
        if self.tls is not None:  # read anew each time: certificates are renewed
            context = await asyncio.to_thread(client_context, self.tls)
        transport, connection = await loop.create_connection(
            make, address.host, address.port, ssl=context
        )
        _keep_alive(transport.get_extra_info("socket"))
        return connection

    def client(self, address: Address, **more: Any) -> "Redis":
        """redis-py's client for one server; `more` takes precedence."""
        options: dict[str, Any] = {
            "username": self.username,
            "password": self.password,
            "db": self.database,
            "socket_timeout": CONNECT_TIMEOUT,
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),
            "client_name": CLIENT_NAME,
            "protocol": 2,
            **_LEFT_OUT,
            **self._tls_options(),
        }
        if address.socket is not None:
            options["unix_socket_path"] = address.socket
        else:
            options |= {"host": address.host, "port": address.port}
        return Redis(**(options | more))

    def _tls_options(self) -> dict[str, Any]:
        tls = self.tls
        if tls is None:
            return {}
        return {
            "ssl": True,
            "ssl_ca_certs": _text(tls.ca),
            "ssl_certfile": _text(tls.cert),
            "ssl_keyfile": _text(tls.key),
            "ssl_cert_reqs": "required" if tls.verify else "none",
            "ssl_check_hostname": tls.verify,
        }


async def let_go(client: Any) -> None:
    """Closes something of redis-py's to the end, whoever is cancelled meanwhile: closed by half it
    would keep its socket."""
    closing: asyncio.Future[None] = asyncio.ensure_future(client.aclose())
    cancelled = False
    while not closing.done():
        try:
            await asyncio.wait([closing])
        except asyncio.CancelledError:
            cancelled = True
    closing.result()
    if cancelled:
        raise asyncio.CancelledError


def client_context(tls: StoreTls) -> ssl.SSLContext:
    """The context for connections under `tls`. Reads files: belongs in a thread. Raises OSError
    (which ssl.SSLError is) where one cannot be used."""
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.cert is not None:
        context.load_cert_chain(tls.cert, tls.key)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _keep_alive(sock: Any) -> None:
    """Has the kernel ask an idle peer for a sign of life: what stands between keeps the connection
    in mind, and one that is dead is known before the next call."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
