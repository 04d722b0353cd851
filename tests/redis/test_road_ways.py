"""Ways to a server: unix socket, TLS, IPv6, users, databases; a server that comes later, goes and
comes back; what the operator is told."""

import asyncio
import logging
import socket
import time
from pathlib import Path

import pytest
import trustme
from redisservers import RedisServer, RedisServers
from road_kit import ECHO, INCR, a_road, at_once, blocking, eventually, outcome

from proxy.exposition import render
from proxy.metrics import Metrics
from proxy.policy.snapshot import StoreTls
from proxy.store.ports import StoreError


async def test_by_unix_socket(redis_server: RedisServer) -> None:
    async with a_road(f"unix://{redis_server.path}?db=1") as road:
        assert await road.run(INCR, [b"unix"], []) == 1
        assert await blocking(redis_server.call, "GET", "unix") is None, "another database"
        assert road.status()["server"] == f"unix:{redis_server.path}"


async def test_with_a_database_and_a_name(redis_server: RedisServer) -> None:
    async with a_road(f"{redis_server.url}/2") as road:
        await road.run(INCR, [b"k"], [])
        with redis_server.client() as client:
            clients = await blocking(client.client_list)
        assert ("sluicegate", "2") in [(client["name"], client["db"]) for client in clients]


async def test_by_ipv6(redis_servers: RedisServers) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    server = await blocking(lambda: redis_servers.start(options={"bind": "127.0.0.1 ::1"}))
    async with a_road(f"redis://[::1]:{server.port}") as road:
        assert await road.run(INCR, [b"k"], []) == 1


@pytest.mark.parametrize("credentials", [":main-s3cret@", "gate:gate-s3cret@"])
async def test_with_credentials(redis_servers: RedisServers, credentials: str) -> None:
    options = {"requirepass": "main-s3cret", "user": "gate on >gate-s3cret ~* &* +@all"}
    server = await blocking(lambda: redis_servers.start(options=options))
    got: list[bytes] = []
    async with a_road(f"redis://{credentials}127.0.0.1:{server.port}") as road:
        assert await road.run(INCR, [b"k"], []) == 1
        road.subscribe("news", got.append, lambda: None)
        await eventually(lambda: _hears(server, "news"))
        await road.publish("news", b"hello")
        await eventually(lambda: got == [b"hello"])


