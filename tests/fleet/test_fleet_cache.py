"""A cache that processes share through Redis: one fetch for the fleet, purges that all obey, and
what clients see while processes and Redis come and go."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from caching_kit import CACHES, CacheGateway, SlowOrigin, told
from gateways import Fleet, until
from load_client import Client, Shot
from redisservers import RedisServer, RedisServers

EACH = 250
SECRET = "open-sesame"


@pytest.fixture(scope="module")
def redis(redis_servers: RedisServers) -> RedisServer:
    return redis_servers.start()


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, redis: RedisServer, origin_port: int
) -> Iterator[list[CacheGateway]]:
    """Four gateways; the first has two workers."""
    folder = tmp_path_factory.mktemp("caching")
    gateways = [
        CacheGateway(folder / f"{n}", redis.url, origin_port, workers=1 if n else 2)
        for n in range(4)
    ]
    running = Fleet(gateways).start()
    yield gateways
    running.stop()


@pytest.fixture
async def slow(
    fleet: list[CacheGateway], redis: RedisServer, origin_port: int
) -> AsyncIterator[SlowOrigin]:
    async with SlowOrigin(origin_port) as origin:
        for gateway in fleet:
            await until(gateway.shares, "the fleet shares what is stored")
        yield origin


async def stampede(fleet: list[CacheGateway], target: str) -> list[Shot]:
    """All gateways are asked by EACH clients at once, connected beforehand."""
    opening = [Client.open(gateway.port) for gateway in fleet for _ in range(EACH)]
    clients = await asyncio.gather(*opening)
    try:
        return list(await asyncio.gather(*(client.get(target) for client in clients)))
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize("kind", ["small", "large"])
async def test_one_fetch_for_the_fleet(
    fleet: list[CacheGateway], slow: SlowOrigin, kind: str
) -> None:
    """A thousand clients on a cold key, its body in the head's entry or apart."""
    slow.delay = 0.3
    target = f"/{kind}/cold"
    shots = await stampede(fleet, target)
    assert {(shot.status, shot.body) for shot in shots} == {(200, slow.body(target))}
    assert len(shots) == EACH * len(fleet)
    assert slow.seen[target] == 1


def see_no_secret(redis: RedisServer) -> None:
    with redis.client() as client:
        texts = [client.get(key) for key in client.scan_iter() if client.type(key) == b"string"]
    assert any(texts)
    assert not any(SECRET.encode() in text for text in texts if text)


@pytest.mark.parametrize("kind", ["private", "cookie"])
async def test_nobody_queues_for_what_is_not_shared(
    fleet: list[CacheGateway], slow: SlowOrigin, redis: RedisServer, kind: str
) -> None:
    """What others cannot have is asked for at once by all, not by one process after another: all
    of them are at the origin at the same time once it is known."""
    target = f"/{kind}/one"
    await fleet[0].get(target, lines=f"Cookie: id={SECRET}\r\n")
    slow.hold()
    asking = [
        asyncio.create_task(gateway.get(target, lines=f"Cookie: id={SECRET}\r\n"))
        for gateway in fleet[1:]
    ]
    await slow.asked(target, 1 + len(asking))
    slow.release()
    assert {shot.status for shot in await asyncio.gather(*asking)} == {200}
    await asyncio.to_thread(see_no_secret, redis)


async def test_waiters_are_let_go_at_the_head(fleet: list[CacheGateway], slow: SlowOrigin) -> None:
    """They wait for the first answer only: a private one costs two of its times, not four."""
    slow.delay = 0.3
    target = "/private/two"
    shots = await stampede(fleet, target)
    assert {(shot.status, shot.body) for shot in shots} == {(200, slow.body(target))}
    assert slow.seen[target] >= len(shots) - len(fleet)


async def waiting_everywhere(
    fleet: list[CacheGateway], slow: SlowOrigin, target: str, each: int = 10
) -> list[asyncio.Task[Shot]]:
    """Clients of every gateway that wait for one fetch, in all processes by now."""
    slow.hold()
    asking = [asyncio.create_task(one.get(target)) for one in fleet for _ in range(each)]
    await slow.asked(target, 1)
    await until(lambda: waits(*fleet), "all of them wait")
    return asking


async def waits(*gateways: CacheGateway) -> bool:
    """Whether each of them has a fetch on its way, or waits for another's."""
    told = [(await one.ask("GET", "/status"))[1]["cache"]["in_flight"] for one in gateways]
    return all(told)


