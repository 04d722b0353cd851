"""What stands in for an upstream that is not asked for now."""

import asyncio
import hashlib
import re
from typing import Any

import pytest
from rawhttp import Answer, Seen, Wire
from resilience_kit import (
    BREAKER,
    BRIEF,
    Gate,
    Origin,
    Running,
    Settings,
    StartGateway,
    StartOrigin,
    ill,
    refused,
    request,
    resets,
    respond,
    until,
    well,
)

pytestmark = pytest.mark.usefixtures("lane")

CACHED: Settings = {
    "route": {"cache": "things"},
    "policies": {"caches": {"things": {"early_refresh": 0}}},
}
BODY = b"0123456789abcdef" * 65536
"""1 MiB."""


def cached(*directives: str, age: int = 100_000) -> Any:
    """A script whose answers are stored, and stale from the beginning."""

    async def script(wire: Wire, seen: Seen) -> None:
        control = f"Cache-Control: {', '.join(('max-age=60', *directives))}"
        await wire.send(respond("200 OK", control, f"Age: {age}", 'ETag: "1"', body=b"stored"))

    return script


def named(name: str) -> Any:
    """A script that says who answers, and what the hash of the request's body is."""

    async def script(wire: Wire, seen: Seen) -> None:
        hashed = hashlib.sha256(seen.body).hexdigest()
        await wire.send(
            respond("200 OK", f"X-Hash: {hashed}", body=f"{name} {seen.target}".encode())
        )

    return script


def is_stale(answer: Answer) -> bool:
    """Whether the stored answer stands in, and Cache-Status and Age say so."""
    status = answer.get("Cache-Status") or ""
    assert status.startswith("sluicegate; fwd="), status
    assert "detail=" in status, status
    return (answer.status, answer.body) == (200, b"stored") and int(answer.get("Age") or 0) > 60


# A static answer.


STATIC: Settings = {
    "status": 203,
    "headers": {"Content-Type": "application/json", "X-Why": "café", "Cache-Control": "max-age=60"},
    "body": '{"empty": "ß"}',
}


async def test_a_static_answer(start_gateway: StartGateway, origin: Origin) -> None:
    gateway = await start_gateway(origin, BREAKER | {"fallback": STATIC})
    await gateway.trip(origin)
    answer = await gateway.ask("/a")
    assert (answer.status, answer.body) == (203, '{"empty": "ß"}'.encode())
    assert answer.get("Content-Type") == "application/json"
    assert answer.get("Content-Length") == "15"
    assert (answer.get("X-Why") or "").encode("latin-1").decode() == "café"
    assert answer.get("Retry-After") is None
    async with await gateway.open() as client:
        head = await client.ask(request("/a", method="HEAD"))
        assert (head.status, head.get("Content-Length")) == (203, "15")
        posted = await client.ask(request("/a", method="POST", body=b"x" * 1000))
        assert (posted.status, posted.body) == (203, answer.body)
    assert origin.asked == 2


async def test_a_static_answer_is_not_stored(start_gateway: StartGateway, origin: Origin) -> None:
    """Though it says that it may be: it stands for the origin, and is none of its answers."""
    gateway = await start_gateway(origin, BRIEF | {"fallback": STATIC}, **CACHED)
    await gateway.trip(origin)
    answers = await asyncio.gather(*(gateway.ask("/a") for _ in range(10)))
    for answer in answers:
        assert (answer.status, answer.get("Cache-Status")) == (203, None)
    await gateway.until_due()
    before = origin.asked
    answer = await gateway.ask("/a")
    assert (answer.status, answer.body, origin.asked) == (200, b"ok", before + 1)


async def test_while_the_probes_are_out(start_gateway: StartGateway, origin: Origin) -> None:
    gateway = await start_gateway(origin, BRIEF | {"fallback": STATIC})
    await gateway.trip(origin)
    await gateway.until_due()
    origin.script = gate = Gate()
    probe = asyncio.create_task(gateway.ask())
    await until(lambda: gate.waiting == 1)
    assert (await gateway.ask()).status == 203
    gate.open()
    assert (await probe).status == 200
    assert (await gateway.ask()).status == 200


# What is stored.


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_stale_answer_of_any_age(
    start_gateway: StartGateway, origin: Origin, method: str
) -> None:
    gateway = await start_gateway(origin, BREAKER | {"fallback": "stale"}, **CACHED)
    origin.script = cached()
    assert (await gateway.ask("/a")).body == b"stored"
    await gateway.trip(origin, "/b")
    before = origin.asked
    async with await gateway.open() as client:
        answer = await client.ask(request("/a", method=method))
    answer.body = answer.body or b"stored"
    assert is_stale(answer)
    said = r"sluicegate; fwd=stale; ttl=-999\d\d; detail=disconnected"
    assert re.fullmatch(said, answer.get("Cache-Status") or "")
    assert origin.asked == before


