"""Payments over a fleet: how often the origin has executed a key, and what its repeats are told,
while gateways are killed and Redis comes and goes, each at every point of a request's way."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
from gateways import Fleet, Gateway, until
from load_client import Client, Shot
from payments_kit import (
    API_KEY,
    Ledger,
    PayGateway,
    everywhere,
    payment,
    problem,
    problems,
    replayed,
    states,
)
from redisservers import RedisServer, RedisServers

DUPLICATES = 500
ONE = "sluicegate_idempotency_total"


@pytest.fixture(scope="module")
def redis(redis_servers: RedisServers) -> RedisServer:
    """Keeps what it has said yes to."""
    return redis_servers.start(options={"appendonly": "yes", "appendfsync": "always"})


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, redis: RedisServer, origin_port: int
) -> Iterator[Fleet]:
    """Four gateways of two workers."""
    folder = tmp_path_factory.mktemp("paying")
    fleet = Fleet(
        [PayGateway(folder / f"{n}", redis.url, origin_port, workers=2) for n in range(4)]
    )
    yield fleet.start()
    fleet.stop()


@pytest.fixture
def fleet(running: Fleet) -> list[PayGateway]:
    return running.gateways  # type: ignore[return-value]


@pytest.fixture(scope="module")
def owner(
    tmp_path_factory: pytest.TempPathFactory, redis: RedisServer, origin_port: int
) -> Iterator[PayGateway]:
    """The one that things happen to: of one process, in which requests are known to meet."""
    folder = tmp_path_factory.mktemp("owning")
    gateway = PayGateway(folder / "owner", redis.url, origin_port, workers=1)
    running = Fleet([gateway]).start()
    yield gateway
    running.stop()


@pytest.fixture
async def ledger(running: Fleet, redis: RedisServer, origin_port: int) -> AsyncIterator[Ledger]:
    """The origin, before gateways that are in touch with Redis; no records are left."""
    await asyncio.to_thread(redis.call, "FLUSHALL")
    async with Ledger(origin_port) as ledger:
        await until_in_touch(running.gateways)
        yield ledger


async def until_in_touch(gateways: Sequence[Gateway]) -> None:
    """Until each of their processes reaches Redis and hears news."""

    async def in_touch() -> bool:
        told = await asyncio.gather(*(gateway.ask("GET", "/status") for gateway in gateways))
        stores = [status["idempotency"]["store"] for _, status in told]
        return all(store["healthy"] and store["hears"] for store in stores)

    await until(in_touch, "every gateway has its store")


async def until_states(redis: RedisServer, **wanted: int) -> None:
    async def told() -> bool:
        return dict(await asyncio.to_thread(states, redis)) == wanted

    await until(told, f"records are {wanted}")


def see_executed(shots: list[Shot], key: str, execution: int = 1) -> None:
    """All are answers to this execution, and no more than one has it first hand."""
    assert {(shot.status, shot.body) for shot in shots} == {(201, Ledger.answer(key, execution))}
    assert replayed(shots) >= len(shots) - 1


def whole(shot: Shot) -> tuple[list[str], bytes]:
    """All of an answer that a replay repeats."""
    own = ("date", "x-request-id", "idempotent-replayed")
    lines = shot.head.decode("latin-1").split("\r\n")
    return [line for line in lines if line.partition(":")[0].lower() not in own], shot.body


async def test_500_duplicates_at_once_are_one_execution(
    running: Fleet, fleet: list[PayGateway], ledger: Ledger, redis: RedisServer
) -> None:
    """All of them are at the gateways before the origin answers the first."""
    before = await running.figures()
    ledger.hold("k500")
    each = DUPLICATES // len(fleet)
    clients = await asyncio.gather(*(Client.open(one.port) for one in fleet for _ in range(each)))
    asking = [asyncio.create_task(payment(client, "wait", "k500")) for client in clients]

    async def all_asked() -> bool:
        asked = await running.figures() - before
        claims = asked.sum("sluicegate_store_duration_seconds_count", operation="idempotency_claim")
        return claims >= DUPLICATES

    await until(all_asked, "every duplicate has asked for the record", 20)
    assert not any(task.done() for task in asking)
    ledger.release("k500")
    shots = await asyncio.gather(*asking)
    for client in clients:
        client.close()
    see_executed(shots, "k500")
    assert ledger.executed == {"k500": 1}
    assert (len(shots), replayed(shots)) == (DUPLICATES, DUPLICATES - 1)
    assert len({shot.get("x-request-id") for shot in shots}) == DUPLICATES
    counted = await running.figures() - before
    told = [counted.sum(ONE, outcome=outcome) for outcome in ("new", "replayed", "conflict")]
    assert told == [1, DUPLICATES - 1, 0]
    await asyncio.to_thread(see_no_credential, redis, fleet)


def see_no_credential(redis: RedisServer, fleet: list[PayGateway]) -> None:
    """In nothing that Redis was ever told, nor in a log."""
    written = b"".join(path.read_bytes() for path in redis.folder.rglob("*.aof"))
    assert b"recorded" in written
    assert API_KEY.encode() not in written
    assert not any(API_KEY in gateway.log for gateway in fleet)


async def test_replays_outlive_every_gateway(
    running: Fleet, fleet: list[PayGateway], ledger: Ledger
) -> None:
    """Stopped and started again, all of them, as others of one process."""
    first = await fleet[0].pay("hold", "old")
    await asyncio.to_thread(running.stop)
    for gateway in fleet:
        gateway.workers = 1
        gateway.write("second")
    await asyncio.to_thread(running.start)
    for shot in await everywhere(fleet, "hold", "old", each=4):
        assert shot.get("idempotent-replayed") == "true"
        assert whole(shot) == whole(first)
        assert shot.get("x-request-id") != first.get("x-request-id")
    assert ledger.executed == {"old": 1}


async def test_the_owner_is_killed(
    fleet: list[PayGateway], owner: PayGateway, ledger: Ledger, redis: RedisServer
) -> None:
    """SIGKILL, once, while requests are at every point of their way: claimed, with the upstream,
    answered but not recorded, and recorded."""
    first = await owner.pay("hold", "recorded")
    held = ("busy", "held", "given", "unrecorded")
    ledger.hold(*held)
    routes = ("queue", "hold", "again", "hold")
    asking = [
        asyncio.create_task(owner.pay(route, key)) for route, key in zip(routes, held, strict=True)
    ]
    await ledger.until_executed(*held)
    asking.append(asyncio.create_task(owner.pay("queue", "claimed")))
    await until_states(redis, recorded=1, sent=4, claimed=1)
    await asyncio.to_thread(redis.call, "CLIENT", "PAUSE", 10_000, "WRITE")
    ledger.release("unrecorded")
    see_executed([await asking.pop(3)], "unrecorded")
    await asyncio.to_thread(owner.kill)
    await asyncio.to_thread(redis.call, "CLIENT", "UNPAUSE")
    ledger.release("busy", "held", "given")
    for task in asking:
        with pytest.raises(ConnectionError):
            await task

    # While its lease holds it is believed to be at work. What it has recorded is there.
    for key, route in (("held", "hold"), ("given", "again"), ("unrecorded", "hold")):
        shots = await asyncio.gather(*(gateway.pay(route, key) for gateway in fleet))
        assert problems(shots) == {"idempotency-conflict": len(fleet)}
    for gateway in fleet:
        assert whole(await gateway.pay("hold", "recorded")) == whole(first)

    # Then what was not sent is free, and the rest is unknown. Repeats have come all the while.
    claimed, busy, held_, given, unrecorded = await asyncio.gather(
        *(
            everywhere(fleet, route, key, each=5)
            for key, route in (
                ("claimed", "queue"),
                ("busy", "queue"),
                ("held", "hold"),
                ("given", "again"),
                ("unrecorded", "hold"),
            )
        )
    )
    see_executed(claimed, "claimed")
    see_executed(given, "given", execution=2)
    for shots in (busy, held_, unrecorded):
        assert problems(shots) == {"idempotency-unknown": len(shots)}
        assert not any(shot.get("retry-after") for shot in shots)
    assert ledger.executed == {"recorded": 1, "claimed": 1, "given": 2} | dict.fromkeys(
        ("busy", "held", "unrecorded"), 1
    )

    # One that comes back knows no more than the others, until an operator says so.
    owner.start()
    await asyncio.to_thread(owner.until_ready)
    assert problem(await owner.pay("hold", "held")) == "idempotency-unknown"
    path = f"/idempotency/hold?scope={API_KEY}&key=held&host=a"
    assert (await owner.ask("DELETE", path))[0] == 204
    see_executed(await everywhere(fleet, "hold", "held", each=5), "held", execution=2)
    assert ledger.executed["held"] == 2


def forget(redis: RedisServer) -> None:
    """What it has written down is gone, as where it writes nothing down."""
    for kept in redis.folder.glob("appendonly*"):
        shutil.rmtree(kept) if kept.is_dir() else kept.unlink()


@pytest.mark.parametrize("kind", ["paused", "killed", "emptied"])
async def test_redis_fails(
    kind: str, fleet: list[PayGateway], owner: PayGateway, ledger: Ledger, redis: RedisServer
) -> None:
    """Redis is silent for a while, or killed and there again with its append-only file, or without
    it, while requests are at every point of their way. Only what a Redis has forgotten is executed
    twice; what their owners were still at work on they make known again."""
    first = await owner.pay("hold", "recorded")
    held = ("busy", "busy-2", "held")
    ledger.hold(*held)
    asking = {
        key: asyncio.create_task(owner.pay(route, key))
        for key, route in (("busy", "queue"), ("busy-2", "late"), ("held", "hold"))
    }
    await ledger.until_executed(*held)
    for key, route in (("meanwhile", "queue"), ("later", "late")):
        asking[key] = asyncio.create_task(owner.pay(route, key))
    await until_states(redis, recorded=1, sent=3, claimed=2)
    if kind == "paused":
        redis.pause()
    else:
        await asyncio.to_thread(redis.kill)

    # Nothing is sent that is not written down. What was sent before is answered.
    ledger.release("busy", "held")
    see_executed([await asking["busy"]], "busy")
    see_executed([await asking["held"]], "held")
    keys = ("recorded", "held", "meanwhile", "new")
    repeats = [gateway.pay("hold", key) for gateway in fleet for key in keys]
    refused = [await asking["meanwhile"], *await asyncio.gather(*repeats)]
    assert problems(refused) == {"idempotency-unavailable": len(refused)}
    assert {shot.get("retry-after") for shot in refused} == {"1"}
    assert max(shot.seconds for shot in refused) < 5
    assert ledger.executed == dict.fromkeys(("recorded", "busy", "busy-2", "held"), 1)

    if kind == "paused":
        redis.resume()
    else:
        if kind == "emptied":
            forget(redis)
        await asyncio.to_thread(redis.start)

    await until_in_touch((owner, *fleet))
    ledger.release("busy-2")
    see_executed([await asking["busy-2"]], "busy-2")
    forgotten = 1 if kind == "emptied" else 0
    later = await asking["later"]
    assert problem(later) == ("idempotency-unavailable" if forgotten else None)

    # Clients ask again, everywhere at once.
    if forgotten:
        await until_states(redis, recorded=3)
    wanted = {"recorded": "hold", "busy": "queue", "busy-2": "late", "held": "hold"}
    wanted |= {"meanwhile": "queue", "later": "late"}
    answers = await asyncio.gather(
        *(everywhere(fleet, route, key, each=3) for key, route in wanted.items())
    )
    times = dict.fromkeys(wanted, 1) | {"recorded": 1 + forgotten}
    for (key, often), shots in zip(times.items(), answers, strict=True):
        see_executed(shots, key, often)
    assert ledger.executed == times
    if not forgotten:
        assert whole(answers[0][0]) == whole(first)
