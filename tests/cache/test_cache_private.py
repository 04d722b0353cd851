"""Nobody gets what was another's: credentials, cookies, fields that are not for all."""

from typing import Any

import pytest
from cache_kit import MAX_AGE, Cached, Origin, StartCached, respond, status_of
from rawhttp import Seen, Wire

pytestmark = pytest.mark.usefixtures("lane")


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


TRUSTING = {"trusted_proxies": ["127.0.0.1/32"], "trusted_headers": ["X-User-Id"]}


async def greeting(wire: Wire, seen: Seen) -> None:
    lines = [("Cache-Control", seen.get("X-Say") or "max-age=60")]
    if (vary := seen.get("X-Vary")) is not None:
        lines.append(("Vary", vary))
    await wire.send(respond(seen.get("X-User-Id") or "nobody", *lines))


@pytest.mark.parametrize(
    ("rule", "key", "said", "told"),
    [
        ("by itself it is nobody else's", {}, [], ["7", "8"]),
        ("the origin may give it to all", {}, ["X-Say: public, max-age=60"], ["7", "7"]),
        ("it may vary by it", {}, ["X-Vary: X-User-Id"], ["7", "8"]),
        ("it may be keyed", {"headers": ["X-User-Id"]}, [], ["7", "8"]),
    ],
)
async def test_what_a_trusted_proxy_says_of_the_user_parts_users(
    start_cached: StartCached, origin: Origin, rule: str, key: Any, said: list[str], told: list[str]
) -> None:
    cached = await start_cached(server=TRUSTING, key=key)
    origin.answers["/a"] = greeting
    for _ in range(2):
        users = [await cached.ask("/a", f"X-User-Id: {user}", *said) for user in (7, 8)]
        assert [user.body.decode() for user in users] == told, rule
    assert origin.asked() == (4 if rule.startswith("by itself") else len(set(told)))


async def test_from_a_stranger_such_a_header_says_nothing(
    start_cached: StartCached, origin: Origin
) -> None:
    cached = await start_cached(server=TRUSTING | {"trusted_proxies": []})
    origin.answers["/a"] = greeting
    for user in (7, 8):
        assert (await cached.ask("/a", f"X-User-Id: {user}")).body == b"nobody"
    assert origin.asked() == 1


async def test_credentials_for_a_proxy_may_be_the_origins_to_read(
    cached: Cached, origin: Origin
) -> None:
    origin.answers["/a"] = respond("hello", MAX_AGE)
    for asked in (1, 2):
        await cached.ask("/a", "Proxy-Authorization: Basic QTpC")
        assert (origin.asked(), cached.stored()) == (asked, 0)
    assert origin.seen[-1].get("Proxy-Authorization") == "Basic QTpC"


async def told_scheme(wire: Wire, seen: Seen) -> None:
    """As an origin that sends plain requests to https."""
    if seen.get("X-Forwarded-Proto") == "https":
        await wire.send(respond("hello", MAX_AGE))
    else:
        to = ("Location", "https://h.test/a")
        await wire.send(respond("", MAX_AGE, to, status="301 Moved Permanently"))


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("x-forwarded-for", "X-Forwarded-Proto: https"),
        ("x-forwarded-for", "X-Forwarded-Proto: https, http"),
        ("x-forwarded-for", "X-Forwarded-Ssl: on"),
        ("forwarded", "Forwarded: for=192.0.2.1;proto=https"),
    ],
)
async def test_no_redirect_to_https_answers_who_came_by_it(
    start_cached: StartCached, origin: Origin, header: str, line: str
) -> None:
    trusting = {"trusted_proxies": ["127.0.0.1/32"], "client_ip_header": header}
    cached = await start_cached(server=trusting)
    origin.answers["/a"] = told_scheme
    assert (await cached.ask("/a")).status == 301
    assert status_of(await cached.ask("/a")).startswith("hit")
    assert status_of(await cached.ask("/a", line)) == "fwd=uri-miss; stored"
    assert status_of(await cached.ask("/a", line)).startswith("hit")
    assert (await cached.ask("/a")).status == 301


async def test_a_stranger_makes_no_scheme_up(cached: Cached, origin: Origin) -> None:
    origin.answers["/a"] = told_scheme
    await cached.ask("/a", "X-Forwarded-Proto: https")
    hit = await cached.ask("/a")
    assert (hit.status, status_of(hit)[:3]) == (301, "hit")


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
