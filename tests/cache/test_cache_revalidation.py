"""Stale answers: validated, replaced, served while that goes on, or in place of an error."""

import asyncio

import pytest
from cache_kit import MAX_AGE, Cached, Origin, StartCached, request, respond, status_of, until
from rawhttp import Seen, Wire

pytestmark = pytest.mark.usefixtures("lane")

TAG = ("ETag", '"v1"')
SINCE = ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
UNCHANGED = (
    b'HTTP/1.1 304 Not Modified\r\nETag: "v1"\r\nCache-Control: max-age=60\r\nX-New: 1\r\n\r\n'
)
BAD = respond("bad", status="500 Internal Server Error")


async def closing(wire: Wire, seen: Seen) -> None:
    await wire.close()


async def fill(cached: Cached, origin: Origin, *lines: tuple[str, str]) -> None:
    origin.answers["/a"] = respond("hello", *(lines or (MAX_AGE, TAG, SINCE)))
    assert (await cached.ask()).body == b"hello"


async def test_a_304_freshens(cached: Cached, origin: Origin) -> None:
    await fill(cached, origin)
    cached.pass_time(61)
    origin.answers["/a"] = UNCHANGED
    answer = await cached.ask()
    assert (answer.status, answer.body, answer.get("X-New")) == (200, b"hello", "1")
    assert status_of(answer) == "fwd=stale; fwd-status=304"
    asked = origin.seen[-1]
    assert asked.get("If-None-Match") == '"v1"'
    assert asked.get("If-Modified-Since") == SINCE[1]
    hit = await cached.ask()
    assert (hit.body, hit.get("X-New"), origin.asked()) == (b"hello", "1", 2)
    assert (cached.tally.revalidated, cached.tally.hit) == (1, 1)


async def test_the_clients_own_condition_is_answered_after_ours(
    cached: Cached, origin: Origin
) -> None:
    await fill(cached, origin)
    cached.pass_time(61)
    origin.answers["/a"] = UNCHANGED
    answer = await cached.ask("/a", 'If-None-Match: "other"')
    assert (answer.status, answer.body) == (200, b"hello")
    assert origin.seen[-1].all("If-None-Match") == ['"v1"']
    cached.pass_time(61)
    assert (await cached.ask("/a", 'If-None-Match: "v1"')).status == 304
    cached.pass_time(61)
    part = await cached.ask("/a", "Range: bytes=1-2")
    assert (part.status, part.body) == (206, b"el")
    assert origin.seen[-1].get("Range") is None


async def test_a_full_answer_replaces(cached: Cached, origin: Origin) -> None:
    await fill(cached, origin)
    cached.pass_time(61)
    origin.answers["/a"] = respond("newer", MAX_AGE, ("ETag", '"v2"'))
    answer = await cached.ask()
    assert (answer.body, status_of(answer)) == (b"newer", "fwd=stale; stored")
    assert (await cached.ask()).body == b"newer"
    assert (origin.asked(), cached.stored()) == (2, 1)


async def test_a_304_about_something_else_is_asked_again(cached: Cached, origin: Origin) -> None:
    await fill(cached, origin)
    cached.pass_time(61)

    async def other(wire: Wire, seen: Seen) -> None:
        conditional = seen.get("If-None-Match") is not None
        about = b'HTTP/1.1 304 Not Modified\r\nETag: "v2"\r\n\r\n'
        await wire.send(about if conditional else respond("newer", MAX_AGE))

    origin.answers["/a"] = other
    assert (await cached.ask()).body == b"newer"
    assert origin.asked() == 3


async def test_many_wait_for_one_validation(cached: Cached, origin: Origin) -> None:
    await fill(cached, origin)
    cached.pass_time(61)
    origin.answers["/a"] = UNCHANGED
    origin.hold()
    wires = [await cached.open() for _ in range(20)]
    answers = asyncio.gather(*(wire.ask(request()) for wire in wires))
    await until(lambda: any(f.waiting == 20 for f in cached.caching.flights.values()))
    origin.release()
    assert {answer.body for answer in await answers} == {b"hello"}
    assert (origin.asked(), cached.tally.revalidated, cached.tally.collapsed) == (2, 1, 19)
    for wire in wires:
        await wire.close()


