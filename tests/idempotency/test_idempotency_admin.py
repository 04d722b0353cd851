"""What an operator sees of idempotent requests, and may do; and what nobody sees."""

import asyncio
from typing import Any

import pytest
from facts_kit import facts
from redisservers import RedisServer
from relay import Fault, Relay
from replay_kit import (
    BODY,
    HOST,
    POLICY,
    Gate,
    Origin,
    Shop,
    StartShop,
    is_replay,
    paid,
    post,
    resets,
    respond,
    until,
)

in_memory = pytest.mark.parametrize("store", ["memory"], indirect=True)
in_redis = pytest.mark.parametrize("store", ["redis"], indirect=True)
KEY = "k3y-do-not-tell"
CALLER = "call3r-do-not-tell"
TOKEN = "t0ken-do-not-tell"
SECRETS = (KEY, CALLER, TOKEN)


async def free(shop: Shop, query: str, name: str = POLICY, host: str = f"&host={HOST}") -> int:
    return (await shop.admin(f"/idempotency/{name}?{query}{host}", "DELETE")).status


# Freeing a key.


@pytest.mark.parametrize("state", ["recorded", "unknown", "too large"])
async def test_a_key_is_freed(start_shop: StartShop, origin: Origin, state: str) -> None:
    shop = await start_shop({"max_body": "1KiB"})
    large = Gate(respond(body=bytes(2000)))
    large.open()
    origin.script = {"recorded": paid, "unknown": resets, "too large": large}[state]
    await shop.pay()
    await shop.pay("k2")
    assert await free(shop, "scope=caller-a&key=k1") == 204
    origin.script = paid
    answer = await shop.pay(body=b"another")
    assert (answer.status, is_replay(answer)) == (201, False)
    assert origin.executed == 3
    other = await shop.pay("k2")
    assert is_replay(other) == (state == "recorded")
    assert origin.executed == 3


async def test_a_key_is_freed_under_way(start_shop: StartShop, origin: Origin) -> None:
    """Who waits takes over, and what comes of the first is recorded nowhere."""
    shop = await start_shop({"in_flight": "wait"})
    origin.script = gate = Gate(respond("200 OK", body=b"first"))
    first = asyncio.create_task(shop.pay())
    await until(lambda: gate.waiting)
    second = asyncio.create_task(shop.pay())
    await until(lambda: shop.gateway.connections() == 2)
    origin.script = paid
    assert await free(shop, "scope=caller-a&key=k1") == 204
    taken = await second
    assert (taken.status, is_replay(taken)) == (201, False)
    gate.open()
    assert (await first).body == b"first"
    again = await shop.pay()
    assert (again.body, is_replay(again)) == (taken.body, True)
    assert origin.executed == 2


QUERIES = (
    ("scope=nobody&key=k1", 204),
    ("scope=caller-a&key=k1", 204),
    ("scope=caller-a&key=%22k1%22", 204),
    ("absent&key=k1", 204),
    ("", 422),
    ("key=k1", 422),
    ("scope=caller-a", 422),
    ("scope=caller-a&key=", 422),
    ("scope=caller-a&key=a,b", 422),
    ("scope=caller-a&key=k1&key=k1", 422),
    ("scope=caller-a&scope=b&key=k1", 422),
    ("scope=caller-a&key=k1&x=1", 422),
    ("absent=1&key=k1", 422),
)


@in_memory
async def test_what_may_be_freed(shop: Shop, origin: Origin) -> None:
    for query, status in QUERIES:
        await shop.pay()
        assert await free(shop, query) == status
        freed = status == 204 and "caller-a" in query
        assert is_replay(await shop.pay()) == (not freed), query
        assert await free(shop, query, "payment") == 404


async def test_a_part_of_the_scope_that_is_absent(start_shop: StartShop, origin: Origin) -> None:
    shop = await start_shop({"scope": ["header:X-Api-Key", "method"]})
    await shop.pay(caller=None)
    await shop.pay(caller="")
    assert await free(shop, "scope=&scope=POST&key=k1") == 204
    assert is_replay(await shop.pay(caller=None))
    assert not is_replay(await shop.pay(caller=""))
    assert await free(shop, "absent&scope=POST&key=k1") == 204
    assert not is_replay(await shop.pay(caller=None))


async def test_a_key_is_freed_on_its_host_alone(shop: Shop, origin: Origin) -> None:
    for host in ("one.test", "two.test:8443"):
        await shop.pay(host=host)
    assert await free(shop, "scope=caller-a&key=k1", host="&host=Two.Test.:80") == 204
    assert is_replay(await shop.pay(host="one.test"))
    assert not is_replay(await shop.pay(host="two.test"))


@in_memory
@pytest.mark.parametrize(
    ("hosts", "host", "status"),
    [
        (["one.test"], "", 204),
        (["one.test"], "&host=one.test", 204),
        (["one.test", "two.test"], "", 422),
        (["*.test"], "", 422),
        (None, "", 422),
        (["one.test"], "&host=one.test&host=one.test", 422),
    ],
)
async def test_which_host_s_key_is_freed(
    start_shop: StartShop, origin: Origin, hosts: list[str] | None, host: str, status: int
) -> None:
    """Without `host` it is that of the routes of the policy, where they name exactly one."""
    match: dict[str, Any] = {"path": "/{rest:path}"} | ({"hosts": hosts} if hosts else {})
    shop = await start_shop(route={"match": match})
    await shop.pay(host="one.test")
    answer = await shop.admin(f"/idempotency/{POLICY}?scope=caller-a&key=k1{host}", "DELETE")
    assert answer.status == status
    assert is_replay(await shop.pay(host="one.test")) == (status != 204)
    if status == 422:
        assert "host" in answer.json()["detail"]


