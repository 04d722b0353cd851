"""Writes and purges: what they reach, what they leave, and what was on its way when they came."""

import asyncio
import time
from collections.abc import Callable

import pytest
from cache_kit import MAX_AGE, Cached, Origin, StartCached, request, respond, status_of, until
from rawhttp import Seen, Wire

from proxy.core.cache.keys import CacheKeyRule
from proxy.core.cache.urls import host_tag, target_tag
from proxy.store.memory.purges import MAX_PREFIXES, MAX_RECENT, SOFT, VALID, VOID, Purgeable, Purges
from proxy.store.memory.room import SHARE, Room
from proxy.store.ports import Purge

pytestmark = pytest.mark.usefixtures("lane")

OK = respond("done")


async def fill(cached: Cached, *targets: str) -> None:
    for target in targets:
        cached.origin.answers.setdefault(target, respond(f"old {target}", MAX_AGE))
        await cached.ask(target)
        assert status_of(await cached.ask(target)).startswith("hit; ")
    cached.origin.seen.clear()


async def hits(cached: Cached, target: str) -> bool:
    return status_of(await cached.ask(target)).startswith("hit; ")


def once_written(reply: bytes, after: bytes) -> object:
    async def script(wire: Wire, seen: Seen) -> None:
        await wire.send(after if seen.method == "GET" else reply)

    return script


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "FOO"])
async def test_a_write_makes_its_url_void(cached: Cached, origin: Origin, method: str) -> None:
    await fill(cached, "/a", "/b")
    origin.answers["/a"] = once_written(OK, respond("new", MAX_AGE))  # type: ignore[assignment]
    answer = await cached.ask(method=method)
    assert (answer.body, status_of(answer)) == (b"done", "fwd=method")
    assert (await cached.ask()).body == b"new"
    assert await hits(cached, "/b")


@pytest.mark.parametrize("method", ["OPTIONS", "SEARCH", "PROPFIND"])
async def test_a_safe_method_leaves_it(cached: Cached, origin: Origin, method: str) -> None:
    await fill(cached, "/a")
    origin.answers["/a"] = OK
    await cached.ask(method=method)
    assert await hits(cached, "/a")


@pytest.mark.parametrize("status", ["400 Bad Request", "500 Internal Server Error"])
async def test_a_write_that_fails_leaves_it(cached: Cached, origin: Origin, status: str) -> None:
    await fill(cached, "/a")
    origin.answers["/a"] = respond("no", status=status)
    await cached.ask(method="POST")
    assert await hits(cached, "/a")