async def test_a_reload_in_the_browser_validates(cached: Cached, origin: Origin) -> None:
    await fill(cached, origin)
    origin.answers["/a"] = UNCHANGED
    answer = await cached.ask("/a", "Cache-Control: no-cache")
    assert status_of(answer) == "fwd=request; fwd-status=304"
    assert (await cached.ask("/a", "Pragma: no-cache")).body == b"hello"
    assert origin.asked() == 3


async def test_a_304_is_its_askers_cookie_not_the_next_ones(cached: Cached, origin: Origin) -> None:
    await fill(cached, origin)
    cached.pass_time(61)
    origin.answers["/a"] = UNCHANGED.replace(b"X-New: 1", b"Set-Cookie: a=1")
    assert (await cached.ask()).get("Set-Cookie") == "a=1"
    assert (await cached.ask()).get("Set-Cookie") is None


async def test_a_304_can_take_the_leave_to_store_back(cached: Cached, origin: Origin) -> None:
    await fill(cached, origin)
    cached.pass_time(61)
    origin.answers["/a"] = UNCHANGED.replace(b"max-age=60", b"no-store")
    assert (await cached.ask()).body == b"hello"
    assert cached.stored() == 0


@pytest.mark.parametrize("failure", [closing, BAD], ids=["closes", "500"])
async def test_stale_if_error(cached: Cached, origin: Origin, failure: object) -> None:
    await fill(cached, origin, ("Cache-Control", "max-age=60, stale-if-error=60"))
    cached.pass_time(100)
    origin.answers["/a"] = failure  # type: ignore[assignment]
    answer = await cached.ask()
    assert (answer.status, answer.body, answer.get("Age")) == (200, b"hello", "100")
    assert status_of(answer).startswith("fwd=stale; ")
    assert "ttl=-4" in status_of(answer)
    assert cached.tally.stale == 1
    cached.pass_time(21)
    answer = await cached.ask()
    # Beyond it the error is passed on, but where there was none the old is better than nothing.
    assert answer.status == (500 if failure is BAD else 200)


async def test_without_leave_an_error_is_passed_on(cached: Cached, origin: Origin) -> None:
    await fill(cached, origin)
    cached.pass_time(61)
    origin.answers["/a"] = BAD
    answer = await cached.ask()
    assert (answer.status, status_of(answer)) == (500, "fwd=stale")
    origin.answers["/a"] = UNCHANGED
    assert (await cached.ask()).body == b"hello"  # it was kept


async def test_what_must_be_validated_is_504_without_an_upstream(
    cached: Cached, origin: Origin
) -> None:
    await fill(cached, origin, ("Cache-Control", "max-age=60, must-revalidate"))
    cached.pass_time(61)
    origin.answers["/a"] = closing
    answer = await cached.ask()
    assert (answer.status, answer.all("Cache-Status")) == (504, [])


async def test_waiters_get_the_stale_answer_too(cached: Cached, origin: Origin) -> None:
    await fill(cached, origin, ("Cache-Control", "max-age=60, stale-if-error=60"))
    cached.pass_time(61)
    origin.answers["/a"] = BAD
    origin.hold()
    wires = [await cached.open() for _ in range(5)]
    answers = asyncio.gather(*(wire.ask(request()) for wire in wires))
    await until(lambda: any(f.waiting == 5 for f in cached.caching.flights.values()))
    origin.release()
    assert {answer.status for answer in await answers} == {200}
    assert origin.asked() == 2
    for wire in wires:
        await wire.close()


async def test_stale_while_one_revalidates_behind(cached: Cached, origin: Origin) -> None:
    await fill(cached, origin, ("Cache-Control", "max-age=60, stale-while-revalidate=30"), TAG)
    cached.pass_time(70)
    origin.answers["/a"] = respond("newer", MAX_AGE)
    origin.hold()
    for _ in range(5):
        answer = await cached.ask("/a", 'If-None-Match: "other"', "Range: bytes=0-1")
        assert answer.body == b"he"
        assert status_of(answer).startswith("hit; ttl=-1")
    await until(lambda: origin.asked() == 2)
    behind = origin.seen[-1]
    assert (behind.get("Range"), behind.get("If-None-Match")) == (None, '"v1"')
    origin.release()
    await cached.quiet()
    answer = await cached.ask()
    assert (answer.body, origin.asked()) == (b"newer", 2)
    assert cached.tally.stale == 5