@pytest.mark.parametrize("credentials", ["", ":wr0ng@", "nobody:wr0ng@"])
async def test_with_the_wrong_credentials(
    redis_servers: RedisServers, credentials: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is down for us, says so once, and tells no password."""
    caplog.set_level(logging.DEBUG)
    server = await blocking(lambda: redis_servers.start(options={"requirepass": "s3cret"}))
    async with a_road(f"redis://{credentials}127.0.0.1:{server.port}", up=False) as road:
        await eventually(lambda: road.status().get("reason", "").startswith("it answers "))
        assert await outcome(road.run(INCR, [b"k"], [])) == "down"
        await asyncio.sleep(0.3)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "wr0ng" not in caplog.text


async def test_a_user_who_may_do_little(redis_servers: RedisServers) -> None:
    """CONFIG, CLIENT SETNAME, SCRIPT LOAD and PING may all be forbidden: calls go on."""
    options = {"user": "gate on >s3cret ~* -@all +evalsha +eval +incr"}
    server = await blocking(lambda: redis_servers.start(options=options))
    async with a_road(f"redis://gate:s3cret@127.0.0.1:{server.port}") as road:
        assert await road.run(INCR, [b"k"], []) == 1
        assert "maxmemory_policy" not in road.status()


class Certificates:
    """A CA, a server's certificate for 127.0.0.1, a client's, and a CA that is none of ours."""

    def __init__(self, folder: Path) -> None:
        ca = trustme.CA()
        self.ca = folder / "ca.pem"
        self.stranger = folder / "stranger.pem"
        ca.cert_pem.write_to_path(str(self.ca))
        trustme.CA().cert_pem.write_to_path(str(self.stranger))
        self.server = self._write(folder, "server", ca.issue_cert("127.0.0.1"))
        self.client = self._write(folder, "client", ca.issue_cert("gateway.test"))

    @staticmethod
    def _write(folder: Path, name: str, leaf: trustme.LeafCert) -> tuple[Path, Path]:
        cert, key = folder / f"{name}.pem", folder / f"{name}.key"
        leaf.private_key_pem.write_to_path(str(key))
        for pem in leaf.cert_chain_pems:
            pem.write_to_path(str(cert), append=True)
        return cert, key


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def start_tls(servers: RedisServers, certificates: Certificates, clients: str) -> RedisServer:
    cert, key = certificates.server
    tls = {
        "tls-cert-file": str(cert),
        "tls-key-file": str(key),
        "tls-ca-cert-file": str(certificates.ca),
        "tls-auth-clients": clients,
    }
    server = servers.create(tls=tls)
    server.start()
    return server


async def test_by_tls(redis_servers: RedisServers, certificates: Certificates) -> None:
    server = await blocking(start_tls, redis_servers, certificates, "no")
    got: list[bytes] = []
    async with a_road(server.url, tls=StoreTls(ca=certificates.ca)) as road:
        words = [b"%d" % n for n in range(1_000)]
        assert await asyncio.gather(*(road.run(ECHO, [b"k"], [w]) for w in words)) == words
        road.subscribe("news", got.append, lambda: None)
        await eventually(lambda: _hears(server, "news"))
        await road.publish("news", b"hello")
        await eventually(lambda: got == [b"hello"])


async def test_by_tls_without_verification(
    redis_servers: RedisServers, certificates: Certificates
) -> None:
    server = await blocking(start_tls, redis_servers, certificates, "no")
    async with a_road(server.url, tls=StoreTls(verify=False)) as road:
        assert await road.run(INCR, [b"k"], []) == 1


@pytest.mark.parametrize(
    ("ca", "says"), [("stranger", "certificate verify failed"), (None, "certificate verify failed")]
)
async def test_a_server_that_cannot_be_trusted_gets_no_call(
    redis_servers: RedisServers, certificates: Certificates, ca: str | None, says: str
) -> None:
    server = await blocking(start_tls, redis_servers, certificates, "no")
    tls = StoreTls(ca=certificates.stranger if ca else None)
    async with a_road(server.url, tls=tls, up=False) as road:
        await eventually(lambda: says in road.status().get("reason", ""))
        assert not await road.up(0.05)


async def test_a_name_that_is_not_the_certificates(
    redis_servers: RedisServers, certificates: Certificates
) -> None:
    server = await blocking(start_tls, redis_servers, certificates, "no")
    url = f"rediss://localhost:{server.port}"
    async with a_road(url, tls=StoreTls(ca=certificates.ca), up=False) as road:
        await eventually(lambda: "Hostname mismatch" in road.status().get("reason", ""))


async def test_by_tls_with_a_certificate_of_our_own(
    redis_servers: RedisServers, certificates: Certificates
) -> None:
    cert, key = certificates.client
    server = redis_servers.create(
        tls={
            "tls-cert-file": str(certificates.server[0]),
            "tls-key-file": str(certificates.server[1]),
            "tls-ca-cert-file": str(certificates.ca),
            "tls-auth-clients": "yes",
        }
    )
    server.client = _with_certificate(server, cert, key)  # type: ignore[method-assign]
    await blocking(server.start)
    bare = StoreTls(ca=certificates.ca)
    async with a_road(server.url, tls=bare, up=False) as road:
        assert not await road.up(0.3)
    async with a_road(server.url, tls=StoreTls(certificates.ca, cert, key)) as road:
        assert await road.run(INCR, [b"k"], []) == 1


def _with_certificate(server: RedisServer, cert: Path, key: Path):  # type: ignore[no-untyped-def]
    make = server.client

    def client(**options):  # type: ignore[no-untyped-def]
        return make(ssl_certfile=str(cert), ssl_keyfile=str(key), **options)

    return client


async def test_a_certificate_that_cannot_be_read(redis_server: RedisServer, tmp_path: Path) -> None:
    url = f"rediss://127.0.0.1:{redis_server.port}"
    async with a_road(url, tls=StoreTls(ca=tmp_path / "none.pem"), up=False) as road:
        await eventually(lambda: "No such file" in road.status().get("reason", ""))


async def test_a_server_that_speaks_something_else(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with a_road(f"redis://127.0.0.1:{port}", up=False) as road:
            await eventually(lambda: "protocol" in road.status().get("reason", ""))


async def test_a_server_that_comes_later(redis_servers: RedisServers) -> None:
    server = redis_servers.create()
    async with a_road(server.url, up=False) as road:
        assert not await road.up(0.2)
        for _ in range(100):
            assert at_once(road.run(INCR, [b"k"], [])) == "down", "nothing waits for a connection"
        with pytest.raises(StoreError) as down:
            await road.probe()
        assert down.value.reason == "down"
        await blocking(server.start)
        await eventually(lambda: road.run(INCR, [b"k"], []))


async def test_a_server_that_comes_back(
    redis_servers: RedisServers, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log when it is lost, one when it is found."""
    caplog.set_level(logging.INFO, "proxy.store.redis.link")
    server = await blocking(redis_servers.start)
    async with a_road(server.url) as road:
        await road.run(INCR, [b"k"], [])
        await blocking(server.kill)
        await eventually(lambda: not road.status()["connected"])
        await asyncio.sleep(0.3)
        await blocking(server.start)
        await eventually(lambda: road.run(INCR, [b"k"], []))
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(": ")[1] for line in said] == [
        "connected", "not connected", "connected again",
    ]  # fmt: skip