async def test_a_failure_is_everybody_s(fleet: list[CacheGateway], slow: SlowOrigin) -> None:
    """Who waits for it elsewhere does not ask for another one, one process after the other."""
    asking = await waiting_everywhere(fleet, slow, "/broken/one")
    slow.release()
    shots = await asyncio.gather(*asking)
    assert {shot.status for shot in shots} == {502}
    assert len({shot.get("x-request-id") for shot in shots}) == len(shots)
    assert slow.seen["/broken/one"] == 1


async def test_an_error_answer_holds_nobody_up(fleet: list[CacheGateway], slow: SlowOrigin) -> None:
    """It is its client's alone; the others ask for themselves, all at once and not in turns."""
    asking = await waiting_everywhere(fleet, slow, "/error/one", each=3)
    slow.release()  # the first alone
    slow.hold()
    await slow.asked("/error/one", len(asking))
    slow.release()
    assert {shot.status for shot in await asyncio.gather(*asking)} == {503}


async def test_a_fetch_that_others_wait_for_goes_on(
    fleet: list[CacheGateway], slow: SlowOrigin
) -> None:
    """Its only client leaves, and those of other processes get what it brings."""
    target = "/small/left"
    slow.hold()
    leaving = await Client.open(fleet[1].port)
    asked = asyncio.create_task(leaving.get(target))
    await slow.asked(target, 1)
    waiting = [asyncio.create_task(one.get(target)) for one in fleet[2:] for _ in range(5)]
    await until(lambda: waits(*fleet[2:]), "the others wait")
    asked.cancel()
    leaving.close()
    # It has been noticed by when a later client has got an answer over the same process.
    slow_target = "/small/after"
    after = asyncio.create_task(fleet[1].get(slow_target))
    await slow.asked(slow_target, 1)
    slow.release()
    assert (await after).status == 200
    shots = await asyncio.gather(*waiting)
    assert {(shot.status, shot.body) for shot in shots} == {(200, slow.body(target))}
    assert slow.seen[target] == 1


async def test_a_fetch_that_nobody_waits_for_is_given_up(
    fleet: list[CacheGateway], slow: SlowOrigin
) -> None:
    target = "/small/forsaken"
    slow.hold()
    leaving = await Client.open(fleet[1].port)
    asked = asyncio.create_task(leaving.get(target))
    await slow.asked(target, 1)
    asked.cancel()
    leaving.close()

    async def given_up() -> bool:
        return not await waits(fleet[1])

    await until(given_up, "it is given up", 3)
    coming = asyncio.create_task(fleet[2].get(target))
    await slow.asked(target, 2)
    slow.release()
    assert (await coming).body == slow.body(target)


async def test_the_holder_is_killed(fleet: list[CacheGateway], slow: SlowOrigin) -> None:
    target = "/small/killed"
    slow.hold()
    doomed = asyncio.create_task(fleet[0].get(target))
    await slow.asked(target, 1)
    waiting = [asyncio.create_task(one.get(target)) for one in fleet[1:] for _ in range(20)]
    for worker in (await fleet[0].readyz())["workers"]:
        os.kill(worker["pid"], signal.SIGKILL)
    with pytest.raises(ConnectionError):
        await doomed
    await slow.asked(target, 2)
    slow.release()
    shots = await asyncio.gather(*waiting)
    assert {(shot.status, shot.body) for shot in shots} == {(200, slow.body(target))}
    assert slow.seen[target] == 2
    await asyncio.to_thread(fleet[0].until_ready)


async def test_one_refresh_for_the_fleet(fleet: list[CacheGateway], slow: SlowOrigin) -> None:
    """What is stale, and may be served so, is fetched anew once, behind the clients' backs."""
    target = "/brief/stale"

    async def stale(version: int) -> bool:
        shots = [await gateway.get(target) for gateway in fleet]
        return all(b" %d " % version in shot.body for shot in shots)

    await until(lambda: stale(1), "it is everywhere")
    slow.hold()
    slow.version = 2

    async def asked_again() -> bool:
        assert await stale(1)
        return slow.seen[target] == 2

    await until(asked_again, "it is stale", 5)
    for _ in range(5):
        assert await stale(1)
    assert slow.seen[target] == 2
    slow.release()
    await until(lambda: stale(2), "all have the new one", 5)