async def test_together(start_gateway: StartGateway, origin: Origin) -> None:
    gateway = await start_gateway(origin, BREAKER | {"fallback": "stale"}, **CACHED)
    origin.script = cached()
    await gateway.ask("/a")
    await gateway.trip(origin, "/b")
    answers = await asyncio.gather(*(gateway.ask("/a") for _ in range(30)))
    assert all(is_stale(answer) for answer in answers)


@pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate", "no-cache"])
async def test_not_what_must_be_validated(
    start_gateway: StartGateway, origin: Origin, directive: str
) -> None:
    gateway = await start_gateway(origin, BREAKER | {"fallback": "stale"}, **CACHED)
    origin.script = cached(directive)
    assert (await gateway.ask("/a")).body == b"stored"
    await gateway.trip(origin, "/b")
    answer = await gateway.ask("/a")
    assert refused(answer) > 50
    assert answer.get("Cache-Status") is None


async def test_not_where_nothing_is_stored(start_gateway: StartGateway, origin: Origin) -> None:
    gateway = await start_gateway(origin, BREAKER | {"fallback": "stale"}, **CACHED)
    origin.script = cached()
    await gateway.ask("/a")
    await gateway.trip(origin, "/b")
    refused(await gateway.ask("/other"))
    refused(await gateway.ask("/a", method="POST", body=b"x"))
    refused(await gateway.ask("/a", "Cache-Control: no-cache"))


async def test_what_is_fresh_needs_no_upstream(start_gateway: StartGateway, origin: Origin) -> None:
    gateway = await start_gateway(origin, **CACHED)
    origin.script = cached(age=0)
    await gateway.ask("/a")
    await gateway.trip(origin, "/b")
    answer = await gateway.ask("/a")
    assert (answer.body, (answer.get("Cache-Status") or "")[:15]) == (b"stored", "sluicegate; hit")


@pytest.mark.parametrize(("window", "stands_in"), [(1_000_000, True), (1000, False)])
async def test_stale_if_error_needs_no_fallback(
    start_gateway: StartGateway, origin: Origin, window: int, stands_in: bool
) -> None:
    """It is the origin's own word for such a time: within its window it goes before 503, and
    before a static answer."""
    for fallback in ("none", STATIC):
        gateway = await start_gateway(origin, BREAKER | {"fallback": fallback}, **CACHED)
        origin.script = cached(f"stale-if-error={window}")
        await gateway.ask("/a")
        await gateway.trip(origin, "/b")
        answer = await gateway.ask("/a")
        if stands_in:
            assert is_stale(answer)
        elif fallback == "none":
            refused(answer)
        else:
            assert answer.status == 203


# Another upstream.


async def test_another_upstream(
    start_gateway: StartGateway, origin: Origin, start_origin: StartOrigin
) -> None:
    spare = await start_origin(named("spare"))
    gateway = await start_gateway(
        origin, BREAKER | {"fallback": {"upstream": "spare"}}, others={"spare": spare}
    )
    assert (await gateway.ask("/a?b")).body == b"ok"
    assert spare.asked == 0
    await gateway.trip(origin)
    before = origin.asked
    answer = await gateway.ask("/a?b", "X-Mine: 1")
    assert (answer.status, answer.body) == (200, b"spare /a?b")
    assert (spare.seen[-1].get("X-Mine"), spare.seen[-1].get("Host")) == ("1", "a")
    assert origin.asked == before


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_another_upstream_gets_the_whole_body(
    start_gateway: StartGateway, origin: Origin, start_origin: StartOrigin, framing: str
) -> None:
    spare = await start_origin(named("spare"))
    gateway = await start_gateway(
        origin, BREAKER | {"fallback": {"upstream": "spare"}}, others={"spare": spare}
    )
    await gateway.trip(origin)
    if framing == "length":
        answer = await gateway.ask(method="PUT", body=BODY)
    else:
        chunked = request("/", "Transfer-Encoding: chunked", method="PUT")
        async with await gateway.open() as client:
            answer = await client.ask(chunked + b"100000\r\n" + BODY + b"\r\n0\r\n\r\n", "PUT")
    assert answer.status == 200
    assert answer.get("X-Hash") == hashlib.sha256(BODY).hexdigest()
    assert spare.seen[-1].body == BODY


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_try_before_takes_nothing_of_the_body(
    start_gateway: StartGateway, origin: Origin, start_origin: StartOrigin, framing: str
) -> None:
    """The first try has read the body and opened the circuit; the second is refused, and is the
    other upstream's."""
    spare = await start_origin(named("spare"))
    gateway = await start_gateway(
        origin,
        BREAKER | {"consecutive_failures": 1, "fallback": {"upstream": "spare"}},
        settings={"retry": "again"},
        policies={"retries": {"again": {"attempts": 2, "backoff": "1ms"}}},
        others={"spare": spare},
    )
    origin.script = resets
    if framing == "length":
        answer = await gateway.ask(method="PUT", body=BODY[:50_000])
    else:
        chunked = request("/", "Transfer-Encoding: chunked", method="PUT")
        async with await gateway.open() as client:
            answer = await client.ask(
                chunked + b"c350\r\n" + BODY[:50_000] + b"\r\n0\r\n\r\n", "PUT"
            )
    assert answer.status == 200
    assert origin.seen[-1].body == spare.seen[-1].body == BODY[:50_000]
    assert (origin.asked, spare.asked) == (1, 1)