async def test_beyond_the_window_requests_wait(cached: Cached, origin: Origin) -> None:
    await fill(cached, origin, ("Cache-Control", "max-age=60, stale-while-revalidate=30"), TAG)
    cached.pass_time(91)
    origin.answers["/a"] = respond("newer", MAX_AGE)
    assert (await cached.ask()).body == b"newer"


async def test_a_refresh_that_fails_leaves_what_was_there(cached: Cached, origin: Origin) -> None:
    await fill(cached, origin, ("Cache-Control", "max-age=60, stale-while-revalidate=30"))
    cached.pass_time(70)
    for failure in (BAD, closing):
        origin.answers["/a"] = failure
        assert (await cached.ask()).body == b"hello"
        await cached.quiet()
    assert (await cached.ask()).body == b"hello"


async def test_the_client_may_leave_its_refresh_behind(cached: Cached, origin: Origin) -> None:
    await fill(cached, origin, ("Cache-Control", "max-age=60, stale-while-revalidate=30"))
    cached.pass_time(70)
    origin.answers["/a"] = respond("newer", MAX_AGE)
    origin.hold()
    await cached.ask()  # on a connection that is closed by now
    await until(lambda: origin.asked() == 2)
    origin.release()
    await cached.quiet()
    assert (await cached.ask()).body == b"newer"


async def test_early_refresh_comes_before_the_time_and_once(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start_cached(early_refresh=1.0)

    async def slow(wire: Wire, seen: Seen) -> None:
        cached.pass_time(1)
        await wire.send(respond(f"v{origin.asked()}", ("Cache-Control", "max-age=20")))

    origin.answers["/a"] = slow
    await cached.ask()
    for _ in range(20):  # with 19 seconds left, one in 100 million would
        await cached.ask()
    assert origin.asked() == 1
    cached.pass_time(18.2)
    origin.hold()
    while origin.asked() == 1:  # with less than one left, most do
        assert (await cached.ask()).body == b"v1"
    for _ in range(20):
        assert (await cached.ask()).body == b"v1"
    assert origin.asked() == 2
    origin.release()
    await cached.quiet()
    assert (await cached.ask()).body == b"v2"


async def test_a_head_freshens_or_outdates_the_stored_get(cached: Cached, origin: Origin) -> None:
    await fill(cached, origin, MAX_AGE, TAG)
    cached.pass_time(61)
    origin.answers["/a"] = respond("hello", MAX_AGE, TAG, ("X-New", "1"))
    await cached.ask(method="HEAD")
    hit = await cached.ask()
    assert (hit.body, hit.get("X-New"), origin.asked(method="GET")) == (b"hello", "1", 1)
    origin.answers["/a"] = respond("newer!", MAX_AGE, ("ETag", '"v2"'))
    await cached.ask("/a", "Cache-Control: no-cache", method="HEAD")
    assert (await cached.ask()).body == b"newer!"


async def test_variants_are_refreshed_apart(cached: Cached, origin: Origin) -> None:
    async def by_language(wire: Wire, seen: Seen) -> None:
        lines = ("Cache-Control", "max-age=60, stale-while-revalidate=30"), ("Vary", "X-L")
        await wire.send(respond(f"{seen.get('X-L')}{origin.asked()}", *lines))

    origin.answers["/a"] = by_language
    for language in ("a", "b"):
        await cached.ask("/a", f"X-L: {language}")
    cached.pass_time(61)
    origin.hold()
    for language, body in (("a", b"a1"), ("b", b"b2")):
        assert (await cached.ask("/a", f"X-L: {language}")).body == body
    await until(lambda: origin.asked() == 4)
    origin.release()
    await cached.quiet()
    assert (await cached.ask("/a", "X-L: a")).body[:1] == b"a"
    assert (await cached.ask("/a", "X-L: b")).body[:1] == b"b"
    assert origin.asked() == 4