async def test_a_redis_that_does_not_answer(
    fleet: list[CacheGateway], slow: SlowOrigin, redis: RedisServer
) -> None:
    """It holds a few requests up for its timeout, and fails none. What is written meanwhile is
    told to the others when it answers again."""
    written = "/small/written-alone"
    await asyncio.gather(*(gateway.get(written) for gateway in fleet))
    with redis.paused():
        slow.version += 1
        assert (await fleet[1].get(written, "POST")).status == 200
        assert (await fleet[1].get(written)).body == slow.body(written)
        for n in range(12):
            shots = await asyncio.gather(*(one.get(f"/small/paused{n}") for one in fleet))
            assert {shot.status for shot in shots} == {200}
    assert sum(slow.seen[f"/small/paused{n}"] for n in range(12)) == 12 * len(fleet)

    async def obeyed() -> bool:
        return (await fleet[2].get(written)).body == slow.body(written)

    await until(obeyed, "the others know of the write")


async def test_a_purge_reaches_every_process(fleet: list[CacheGateway], slow: SlowOrigin) -> None:
    for kind in ("small", "large"):
        target = f"/{kind}/purged"
        for gateway in fleet:
            assert (await gateway.get(target)).body == slow.body(target)
        slow.version += 1
        assert await fleet[1].purge(tags=["purged"]) == 200

        async def obeyed(target: str = target) -> bool:
            shots = [await gateway.get(target) for gateway in fleet for _ in range(2)]
            return all(shot.body == slow.body(target) for shot in shots)

        await until(obeyed, "every process has heard", 2)
        assert slow.seen[target] == 2


async def test_a_write_is_seen_through_every_process(
    fleet: list[CacheGateway], slow: SlowOrigin
) -> None:
    target = "/small/written"
    await asyncio.gather(*(gateway.get(target) for gateway in fleet))
    slow.version += 1
    await fleet[2].get(target, "POST")
    assert (await fleet[2].get(target)).body == slow.body(target)

    async def obeyed() -> bool:
        return all([(await one.get(target)).body == slow.body(target) for one in fleet])

    await until(obeyed, "every process has heard", 2)


async def test_purged_while_it_is_fetched(fleet: list[CacheGateway], slow: SlowOrigin) -> None:
    """What a fetch brings that began before the purge is kept nowhere."""
    target = "/small/under-way"
    slow.hold()
    asking = asyncio.create_task(fleet[1].get(target))
    await slow.asked(target, 1)
    assert await fleet[2].purge(tags=["under-way"]) == 200
    slow.release()
    assert "stored" in told(await asking)
    slow.version += 1
    for gateway in fleet:
        assert (await gateway.get(target)).body == slow.body(target)
    assert slow.seen[target] == 2


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("tag", {"tags": ["while-tag"]}),
        ("soft", {"tags": ["while-soft"], "soft": True}),
        ("prefix", {"prefix": "/small/while-prefix"}),
        ("all", {"all": True, "soft": True}),
    ],
)
async def test_what_was_purged_meanwhile_is_not_written(
    fleet: list[CacheGateway], slow: SlowOrigin, redis: RedisServer, name: str, what: dict[str, Any]
) -> None:
    """Neither by name nor by prefix, softly or not: the store does not get to see it."""
    target = f"/small/while-{name}"

    def there(kind: bytes) -> set[bytes]:
        with redis.client() as client:
            return {key for key in client.scan_iter() if b":%b:" % kind in key}

    async def all_written() -> bool:
        return not await asyncio.to_thread(there, b"f")

    probe = f"{target}/while-{name}"
    await fleet[1].get(probe)
    await until(all_written, "the probe's lease is let go")
    before = await asyncio.to_thread(there, b"c")
    slow.hold()
    asking = asyncio.create_task(fleet[1].get(target))
    await slow.asked(target, 1)
    assert await fleet[2].purge(**what) == 200

    async def heard() -> bool:
        return (await fleet[1].get(probe, lines="Cache-Control: only-if-cached\r\n")).status == 504

    await until(heard, "the process that fetches has heard of it")
    slow.release()
    assert (await asking).status == 200
    await until(all_written, "its lease is let go, after all that was to be written")
    assert await asyncio.to_thread(there, b"c") == before


