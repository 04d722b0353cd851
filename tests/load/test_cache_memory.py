"""`store.cache.memory` bounds what a process really holds for its cache, whatever clients send: the
resident memory of a gateway of its own grows by at most half as much again."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pytest
from process_kit import MB, Gateway, running
from rawhttp import RawOrigin, Seen, Wire, free_port
from redisservers import RedisServers

BOUND = 16 * MB
MOST = 1.5 * BOUND
AT_ONCE = 16
LONG = ",".join(f"x-{n:05}" for n in range(3700))
"""29 KB of a field that clients choose."""


async def answer(wire: Wire, seen: Seen) -> None:
    """What is stored or not, and by which fields it is selected, as the target says."""
    kind = seen.target.split("/")[1]
    control = "no-store" if kind.startswith("mark") else "max-age=600"
    vary = "Vary: Accept-Encoding\r\n" if kind.endswith("vary") else ""
    size = 400 if kind == "small" else 2
    await wire.send(
        f"HTTP/1.1 200 OK\r\nCache-Control: {control}\r\n{vary}Surrogate-Key: all\r\n"
        f"Content-Length: {size}\r\n\r\n{'x' * size}"
    )


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[RedisServers]:
    made = RedisServers(tmp_path)
    yield made
    made.stop()


@pytest.fixture(params=["memory", "redis"])
async def gateway(
    request: pytest.FixtureRequest, tmp_path: Path, servers: RedisServers
) -> AsyncIterator[Gateway]:
    url = "memory://"
    if request.param == "redis":
        url = f"redis://127.0.0.1:{servers.start().port}"
    origin = RawOrigin(answer)
    await origin.start()
    port, admin = free_port(), free_port()
    (tmp_path / "policies.yaml").write_text("caches: {all: {hit_for_miss: 1h}}")
    config = tmp_path / "gateway.yaml"
    config.write_text(
        f"""\
server: {{listen: "127.0.0.1:{port}"}}
admin: {{listen: "127.0.0.1:{admin}"}}
log: {{level: error}}
store: {{url: "{url}", cache: {{memory: {BOUND // MB}MiB}}}}
policies: [policies.yaml]
upstreams: {{origin: {{endpoints: ["http://127.0.0.1:{origin.port}"]}}}}
routes:
  - {{name: plain, match: {{path: "/plain/{{rest:path}}"}}, upstream: origin}}
  - name: cached
    match: {{path: "/{{kind}}/{{rest:path}}"}}
    upstream: origin
    cache: all
    invalidate: ["thing:{{path.rest}}"]
"""
    )
    async with running(config, port) as gateway:
        # What a process remembers of any request is there already.
        await send(gateway, get("plain", 200, LONG))
        await send(gateway, get("plain", 3000))
        yield gateway
    await origin.stop()


def get(kind: str, count: int, encoding: str = "", method: str = "GET") -> Iterable[bytes]:
    """Requests of so many URLs, each with an Accept-Encoding of its own."""
    for n in range(count):
        field = f"Accept-Encoding: {n},{encoding}\r\n" if encoding else ""
        length = "" if method == "GET" else "Content-Length: 0\r\n"
        yield f"{method} /{kind}/{n} HTTP/1.1\r\nHost: a\r\n{field}{length}\r\n".encode()


async def send(gateway: Gateway, requests: Iterable[bytes]) -> None:
    """Sends them all, over a few connections."""
    left = iter(requests)

    async def some() -> None:
        async with await Wire.open(gateway.port) as wire:
            for one in left:
                await wire.send(one)
                assert (await wire.read_answer()).status == 200

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())


@pytest.mark.parametrize("kind", ["vary", "markvary"])
async def test_long_values_of_vary_fields(gateway: Gateway, kind: str) -> None:
    before = gateway.resident()
    await send(gateway, get(kind, 1500, LONG))
    assert gateway.resident() - before <= MOST


async def test_a_full_cache_of_small_answers_full_marks_and_many_purges(gateway: Gateway) -> None:
    before = gateway.resident()
    await send(gateway, get("mark", 6000))
    await send(gateway, get("small", 7000))
    long = "/".join(["x" * 100] * 60)
    await send(gateway, get(f"small/{long}", 2500, method="POST"))
    await send(gateway, get("small", 1000))
    assert gateway.resident() - before <= MOST
