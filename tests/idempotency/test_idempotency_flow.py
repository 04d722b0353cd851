"""A request with a key is executed once, and answered again; what else its answers may be."""

import asyncio
from typing import Any

import pytest
from rawhttp import Seen, Wire, answering
from replay_kit import (
    BODY,
    POLICY,
    Gate,
    Origin,
    Shop,
    StartShop,
    common,
    is_replay,
    message,
    paid,
    post,
    respond,
    silent,
    trouble,
    until,
)

in_memory = pytest.mark.parametrize("store", ["memory"], indirect=True)
"""For what no store has a part in."""
in_redis = pytest.mark.parametrize("store", ["redis"], indirect=True)
LINES = (
    "Content-Type: application/octet-stream",
    "X-Trace: 2",
    "Set-Cookie: a=1; HttpOnly",
    "x-trace: 1",
    "Set-Cookie: b=2",
    "X-Odd: \xe4\xff",
    "X-Empty:",
    "Cache-Control: no-store",
)
BINARY = bytes(range(256)) * 8

in_both_lanes = pytest.mark.usefixtures("lane")
"""For what is asked without a body: nothing else could take the express lane."""


@pytest.mark.parametrize(
    ("status", "lines", "body"),
    [
        ("201 Paid In Full", LINES, BINARY),
        ("200 OK", LINES, b""),
        ("204 No Content", ("X-Trace: 1",), None),
        ("303 See Other", ("Location: /payments/1",), b"there"),
        ("404 Not Found", ("Content-Type: application/problem+json",), b'{"type": "theirs"}'),
        ("409 Conflict", ("Retry-After: 5",), b"theirs"),
        ("500 Internal Server Error", LINES, b"oh no"),
        ("299 ", (), b"?"),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
async def test_a_repeat_gets_the_answer_again(
    shop: Shop, origin: Origin, status: str, lines: tuple[str, ...], body: bytes | None
) -> None:
    head = message(f"HTTP/1.1 {status}", *lines)
    origin.script = answering(head if body is None else respond(status, *lines, body=body))
    first = await shop.pay()
    assert not is_replay(first)
    origin.script = paid
    for _ in range(2):
        again = await shop.pay()
        assert is_replay(again)
        assert common(again) == common(first)
    number, _, reason = status.partition(" ")
    sent = [tuple(line.split(": ", 1)) if ": " in line else (line[:-1], "") for line in lines]
    assert common(again) == (int(number), reason, sent, body or b"")
    assert again.get("Content-Length") == (None if body is None else str(len(body)))
    assert origin.executed == 1
    assert (await shop.counted("new"), await shop.counted("replayed")) == (1, 2)


async def test_what_each_answer_has_of_its_own(start_shop: StartShop, origin: Origin) -> None:
    limit = {"algorithm": "token_bucket", "rate": "5/h", "key": ["global"]}
    edits = {"set": {"X-Edited": "yes"}, "remove": ["X-Powered-By"]}
    shop = await start_shop(
        route={"limits": ["few"], "response_headers": edits}, policies={"limits": {"few": limit}}
    )
    theirs = (
        "Date: Mon, 01 Jan 2001 00:00:00 GMT",
        "X-Request-Id: theirs",
        "Via: 1.0 elsewhere",
        'RateLimit: "theirs";r=1;t=1',
        "Idempotent-Replayed: true",
        "X-Powered-By: magic",
    )
    origin.script = answering(respond("200 OK", *theirs))
    first = await shop.pay("k1", BODY, "/pay", "X-Request-Id: one")
    again = await shop.pay("k1", BODY, "/pay", "X-Request-Id: two")
    assert (first.get("X-Request-Id"), again.get("X-Request-Id")) == ("one", "two")
    assert first.all("Via") == ["1.0 elsewhere", "1.1 sluicegate"]
    assert again.get("Via") == "1.1 sluicegate"
    assert first.get("Date") == theirs[0][6:]
    assert str(again.get("Date")).endswith("GMT")
    assert again.get("Date") != theirs[0][6:]
    assert [value.split(";")[:2] for value in first.all("RateLimit")] == [
        ['"theirs"', "r=1"],
        ['"few"', "r=4"],
    ]
    assert str(again.get("RateLimit")).startswith('"few";r=3')
    assert is_replay(again)
    assert again.get("X-Edited") == "yes"
    assert again.get("X-Powered-By") is None


async def test_a_replay_is_no_miss(start_shop: StartShop, origin: Origin) -> None:
    """A limit with `charge: miss` is asked just before a request goes upstream, cache or not."""
    limits = {
        "every": {"algorithm": "fixed_window", "rate": "9/d", "key": ["global"]},
        "calls": {"algorithm": "fixed_window", "rate": "1/d", "key": ["global"], "charge": "miss"},
    }
    shop = await start_shop(route={"limits": ["every", "calls"]}, policies={"limits": limits})
    assert (await shop.pay()).status == 201
    for left in (7, 6):
        again = await shop.pay()
        assert is_replay(again)
        assert str(again.get("RateLimit")).startswith(f'"every";r={left};')
        assert str(again.get("RateLimit-Policy")).startswith('"every";q=9;w=86400, "calls";q=1;')
    for _ in range(2):
        refused = await shop.pay("k2")
        assert refused.status == 429, "and its key is free again"
        assert refused.json()["violated-policies"] == ["calls"]
    assert str((await shop.pay()).get("RateLimit")).startswith('"every";r=5;'), "given back"
    assert origin.executed == 1


async def test_a_replay_is_charged_like_any_request(start_shop: StartShop, origin: Origin) -> None:
    limit = {"algorithm": "fixed_window", "rate": "2/d", "key": ["global"]}
    shop = await start_shop(route={"limits": ["two"]}, policies={"limits": {"two": limit}})
    assert (await shop.pay()).status == 201
    assert is_replay(await shop.pay())
    assert (await shop.pay()).status == 429
    assert (await shop.pay("k2")).status == 429
    assert origin.executed == 1
    assert await shop.counted("new") == 1


async def test_a_replay_purges_nothing(start_shop: StartShop, origin: Origin) -> None:
    match = {"path": "/{rest:path}", "methods": ["GET", "POST"]}
    shop = await start_shop(
        route={"match": match, "cache": "things", "invalidate": ["things"]},
        policies={"caches": {"things": {"tags": ["things"]}}},
    )

    async def fresh(wire: Wire, seen: Seen) -> None:
        await wire.send(
            respond("200 OK", "Cache-Control: max-age=60", body=b"%d" % origin.executed)
        )

    async def thing() -> bytes:
        return (await shop.ask(message("GET /things/1 HTTP/1.1", "Host: a"))).body

    origin.script = fresh
    assert [await thing(), await thing()] == [b"1", b"1"]
    assert (await shop.pay()).body == b"2"
    assert [await thing(), await thing()] == [b"3", b"3"]
    assert (await shop.pay()).body == b"2"
    assert await thing() == b"3"
    assert (await shop.pay("k2")).body == b"4"
    assert await thing() == b"5"


# Keys.


@pytest.mark.parametrize(
    "spellings",
    [
        ("k1", '"k1"', "  k1\t", '\t"k1" '),
        ("8e03978e-40d5-43e8-bc93-6894a57f9324",) * 2,
        ('"' + "k" * 255 + '"', "k" * 255),
        ("!#$%&'()*+-./:<=>?@[]^_`{|}~", '"!#$%&\'()*+-./:<=>?@[]^_`{|}~"'),
    ],
)
async def test_spellings_of_one_key(shop: Shop, origin: Origin, spellings: tuple[str, ...]) -> None:
    answers = [await shop.pay(key) for key in spellings]
    assert [is_replay(answer) for answer in answers] == [False] + [True] * (len(answers) - 1)
    assert origin.executed == 1
    assert origin.seen[0].get("Idempotency-Key") == spellings[0].strip()


@in_memory
async def test_other_keys_are_other_requests(shop: Shop, origin: Origin) -> None:
    for key in ("k1", "k2", "K1", "'k1'", "k" * 255, "k" * 254):
        assert not is_replay(await shop.pay(key))
    assert origin.executed == 6


NO_KEYS = (
    "", '""', '"', "k" * 256, '"' + "k" * 256 + '"', '"k1', 'k1"', "a b", '"a b"', "a,b",
    '"a", "b"', "a;b", '"k1";x=1', '"a\\"b"', "a\\b", "k\xe4", '"k\xe4"', ":azE=:a,",
)  # fmt: skip


@in_memory
async def test_what_is_no_key(shop: Shop, origin: Origin) -> None:
    for key in NO_KEYS:
        trouble(await shop.pay(key), 400, "idempotency-malformed")
    assert await shop.counted("missing") == len(NO_KEYS)
    assert (await shop.pay("k\x7f")).status == 400  # before anybody looks for keys
    assert origin.executed == 0


@in_memory
async def test_several_keys_are_none(shop: Shop, origin: Origin) -> None:
    same = "Idempotency-Key: k1"
    trouble(await shop.pay("k1", BODY, "/pay", same), 400, "idempotency-malformed")
    assert origin.executed == 0


@in_memory
async def test_where_a_key_is_required(start_shop: StartShop, origin: Origin) -> None:
    shop = await start_shop({"required": True})
    async with await shop.open() as client:
        trouble(await client.ask(post(None)), 400, "idempotency-missing")
        assert (await client.ask(post("k1"))).status == 201  # the connection goes on
    get = message("GET /pay HTTP/1.1", "Host: a", "X-Api-Key: caller-a")
    assert (await shop.ask(get)).status == 201
    assert await shop.counted("missing") == 1
    assert [seen.method for seen in origin.seen] == ["POST", "GET"]


@in_memory
async def test_other_methods_are_left_alone(shop: Shop, origin: Origin) -> None:
    for method in ("PUT", "DELETE", "GET"):
        for _ in range(2):
            assert not is_replay(await shop.pay("no key", BODY, method=method))
    assert not is_replay(await shop.pay("k1", BODY, method="PATCH"))
    assert is_replay(await shop.pay("k1", BODY, method="PATCH"))
    assert origin.executed == 7


@in_memory
async def test_without_a_key_nothing_is_held_back(start_shop: StartShop, origin: Origin) -> None:
    shop = await start_shop({"max_body": "1KiB"})
    size = 5_000_000
    origin.read_body = False
    begun = asyncio.Event()

    async def reads(wire: Wire, seen: Seen) -> None:
        await wire.exactly(1000)
        begun.set()
        await wire.exactly(size - 1000)
        await wire.send(respond())

    origin.script = reads
    head = message("POST /pay HTTP/1.1", "Host: a", f"Content-Length: {size}")
    async with await shop.open() as client:
        await client.send(head + bytes(1000))
        await asyncio.wait_for(begun.wait(), 5)  # it is there before the rest of it is sent
        await client.send(bytes(size - 1000))
        assert (await client.read_answer()).status == 201
    assert await shop.counted("new") == 0


# What a key stands for.


OTHERS: tuple[dict[str, Any], ...] = (
    {"body": b'{"amount": 101}'},
    {"body": b""},
    {"target": "/pay?again"},
    {"target": "/pay/"},
    {"target": "/p%61y"},
    {"method": "PATCH"},
)


async def test_a_key_stands_for_one_request(shop: Shop, origin: Origin) -> None:
    await shop.pay()
    async with await shop.open() as client:
        for other in OTHERS:
            trouble(await client.ask(post(**other)), 422, "idempotency-mismatch")
        assert is_replay(await client.ask(post()))
    assert origin.executed == 1
    assert await shop.counted("mismatch") == len(OTHERS)


async def test_a_key_is_compared_while_its_request_is_under_way(
    start_shop: StartShop, origin: Origin
) -> None:
    shop = await start_shop({"in_flight": "wait"})
    origin.script = gate = Gate()
    first = asyncio.create_task(shop.pay())
    await until(lambda: gate.waiting)
    trouble(await shop.pay(body=b"other"), 422, "idempotency-mismatch")
    gate.open()
    assert (await first).status == 201


@in_memory
async def test_framing_is_no_difference(shop: Shop, origin: Origin) -> None:
    await shop.pay()
    head = post().partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n"
    chunks = b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (BODY[:5], len(BODY) - 5, BODY[5:])
    assert is_replay(await shop.ask(head + chunks))
    assert origin.executed == 1


async def test_callers_have_keys_of_their_own(shop: Shop, origin: Origin) -> None:
    bodies = set()
    for caller in ("caller-a", "caller-b", ""):
        answer = await shop.pay(caller=caller)
        assert not is_replay(answer)
        again = await shop.pay(caller=caller)
        assert is_replay(again)
        assert again.body == answer.body
        bodies.add(answer.body)
    assert origin.executed == len(bodies) == 3


@in_memory
async def test_routes_of_one_policy_share_their_keys(start_shop: StartShop, origin: Origin) -> None:
    def route(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "match": {"path": f"/{name}"}, "upstream": "origin", **more}

    routes = [
        route("pay", idempotency=POLICY),
        route("refund", idempotency=POLICY),
        route("vote", idempotency="votes"),
    ]
    policies = {
        "idempotency": {
            POLICY: {"scope": ["header:X-Api-Key"]},
            "votes": {"scope": ["header:X-Api-Key"]},
        }
    }
    shop = await start_shop(config={"routes": routes}, policies=policies)
    await shop.pay()
    trouble(await shop.pay(target="/refund"), 422, "idempotency-mismatch")
    assert not is_replay(await shop.pay(target="/vote"))
    assert origin.executed == 2


async def test_a_record_belongs_to_its_host(shop: Shop, origin: Origin) -> None:
    """A host may be another tenant's: its callers are others, whatever key they share."""
    first = await shop.pay(host="one.test")
    assert not is_replay(await shop.pay(host="two.test"))
    assert not is_replay(await shop.pay(body=b"another", host="three.test"))
    for spelling in ("one.test", "ONE.test.", "one.test:8080"):
        again = await shop.pay(host=spelling)
        assert (is_replay(again), again.body) == (True, first.body)
    assert origin.executed == 3


async def test_a_key_of_nobody_is_refused(start_shop: StartShop, origin: Origin) -> None:
    """Else all who do not say who they are would be given each other's answers."""
    shop = await start_shop({"scope": ["header:X-Api-Key|cookie:c", "query:who"]})
    answer = trouble(await shop.pay(caller=None), 400, "idempotency-missing-scope")
    assert "header:X-Api-Key|cookie:c, query:who" in answer.json()["detail"]
    assert origin.executed == 0
    assert await shop.counted("missing") == 1
    assert (await shop.pay(None, caller=None)).status == 201
    assert (await shop.pay(target="/pay?who=", caller=None)).status == 201
    assert (await shop.pay("k2", BODY, "/pay", "Cookie: c=1", caller=None)).status == 201


@in_memory
async def test_everybody_may_share_keys_where_the_scope_says_so(
    start_shop: StartShop, origin: Origin
) -> None:
    shop = await start_shop({"scope": ["header:X-Api-Key", "global"]})
    assert not is_replay(await shop.pay(caller=None))
    assert is_replay(await shop.pay(caller=None))


async def test_a_scope_in_several_lines_is_refused(shop: Shop, origin: Origin) -> None:
    answer = await shop.pay("k1", BODY, "/pay", "X-Api-Key: somebody")
    assert "X-Api-Key" in trouble(answer, 400, "bad-request").json()["detail"]
    assert (await shop.pay(None, BODY, "/pay", "X-Api-Key: somebody")).status == 201
    assert origin.executed == 1


# Which answers are kept.


async def test_a_status_that_is_not_kept_frees_the_key(shop: Shop, origin: Origin) -> None:
    for status in (401, 408, 425, 429, 501, 502, 503, 504, 507):
        origin.script = answering(respond(f"{status} Later", "Retry-After: 1", body=b"theirs"))
        before = origin.executed
        for number in (1, 2):
            answer = await shop.pay()
            assert (answer.status, answer.body, is_replay(answer)) == (status, b"theirs", False)
            assert origin.executed == before + number
    origin.script = paid
    assert (await shop.pay(body=b"even another body")).status == 201


@pytest.mark.parametrize("status", [401, 429, 503])
async def test_a_status_that_is_named_is_kept(
    start_shop: StartShop, origin: Origin, status: int
) -> None:
    shop = await start_shop({"store": [status, "5xx"]})
    origin.script = answering(respond(f"{status} Later", body=b"theirs"))
    first, again = await shop.pay(), await shop.pay()
    assert (again.status, again.body, is_replay(again)) == (status, b"theirs", True)
    assert not is_replay(first)
    origin.script = answering(respond("200 OK"))
    assert not is_replay(await shop.pay("k2"))
    assert not is_replay(await shop.pay("k2"))


async def test_a_key_is_forgotten(start_shop: StartShop, origin: Origin) -> None:
    shop = await start_shop({"ttl": "300ms"}, settings={"deadline": "200ms"})
    await shop.pay()
    assert is_replay(await shop.pay())
    trouble(await shop.pay(body=b"another"), 422, "idempotency-mismatch")

    async def is_anew() -> bool:
        return (await shop.pay(body=b"another")).status == 201

    await until(is_anew)
    assert origin.executed == 2


@in_redis
async def test_other_gateways_know(start_shop: StartShop, origin: Origin) -> None:
    here, there = await start_shop(), await start_shop({"in_flight": "wait"})
    origin.script = gate = Gate(respond("200 OK", "Set-Cookie: a=1", body=BINARY))
    first = asyncio.create_task(here.pay())
    await until(lambda: gate.waiting)
    second = asyncio.create_task(there.pay())
    await until(lambda: there.gateway.connections())
    gate.open()
    answer = await first
    await here.gateway.stop()
    third = await start_shop()
    for again in (await second, await there.pay(), await third.pay()):
        assert is_replay(again)
        assert common(again) == common(answer)
    assert origin.executed == 1


# While it is under way.


async def test_a_repeat_that_comes_too_soon(shop: Shop, origin: Origin) -> None:
    origin.script = gate = Gate()
    first = asyncio.create_task(shop.pay())
    await until(lambda: gate.waiting)
    conflict = trouble(await shop.pay(), 409, "idempotency-conflict")
    assert int(conflict.get("Retry-After") or 0) >= 1
    gate.open()
    answer = await first
    assert common(await shop.pay()) == common(answer)
    assert origin.executed == 1
    assert await shop.counted("conflict") == 1


@in_both_lanes
@pytest.mark.parametrize("body", [BODY, b""], ids=["body", "none"])
async def test_repeats_that_wait_get_the_same_answer(
    start_shop: StartShop, origin: Origin, body: bytes
) -> None:
    shop = await start_shop({"in_flight": "wait"})
    origin.script = gate = Gate(respond("200 OK", "Set-Cookie: a=1", body=BINARY))
    asked = [asyncio.create_task(shop.pay("k1", body)) for _ in range(30)]
    await until(lambda: gate.waiting)
    await until(lambda: shop.gateway.connections() == 30)
    await asyncio.sleep(0.05)
    gate.open()
    answers = await asyncio.gather(*asked)
    assert all(common(answer) == common(answers[0]) for answer in answers)
    assert sorted([is_replay(answer) for answer in answers]) == [False] + [True] * 29
    assert answers[0].body == BINARY
    assert origin.executed == 1
    assert await shop.counted("conflict") == 0


@in_both_lanes
@pytest.mark.parametrize("body", [BODY, b""], ids=["body", "none"])
async def test_who_waits_waits_no_longer_than_that(
    start_shop: StartShop, origin: Origin, body: bytes
) -> None:
    shop = await start_shop({"in_flight": "wait", "wait_timeout": "150ms"})
    origin.script = gate = Gate()
    first = asyncio.create_task(shop.pay("k1", body))
    await until(lambda: gate.waiting)
    loop = asyncio.get_running_loop()
    began = loop.time()
    trouble(await shop.pay("k1", body), 409, "idempotency-conflict")
    assert 0.14 < loop.time() - began < 8
    gate.open()
    assert (await first).status == 201


async def test_who_waits_takes_over_what_was_never_sent(
    start_shop: StartShop, origin: Origin
) -> None:
    settings = {"max_connections": 1, "queue_timeout": "400ms"}
    shop = await start_shop({"in_flight": "wait"}, settings=settings)
    origin.script = gate = Gate()
    other = asyncio.create_task(shop.pay(None))  # has the only connection
    await until(lambda: gate.waiting)
    first = asyncio.create_task(shop.pay())
    await until(lambda: shop.at_work)
    second = asyncio.create_task(shop.pay())
    trouble(await first, 503, "overloaded")
    gate.open()
    answer = await second
    assert (answer.status, is_replay(answer)) == (201, False)
    assert (await other).status == 201
    assert is_replay(await shop.pay())
    assert origin.executed == 2


@pytest.mark.parametrize("on_unknown", ["hold", "release"])
async def test_who_waits_for_what_is_lost(
    start_shop: StartShop, origin: Origin, on_unknown: str
) -> None:
    policy = {"in_flight": "wait", "on_unknown": on_unknown}
    shop = await start_shop(policy, settings={"response_timeout": "500ms"})
    origin.script = silent
    first = asyncio.create_task(shop.pay())
    await until(lambda: origin.executed)
    second = asyncio.create_task(shop.pay())
    await until(lambda: shop.gateway.connections() == 2)
    origin.script = paid
    trouble(await first, 504, "upstream-timeout")
    if on_unknown == "hold":
        unknown = trouble(await second, 409, "idempotency-unknown")
        assert unknown.get("Retry-After") is None
        assert origin.executed == 1
    else:
        assert (await second).status == 201
        assert origin.executed == 2
