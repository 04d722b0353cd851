"""From the YAML to the wire: what each key of a cache changes, and what is purged by whom."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from rawhttp import Answer, RawOrigin, Seen, Wire, free_port

from proxy import logs
from proxy.app import Gateway

pytestmark = pytest.mark.usefixtures("lane")

GATEWAY = """\
server: {{listen: "127.0.0.1:{port}"}}
log: {{level: error}}
admin: {{listen: "127.0.0.1:{admin}"}}
policies: [policies.yaml]
upstreams: {{origin: {{endpoints: ["http://127.0.0.1:{origin}"]}}}}
routes:
  - {{name: thing, match: {{path: "/things/{{id}}"}}, upstream: origin, cache: x,
      invalidate: ["list", "thing:{{path.id}}"]}}
  - {{name: rest, match: {{path: "/{{id:path}}"}}, upstream: origin, cache: x}}
"""

Lines = list[tuple[str, str]]


class Site:
    """A gateway with one cache in front of an origin that counts, and answers as it is told."""

    def __init__(self) -> None:
        self.port, self.admin = free_port(), free_port()
        self.origin = RawOrigin(self._answer)
        self.status = "200 OK"
        self.lines: Lines = [("Cache-Control", "max-age=60")]
        self.gateway: Gateway | None = None

    async def start(self, folder: Path, cache: str, routes: str = "") -> None:
        await self.origin.start()
        policies = "limits: {dear: {rate: 2/h, key: [global], charge: miss}}\n"
        (folder / "policies.yaml").write_text(f"{policies}caches:\n  x: {cache}\n")
        path = folder / "gateway.yaml"
        gateway = GATEWAY.format(port=self.port, admin=self.admin, origin=self.origin.port)
        path.write_text(gateway.replace("routes:\n", f"routes:\n{routes}"))
        self.gateway = Gateway(path)
        await self.gateway.start()

    async def stop(self) -> None:
        if self.gateway is not None:
            await self.gateway.stop()
        await self.origin.stop()

    async def _answer(self, wire: Wire, seen: Seen) -> None:
        body = b"%05d" % len(self.origin.seen)
        head = f"HTTP/1.1 {self.status}\r\n" + "".join(f"{n}: {v}\r\n" for n, v in self.lines)
        await wire.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def ask(self, target: str, *lines: str, method: str = "GET") -> Answer:
        fields = "".join(f"{line}\r\n" for line in lines)
        async with await Wire.open(self.port) as wire:
            return await wire.ask(f"{method} {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n")

    async def told(self, target: str, *lines: str) -> str:
        """Our Cache-Status, without our name and without figures."""
        status = (await self.ask(target, *lines)).get("cache-status")
        assert status is not None
        return status.removeprefix("sluicegate; ").partition("; ttl=")[0]

    async def call(self, path: str, document: object) -> Answer:
        body = json.dumps(document)
        async with await Wire.open(self.admin) as wire:
            return await wire.ask(
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}"
            )


StartSite = Callable[..., Awaitable[Site]]


@pytest.fixture
async def start_site(tmp_path: Path) -> AsyncIterator[StartSite]:
    sites: list[Site] = []

    async def start(cache: str, routes: str = "") -> Site:
        sites.append(Site())
        await sites[0].start(tmp_path, cache, routes)
        return sites[0]

    yield start
    for site in sites:
        await site.stop()
    await asyncio.to_thread(logs.shutdown)


STORED, HIT, MISS = "fwd=uri-miss; stored", "hit", "fwd=uri-miss"


@pytest.mark.parametrize(
    ("rule", "cache", "status", "lines", "second"),
    [
        ("the origin's word is enough", "{}", 200, [("Cache-Control", "max-age=60")], HIT),
        ("silence is no leave", "{}", 200, [], MISS),
        ("default_ttl", "{default_ttl: 1m}", 200, [], HIT),
        ("ttl", "{ttl: 1m}", 200, [("Cache-Control", "max-age=0")], HIT),
        ("ttl lifts nothing", "{ttl: 1m}", 200, [("Cache-Control", "no-store")], MISS),
        ("ttl_by_status", "{ttl_by_status: {500: 1m}}", 500, [], HIT),
        ("of that status only", "{ttl_by_status: {404: 1m}}", 500, [], MISS),
        (
            "Set-Cookie",
            "{}",
            200,
            [("Cache-Control", "max-age=60"), ("Set-Cookie", "a=b")],
            MISS,
        ),
        (
            "store_set_cookie",
            "{store_set_cookie: true}",
            200,
            [("Cache-Control", "max-age=60"), ("Set-Cookie", "a=b")],
            HIT,
        ),
        ("max_object", "{max_object: 5B, ttl: 1m}", 200, [], HIT),
        ("beyond it", "{max_object: 4B, ttl: 1m}", 200, [], MISS),
    ],
)
async def test_what_is_kept(
    start_site: StartSite, rule: str, cache: str, status: int, lines: Lines, second: str
) -> None:
    site = await start_site(cache)
    site.status, site.lines = f"{status} X", lines
    assert (await site.told("/a")).startswith(MISS)
    answer = await site.ask("/a")
    assert str(answer.get("cache-status")).startswith(f"sluicegate; {second}")
    assert (int(answer.body) == 1) is (second == HIT)
    if second == HIT:
        assert answer.get("set-cookie") is None
        assert answer.get("age") == "0"


@pytest.mark.parametrize(
    ("rule", "key", "first", "second", "same"),
    [
        ("all of the query", "{}", "/a?x=1", "/a?x=2", False),
        ("none of it", "{query: none}", "/a?x=1", "/a?x=2", True),
        ("but some", "{query: {exclude: [utm_*]}}", "/a?x=1", "/a?x=1&utm_a=2", True),
        ("only some", "{query: {include: [x]}}", "/a?x=1&y=1", "/a?y=2&x=1", True),
        ("which count", "{query: {include: [x]}}", "/a?x=1", "/a?x=2", False),
    ],
)
async def test_what_of_the_query_tells_answers_apart(
    start_site: StartSite, rule: str, key: str, first: str, second: str, same: bool
) -> None:
    site = await start_site(f"{{key: {key}}}")
    assert await site.told(first) == STORED
    assert await site.told(second) == (HIT if same else STORED)


@pytest.mark.parametrize("by", ["purge", "purge of a host", "write"])
async def test_a_url_is_purged_in_each_cache_as_that_reads_it(
    start_site: StartSite, by: str
) -> None:
    """What ignores queries and what keys them are neighbours: `/things/7?page=2` is `/things/7` to
    the first alone."""
    caches = "{}\n  y: {key: {query: none}}\n  z: {key: {headers: [X-Tenant]}}"
    routes = "".join(
        f'  - {{name: {name}, match: {{path: "/things/{{id}}", headers: {{X-Cache: {name}}}}}, '
        f"upstream: origin{cache}}}\n"
        for name, cache in [("y", ", cache: y"), ("z", ", cache: z"), ("w", "")]
    )
    site = await start_site(caches, routes)
    targets = ["/things/7", "/things/7?page=2", "/things/7?page=3", "/things/8?page=2"]
    asked = [(target, f"X-Cache: {cache}") for target in targets for cache in "xyz"]
    for _ in range(2):
        told = {await site.told(*one) for one in asked}
    assert told == {HIT}
    if by == "write":
        await site.ask("/things/7?page=2", "Content-Length: 0", "X-Cache: w", method="POST")
    else:
        url = "/things/7?page=2" if by == "purge" else "http://h/things/7?page=2"
        assert (await site.call("/cache/purge", {"urls": [url]})).status == 200
    # Without queries three of these are one entry: the first to ask for it has it fetched again.
    assert [one for one in asked if await site.told(*one) != HIT] == [
        ("/things/7", "X-Cache: y"),
        ("/things/7?page=2", "X-Cache: x"),
        ("/things/7?page=2", "X-Cache: z"),
    ]


async def test_headers_and_cookies_tell_answers_apart(start_site: StartSite) -> None:
    site = await start_site("{key: {headers: [X-Tenant], cookies: [theme]}}")
    assert await site.told("/a", "X-Tenant: a", "Cookie: theme=dark") == STORED
    assert await site.told("/a", "X-Tenant: a", "Cookie: theme=dark") == HIT
    assert await site.told("/a", "X-Tenant: b", "Cookie: theme=dark") == STORED
    assert await site.told("/a", "X-Tenant: a", "Cookie: theme=light") == STORED
    assert await site.told("/a", "X-Tenant: a") == STORED


@pytest.mark.parametrize("exposed", [False, True])
async def test_tags_are_for_the_gateway_unless_exposed(
    start_site: StartSite, exposed: bool
) -> None:
    site = await start_site(f"{{expose_tags: {str(exposed).lower()}}}")
    site.lines += [("Surrogate-Key", "a b"), ("Cache-Tag", "c")]
    for _ in range(2):
        answer = await site.ask("/a")
        assert (answer.get("surrogate-key") is not None) is exposed
        assert (answer.get("cache-tag") is not None) is exposed


@pytest.mark.parametrize(
    ("rule", "selector", "gone"),
    [
        ("a tag of the policy", {"tags": ["thing:7"]}, ["/things/7", "/things/%37"]),
        ("a tag that is its UTF-8", {"tags": ["thing:é"]}, ["/things/%C3%A9"]),
        ("a tag of the origin", {"tags": ["all"]}, ["/things/7", "/things/%37", "/things/%C3%A9"]),
        ("nobody's tag", {"tags": ["thing:"]}, []),
        ("a path of every host", {"urls": ["/things/7"]}, ["/things/7", "/things/%37"]),
        ("a URL", {"urls": ["http://H:80/things/%C3%A9"]}, ["/things/%C3%A9"]),
        ("another host", {"urls": ["http://g/things/7"]}, []),
        ("a prefix", {"prefix": "/things/%c3"}, ["/things/%C3%A9"]),
        ("all", {"all": True}, ["/things/7", "/things/%37", "/things/%C3%A9"]),
    ],
)
async def test_a_purge_takes_what_it_names_and_no_neighbour(
    start_site: StartSite, rule: str, selector: dict[str, object], gone: list[str]
) -> None:
    site = await start_site('{tags: ["thing:{path.id}"]}')
    site.lines.append(("Surrogate-Key", "all other"))
    targets = ["/things/7", "/things/%37", "/things/%C3%A9"]
    for target in targets:
        assert await site.told(target) == STORED
    answer = await site.call("/cache/purge", selector)
    assert (answer.status, answer.json()) == (200, {"purged": 1})
    told = {target: await site.told(target) for target in targets}
    assert told == {target: STORED if target in gone else HIT for target in targets}


async def test_what_is_purged_softly_may_serve_stale(start_site: StartSite) -> None:
    site = await start_site("{stale_while_revalidate: 1m, early_refresh: 0}")
    assert await site.told("/a") == STORED
    assert (await site.call("/cache/purge", {"all": True, "soft": True})).status == 200
    stale = await site.ask("/a")
    assert int(stale.body) == 1
    assert str(stale.get("cache-status")).startswith("sluicegate; hit; ttl=")
    while int((await site.ask("/a")).body) == 1:
        await asyncio.sleep(0.002)


async def test_a_writer_invalidates(start_site: StartSite) -> None:
    site = await start_site('{tags: ["thing:{path.id}"]}')
    site.lines.append(("Surrogate-Key", "list"))
    for target in ("/things/7", "/things/8", "/other"):
        await site.ask(target)
    site.status, site.lines[-1] = "404 Not Found", ("X-None", "")
    await site.ask("/things/7", method="DELETE")
    assert await site.told("/things/7") == HIT  # an error changes nothing
    site.status = "204 No Content"
    site.lines = []
    async with await Wire.open(site.port) as wire:
        await wire.send("DELETE /things/7 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await wire.read_answer("HEAD")).status == 204
    site.status = "200 OK"
    for target in ("/things/7", "/things/8", "/other"):
        assert (await site.told(target)) == MISS, target


async def test_operators_see_why(start_site: StartSite) -> None:
    site = await start_site('{tags: ["thing:{path.id}"]}')
    await site.ask("/things/7")
    await site.ask("/things/7")
    site.lines = [("Cache-Control", "private")]
    await site.ask("/things/8")
    question = {"method": "GET", "target": "/things/7", "headers": [["Host", "h"]]}
    cache = (await site.call("/explain", question)).json()["cache"]
    assert isinstance(cache, dict)
    assert (cache["name"], cache["tags"]) == ("x", ["thing:7"])
    (stored,) = cache["stored"]
    assert (stored["status"], stored["tags"], stored["ttl_s"] >= 58) == (200, ["thing:7"], True)
    assert cache["decision"] == {"action": "serve", "reason": "fresh", "tier": "memory"}
    async with await Wire.open(site.admin) as wire:
        status = (await wire.ask("GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")).json()
    (told,) = status["caches"]  # type: ignore[misc]
    assert (told["hit"], told["miss"], told["not_stored"]) == (1, 2, {"private": 1})
    reasons = {outcome: last["reason"] for outcome, last in told["last"].items()}
    assert reasons == {"not_stored": "private", "miss": "uri-miss", "hit": "fresh"}
    assert all(0 <= last["ago_s"] < 60 for last in told["last"].values())
    assert status["cache"]["entries"] == 1  # type: ignore[index]
