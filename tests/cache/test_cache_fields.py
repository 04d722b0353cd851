"""What a proxy owes to fields and messages where answers are stored and used again (RFC 9110 §6,
§7, RFC 9111 §3.1, §5.2, RFC 9530), seen on the wire."""

import time
from collections.abc import Awaitable, Callable

import pytest
from cache_kit import MAX_AGE, Cached, Origin, respond, status_of
from rawhttp import Answer, Seen, Wire

from proxy.core.dates import imf_fixdate, parse_http_date

pytestmark = pytest.mark.usefixtures("lane")

Line = tuple[str, str]
CC = "Cache-Control"
TAGGED = ("ETag", '"v1"')


def seconds_ago(seconds: int) -> str:
    """A date, counted from now and not from when this module was read: that may be long ago."""
    return imf_fixdate(int(time.time()) - seconds)


async def twice(cached: Cached, origin: Origin, *lines: Line) -> tuple[Answer, Answer]:
    """The answer that is stored, and the one from the cache."""
    origin.answers["/a"] = respond("hello", MAX_AGE, *lines)
    first, hit = await cached.ask(), await cached.ask()
    assert status_of(hit).startswith("hit")
    assert (first.body, hit.body, origin.asked()) == (b"hello", b"hello", 1)
    return first, hit


@pytest.mark.parametrize(
    ("rule", "lines", "gone"),
    [
        ("§7.6.1: what Connection names", [("Connection", "x-a, X-B"), ("X-A", "1"), ("x-b", "2")],
         ["X-A", "X-B"]),
        ("§7.6.1: hop-by-hop", [("Keep-Alive", "timeout=9"), ("Proxy-Connection", "close"),
         ("TE", "trailers"), ("Upgrade", "h2c"), ("Trailer", "X-T")],
         ["Keep-Alive", "Proxy-Connection", "TE", "Upgrade", "Trailer"]),
    ],
)  # fmt: skip
async def test_the_connections_own_fields_end_before_the_cache(
    cached: Cached, origin: Origin, rule: str, lines: list[Line], gone: list[str]
) -> None:
    for answer in await twice(cached, origin, *lines):
        assert [name for name in gone if answer.all(name)] == [], rule


async def test_what_speaks_to_one_client_is_not_stored(cached: Cached, origin: Origin) -> None:
    own = [("Proxy-Authenticate", "Basic"), ("Proxy-Authentication-Info", "a=b")]
    _, hit = await twice(cached, origin, *own)
    assert [name for name, _ in own if hit.all(name)] == []


async def test_unknown_fields_are_stored_in_their_order_and_with_their_bytes(
    cached: Cached, origin: Origin
) -> None:
    lines = [("X-Odd", "a\t b"), ("Link", "</1>"), ("x-odd", "\xe9"), ("Link", "</2>")]
    first, hit = await twice(cached, origin, *lines)
    for answer in (first, hit):
        seen = [line for line in answer.lines if line[0].lower() in ("x-odd", "link")]
        assert [(name, value.encode("latin-1").decode()) for name, value in seen] == lines


async def test_trailers_never_become_fields(cached: Cached, origin: Origin) -> None:
    head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = "5\r\nhello\r\n0\r\nX-Late: 1\r\nCache-Control: no-store\r\n\r\n"
    origin.answers["/a"] = (head + body).encode()
    for _ in range(2):
        answer = await cached.ask()
        assert (answer.body, answer.all("X-Late")) == (b"hello", [])
        assert answer.all(CC) == ["max-age=60"]
    assert origin.asked() == 1


async def test_what_has_no_date_gets_the_time_of_receipt(cached: Cached, origin: Origin) -> None:
    """Not that of the answer, which is later for every hit."""
    cached.pass_time(-100)
    for answer, ago in zip(await twice(cached, origin), (0, 100), strict=True):
        date = parse_http_date(answer.get("Date") or "", 0)
        assert date is not None
        assert abs(time.time() - date / 1000 - ago) < 20


async def test_a_date_stays_and_age_is_ours(cached: Cached, origin: Origin) -> None:
    date = seconds_ago(7)
    origin.answers["/a"] = respond("hello", MAX_AGE, ("Date", date), ("Age", "20"))
    first = await cached.ask()
    cached.pass_time(5)
    hit = await cached.ask()
    assert (first.get("Date"), hit.get("Date")) == (date, date)
    assert 25 <= int(hit.get("Age") or 0) < 30


async def test_every_question_says_by_whom_it_comes(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE, TAGGED)
    await cached.ask()
    cached.pass_time(61)
    await cached.ask()
    assert [seen.get("Via") for seen in origin.seen] == ["1.1 sluicegate"] * 2


