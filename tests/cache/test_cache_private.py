"""Nobody gets what was another's: credentials, cookies, fields that are not for all."""

import pytest
from cache_kit import MAX_AGE, Cached, Origin, StartCached, respond, status_of
from rawhttp import Seen, Wire


async def whose(wire: Wire, seen: Seen) -> None:
    await wire.send(
        respond(seen.get("Authorization") or "nobody", ("Cache-Control", seen.get("X-Say") or ""))
    )


@pytest.mark.parametrize(
    ("say", "shared"),
    [
        ("max-age=60", False),
        ("public, max-age=60", True),
        ("s-maxage=60", True),
        ("max-age=60, must-revalidate", True),
        ("private, max-age=60", False),
        ("no-store", False),
    ],
)
async def test_answers_to_credentials_are_shared_only_with_leave(
    cached: Cached, origin: Origin, say: str, shared: bool
) -> None:
    origin.answers["/a"] = whose
    said = f"X-Say: {say}"
    mine = await cached.ask("/a", "Authorization: Bearer a", said)
    assert mine.body == b"Bearer a"
    other = await cached.ask("/a", "Authorization: Bearer b", said)
    assert other.body == (b"Bearer a" if shared else b"Bearer b")
    assert (await cached.ask("/a", said)).body == (b"Bearer a" if shared else b"nobody")


async def test_set_cookie_keeps_an_answer_out(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE, ("Set-Cookie", "id=1"))
    for _ in range(2):
        assert (await cached.ask()).get("Set-Cookie") == "id=1"
    assert (origin.asked(), cached.stored()) == (2, 0)


async def test_or_is_left_out_where_the_policy_says(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start_cached(store_set_cookie=True)
    origin.answers["/a"] = respond("hello", MAX_AGE, ("Set-Cookie", "id=1"))
    assert (await cached.ask()).get("Set-Cookie") == "id=1"
    assert (await cached.ask()).get("Set-Cookie") is None
    assert origin.asked() == 1


async def test_withheld_fields_are_the_askers_alone(cached: Cached, origin: Origin) -> None:
    lines = ("Cache-Control", 'max-age=60, private="X-User"'), ("X-User", "7")
    origin.answers["/a"] = respond("hello", *lines)
    assert (await cached.ask()).get("X-User") == "7"
    hit = await cached.ask()
    assert (hit.get("X-User"), status_of(hit)[:3]) == (None, "hit")


@pytest.mark.parametrize("vary", ["*", "X-A, *"])
async def test_what_varies_by_everything_is_nobodys(
    cached: Cached, origin: Origin, vary: str
) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE, ("Vary", vary))
    for _ in range(2):
        assert status_of(await cached.ask()) == "fwd=uri-miss"
    assert origin.asked() == 2


async def test_a_request_with_a_body_passes_by(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE)
    await cached.ask()
    async with await cached.open() as wire:
        answer = await wire.ask(
            "GET /a HTTP/1.1\r\nHost: h.test\r\nContent-Length: 2\r\n\r\nhi", "GET"
        )
    assert (answer.status, status_of(answer), origin.seen[-1].body) == (200, "fwd=bypass", b"hi")
    assert cached.tally.bypass == 1


async def test_conditions_that_only_the_origin_may_judge(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE, ("ETag", '"v1"'))
    await cached.ask()
    answer = await cached.ask("/a", 'If-Match: "v0"')
    assert (status_of(answer), origin.seen[-1].get("If-Match")) == ("fwd=bypass", '"v0"')


async def test_a_request_that_wants_no_store_leaves_nothing(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE)
    assert status_of(await cached.ask("/a", "Cache-Control: no-store")) == "fwd=uri-miss"
    assert cached.stored() == 0
    await cached.ask()
    assert status_of(await cached.ask("/a", "Cache-Control: no-store"))[:3] == "hit"


@pytest.mark.parametrize(
    "status", ["404 Not Found", "500 Internal Server Error", "206 Partial Content"]
)
async def test_errors_and_parts_never_fill_an_entry_by_themselves(
    cached: Cached, origin: Origin, status: str
) -> None:
    lines = [("Content-Range", "bytes 0-4/9")] if status[0] == "2" else []
    origin.answers["/a"] = respond("hello", *lines, status=status)
    for _ in range(2):
        assert (await cached.ask()).status == int(status[:3])
    assert cached.stored() == 0
