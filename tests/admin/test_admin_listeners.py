"""What a connection to the admin and probes listeners may cost, and what they leave behind."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from admin_kit import Gateway
from rawhttp import Wire, free_port

from proxy.admin.listeners import AdminListeners
from proxy.descriptors import ADMIN_CONNECTIONS
from proxy.policy.snapshot import AdminPlan, Listen

LIVEZ = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
TIMEOUT = 0.2


@pytest.fixture
async def listeners() -> AsyncIterator[AdminListeners]:
    listeners = AdminListeners()
    yield listeners
    await listeners.close()


async def open_probes(
    listeners: AdminListeners, gateway: Gateway, *, header: float = 10.0, idle: float = 75.0
) -> int:
    """Opens both listeners; the port of the probes."""
    assert gateway.config is not None
    admin, probes = Listen("127.0.0.1", free_port()), free_port()
    plan = AdminPlan(admin, None, frozenset(), Listen("127.0.0.1", probes))
    server = replace(gateway.config.server, header_timeout=header, idle_timeout=idle)
    gateway.config = replace(gateway.config, admin=plan, server=server)
    await listeners.open(gateway, gateway.config)
    return probes


@pytest.mark.parametrize("sent", ["", "GET /livez HT", LIVEZ + "GET /liv"])
async def test_a_head_that_does_not_come_ends_the_connection(
    listeners: AdminListeners, gateway: Gateway, sent: str
) -> None:
    port = await open_probes(listeners, gateway, header=TIMEOUT)
    async with await Wire.open(port) as slow:
        await slow.send(sent)
        if sent.startswith(LIVEZ):
            assert (await slow.read_answer()).status == 200
            await slow.send("e")
        assert await slow.closed()


async def test_an_idle_connection_ends(listeners: AdminListeners, gateway: Gateway) -> None:
    port = await open_probes(listeners, gateway, idle=TIMEOUT)
    async with await Wire.open(port) as idle:
        assert (await idle.ask(LIVEZ)).status == 200
        assert await idle.closed()


async def test_the_next_connection_replaces_the_one_at_rest_for_longest(
    listeners: AdminListeners, gateway: Gateway
) -> None:
    port = await open_probes(listeners, gateway)
    wires = [await Wire.open(port) for _ in range(ADMIN_CONNECTIONS)]
    first, second = wires[:2]
    assert (await wires[-1].ask(LIVEZ)).status == 200  # all of them are accepted by now
    assert (await first.ask(LIVEZ)).status == 200  # so the second is at rest for longer
    async with await Wire.open(port) as late:
        assert (await late.ask(LIVEZ)).status == 200
        assert await second.closed()
        assert (await first.ask(LIVEZ)).status == 200
    for wire in wires:
        await wire.close()


async def test_connections_at_work_keep_nobody_out(
    listeners: AdminListeners, gateway: Gateway
) -> None:
    """Calls whose bodies do not come: the first of them makes room."""
    await open_probes(listeners, gateway)
    assert gateway.config is not None
    port = gateway.config.admin.listen.port
    call = (
        "POST /cache/purge HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Expect: 100-continue\r\nContent-Length: 10\r\n\r\n"
    )
    wires = [await Wire.open(port) for _ in range(ADMIN_CONNECTIONS)]
    for wire in wires:
        await wire.send(call)
        assert b" 100 " in await wire.read_head()  # it is at work
    async with await Wire.open(port) as late:
        assert (await late.ask(LIVEZ)).status == 200
        assert await wires[0].closed()
    for wire in wires:
        await wire.close()


async def test_a_client_that_takes_no_answer_is_let_go(
    listeners: AdminListeners, gateway: Gateway
) -> None:
    port = await open_probes(listeners, gateway, idle=TIMEOUT)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", port))

        async def ask_for_ever() -> None:
            while True:
                await loop.sock_sendall(client, LIVEZ.replace("livez", "metrics").encode())

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(ask_for_ever(), 10)


async def test_unix_sockets_are_removed_and_stale_ones_replaced(
    gateway: Gateway, tmp_path: Path
) -> None:
    assert gateway.config is not None
    path = tmp_path / "admin.sock"
    stale = socket.socket(socket.AF_UNIX)  # a socket whose process died
    stale.bind(str(path))
    stale.close()
    plan = AdminPlan(Listen(path=str(path)), None, frozenset(), None)
    snapshot = gateway.config = replace(gateway.config, admin=plan)
    first, second = AdminListeners(), AdminListeners()
    await first.open(gateway, snapshot)
    async with Wire(*await asyncio.open_unix_connection(str(path))) as client:
        assert (await client.ask(LIVEZ)).status == 200
    with pytest.raises(OSError, match=r"admin\.sock"):
        await second.open(gateway, snapshot)
    await second.close()
    assert path.exists()  # it is the first one's
    await first.close()
    assert not path.exists()