@in_redis
async def test_nothing_is_freed_without_a_store(start_shop: StartShop, relay: Relay) -> None:
    shop = await start_shop(timeout="150ms")
    await shop.pay()
    relay.suffer(Fault("connect", "refuse"))
    assert await free(shop, "scope=caller-a&key=k1") == 503
    relay.recover()

    async def again() -> bool:
        return is_replay(await shop.pay())

    await until(again)


# What is said.


async def test_status(start_shop: StartShop, origin: Origin, store: str) -> None:
    shop = await start_shop()
    origin.script = gate = Gate()
    first = asyncio.create_task(shop.pay())
    await until(lambda: gate.waiting)
    said: Any = (await shop.admin("/status")).json()["idempotency"]
    assert said["in_flight"] == 1
    assert said["store"]["healthy"] is True
    assert said["store"]["kind"] == store
    gate.open()
    await first
    for data in (post(), post(body=b"x"), post("a b")):
        await shop.ask(data)
    said = (await shop.admin("/status")).json()["idempotency"]
    assert said["in_flight"] == 0
    (policy,) = said["policies"]
    assert policy == {
        "name": POLICY,
        "routes": ["all"],
        "scope": ["header:X-Api-Key"],
        "new": 1,
        "replayed": 1,
        "conflict": 0,
        "mismatch": 1,
        "missing": 1,
        "unknown": 0,
        "too_large": 0,
        "unprotected": 0,
    }


@in_memory
@pytest.mark.parametrize(
    ("method", "scope"), [("POST", True), ("PATCH", True), ("GET", False), ("PUT", False)]
)
async def test_explain(shop: Shop, origin: Origin, method: str, scope: bool) -> None:
    headers = [["X-Api-Key", CALLER], ["Idempotency-Key", KEY]]
    asked = {"method": method, "target": "/pay", "headers": headers}
    answer = await shop.admin("/explain", "POST", asked)
    said = answer.json()["idempotency"]
    if scope:
        assert isinstance(said, dict)
        assert said["policy"] == POLICY
        assert said["by"] == ["header:X-Api-Key"]
        assert len(bytes.fromhex(said["scope"])) == 16
    else:
        assert said is None
    assert KEY.encode() not in answer.body
    assert CALLER.encode() not in answer.body
    assert origin.executed == 0
    assert not is_replay(await shop.pay(KEY, BODY, method=method, caller=CALLER))


# What is not.


async def test_nothing_is_told(
    start_shop: StartShop,
    origin: Origin,
    server: RedisServer | None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    log = {"level": "debug", "format": "json", "access": "json"}
    config = {"log": log}
    shop = await start_shop(
        {"max_body": "1KiB"}, config=config, settings={"response_timeout": "1s"}
    )
    bearer = f"Authorization: Bearer {TOKEN}"

    async def pays(key: str = KEY, body: bytes = BODY) -> int:
        return (await shop.pay(key, body, "/pay", bearer, caller=CALLER)).status

    assert await pays() == 201
    assert await pays() == 201
    assert await pays(body=b"another") == 422
    assert await pays(f"{KEY},") == 400
    assert await pays(body=bytes(2000)) == 413
    origin.script = resets
    assert await pays(f"{KEY}-2") == 502
    assert await pays(f"{KEY}-2") == 409
    told = [(await shop.admin(path)).body.decode() for path in ("/status", "/metrics", "/readyz")]
    query = f"scope={CALLER}&key={KEY},"
    told.append((await shop.admin(f"/idempotency/{POLICY}?{query}", "DELETE")).body.decode())
    query = f"scope={CALLER}&scope={CALLER}&key={KEY}"
    told.append((await shop.admin(f"/idempotency/{POLICY}?{query}", "DELETE")).body.decode())
    if server is not None:
        told.append(_dump(server))
        assert "paid" in told[-1] or "payment" in told[-1]
    else:
        told.append(repr([facts(held.record) for held in shop.store._records.values()]))  # type: ignore[attr-defined]
    await shop.gateway.stop()
    out = err = ""
    async with asyncio.timeout(10):  # a thread of its own writes the log
        while "upstream" not in err or "/pay" not in out:
            await asyncio.sleep(0.01)
            written = capfd.readouterr()
            out, err = out + written.out, err + written.err
    for text in (*told, err, out):
        for secret in SECRETS:
            assert secret not in text
            assert secret.encode().hex() not in text


def _dump(server: RedisServer) -> str:
    """All that a server has: names, values and times."""
    told: list[Any] = []
    for name in server.call("KEYS", "*"):
        assert server.call("PTTL", name) > 0
        hash_ = server.call("TYPE", name) == b"hash"
        told.append((name, server.call("HGETALL" if hash_ else "GET", name)))
    return repr(told)