async def test_the_clients_directives_go_upstream_untouched(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE)
    said = 'max-age=0, no-transform, x="a, b"'
    await cached.ask("/a", f"Cache-Control: {said}", "Pragma: x")
    assert (origin.seen[0].get(CC), origin.seen[0].get("Pragma")) == (said, "x")


async def test_targeted_fields_are_passed_on(cached: Cached, origin: Origin) -> None:
    for answer in await twice(cached, origin, ("CDN-Cache-Control", "max-age=90")):
        assert answer.get("CDN-Cache-Control") == "max-age=90"


async def test_a_part_has_no_digest_of_the_whole_message(cached: Cached, origin: Origin) -> None:
    digests = [("Content-Digest", "sha-256=:AA==:"), ("Repr-Digest", "sha-256=:AA==:")]
    _, hit = await twice(cached, origin, *digests)
    assert hit.get("Content-Digest") is not None
    part = await cached.ask("/a", "Range: bytes=1-2")
    assert (part.status, part.all("Content-Digest")) == (206, [])
    assert part.get("Repr-Digest") == "sha-256=:AA==:"


async def test_a_304_brings_fields_but_no_length(cached: Cached, origin: Origin) -> None:
    await twice(cached, origin, TAGGED, ("X-Old", "1"), ("X-Both", "1"), ("X-Both", "2"))
    cached.pass_time(61)
    lines = 'Cache-Control: max-age=60\r\nETag: "v1"\r\nX-Both: 3\r\nContent-Length: 99'
    origin.answers["/a"] = f"HTTP/1.1 304 Not Modified\r\n{lines}\r\n\r\n".encode()
    for _ in range(2):
        answer = await cached.ask()
        assert (answer.status, answer.body, answer.get("Content-Length")) == (200, b"hello", "5")
        assert (answer.get("X-Old"), answer.get("X-Both")) == ("1", "3")
    assert origin.asked() == 2


@pytest.mark.parametrize("which", ["no-cache", "private"])
async def test_withheld_fields_are_not_used_again(
    cached: Cached, origin: Origin, which: str
) -> None:
    origin.answers["/a"] = respond("hello", (CC, f'max-age=60, {which}="X-A, x-b"'), ("X-A", "1"),
                                   ("X-B", "2"), ("X-C", "3"))  # fmt: skip
    first, hit = await cached.ask(), await cached.ask()
    assert [first.get(name) for name in ("X-A", "X-B", "X-C")] == ["1", "2", "3"]
    assert [hit.get(name) for name in ("X-A", "X-B", "X-C")] == [None, None, "3"]


@pytest.mark.parametrize(
    ("rule", "status", "lines"),
    [
        ("a listed status", "404 Not Found", []),
        ("another one", "200 OK", []),
        ("any, with public", "299 Odd", [(CC, "public")]),
    ],
)
async def test_a_guess_stands_where_nothing_is_said(
    cached: Cached, origin: Origin, rule: str, status: str, lines: list[Line]
) -> None:
    """§4.2.2: a tenth of the time since it was modified."""
    dates = [("Date", seconds_ago(0)), ("Last-Modified", seconds_ago(6000))]
    origin.answers["/a"] = respond("hello", *dates, *lines, status=status)
    await cached.ask()
    cached.pass_time(500)
    assert status_of(await cached.ask()).startswith("hit"), rule
    cached.pass_time(110)
    await cached.ask()
    assert origin.asked() == 2, rule


@pytest.mark.parametrize(
    ("rule", "says", "line", "passed", "asked"),
    [
        ("§5.2.2.2: must-revalidate before max-stale", "max-age=60, must-revalidate",
         "max-stale", 61, 2),
        ("§5.2.2.8: so proxy-revalidate", "max-age=60, proxy-revalidate", "max-stale", 61, 2),
        ("§5.2.2.10: so s-maxage", "s-maxage=60", "max-stale", 61, 2),
        ("§5.2.2.4: no-cache before max-stale", "max-age=60, no-cache", "max-stale", 0, 2),
        ("RFC 8246: immutable is not asked about", "max-age=60, immutable", "max-age=0", 5, 1),
        ("RFC 8246: but for no-cache", "max-age=60, immutable", "no-cache", 5, 2),
        ("RFC 8246: nor once it is stale", "max-age=60, immutable", "max-age=0", 61, 2),
        ("§5.2.1: max-age and max-stale", "max-age=60", "max-age=70, max-stale=20", 65, 1),
        ("§5.2.1: max-age stands beside it", "max-age=60", "max-age=62, max-stale=20", 65, 2),
    ],
)  # fmt: skip
async def test_what_the_origin_says_stands_before_what_the_client_asks(
    cached: Cached, origin: Origin, rule: str, says: str, line: str, passed: int, asked: int
) -> None:
    origin.answers["/a"] = respond("hello", (CC, says), TAGGED)
    await cached.ask()
    cached.pass_time(passed)
    assert (await cached.ask("/a", f"Cache-Control: {line}")).body == b"hello"
    assert origin.asked() == asked, rule


