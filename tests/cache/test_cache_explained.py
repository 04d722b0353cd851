"""What explain says of a lookup is what the next request then meets."""

from typing import Any

import pytest
from cache_kit import MAX_AGE, Cached, Origin, StartCached, respond, status_of

from proxy.admin.question import Question

pytestmark = pytest.mark.usefixtures("lane")

BEHIND = ("Cache-Control", "max-age=60, stale-while-revalidate=20")
TAGGED = ("ETag", '"v1"')
VARIES = ("Vary", "X-L")


async def explained(cached: Cached, *lines: str, method: str = "GET") -> dict[str, Any]:
    headers = [("Host", "h.test")]
    headers += [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    return await cached.gateway.looked_up(Question(method, "/a", headers, "127.0.0.1"))


@pytest.mark.parametrize(
    ("rule", "answer", "passed", "line", "decision", "told"),
    [
        ("nothing there", None, 0, "A: b", ("fetch", "uri-miss"), "fwd=uri-miss"),
        ("fresh", [MAX_AGE], 59, "A: b", ("serve", "fresh"), "hit; ttl=0"),
        ("no variant", [MAX_AGE, VARIES], 0, "X-L: de", ("fetch", "vary-miss"), "fwd=vary-miss"),
        ("stale", [MAX_AGE], 61, "A: b", ("fetch", "stale"), "fwd=stale; stored"),
        ("to be validated", [MAX_AGE, TAGGED], 61, "A: b", ("validate", "stale"), "fwd=stale"),
        ("no-cache", [("Cache-Control", "no-cache"), TAGGED], 0, "A: b",
         ("validate", "no-cache"), "fwd=stale"),
        ("the request wants more", [MAX_AGE], 9, "Cache-Control: max-age=5",
         ("fetch", "request"), "fwd=request"),
        ("behind its back", [BEHIND], 70, "A: b",
         ("serve-stale", "stale-while-revalidate"), "hit; ttl=-"),
        ("the client takes it", [MAX_AGE], 70, "Cache-Control: max-stale",
         ("serve-stale", "max-stale"), "hit; ttl=-"),
        ("a condition", [MAX_AGE], 0, 'If-Match: "v1"', ("bypass", "condition"), "fwd=bypass"),
    ],
)  # fmt: skip
async def test_the_next_request_meets_what_was_explained(
    cached: Cached,
    origin: Origin,
    rule: str,
    answer: list[tuple[str, str]] | None,
    passed: int,
    line: str,
    decision: tuple[str, str],
    told: str,
) -> None:
    origin.answers["/a"] = respond("hello", *(answer or [MAX_AGE]))
    if answer is not None:
        await cached.ask()
    cached.pass_time(passed)
    asked, before = origin.asked(), cached.tally.dump()
    for _ in range(2):
        said = (await explained(cached, line))["decision"]
        assert (said["action"], said["reason"]) == decision, rule
    assert (origin.asked(), cached.tally.dump()) == (asked, before)
    assert status_of(await cached.ask("/a", line)).startswith(told), rule


async def test_only_if_cached_is_refused(cached: Cached, origin: Origin) -> None:
    line = "Cache-Control: only-if-cached"
    assert (await explained(cached, line))["decision"] == {"action": "refuse", "reason": "uri-miss"}
    assert (await cached.ask("/a", line)).status == 504


async def test_what_turned_out_not_to_be_storable(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", ("Cache-Control", "private"))
    await cached.ask()
    said = (await explained(cached))["decision"]
    assert said == {"action": "fetch", "reason": "uri-miss", "hit_for_miss": True}


@pytest.mark.parametrize("looked", [False, True])
async def test_a_soft_purge_shows_before_and_after_it_is_met(
    start_cached: StartCached, origin: Origin, looked: bool
) -> None:
    cached = await start_cached()
    origin.answers["/a"] = respond("hello", BEHIND, TAGGED)
    await cached.ask()
    await cached.purge("urls", "/a", soft=True)
    if looked:
        origin.hold()
        assert status_of(await cached.ask()).startswith("hit; ttl=")
    said = await explained(cached)
    (stored,) = said["stored"]
    assert (stored["purged"], stored["ttl_s"] <= 0) == ("soft", True)
    assert (stored["lifetime_s"], stored["stale_while_revalidate_s"]) == (0, 20)
    assert said["decision"]["action"] == "serve-stale"
    assert (stored["validators"], stored["selected"]) == (["etag"], True)
    origin.release()


async def test_what_is_void_is_shown_but_not_used(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE)
    await cached.ask()
    await cached.purge("urls", "/a")
    said = await explained(cached)
    assert [(one["purged"], one["selected"]) for one in said["stored"]] == [("hard", False)]
    assert said["decision"] == {"action": "fetch", "reason": "uri-miss", "hit_for_miss": False}


async def test_of_blindness_it_is_told(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE, TAGGED)
    await cached.ask()
    cached.caching.purges.lost()
    assert (await explained(cached))["decision"]["action"] == "serve"
    cached.pass_time(11)
    said = (await explained(cached))["decision"]
    assert (said["action"], said["reason"]) == ("validate", "blind")
    assert status_of(await cached.ask()).startswith("fwd=stale")


async def test_blindness_is_an_alarm(cached: Cached) -> None:
    gateway, alarms = cached.gateway, []
    for change in (lambda: None, cached.caching.purges.lost, lambda: cached.caching.purges.back(1)):
        change()
        await gateway.refresh()
        alarms.append(gateway.metrics.store_alarms["blind"])
    assert alarms == [0, 1, 0]


async def test_variants_are_told_by_name_and_never_by_value(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE, VARIES, ("X-Secret", "s3cret"))
    for language in ("t0ken-a", "t0ken-b"):
        await cached.ask("/a", f"X-L: {language}")
    said = await explained(cached, "X-L: t0ken-b")
    assert [(one["vary"], one["selected"]) for one in said["stored"]] == [
        (["x-l"], True),
        (["x-l"], False),
    ]
    assert "t0ken" not in str(said)
    assert "s3cret" not in str(said)


async def test_a_post_is_not_looked_up(cached: Cached) -> None:
    assert await explained(cached, method="POST") == {}
