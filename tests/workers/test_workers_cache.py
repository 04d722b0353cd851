"""Caches of several workers, as an operator sees and purges them: one call, every process."""

from collections.abc import Awaitable, Callable

from fleet_kit import Fleet
from rawhttp import answering

StartFleet = Callable[..., Awaitable[Fleet]]

FRESH = answering(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nok")
POLICIES = 'caches: {pages: {tags: ["page:{path.rest}"]}}'


async def outcomes(fleet: Fleet) -> dict[str, float]:
    samples = await fleet.samples("sluicegate_cache_requests_total")
    return {s.labels["outcome"]: s.value for s in samples if s.value}


async def test_a_purge_reaches_every_worker(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(FRESH)
    fleet.write("first", policies=POLICIES, keys="cache: pages")
    await fleet.until_ready()

    async def missed() -> int:
        """How many of many requests the cache had nothing for, counted on the wire."""
        answers = await fleet.get_many()
        assert {answer.body for answer in answers} == {b"ok"}
        return sum("; hit" not in str(answer.get("cache-status")) for answer in answers)

    await missed()
    assert await missed() == 0  # both workers have it
    status = (await fleet.ask_admin("/status")).json()
    assert status["cache"]["entries"] == 2
    assert status["caches"][0]["hit"] >= 48

    purged = await fleet.ask_admin("/cache/purge", "POST", '{"tags": ["page:other", "page:"]}')
    assert (purged.status, purged.json()) == (200, {"purged": 2})
    before = (await outcomes(fleet))["miss"]
    assert await missed() >= 2
    assert (await outcomes(fleet))["miss"] == before + 2  # one fetch in each process
    assert await missed() == 0

    explained = await fleet.ask_admin("/explain", "POST", '{"method": "GET", "target": "/"}')
    cache = explained.json()["cache"]
    assert cache["tags"] == ["page:"]
    assert cache["stored"] == []  # another Host is another key
    assert cache["decision"]["reason"] == "uri-miss"
    question = '{"method": "GET", "target": "/", "headers": [["Host", "a"]]}'
    cache = (await fleet.ask_admin("/explain", "POST", question)).json()["cache"]
    assert [one["tier"] for one in cache["stored"]] == ["memory"]
    assert cache["decision"] == {"action": "serve", "reason": "fresh", "tier": "memory"}
    purges = await fleet.samples("sluicegate_cache_purges_total")
    assert {s.labels["selector"]: s.value for s in purges if s.value} == {"tag": 2}
