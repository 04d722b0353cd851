"""The short way to a hit says what the long way says, or nothing."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from stage_plans import route_plan, snapshot

from proxy.core.cache import reuse
from proxy.core.cache.keys import CacheKeyRule, primary, space
from proxy.core.cache.record import CacheTerms, Stored
from proxy.core.dates import imf_fixdate
from proxy.core.fields import Fields, Lines
from proxy.core.idempotency import Kept
from proxy.core.idempotency import Terms as IdempotencyTerms
from proxy.core.keys import KeyTemplate
from proxy.core.message import Reply
from proxy.exchange import Exchange
from proxy.metrics import CacheTally, IdempotencyTally, Metrics
from proxy.policy.snapshot import CachePlan, IdempotencyPlan
from proxy.stages.cache import Caching
from proxy.stages.cache.hit import hit
from proxy.stages.cache.look import Look
from proxy.store.memory.cache import Held
from proxy.store.ports import Purge

NOW = 1_800_000_000_000
LINES = [("Date", imf_fixdate(NOW // 1000)), ("ETag", '"v1"'), ("Content-Type", "text/plain")]
STORED = Stored(
    method="GET", status=200, reason="OK", lines=LINES, length=5, vary=(), date=NOW, requested=NOW,
    received=NOW, initial_age=0, lifetime=60_000, stale_while_revalidate=0, stale_if_error=0,
    no_cache=False, must_revalidate=False, immutable=False, etag='"v1"', last_modified=None,
)  # fmt: skip
UNUSUAL = [
    ("Cache-Control", "no-cache"), ("Cache-Control", "max-stale"), ("Pragma", "no-cache"),
    ("If-None-Match", '"v1"'), ("If-Modified-Since", LINES[0][1]), ("Range", "bytes=1-2"),
]  # fmt: skip
LANGUAGES = ["de", "en", None]
SNAPSHOT, ROUTE = snapshot(), route_plan("r")


def plan(early_refresh: float = 0.0) -> CachePlan:
    return CachePlan(
        name="c", terms=CacheTerms(), key=CacheKeyRule.parse(), tags=(), expose_tags=False,
        max_object=1 << 20, max_waiters=10, hit_for_miss=0, early_refresh=early_refresh,
        tally=CacheTally("c"),
    )  # fmt: skip


def exchange(chosen: CachePlan, lines: Lines, method: str = "GET") -> Exchange:
    ex = Exchange(
        SNAPSHOT, method, "/a?b", 11, Fields(lines), authority="h", scheme="http", peer="192.0.2.9"
    )
    ex.route = replace(ROUTE, cache=chosen, cache_space=space("c", "r"))
    return ex


def caching_with(*held: Held, now: int = NOW) -> Caching:
    """All of them stored for `exchange`'s URL."""
    caching = Caching(Metrics(), 1 << 20, clock=lambda: now)
    chosen = plan()
    for one in held:
        caching.memory.put(primary(chosen.key, space("c", "r"), exchange(chosen, [])), one)
    return caching


def held(stored: Stored, caching: Caching | None = None) -> Held:
    tags = () if caching is None else caching.purges.tagged(("t",))
    return Held(stored, b"hello", tags, "/a?b", 0, stored.lines)


async def unasked(ex: Exchange) -> Any:
    raise AssertionError("a look asks nobody")


def said(reply: Reply) -> tuple[object, ...]:
    return (
        reply.status, reply.reason, reply.fields, reply.body, reply.length, reply.origin,
        reply.close, reply.stream,
    )  # fmt: skip


def an_answer(dice: Random) -> Stored:
    pick = dice.choice
    language = pick([*LANGUAGES, "any", "any", "any"])
    return replace(
        STORED,
        method=pick(["GET"] * 5 + ["HEAD"]),
        status=pick([200, 200, 204, 404]),
        lines=pick([LINES] * 5 + [LINES[1:]]),
        vary=() if language == "any" else (("accept-language", language),),
        received=NOW + pick([1, 0, -1, -20, -60]) * 1000,
        initial_age=pick([0, 0, 999, 30_000]),
        lifetime=pick([59_999, 59_999, 20_000, 0]),
        stale_while_revalidate=pick([0, 30_000]),
        no_cache=pick([False] * 5 + [True]),
        cost=pick([0, 0, 0, 300, 5000]),
    )


@pytest.mark.parametrize("seed", range(10))
def test_it_says_what_a_look_says(seed: int) -> None:
    dice = Random(seed)
    hits = sum([compared(dice) for _ in range(300)])
    assert hits > 20


