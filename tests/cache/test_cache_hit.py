"""A hit: what it says, what it leaves out, and that it waits for nothing."""

import pytest
from cache_kit import MAX_AGE, Cached, Origin, StartCached, request, respond, status_of
from rawhttp import Wire

from proxy.core.dates import imf_fixdate
from proxy.core.fields import Fields
from proxy.exchange import Exchange

DATE = ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
TAGGED = ("ETag", '"v1"')

pytestmark = pytest.mark.usefixtures("lane")


async def test_the_second_request_asks_nobody(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE, ("X-Thing", "1"))
    first = await cached.ask()
    second = await cached.ask()
    assert (first.status, first.body, status_of(first)) == (200, b"hello", "fwd=uri-miss; stored")
    assert (second.status, second.body, second.get("X-Thing")) == (200, b"hello", "1")
    assert status_of(second) in ("hit; ttl=59", "hit; ttl=60")
    assert second.get("Age") == "0"
    assert second.get("Content-Length") == "5"
    assert origin.asked() == 1
    assert (cached.tally.miss, cached.tally.hit) == (1, 1)


async def test_age_grows_and_date_stays(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE, ("Age", "7"))
    first = await cached.ask()
    cached.pass_time(20)
    hit = await cached.ask()
    assert hit.get("Age") == "27"
    assert hit.get("Date") == first.get("Date")
    assert status_of(hit) in ("hit; ttl=32", "hit; ttl=33")


async def test_a_withheld_date_is_made_anew(cached: Cached, origin: Origin) -> None:
    then = imf_fixdate(cached.caching.clock() // 1000 - 9)
    origin.answers["/a"] = respond(
        "hello", ("Cache-Control", 's-maxage=60, private="date"'), ("Date", then)
    )
    await cached.ask()
    hit = await cached.ask()
    assert status_of(hit).startswith("hit; ")
    (date,) = hit.all("Date")
    assert date != then


async def test_a_hit_comes_without_suspending(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE)
    await cached.ask()
    front = cached.gateway._front
    assert front is not None
    ex = Exchange(
        front.snapshot,
        "GET",
        "/a",
        11,
        Fields([("Host", "h.test")]),
        authority="h.test",
        scheme="http",
        peer="127.0.0.1",
    )
    with pytest.raises(StopIteration) as ended:
        front.flow.answer(ex).send(None)
    assert ended.value.value.body == b"hello"
    assert cached.tally.hit == 1


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_head_is_answered_from_get(cached: Cached, origin: Origin, chunked: bool) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE, chunked=chunked)
    await cached.ask()
    answer = await cached.ask(method="HEAD")
    assert (answer.status, answer.body, answer.get("Content-Length")) == (200, b"", "5")
    assert origin.asked() == 1


async def test_heads_own_answer_answers_head_alone(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE)
    assert status_of(await cached.ask(method="HEAD")) == "fwd=uri-miss; stored"
    head = await cached.ask(method="HEAD")
    assert status_of(head).startswith("hit; ")
    assert head.get("Content-Length") == "5"
    get = await cached.ask()
    assert get.body == b"hello"
    assert [seen.method for seen in origin.seen] == ["HEAD", "GET"]


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ('If-None-Match: "v1"', 304),
        ('If-None-Match: W/"v1"', 304),
        ("If-None-Match: *", 304),
        ('If-None-Match: "v0", "v1"', 304),
        ('If-None-Match: "v2"', 200),
        ("If-Modified-Since: Mon, 01 Jan 2024 00:00:00 GMT", 304),
        ("If-Modified-Since: Sun, 31 Dec 2023 23:59:59 GMT", 200),
        ("If-Modified-Since: yesterday", 200),
    ],
)
async def test_conditions_are_answered(
    cached: Cached, origin: Origin, condition: str, status: int
) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE, DATE, TAGGED, ("Content-Type", "text/plain"))
    await cached.ask()
    answer = await cached.ask("/a", condition)
    assert answer.status == status
    assert answer.get("ETag") == '"v1"'
    assert answer.get("Age") == "0"
    assert (answer.get("Content-Type") is None) == (status == 304)
    assert status_of(answer).startswith("hit; ")
    assert origin.asked() == 1


@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        ("bytes=1-3", 206, b"ell", "bytes 1-3/5"),
        ("bytes=-2", 206, b"lo", "bytes 3-4/5"),
        ("bytes=3-", 206, b"lo", "bytes 3-4/5"),
        ("bytes=9-", 416, b"", "bytes */5"),
        ("bytes=3-1", 200, b"hello", None),
        ("lines=1-3", 200, b"hello", None),
    ],
)
async def test_ranges_are_cut_from_what_is_stored(
    cached: Cached,
    origin: Origin,
    asked: str,
    status: int,
    body: bytes,
    content_range: str | None,
) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE)
    await cached.ask()
    answer = await cached.ask("/a", f"Range: {asked}")
    assert (answer.status, answer.body) == (status, body)
    assert answer.get("Content-Range") == content_range
    assert answer.get("Content-Length") == str(len(body))
    assert origin.asked() == 1


