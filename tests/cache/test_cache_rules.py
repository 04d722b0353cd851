"""Rules of RFC 9111 and its neighbours as a client sees them on the wire, each told by whether the
second of two requests reached the origin.

Rules that need more than two requests and one answer have tests of their own beside this table.
"""

import pytest
from cache_kit import MAX_AGE, Cached, Origin, request, respond, status_of, until

from proxy.core.dates import imf_fixdate

Line = tuple[str, str]
CC = "Cache-Control"

pytestmark = pytest.mark.usefixtures("lane")


def date(offset: int) -> str:
    """A date of 2000, `offset` seconds after its first."""
    return imf_fixdate(946_684_800 + offset)


FRESH = [
    ("§3: an unknown status with its own freshness", "299 Odd", [(CC, "max-age=60")]),
    ("§3: an error with its own freshness", "500 Oops", [(CC, "max-age=60")]),
    ("§4.2.1: s-maxage beats max-age", "200 OK", [(CC, "max-age=0, s-maxage=60")]),
    ("§4.2.1: max-age beats Expires", "200 OK", [(CC, "max-age=60"), ("Expires", date(0))]),
    ("§4.2.1: max-age beats a broken Expires", "200 OK", [(CC, "max-age=60"), ("Expires", "0")]),
    ("§4.2.1: of two max-age the first", "200 OK", [(CC, "max-age=60, max-age=0")]),
    ("§5.2: names have no case", "200 OK", [(CC, "MaX-aGe=60")]),
    ("§5.2: a quoted number", "200 OK", [(CC, 'max-age="60"')]),
    ("§5.2: directives on a second line", "200 OK", [(CC, "x"), (CC, "max-age=60")]),
    ("§5.2.3: what is unknown says nothing", "200 OK", [(CC, "huh, max-age=60")]),
    ("§5.2.3: no directive within quotes", "200 OK", [(CC, 'x="no-store", max-age=60')]),
    ("§1.2.2: more seconds than fit", "200 OK", [(CC, "max-age=99999999999999999999")]),
    ("§1.2.2: leading zeros", "200 OK", [(CC, "max-age=0060")]),
    ("§5.1: an Age that is no number", "200 OK", [MAX_AGE, ("Age", "-7200")]),
    ("§5.1: an Age with a fraction", "200 OK", [MAX_AGE, ("Age", "7200.0")]),
    ("§5.2.2.3: must-understand lifts no-store", "200 OK",
     [(CC, "max-age=60, must-understand, no-store")]),
    ("§5.2.2.4: no-cache of a field only", "200 OK", [(CC, 'max-age=60, no-cache="x-a"')]),
    ("§5.2.2.7: private of a field only", "200 OK", [(CC, 'max-age=60, private="x-a"')]),
    ("§5.4: a response's Pragma says nothing", "200 OK", [MAX_AGE, ("Pragma", "no-cache")]),
    ("RFC 9213 §2.2: CDN-Cache-Control decides", "200 OK",
     [(CC, "no-store"), ("CDN-Cache-Control", "max-age=60")]),
    ("RFC 9213 §2.2: unless it is broken", "200 OK",
     [MAX_AGE, ("CDN-Cache-Control", 'max-age="0"')]),
    ("RFC 9213 §2.2: unless it is empty", "200 OK", [MAX_AGE, ("CDN-Cache-Control", "")]),
    ("RFC 9110 §15.1: a moved page", "301 Moved", [MAX_AGE, ("Location", "/b")]),
    ("RFC 9110 §15.1: a page that is gone", "410 Gone", [MAX_AGE]),
]  # fmt: skip
ASKED = [
    ("§4.2.1: nothing says how long", "200 OK", []),
    ("§4.2: lifetime 0", "200 OK", [(CC, "max-age=0")]),
    ("§4.2.1: s-maxage beats max-age", "200 OK", [(CC, "max-age=60, s-maxage=0")]),
    ("§4.2.1: Expires as old as Date", "200 OK", [("Date", date(9)), ("Expires", date(9))]),
    ("§4.2.1: a max-age that is no number", "200 OK", [(CC, "max-age=abc")]),
    ("§4.2.1: a negative max-age", "200 OK", [(CC, "max-age=-1")]),
    ("§4.2.1: a fraction", "200 OK", [(CC, "max-age=60.5")]),
    ("§4.2.1: single quotes", "200 OK", [(CC, "max-age='60'")]),
    ("§4.2.3: older than fresh on arrival", "200 OK", [MAX_AGE, ("Age", "60")]),
    ("§4.2.3: an Age beyond all bounds", "200 OK", [MAX_AGE, ("Age", "99999999999999999999")]),
    ("§4.2.3: a Date long ago", "200 OK", [MAX_AGE, ("Date", date(0))]),
    ("§4.1: * matches nothing", "200 OK", [MAX_AGE, ("Vary", "*")]),
    ("§4.1: nor as the last member", "200 OK", [MAX_AGE, ("Vary", "Accept, *")]),
    ("§4.1: nor behind an empty one", "200 OK", [MAX_AGE, ("Vary", ", *")]),
    ("§4.1: nor on a second line", "200 OK", [MAX_AGE, ("Vary", "Accept"), ("Vary", "*")]),
    ("§5.2.2.4: no-cache", "200 OK", [(CC, "max-age=60, no-cache"), ("ETag", '"a"')]),
    ("§5.2.2.5: no-store", "200 OK", [(CC, "max-age=60, no-store")]),
    ("§5.2.2.5: on any line", "200 OK", [MAX_AGE, (CC, "NO-STORE")]),
    ("§5.2.2.7: private", "200 OK", [(CC, "max-age=60, private")]),
    ("§5.2.2.3: a status that is not understood", "299 Odd",
     [(CC, "max-age=60, must-understand")]),
    ("§5.3: Expires that is no date", "200 OK", [("Expires", "0")]),
    ("RFC 9213 §2.2: CDN-Cache-Control decides", "200 OK",
     [MAX_AGE, ("CDN-Cache-Control", "no-store")]),
    ("RFC 9213 §2.2: whatever it says", "200 OK", [MAX_AGE, ("CDN-Cache-Control", "none")]),
    ("RFC 9213 §2.2: no freshness from Expires", "200 OK",
     [("Expires", date(10**9)), ("CDN-Cache-Control", "none")]),
    ("RFC 6585: 428", "428 Precondition Required", [MAX_AGE]),
    ("RFC 6585: 429", "429 Too Many Requests", [MAX_AGE]),
    ("RFC 6585: 431", "431 Too Large", [MAX_AGE]),
    ("RFC 6585: 511", "511 Log In", [MAX_AGE]),
    ("RFC 9110 §15.1: a status without freshness", "302 Found", [("Location", "/b")]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "status", "lines", "asked"),
    [(*row, 1) for row in FRESH] + [(*row, 2) for row in ASKED],
)
async def test_answers_that_may_be_used_again_and_others(
    cached: Cached, origin: Origin, rule: str, status: str, lines: list[Line], asked: int
) -> None:
    origin.answers["/a"] = respond("hello", *lines, status=status)
    first, second = [await cached.ask() for _ in range(2)]
    assert (first.body, second.body) == (b"hello", b"hello")
    assert origin.asked() == asked, rule
    assert bool(second.all("Age")) >= (asked == 1)
    assert status_of(second).startswith("hit") == (asked == 1)