def compared(dice: Random) -> bool:
    """Asks both ways about one random request; whether the short one had an answer."""
    pick = dice.choice
    chosen, caching = plan(pick([0.0, 1.0])), caching_with()
    lines = pick([[]] * 20 + [[line] for line in UNUSUAL])
    if (language := pick(LANGUAGES)) is not None:
        lines = [*lines, ("Accept-Language", language)]
    ex = exchange(chosen, lines, pick(["GET", "GET", "HEAD"]))
    key = primary(chosen.key, space("c", "r"), ex)
    stored = [an_answer(dice) for _ in range(pick([1, 1, 2, 3]))]
    for one in stored:
        caching.memory.put(key, held(one, caching))
    if (purge := pick([None] * 8 + ["soft", "hard"])) is not None:
        caching.purges.purged(Purge(("t",), soft=purge == "soft"), (NOW - 1000) * 1000)
    caching.purges.since = pick([None] * 8 + [NOW - 1, NOW, NOW + 1])

    short = hit(ex, caching)
    counted = (chosen.tally.hit, dict(chosen.tally.last))
    chosen.tally.hit = 0
    look = Look(ex, chosen, caching, unasked, unasked)
    long = look.served()
    if short is not None:
        assert long is not None
        assert said(short) == said(long)
        assert not look.wants_refresh
        assert counted == (chosen.tally.hit, chosen.tally.last) == (1, {"hit": ("fresh", NOW)})
    elif long is not None and isinstance(look.verdict, reuse.Fresh):
        # What it leaves to a look: several that match, HEAD's own, no Date, one to refresh soon.
        assert look.held is not None
        one = look.held.stored
        assert (
            len(stored) > 1
            or not set(lines).isdisjoint(UNUSUAL)
            or one.method == "HEAD"
            or one.lines is not LINES
            or reuse.may_be_early(one, one.left(NOW), chosen.early_refresh)
        )
    return short is not None


def test_what_nearly_every_request_is() -> None:
    chosen = plan(1.0)
    reply = hit(exchange(chosen, [("Accept", "*/*")]), caching_with(held(STORED)))
    assert reply is not None
    assert isinstance(reply.head, str)
    assert reply.fields == [*LINES, ("Age", "0"), ("Cache-Status", "sluicegate; hit; ttl=60")]


@pytest.mark.parametrize("language", ["de", "en"])
def test_the_variant_that_matches(language: str) -> None:
    variants = [
        held(replace(STORED, vary=(("accept-language", name),), reason=name))
        for name in ("de", "en")
    ]
    chosen, caching = plan(), caching_with(*variants)
    reply = hit(exchange(chosen, [("Accept-Language", language)]), caching)
    assert reply is not None
    assert reply.reason == language
    assert hit(exchange(chosen, [("Accept-Language", "fr")]), caching) is None


@pytest.mark.parametrize("line", [*UNUSUAL, ("If-Match", "*"), ("If-Unmodified-Since", "x")])
def test_a_request_that_asks_for_something(line: tuple[str, str]) -> None:
    chosen = plan()
    assert hit(exchange(chosen, [line]), caching_with(held(STORED))) is None


def test_what_may_be_claimed_first() -> None:
    ex = exchange(plan(), [])
    route = ex.route
    assert route is not None
    claims = IdempotencyPlan(
        name="i", methods=frozenset({"GET"}), required=False, terms=IdempotencyTerms(1000),
        scope=KeyTemplate.parse(("ip",)), waits=False, wait_timeout=0.0, kept=Kept(["2xx"]),
        denies=False, replicas=0, max_body=1, tally=IdempotencyTally("i"),
    )  # fmt: skip
    ex.route = replace(route, idempotency=claims)
    assert hit(ex, caching_with(held(STORED))) is None
    ex.route = replace(route, cache=None)
    assert hit(ex, caching_with(held(STORED))) is None


def test_another_method() -> None:
    assert hit(exchange(plan(), [], "QUERY"), caching_with(held(STORED))) is None


def test_a_request_with_a_body_or_an_upgrade() -> None:
    chosen, caching = plan(), caching_with(held(STORED))
    ex = exchange(chosen, [])
    ex.upgrade = "websocket"
    assert hit(ex, caching) is None
    ex = exchange(chosen, [])
    body: Any = object()
    ex.body = body
    assert hit(ex, caching) is None


def test_its_last_moment() -> None:
    chosen = plan()
    fresh, stale = (caching_with(held(STORED), now=NOW + after) for after in (59_999, 60_000))
    reply = hit(exchange(chosen, []), fresh)
    assert reply is not None
    assert reply.fields[-2:] == [("Age", "59"), ("Cache-Status", "sluicegate; hit; ttl=0")]
    assert hit(exchange(chosen, []), stale) is None


def test_one_that_may_be_refreshed_early() -> None:
    chosen = plan(1.0)
    lasting, ending = (caching_with(held(replace(STORED, cost=cost))) for cost in (1875, 1876))
    assert hit(exchange(chosen, []), lasting) is not None
    assert hit(exchange(chosen, []), ending) is None