async def test_a_range_on_a_cold_key_fills_the_entry(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE, TAGGED)
    part = await cached.ask("/a", "Range: bytes=1-3", 'If-None-Match: "v0"')
    assert (part.status, part.body) == (206, b"ell")
    assert status_of(part) == "fwd=uri-miss; fwd-status=200; stored"
    assert origin.seen[0].get("Range") is None
    assert origin.seen[0].get("If-None-Match") is None
    whole = await cached.ask()
    assert (whole.status, whole.body) == (200, b"hello")
    assert origin.asked() == 1


async def test_a_condition_on_a_cold_key_fills_the_entry(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE, TAGGED)
    answer = await cached.ask("/a", 'If-None-Match: "v1"')
    assert (answer.status, status_of(answer)) == (304, "fwd=uri-miss; fwd-status=200; stored")
    assert (await cached.ask()).body == b"hello"
    assert origin.asked() == 1


async def test_a_condition_is_answered_of_what_is_not_stored_too(
    cached: Cached, origin: Origin
) -> None:
    origin.answers["/a"] = respond("hello", ("Cache-Control", "no-store"), TAGGED)
    answer = await cached.ask("/a", 'If-None-Match: "v1"')
    assert (answer.status, answer.body, answer.get("ETag")) == (304, b"", '"v1"')
    assert status_of(answer) == "fwd=uri-miss; fwd-status=200"


async def test_variants_are_told_apart(cached: Cached, origin: Origin) -> None:
    async def by_language(wire: Wire, seen: object) -> None:
        language = origin.seen[-1].get("Accept-Language") or "none"
        await wire.send(respond(language, MAX_AGE, ("Vary", "Accept-Language")))

    origin.answers["/a"] = by_language
    for _ in range(2):
        for language in ("de", "en"):
            answer = await cached.ask("/a", f"Accept-Language: {language}")
            assert answer.body == language.encode()
    assert (await cached.ask()).body == b"none"
    assert origin.asked() == 3
    assert status_of(await cached.ask("/a", "Accept-Language: fr")) == "fwd=vary-miss; stored"


async def test_tags_speak_to_us_alone(start_cached: StartCached, origin: Origin) -> None:
    lines = (MAX_AGE, ("Surrogate-Key", "a b"), ("Cache-Tag", "c"), ("Cache-Groups", '"d"'))
    origin.answers["/a"] = respond("hello", *lines)
    hiding, exposing = await start_cached(), await start_cached(expose_tags=True)
    for cached, shown in ((hiding, 0), (exposing, 1)):
        for _ in range(2):
            answer = await cached.ask()
            assert len(answer.all("Surrogate-Key")) == len(answer.all("Cache-Tag")) == shown
            assert answer.get("Cache-Groups") == '"d"'


async def test_what_caches_before_us_said_is_kept(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE, ("Cache-Status", "Origin; hit; ttl=9"))
    for _ in range(2):
        answer = await cached.ask()
        assert answer.all("Cache-Status")[0] == "Origin; hit; ttl=9"
        assert len(answer.all("Cache-Status")) == 2


async def test_limits_of_the_upstream_are_not_replayed(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE, ("RateLimit", '"x";r=1'))
    assert (await cached.ask()).get("RateLimit") == '"x";r=1'
    assert (await cached.ask()).get("RateLimit") is None


async def test_only_if_cached(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE)
    only = "Cache-Control: only-if-cached"
    cold = await cached.ask("/a", only)
    assert (cold.status, origin.asked(), cold.all("Cache-Status")) == (504, 0, [])
    await cached.ask()
    assert (await cached.ask("/a", only)).body == b"hello"
    cached.pass_time(61)
    assert (await cached.ask("/a", only)).status == 504
    assert origin.asked() == 1


async def test_a_pipeline_of_hits(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE)
    origin.answers["/b"] = respond("other", MAX_AGE)
    async with await cached.open() as wire:
        await wire.send((request("/a") + request("/b")) * 3)
        bodies = [(await wire.read_answer()).body for _ in range(6)]
    assert bodies == [b"hello", b"other"] * 3


async def test_bytes_are_gauged(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond(b"x" * 5000, MAX_AGE)
    await cached.ask()
    assert 5000 < cached.gateway.metrics.cache_bytes["memory"] < 12_000