def varying(name: str) -> Callable[[Wire, Seen], Awaitable[None]]:
    async def script(wire: Wire, seen: Seen) -> None:
        await wire.send(
            respond(f"for {seen.get(name)}", MAX_AGE, ("Vary", "x-none"), ("Vary", name))
        )

    return script


@pytest.mark.parametrize(
    ("rule", "name", "one", "other", "same"),
    [
        ("another value", "X-L", "a", "b", False),
        ("case counts", "X-L", "a", "A", False),
        ("whitespace around commas does not", "X-L", "a,b", "a ,  b", True),
        ("weights as they are meant", "Accept-Encoding", "gzip;q=1.0, br;q=0.5", "GZIP, br;q=.5",
         False),
        ("and written otherwise", "Accept-Encoding", "gzip;q=1.0, br;q=0.50", "GZIP,br;q=0.5",
         True),
        ("order between equal weights counts", "Accept-Language", "de, en", "en, de", False),
    ],
)  # fmt: skip
async def test_which_variant_a_request_selects(
    cached: Cached, origin: Origin, rule: str, name: str, one: str, other: str, same: bool
) -> None:
    origin.answers["/a"] = varying(name)
    await cached.ask("/a", f"{name}: {one}")
    answer = await cached.ask("/a", f"{name}: {other}")
    assert answer.body.decode() == f"for {one if same else other}", rule
    assert (await cached.ask()).body == b"for None"
    assert status_of(await cached.ask("/a", f"{name}: {one}")).startswith("hit")


async def test_a_post_is_answered_by_nothing_stored_and_fills_nothing(
    cached: Cached, origin: Origin
) -> None:
    """RFC 9110 §9.3.3 would let its answer serve GETs of the same URL."""
    origin.answers["/a"] = respond("hello", MAX_AGE, ("Content-Location", "/a"))
    for asked in (1, 2):
        assert status_of(await cached.ask(method="POST")) == "fwd=method"
        assert (origin.asked(), cached.stored()) == (asked, 0)


async def test_a_304_for_the_clients_own_condition_is_its_own(
    cached: Cached, origin: Origin
) -> None:
    origin.answers["/a"] = b'HTTP/1.1 304 Not Modified\r\nETag: "v9"\r\nX-A: 1\r\n\r\n'
    for line in ("Cache-Control: no-store", "Accept: */*"):
        origin.seen.clear()
        answer = await cached.ask("/a", 'If-None-Match: "v9"', line, method="HEAD")
        assert (answer.status, answer.get("ETag"), answer.get("X-A")) == (304, '"v9"', "1")
        assert origin.seen[0].get("If-None-Match") == '"v9"'
    assert cached.stored() == 0


MODIFIED = "Tue, 05 Nov 2024 08:00:00 GMT"
LATER = "Tue, 05 Nov 2024 09:00:00 GMT"
OTHER_TAG = f'If-None-Match: "v2"\r\nIf-Modified-Since: {MODIFIED}'


@pytest.mark.parametrize(
    ("rule", "line", "status"),
    [
        ("§13.1.5: the same strong tag", 'If-Range: "v1"', 206),
        ("another", 'If-Range: "v2"', 200),
        ("a weak one never", 'If-Range: W/"v1"', 200),
        ("the same date", f"If-Range: {MODIFIED}", 206),
        ("a later one is not the same", f"If-Range: {LATER}", 200),
        ("§13.2.2: conditions come first", 'If-None-Match: W/"v1"', 304),
        ("one that does not hold leaves the part", 'If-None-Match: "v2"', 206),
        ("§13.1.3: no date beside a tag", OTHER_TAG, 206),
    ],
)  # fmt: skip
async def test_what_decides_on_a_part(
    cached: Cached, origin: Origin, rule: str, line: str, status: int
) -> None:
    await twice(cached, origin, TAGGED, ("Last-Modified", MODIFIED), ("Date", seconds_ago(0)))
    answer = await cached.ask("/a", "Range: bytes=1-2", line)
    body = {200: b"hello", 206: b"el", 304: b""}[status]
    assert (answer.status, answer.body, origin.asked()) == (status, body, 1), rule


@pytest.mark.parametrize(("staleness", "status"), [(9, 200), (11, 503)])
async def test_a_client_may_prefer_what_is_stale_to_an_error(
    cached: Cached, origin: Origin, staleness: int, status: int
) -> None:
    """RFC 5861 §4, in a request."""
    await twice(cached, origin)
    cached.pass_time(60 + staleness)
    origin.answers["/a"] = respond("oh", status="503 Service Unavailable")
    answer = await cached.ask("/a", "Cache-Control: stale-if-error=10")
    assert answer.status == status