async def test_a_chain_of_upstreams(
    start_gateway: StartGateway, origin: Origin, start_origin: StartOrigin
) -> None:
    """Each has its own circuit, and only the last one's opening leaves nobody to ask."""
    second, third = await start_origin(named("second")), await start_origin(named("third"))
    gateway = await start_gateway(
        origin,
        BREAKER | {"fallback": {"upstream": "second"}},
        others={
            "second": (second, BREAKER | {"fallback": {"upstream": "third"}}),
            "third": (third, BREAKER),
        },
    )
    await gateway.trip(origin)
    assert (await gateway.ask("/a")).body == b"second /a"
    assert await states(gateway) == ["open", "closed", "closed"]
    second.script = ill
    for _ in range(2):
        assert (await gateway.ask("/a")).body == b"ill"
    answer = await gateway.ask("/a", method="PUT", body=BODY)
    assert answer.body == b"third /a"
    assert third.seen[-1].body == BODY
    assert await states(gateway) == ["open", "open", "closed"]
    third.script = ill
    for _ in range(2):
        assert (await gateway.ask("/a")).body == b"ill"
    refused(await gateway.ask("/a"))
    asked = [origin.asked, second.asked, third.asked]
    refused(await gateway.ask("/a", method="PUT", body=BODY))
    assert [origin.asked, second.asked, third.asked] == asked
    # What is well again is asked again, whoever stands before it.
    origin.script = second.script = third.script = well
    await gateway.force("closed", "second")
    assert (await gateway.ask("/a")).body == b"ok"
    assert [origin.asked, second.asked, third.asked] == [asked[0], asked[1] + 1, asked[2]]


async def states(gateway: Running) -> list[str]:
    return [
        (await gateway.circuit(upstream))["state"] for upstream in ("origin", "second", "third")
    ]


async def test_another_upstream_that_fails(
    start_gateway: StartGateway, origin: Origin, start_origin: StartOrigin
) -> None:
    """Its failure is what the client gets: it has no breaker, and nobody stands in for it."""
    spare = await start_origin(ill)
    gateway = await start_gateway(
        origin, BREAKER | {"fallback": {"upstream": "spare"}}, others={"spare": spare}
    )
    await gateway.trip(origin)
    for _ in range(5):
        assert (await gateway.ask()).body == b"ill"
    assert spare.asked == 5
    await spare.stop()
    answer = await gateway.ask()
    assert answer.status in (502, 503)
    assert answer.json()["type"] != "urn:sluicegate:problem:breaker-open"


async def test_another_upstream_behind_a_cache(
    start_gateway: StartGateway, origin: Origin, start_origin: StartOrigin
) -> None:
    """Where it takes over, what is stored is validated with it."""

    async def confirms(wire: Wire, seen: Seen) -> None:
        assert seen.get("If-None-Match") == '"1"'
        await wire.send(
            b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nCache-Control: max-age=60\r\n\r\n'
        )

    spare = await start_origin(confirms)
    gateway = await start_gateway(
        origin, BREAKER | {"fallback": {"upstream": "spare"}}, others={"spare": spare}, **CACHED
    )
    origin.script = cached()
    await gateway.ask("/a")
    await gateway.trip(origin, "/b")
    answer = await gateway.ask("/a")
    assert (answer.status, answer.body) == (200, b"stored")
    assert "fwd-status=304" in (answer.get("Cache-Status") or "")
