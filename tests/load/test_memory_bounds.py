"""What clients can make the gateway hold, in a process of its own: large bodies, slow readers and
idle connections cost a bounded amount of memory each (design, Hard edges, Bounds)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path

import pytest
from process_kit import MB, Gateway, running
from rawhttp import RawOrigin, Seen, Wire, free_port

SIZE = 50 * MB
PIECE = b"x" * 65536


async def large(wire: Wire, seen: Seen) -> None:
    """Takes any body, and answers GET with SIZE bytes."""
    if seen.method == "HEAD":
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        return
    if seen.method == "GET":
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        for _ in range(SIZE // len(PIECE)):
            await wire.send(PIECE)
        return
    left = SIZE
    while left:
        left -= len(await wire.reader.read(min(left, 262144)))
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    origin = await RawOrigin(large, read_body=False).start()
    port, admin = free_port(), free_port()
    config = tmp_path / "gateway.yaml"
    config.write_text(
        f"""\
server: {{listen: "127.0.0.1:{port}", trusted_proxies: [127.0.0.1]}}
admin: {{listen: "127.0.0.1:{admin}"}}
log: {{level: error}}
policies: []
upstreams: {{origin: {{endpoints: ["http://127.0.0.1:{origin.port}"], max_connections: 300}}}}
routes: [{{name: all, match: {{path: "/{{rest:path}}"}}, upstream: origin}}]
"""
    )
    async with running(config, port) as gateway:
        async with await Wire.open(port) as probe:
            post = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n"
            await probe.ask(post.encode() + bytes(SIZE))
        yield gateway
    await origin.stop()


async def test_50_mb_up_and_down_add_at_most_32_mb(gateway: Gateway) -> None:
    before = gateway.resident()
    async with await Wire.open(gateway.port) as client:
        await client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.read_head()
        highest = 0
        for _ in range(SIZE // MB):
            await client.exactly(MB)
            highest = max(highest, gateway.resident())
    async with await Wire.open(gateway.port) as client:
        await client.send(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n")
        for _ in range(SIZE // MB):
            await client.send(bytes(MB))
            highest = max(highest, gateway.resident())
        assert (await client.read_answer("POST")).body == b"ok"
    assert highest - before <= 32 * MB


async def test_200_slow_readers_add_at_most_64_mb(gateway: Gateway) -> None:
    before = gateway.resident()
    clients = [await Wire.open(gateway.port, limit=4096) for _ in range(200)]
    for client in clients:
        await client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    for client in clients:
        await client.read_head()
    held = [0]
    # Every buffer on the way fills up; then nothing grows any more.
    async with asyncio.timeout(30):
        while len(held) < 10 or held[-1] > held[-5] + MB:
            await asyncio.sleep(0.1)
            held.append(gateway.resident() - before)
    for client in clients:
        client.writer.transport.abort()
    assert max(held) <= 64 * MB


async def test_1000_idle_connections_add_at_most_64_mb(gateway: Gateway) -> None:
    before = gateway.resident()
    clients = [await Wire.open(gateway.port) for _ in range(1000)]
    async with await Wire.open(gateway.port) as last:  # all the others are accepted by now
        await last.ask("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert gateway.resident() - before <= 64 * MB
    for client in clients:
        client.writer.transport.abort()


async def asked_by(gateway: Gateway, heads: Iterable[bytes]) -> int:
    """Bytes that the gateway has grown by through these requests, one after another."""
    async with await Wire.open(gateway.port) as client:
        await client.ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        before = gateway.resident()
        for head in heads:
            await client.ask(head, "HEAD")
        return gateway.resident() - before


def many_fields() -> Iterator[bytes]:
    """Heads of 100 short fields, each twice: it is remembered."""
    for number in range(6_000):
        fields = b"".join(b"a%02d%05d: %02d\r\n" % (place, number, place) for place in range(98))
        head = b"HEAD / HTTP/1.1\r\nHost: a\r\n%b\r\n" % fields
        yield from (head, head)


def long_values() -> Iterator[bytes]:
    """Heads with a value of 30 KB that is looked up by itself, never the same."""
    for number in range(300):
        names = b",".join(b"%04x%d" % (place, number) for place in range(3_500))
        yield b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: %b\r\n\r\n" % names
        yield b"HEAD / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: %b\r\n\r\n" % names


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("heads", "most"), [(many_fields, 64 * MB), (long_values, 8 * MB)])
async def test_what_is_remembered_of_requests_is_bounded(
    gateway: Gateway, heads: Callable[[], Iterator[bytes]], most: int
) -> None:
    """Memos have 32 MiB, as they are weighed; the allocator takes some more."""
    assert await asked_by(gateway, heads()) <= most