@pytest.mark.parametrize(
    ("rule", "line", "passed", "asked"),
    [
        ("§5.2.1.1: max-age, young enough", "Cache-Control: max-age=10", 5, 1),
        ("§5.2.1.1: max-age, too old", "Cache-Control: max-age=10", 15, 2),
        ("§5.2.1.2: max-stale, within", "Cache-Control: max-stale=10", 65, 1),
        ("§5.2.1.2: max-stale, beyond", "Cache-Control: max-stale=10", 75, 2),
        ("§5.2.1.2: max-stale without end", "Cache-Control: max-stale", 7500, 1),
        ("§5.2.1.3: min-fresh, within", "Cache-Control: min-fresh=10", 45, 1),
        ("§5.2.1.3: min-fresh, beyond", "Cache-Control: min-fresh=10", 55, 2),
        ("§5.2.1.4: no-cache", "Cache-Control: no-cache", 0, 2),
        ("§5.2.1.5: no-store may be answered from the cache", "Cache-Control: no-store", 0, 1),
        ("§5.2.1.6: no-transform changes nothing", "Cache-Control: no-transform", 0, 1),
        ("§5.2.1.7: only-if-cached, there", "Cache-Control: only-if-cached", 0, 1),
        ("§5.4: Pragma", "Pragma: no-cache", 0, 2),
        ("§4: stale", "Accept: */*", 61, 2),
        ("§3.5: credentials take what is for all", "Authorization: Basic QTpC", 0, 1),
    ],
)
async def test_what_a_request_asks_of_freshness(
    cached: Cached, origin: Origin, rule: str, line: str, passed: int, asked: int
) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE)
    await cached.ask()
    cached.pass_time(passed)
    assert (await cached.ask("/a", line)).body == b"hello"
    assert origin.asked() == asked, rule


@pytest.mark.parametrize("other", ["/a?", "/a?x=1", "/A", "/a/", "/%61/"])
async def test_another_target_is_another_answer(cached: Cached, origin: Origin, other: str) -> None:
    origin.answers |= {"/a": respond("one", MAX_AGE), other: respond("two", MAX_AGE)}
    assert [(await cached.ask(target)).body for target in ("/a", other, "/a", other)] == [
        b"one", b"two", b"one", b"two",
    ]  # fmt: skip


async def test_who_comes_after_a_purge_does_not_get_what_began_before(
    cached: Cached, origin: Origin
) -> None:
    """Though only the origin's answer says that the tag is its own."""
    origin.answers["/a"] = respond("old", MAX_AGE, ("Surrogate-Key", "red"))
    origin.hold()
    async with await cached.open() as early, await cached.open() as late:
        await early.send(request())
        await until(lambda: origin.asked() == 1)
        await cached.purge("tags", "red")
        await late.send(request())
        await until(lambda: any(flight.waiting == 2 for flight in cached.caching.flights.values()))
        origin.release()
        assert (await early.read_answer()).body == b"old"
        await late.read_answer()
        assert origin.asked() == 2