async def test_a_write_whose_client_left_may_have_been_done(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start_cached(tags=["path:{path.rest}"], route={"invalidate": ["path:b"]})
    await fill(cached, "/a", "/b", "/c")
    origin.hold()
    async with await cached.open() as wire:
        await wire.send(request(method="DELETE"))
        await until(lambda: origin.asked(method="DELETE") == 1)
        assert len(cached.caching.memory) == 3
    in_flight = cached.gateway.metrics.upstream("origin")
    await until(lambda: in_flight.in_flight == 0)
    origin.release()
    await cached.quiet()
    assert [await hits(cached, target) for target in ("/a", "/b", "/c")] == [False, False, True]


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 2", b"nonsense\r\n\r\n"])
async def test_a_write_without_an_answer_may_have_been_done(
    cached: Cached, origin: Origin, said: bytes
) -> None:
    await fill(cached, "/a", "/b")

    async def breaking_off(wire: Wire, seen: Seen) -> None:
        if seen.method == "GET":
            await wire.send(respond("new", MAX_AGE))
            return
        await wire.send(said)
        await wire.close()

    origin.answers["/a"] = breaking_off
    lines = ("Content-Length: 0",)
    assert (await cached.ask("/a", *lines, method="POST")).status == 502
    assert (await cached.ask()).body == b"new"
    assert await hits(cached, "/b")


async def test_a_write_that_was_never_sent_leaves_it(cached: Cached, origin: Origin) -> None:
    await fill(cached, "/a")
    await origin.raw.stop()
    assert (await cached.ask(method="POST")).status == 502
    assert await hits(cached, "/a")


async def test_location_of_this_origin_is_void_too(cached: Cached, origin: Origin) -> None:
    await fill(cached, "/a", "/b", "/c")
    lines = ("Location", "/b"), ("Content-Location", "http://other.test/c")
    origin.answers["/w"] = respond("", *lines, status="201 Created")
    await cached.ask("/w", method="POST")
    assert [await hits(cached, target) for target in ("/a", "/b", "/c")] == [True, False, True]


async def test_the_route_and_the_origin_name_tags(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start_cached(
        tags=["path:{path.rest}"], route={"invalidate": ["path:b", "surrogate"]}
    )
    origin.answers["/s"] = respond("old /s", MAX_AGE, ("Surrogate-Key", "x surrogate"))
    origin.answers["/g"] = respond("old /g", MAX_AGE, ("Cache-Groups", '"group"'))
    await fill(cached, "/a", "/b", "/s", "/g")
    origin.answers["/w"] = respond("", ("Cache-Group-Invalidation", '"group"'))
    await cached.ask("/w", method="POST")
    found = [await hits(cached, target) for target in ("/a", "/b", "/s", "/g")]
    assert found == [True, False, False, False]


@pytest.mark.parametrize(
    ("status", "on", "url", "tag"),
    [
        ("303 See Other", None, True, False),
        ("303 See Other", ["2xx", "300-303"], True, True),
        ("201 Created", ["3xx"], True, False),
        ("204 No Content", [204], True, True),
        ("409 Conflict", ["2xx", 409], False, True),
        ("409 Conflict", ["2xx"], False, False),
    ],
)
async def test_after_which_answers_the_route_s_tags_are_void(
    start_cached: StartCached,
    origin: Origin,
    status: str,
    on: list[str] | None,
    url: bool,
    tag: bool,
) -> None:
    """The URL goes by RFC 9111 §4.4, whatever the route says of its tags."""
    route = {"invalidate": ["path:b"]} | ({} if on is None else {"invalidate_on": on})
    cached = await start_cached(tags=["path:{path.rest}"], route=route)
    await fill(cached, "/a", "/b", "/c")
    body = respond("", status=status)
    origin.answers["/a"] = once_written(body, respond("new", MAX_AGE))  # type: ignore[assignment]
    await cached.ask(method="POST")
    found = [not await hits(cached, target) for target in ("/a", "/b", "/c")]
    assert found == [url, tag, False]


async def test_a_tag_that_nothing_can_carry_is_not_kept(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start_cached(tags=["path:{path.rest}"], route={"invalidate": ["p:{path.rest}"]})
    long = "/" + "x" * 2000
    origin.answers[long] = OK
    await cached.ask(long, method="POST")
    assert max(map(len, cached.caching.purges.tags())) < 100


async def test_a_route_without_a_cache_invalidates_too(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start_cached(
        routes=[
            {"name": "write", "match": {"path": "/{rest:path}", "methods": ["POST"]}},
            {"name": "read", "cache": "things"},
        ]
    )
    await fill(cached, "/a")
    origin.answers["/a"] = once_written(OK, respond("new", MAX_AGE))  # type: ignore[assignment]
    assert (await cached.ask(method="POST")).all("Cache-Status") == []
    assert (await cached.ask()).body == b"new"


async def test_an_older_get_in_flight_is_not_stored(cached: Cached, origin: Origin) -> None:
    """The GET was answered from before the write, and arrives after it."""
    go_on = asyncio.Event()

    async def racing(wire: Wire, seen: Seen) -> None:
        if seen.method == "GET":
            old = origin.asked(method="POST") == 0
            if old:
                await go_on.wait()
            await wire.send(respond("old" if old else "new", MAX_AGE))
        else:
            await wire.send(OK)

    origin.answers["/a"] = racing
    async with await cached.open() as reader, await cached.open() as joined:
        await reader.send(request())
        await until(lambda: origin.asked(method="GET") == 1)
        await cached.ask(method="POST")
        # Who asks after the write neither joins the older fetch nor finds what it stored.
        assert (await joined.ask(request())).body == b"new"
        go_on.set()
        assert (await reader.read_answer()).body == b"old"
        await cached.quiet()
        assert (await joined.ask(request())).body == b"new"
    assert origin.asked(method="GET") == 2


@pytest.mark.parametrize(
    ("kind", "values", "gone"),
    [
        ("tags", ("red",), {"/x/1", "/y/1"}),
        ("tags", ("red", "blue"), {"/x/1", "/x/2", "/y/1"}),
        ("tags", ("unknown",), set()),
        ("urls", ("/x/1",), {"/x/1"}),
        ("urls", ("http://h.test/x/1", "http://other.test/x/2"), {"/x/1"}),
        ("prefix", ("/x/",), {"/x/1", "/x/2"}),
        ("all", (), {"/x/1", "/x/2", "/y/1", "/y/2"}),
    ],
)
async def test_a_purge_reaches_what_it_names_and_no_neighbour(
    cached: Cached, origin: Origin, kind: str, values: tuple[str, ...], gone: set[str]
) -> None:
    tags = {"/x/1": "red", "/x/2": "blue", "/y/1": "red blue"}
    everything = ["/x/1", "/x/2", "/y/1", "/y/2"]
    for target in everything:
        lines = [("Surrogate-Key", tags[target])] if target in tags else []
        origin.answers[target] = respond(target, MAX_AGE, *lines)
    await fill(cached, *everything)
    assert await cached.purge(kind, *values) == max(1, len(values))
    assert {target for target in everything if not await hits(cached, target)} == gone
    assert cached.gateway.metrics.purges == {kind.removesuffix("s"): max(1, len(values))}


async def test_what_was_fetched_while_its_tag_was_purged(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("old", MAX_AGE, ("Surrogate-Key", "red"))
    origin.hold()
    async with await cached.open() as wire:
        await wire.send(request())
        await until(lambda: origin.asked() == 1)
        await cached.purge("tags", "red")
        origin.release()
        assert (await wire.read_answer()).body == b"old"
    await cached.quiet()
    assert cached.stored() == 0


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    ("kind", "values"), [("tags", ("red",)), ("urls", ("/a",)), ("prefix", ("/",)), ("all", ())]
)
@pytest.mark.parametrize("how", ["together", "alone", "streamed", "validated"])
async def test_nothing_is_stored_that_was_purged_meanwhile(
    cached: Cached, origin: Origin, kind: str, values: tuple[str, ...], soft: bool, how: str
) -> None:
    """However it is fetched and purged: memory never has it."""
    lines = MAX_AGE, ("Surrogate-Key", "red"), ("ETag", '"v1"')
    asked = 1
    if how == "alone":
        origin.answers["/a"] = respond("private", ("Cache-Control", "private"))
        await cached.ask()
        asked = 2
    origin.answers["/a"] = respond("old", *lines, chunked=how == "streamed")
    if how == "validated":
        await cached.ask()
        cached.pass_time(61)
        origin.answers["/a"] = b'HTTP/1.1 304 Not Modified\r\nETag: "v1"\r\n\r\n'
        asked = 2
    origin.hold()
    async with await cached.open() as wire:
        await wire.send(request())
        await until(lambda: origin.asked() == asked)
        await cached.purge(kind, *values, soft=soft)
        origin.release()
        assert (await wire.read_answer()).body == b"old"
    await cached.quiet()
    assert cached.stored() == 0


async def test_a_soft_purge_leaves_it_to_be_validated(cached: Cached, origin: Origin) -> None:
    lines = MAX_AGE, ("Surrogate-Key", "red"), ("ETag", '"v1"')
    origin.answers["/a"] = respond("old", *lines)
    await fill(cached, "/a")
    await cached.purge("tags", "red", soft=True)
    origin.answers["/a"] = b'HTTP/1.1 304 Not Modified\r\nETag: "v1"\r\n\r\n'
    assert status_of(await cached.ask()) == "fwd=stale; fwd-status=304"
    assert await hits(cached, "/a")
    await cached.purge("all", soft=True)
    origin.answers["/a"] = respond("oh", status="503 Service Unavailable")
    assert (await cached.ask()).status == 503


async def test_a_soft_purge_may_be_served_while_revalidating(
    cached: Cached, origin: Origin
) -> None:
    lines = ("Cache-Control", "max-age=60, stale-while-revalidate=60"), ("Cache-Tag", "red")
    origin.answers["/a"] = respond("old", *lines)
    await fill(cached, "/a")
    origin.answers["/a"] = respond("new", MAX_AGE)
    await cached.purge("tags", "red", soft=True)
    answer = await cached.ask()
    assert (answer.body, status_of(answer)[:8]) == (b"old", "hit; ttl")
    await cached.quiet()
    assert (await cached.ask()).body == b"new"


@pytest.mark.parametrize(("until_asked", "stale"), [(50, True), (61, False)])
async def test_a_soft_purge_counts_from_its_own_moment(
    cached: Cached, origin: Origin, until_asked: float, stale: bool
) -> None:
    """Not from when somebody asks: it is stale since then, and may be served so for a minute."""
    lines = ("Cache-Control", "max-age=600, stale-while-revalidate=60"), ("Cache-Tag", "red")
    origin.answers["/a"] = respond("old", *lines)
    await fill(cached, "/a")
    origin.answers["/a"] = respond("new", MAX_AGE)
    cached.pass_time(100)
    await cached.purge("tags", "red", soft=True)
    cached.pass_time(until_asked)
    answer = await cached.ask()
    assert answer.body == (b"old" if stale else b"new")
    if stale:
        assert status_of(answer).startswith("hit; ttl=-5")
    await cached.quiet()


async def test_a_second_soft_purge_makes_nothing_usable_again(
    cached: Cached, origin: Origin
) -> None:
    lines = ("Cache-Control", "max-age=600, stale-while-revalidate=60"), ("Cache-Tag", "red")
    origin.answers["/a"] = respond("old", *lines)
    await fill(cached, "/a")
    origin.answers["/a"] = respond("new", MAX_AGE)
    for _ in range(2):
        await cached.purge("tags", "red", soft=True)
        cached.pass_time(50)
    assert (await cached.ask()).body == b"new"


async def test_who_asks_after_a_soft_purge_asks_together(cached: Cached, origin: Origin) -> None:
    """One validates for all, also where the moment is not known."""
    origin.answers["/a"] = respond("old", MAX_AGE, ("Cache-Tag", "red"))
    await fill(cached, "/a")
    for _ in range(3):
        await cached.purge("tags", "red", soft=True)
    origin.hold()
    answers = [asyncio.create_task(cached.ask()) for _ in range(5)]
    await until(lambda: any(flight.waiting == 5 for flight in cached.caching.flights.values()))
    origin.release()
    assert {(await answer).body for answer in answers} == {b"old"}
    assert origin.asked() == 1


async def test_variants_and_queries_go_with_their_url(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start_cached(key={"query": {"exclude": ["utm"]}})
    for target in ("/a?utm=1", "/a?q=1"):
        origin.answers[target] = respond("old", MAX_AGE, ("Vary", "X-L"))
    for language in ("a", "b"):
        await cached.ask("/a?utm=1", f"X-L: {language}")
    await cached.ask("/a?q=1")
    await cached.purge("urls", "/a?utm=2")
    for language in ("a", "b"):
        assert not status_of(await cached.ask("/a?utm=1", f"X-L: {language}")).startswith("hit")
    assert await hits(cached, "/a?q=1")


# Purges alone.


def one(purges: Purges, *tags: str, target: str = "/a") -> Purgeable:
    return Purgeable(purges.tagged(tags), target, purges.last)


def took(work: Callable[[Purges], None], purges: Purges) -> float:
    """Seconds, on this thread's own clock: others use the machine, too."""
    began = time.thread_time()
    work(purges)
    return time.thread_time() - began


def test_a_tag_on_many_objects_is_purged_in_no_time() -> None:
    purges = Purges(lambda: 0)
    objects = [one(purges, f"own-{n}", "shared") for n in range(100_000)]
    assert purges.state(objects[0]) == VALID
    assert min(took(lambda p: p.apply(Purge(("shared",))), purges) for _ in range(5)) < 0.001
    assert purges.state(objects[0]) == purges.state(objects[99_999]) == VOID
    purges.apply(Purge(("own-7",)))
    assert purges.state(one(purges, "own-8")) == VALID


def test_tags_go_with_the_last_that_carries_them() -> None:
    purges = Purges(lambda: 0)
    kept = one(purges, "a")
    one(purges, "b")
    assert set(purges.tags()) == {"a"}
    del kept
    assert set(purges.tags()) == set()


def test_a_purge_before_the_tag_is_known_here_counts() -> None:
    purges = Purges(lambda: 0)
    began = purges.last
    purges.apply(Purge(("late",)))
    late = Purgeable(purges.tagged(("late",)), "/a", began)
    assert purges.reaches(late)
    assert not purges.reaches(one(purges, "late"))


def test_what_began_before_all_that_is_remembered_is_not_stored() -> None:
    purges = Purges(lambda: 0)
    began = purges.last
    held = one(purges, "kept")
    for n in range(MAX_RECENT + 2):
        purges.apply(Purge((f"t{n}",)))
    assert purges.forgotten == 2
    assert purges.reaches(Purgeable(purges.tagged(("t0",)), "/a", began))
    assert purges.state(held) == VALID  # its own tags are known for as long as it lives


def test_names_of_purged_tags_take_their_share_of_the_room() -> None:
    room = Room(16 * 1024 * 1024)
    purges = Purges(lambda: 0, room=room)
    for n in range(5000):
        purges.apply(Purge((f"{n:01000}",)))
    assert 1000 < len(purges.tags()) < 2000
    assert room.taken <= room.size // SHARE
    assert purges.forgotten == 5000 - len(purges.tags())


def test_a_purge_takes_no_longer_once_many_are_remembered() -> None:
    def remembering(count: int) -> Purges:
        purges = Purges(lambda: 0)
        purges.apply(Purge(tuple([f"old-{n}" for n in range(count)])))
        return purges

    def purged(purges: Purges) -> None:
        purges.apply(Purge(tuple([f"new-{n}" for n in range(5000)])))

    at_first = min(took(purged, remembering(0)) for _ in range(3))
    at_last = min(took(purged, remembering(MAX_RECENT)) for _ in range(3))
    # Walking over what was forgotten before takes a hundred times as long.
    assert at_last < 10 * at_first


def test_prefixes_collapse_into_everything() -> None:
    purges = Purges(lambda: 0)
    purges.apply(Purge(prefix="/first/"))
    between = one(purges, target="/other")
    for n in range(MAX_PREFIXES - 2):
        purges.apply(Purge(prefix=f"/{n}/"))
    assert purges.state(between) == VALID
    after = one(purges, target="/other")
    purges.apply(Purge(prefix="/last/", soft=True))
    purges.apply(Purge(prefix="/very/last/", soft=True))
    assert purges.state(between) == VOID  # covered by what has lost its name: better than not
    assert purges.state(after) == VALID


def test_told_twice_or_late_changes_nothing() -> None:
    purges = Purges(lambda: 0)
    purges.purged(Purge(("a",)), 10)
    kept = Purgeable(purges.tagged(("a",)), "/a", 10)
    changes = purges.changes
    purges.purged(Purge(("a",)), 10)
    purges.purged(Purge(("a",)), 4)
    assert (purges.changes, purges.state(kept), purges.last) == (changes, VALID, 10)
    purges.purged(Purge(("a",), soft=True), 11)
    assert purges.state(kept) == SOFT
    purges.purged(Purge(prefix=""), 12)
    assert purges.state(kept) == VOID


def test_a_url_is_two_tags() -> None:
    rule = CacheKeyRule.parse()
    assert target_tag(rule, "/a") != host_tag(rule, "h.test", "/a")


@pytest.mark.parametrize(("blind", "unnoticed"), [(10_000, 10_000), (500, 1000), (0, 1000)])
def test_blindness_counts_from_the_last_sign_of_life(blind: int, unnoticed: int) -> None:
    now = 0
    purges = Purges(lambda: now, blind)
    assert purges.since is None
    purges.lost()
    assert purges.since == blind
    now = 5000
    purges.alive(0)  # not all of it was heard yet
    assert purges.since == blind
    purges.back(0)
    assert purges.since == 5000 + unnoticed
    now = 8000
    purges.alive(0.5)
    assert purges.since == 7500 + unnoticed
    now = 12_000
    for _ in range(2):
        purges.lost()
        assert purges.since == 7500 + blind
        now = 13_000


async def test_blindness_ends_the_use_of_memory(cached: Cached, origin: Origin) -> None:
    cached.caching.purges.blind = 10_000
    origin.answers["/a"] = respond("old", MAX_AGE, ("ETag", '"v1"'))
    await fill(cached, "/a")
    cached.caching.purges.lost()
    assert await hits(cached, "/a")
    cached.pass_time(11)
    origin.answers["/a"] = b'HTTP/1.1 304 Not Modified\r\nETag: "v1"\r\n\r\n'
    for _ in range(2):
        assert status_of(await cached.ask()) == "fwd=stale; fwd-status=304"
    cached.caching.purges.back(0)
    assert await hits(cached, "/a")