async def test_a_server_that_is_loading_is_not_used(redis_servers: RedisServers) -> None:
    """It answers, and is of no use yet: down, not refused."""
    server = await blocking(lambda: redis_servers.start(options={"enable-debug-command": "yes"}))
    async with a_road(server.url) as road:
        await blocking(server.call, "CONFIG", "SET", "key-load-delay", 20_000)
        with server.client() as filler:
            await blocking(filler.execute_command, "DEBUG", "POPULATE", 2_000)
        await blocking(server.call, "CONFIG", "SET", "loading-process-events-interval-bytes", 1024)
        await blocking(server.call, "SAVE")
        await blocking(server.kill)
        server.options["key-load-delay"] = 500
        server.options["loading-process-events-interval-bytes"] = 1024
        start = asyncio.ensure_future(blocking(server.start))  # it waits for the end of loading
        said: set[object] = set()
        told: set[str] = set()
        while not isinstance(answer := await outcome(road.run(INCR, [b"k"], [])), int):
            said.add(answer)
            told.update(str(road.status().get("reason")).split())
            await asyncio.sleep(0.005)
        await start
        assert said == {"down"}
        assert "LOADING" in told


async def test_messages_reach_every_subscriber(redis_server: RedisServer) -> None:
    got: list[bytes] = []
    other: list[bytes] = []
    async with a_road(redis_server.url) as one, a_road(redis_server.url) as two:
        one.subscribe("news", got.append, lambda: None)
        one.subscribe("sports", other.append, lambda: None)
        await eventually(lambda: _hears(redis_server, "news", "sports"))
        await two.publish("news", b"\x00\xff")
        await two.publish("sports", b"2:1")
        await eventually(lambda: (got, other) == ([b"\x00\xff"], [b"2:1"]))


async def test_a_lost_subscription_is_told_and_renewed(redis_servers: RedisServers) -> None:
    server = await blocking(redis_servers.start)
    got: list[bytes] = []
    lost: list[float] = []
    async with a_road(server.url) as road:
        road.subscribe("news", got.append, lambda: lost.append(time.monotonic()))
        await eventually(lambda: _hears(server, "news"))
        assert lost == []
        await blocking(server.restart)
        await eventually(lambda: len(lost) == 1)
        await eventually(lambda: _hears(server, "news"))
        await eventually(lambda: _published(road))
        await eventually(lambda: b"again" in got)


async def _published(road) -> bool:  # type: ignore[no-untyped-def]
    await road.publish("news", b"again")
    return True


async def _hears(server: RedisServer, *channels: str) -> bool:
    counts = await blocking(server.call, "PUBSUB", "NUMSUB", *channels)
    return all(counts[1::2])


@pytest.mark.parametrize(
    ("policy", "warns"), [("allkeys-lru", True), ("noeviction", False), ("volatile-ttl", False)]
)
async def test_an_eviction_policy_that_drops_counts(
    redis_servers: RedisServers, policy: str, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server = await blocking(lambda: redis_servers.start(options={"maxmemory-policy": policy}))
    metrics = Metrics()
    metrics.store("admit")
    async with a_road(server.url, metrics=metrics) as road:
        await eventually(lambda: road.status().get("maxmemory_policy") == policy)
        assert road.status()["evicts"] is warns
    assert ("maxmemory-policy allkeys-lru" in caplog.text) is warns
    _, text = await blocking(render, metrics, "")
    assert f'sluicegate_store_alarm{{alarm="evicts"}} {float(warns)}'.encode() in text


async def test_closing_leaves_nothing_behind(redis_servers: RedisServers) -> None:
    server = await blocking(redis_servers.start)
    before = asyncio.all_tasks()
    async with a_road(server.url) as road:
        road.subscribe("news", lambda _: None, lambda: None)
        await eventually(lambda: _hears(server, "news"))
    assert asyncio.all_tasks() == before
    with pytest.raises(StoreError):
        await road.run(INCR, [b"k"], [])

    async def alone() -> bool:
        with server.client() as client:
            return len(await blocking(client.client_list)) == 1

    await eventually(alone)