async def test_an_operator_sees_what_other_replicas_have_stored(
    fleet: list[CacheGateway], slow: SlowOrigin
) -> None:
    target = "/large/seen"
    question = {"method": "GET", "target": target, "headers": [["Host", "a"]]}

    async def explained(gateway: CacheGateway) -> dict[str, Any]:
        return dict((await asyncio.to_thread(gateway.post, "/explain", question))[1]["cache"])

    async def shared() -> bool:
        return bool((await explained(fleet[3]))["stored"])

    await fleet[2].get(target)
    await until(shared, "the answer is in the shared tier")
    for gateway in (fleet[3], fleet[0]):  # the latter has workers
        cache = await explained(gateway)
        (stored,) = cache["stored"]
        assert (stored["tier"], stored["bytes"]) == ("redis", len(slow.body(target)))
        assert (stored["status"], stored["purged"], stored["selected"]) == (200, None, True)
        assert cache["decision"] == {"action": "serve", "reason": "fresh", "tier": "redis"}
    assert told(await fleet[3].get(target)).startswith("hit")
    cache = await explained(fleet[3])
    assert [one["tier"] for one in cache["stored"]] == ["memory", "redis"]
    assert cache["decision"]["tier"] == "memory"
    assert await fleet[2].purge(urls=[target]) == 200
    assert (await explained(fleet[2]))["decision"]["reason"] == "uri-miss"


async def test_a_restart_keeps_what_is_stored(fleet: list[CacheGateway], slow: SlowOrigin) -> None:
    for target in ("/small/kept", "/large/kept"):
        await fleet[3].get(target)
    fleet[3].end()
    await asyncio.to_thread(fleet[3].until_ended)
    fleet[3].start()
    await asyncio.to_thread(fleet[3].until_ready)
    for target in ("/small/kept", "/large/kept"):
        shot = await fleet[3].get(target)
        assert told(shot).startswith("hit")
        assert shot.body == slow.body(target)
        assert slow.seen[target] == 1


async def test_redis_goes_and_comes_back(
    fleet: list[CacheGateway], slow: SlowOrigin, redis: RedisServer
) -> None:
    one, other = fleet[1], fleet[2]
    target = "/small/blind"
    for gateway in (one, other):
        await gateway.get(target)
    await asyncio.to_thread(redis.kill)
    try:
        assert told(await one.get(target)).startswith("hit")  # for `blind`, from memory
        shots = await asyncio.gather(*(gateway.get("/small/new") for gateway in fleet))
        assert {shot.status for shot in shots} == {200}
        assert await one.purge(tags=["blind"]) == 503
        assert (await one.readyz())["blind"] is True
        assert await one.alarm("blind") == 1

        async def validates() -> bool:
            return told(await other.get(target)).startswith("fwd=stale")

        await until(validates, "memory is not trusted for longer", 5)
        slow.version += 1
        assert (await other.get(target, "POST")).status == 200  # told to the others later
    finally:
        await asyncio.to_thread(redis.start)

    async def consistent() -> bool:
        shots = [await gateway.get(target) for gateway in (one, other)]
        assert {shot.status for shot in shots} == {200}
        return all(shot.body == slow.body(target) and "hit" in told(shot) for shot in shots)

    await until(consistent, "what is stored is shared, and new", 10)
    for gateway in fleet:
        await until(gateway.shares, "the fleet shares what is stored again")
    assert "blind" not in await one.readyz()
    assert await one.alarm("blind") == 0


async def test_the_first_cache_comes_with_a_reload(
    fleet: list[CacheGateway],
    slow: SlowOrigin,
    redis: RedisServer,
    origin_port: int,
    tmp_path: Path,
) -> None:
    """From then on it shares with the others; a reload that changes nothing of it keeps it."""
    late = CacheGateway(tmp_path / "late", redis.url, origin_port)
    (late.folder / "limits.yaml").write_text("{}\n")
    late.write("", cache=False)
    await asyncio.to_thread(Fleet([late]).start)
    try:
        assert (await late.get("/small/late")).get("cache-status") is None
        (late.folder / "limits.yaml").write_text(CACHES)
        late.write("")
        assert (await asyncio.to_thread(late.post, "/config/reload", {}))[0] == 200
        await until(late.shares, "it shares what is stored")
        await fleet[2].get("/small/late")
        assert told(await late.get("/small/late")).startswith("hit")
        (late.folder / "limits.yaml").write_text(CACHES + "# another text\n")
        assert (await asyncio.to_thread(late.post, "/config/reload", {}))[0] == 200
        assert await late.shares()
        assert told(await late.get("/small/late")).startswith("hit")
    finally:
        late.end()
        await asyncio.to_thread(late.until_ended)
