"""Limits with `charge: miss`: asked just before a request goes upstream, and never else."""

import asyncio

import pytest
from cache_kit import MAX_AGE, Cached, Origin, StartCached, request, respond, status_of, until

pytestmark = pytest.mark.usefixtures("lane")

LIMITS = """\
limits:
  every: {algorithm: fixed_window, rate: 100/h, key: [global]}
  upstream: {algorithm: fixed_window, rate: 2/h, key: [global], charge: miss}
"""


async def start(start_cached: StartCached, **route: object) -> Cached:
    return await start_cached(policies=LIMITS, route={"limits": ["every", "upstream"]} | route)


async def test_hits_and_waiters_are_not_charged(start_cached: StartCached, origin: Origin) -> None:
    cached = await start(start_cached)
    origin.answers["/a"] = origin.answers["/b"] = respond("hello", MAX_AGE)
    origin.hold()
    wires = [await cached.open() for _ in range(5)]
    answers = asyncio.gather(*(wire.ask(request()) for wire in wires))
    await until(lambda: any(f.waiting == 5 for f in cached.caching.flights.values()))
    origin.release()
    assert {answer.status for answer in await answers} == {200}
    for wire in wires:
        await wire.close()
    for _ in range(5):
        assert (await cached.ask()).status == 200
    assert (await cached.ask("/b")).status == 200
    assert (await cached.ask("/c")).status == 429
    metrics = cached.gateway.metrics
    assert metrics.limit("upstream").allowed == 2
    assert metrics.limit("upstream").denied == 1


async def test_a_refusal_gives_the_others_back(start_cached: StartCached, origin: Origin) -> None:
    cached = await start(start_cached)
    for target in ("/a", "/b"):
        origin.answers[target] = respond("hello", MAX_AGE)
        await cached.ask(target)
    for _ in range(10):
        refused = await cached.ask("/c")
        assert refused.status == 429
        assert refused.all("Cache-Status") == []
        assert '"upstream";q=2' in (refused.get("RateLimit-Policy") or "")
    # 2 misses and 10 refusals: only the misses, and this hit, are counted against the others.
    assert '"every";r=97' in ((await cached.ask()).get("RateLimit") or "")
    assert origin.asked("/c") == 0


BOTH = '"every";q=100;w=3600, "upstream";q=2;w=3600'


async def test_every_answer_names_every_limit(start_cached: StartCached, origin: Origin) -> None:
    cached = await start(start_cached)
    origin.answers["/a"] = respond("hello", MAX_AGE)
    hits = 4  # the last ones are those that come again
    answers = [await cached.ask() for _ in range(1 + hits)]
    assert [answer.status for answer in answers] == [200] * 5
    assert {answer.get("RateLimit-Policy") for answer in answers} == {BOTH}
    names = [(answer.get("RateLimit") or "").partition(";")[0] for answer in answers]
    assert names == ['"upstream"'] + ['"every"'] * hits
    assert (await cached.ask("/b")).status == 404
    refused = [await cached.ask("/c") for _ in range(4)]
    assert [answer.status for answer in refused] == [429] * 4
    assert {answer.get("RateLimit-Policy") for answer in refused} == {BOTH}


async def test_a_refusal_by_the_first_names_those_that_were_not_asked(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start_cached(
        policies=LIMITS.replace("100/h", "1/h"), route={"limits": ["every", "upstream"]}
    )
    answers = [await cached.ask() for _ in range(5)]
    assert [answer.status for answer in answers] == [404] + [429] * 4
    assert {answer.get("RateLimit-Policy") for answer in answers} == {BOTH.replace("100", "1")}


@pytest.mark.parametrize("override", ["", "overrides: [{when: {method: PUT}, rate: 9/h}], "])
async def test_a_hit_names_a_limit_that_stands_alone(
    start_cached: StartCached, origin: Origin, override: str
) -> None:
    """Nothing is known of what is left of it."""
    policies = LIMITS.replace("charge: miss", f"{override}charge: miss")
    cached = await start_cached(policies=policies, route={"limits": ["upstream"]})
    origin.answers["/a"] = respond("hello", MAX_AGE)
    miss, *hits = [await cached.ask() for _ in range(4)]
    assert (miss.get("RateLimit") or "").startswith('"upstream";r=1;t=')
    assert {hit.get("RateLimit-Policy") for hit in hits} == {'"upstream";q=2;w=3600'}
    assert {hit.get("RateLimit") for hit in hits} == {None}


async def test_a_refused_leader_leaves_the_rest_to_their_own_limits(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start(start_cached)
    for target in ("/a", "/b"):
        await cached.ask(target)
    wires = [await cached.open() for _ in range(5)]
    answers = await asyncio.gather(*(wire.ask(request("/c")) for wire in wires))
    assert {answer.status for answer in answers} == {429}
    for wire in wires:
        await wire.close()


async def test_a_stale_answer_stands_in(start_cached: StartCached, origin: Origin) -> None:
    cached = await start(start_cached)
    origin.answers["/a"] = respond("hello", ("Cache-Control", "max-age=60, stale-if-error=60"))
    await cached.ask()
    await cached.ask("/b")
    cached.pass_time(61)
    answer = await cached.ask()
    assert (answer.status, answer.body) == (200, b"hello")
    assert status_of(answer).startswith("fwd=stale; ttl=-")
    assert origin.asked() == 1
    cached.pass_time(61)
    assert (await cached.ask()).status == 429


async def test_background_refreshes_are_not_charged(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start(start_cached)
    line = ("Cache-Control", "max-age=60, stale-while-revalidate=60")
    origin.answers["/a"] = respond("hello", line)
    await cached.ask()
    for _ in range(3):
        cached.pass_time(61)
        assert (await cached.ask()).status == 200
        await cached.quiet()
    assert origin.asked() == 4
    assert cached.gateway.metrics.limit("upstream").allowed == 1


async def test_writes_go_upstream_so_they_are_charged(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start(start_cached)
    statuses = [(await cached.ask("/a", method="POST")).status for _ in range(3)]
    assert statuses == [404, 404, 429]


async def test_without_a_cache_it_is_as_any_other(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start(start_cached, name="plain", cache=None)
    statuses = [(await cached.ask("/a")).status for _ in range(3)]
    assert statuses == [404, 404, 429]
