"""Which endpoints are taken: those that checks find well, and that accept connections."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from rawhttp import Seen, Wire, answering, free_port
from relay import Fault, Relay
from retries_kit import Bench, Origin, Running, head, in_turn, resets, silent, until, well

ILL: Final = answering(head("500 Ill"))
CHECK: Final = {
    "path": "/healthz",
    "interval": "50ms",
    "timeout": "50ms",
    "unhealthy_after": 3,
    "healthy_after": 2,
}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Bench(tmp_path) as bench:
        yield bench


def checked(**changes: Any) -> dict[str, Any]:
    return {"health_check": CHECK | changes}


async def statuses(gateway: Running, number: int) -> set[int]:
    """The statuses of so many requests, one after the other."""
    return {(await gateway.ask()).status for _ in range(number)}


def checking() -> int:
    """How many endpoints are being checked."""
    return sum(task.get_name().startswith("check of ") for task in asyncio.all_tasks())


# Health.


async def refuses(wire: Wire, seen: Seen) -> None:
    raise AssertionError("nobody listens")


NOT_WELL: Final = {
    "500": ILL,
    "404": answering(head("404 None")),
    "junk": answering(b"junk\r\n\r\n"),
    "interim": answering(b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "reset": resets,
    "silent": silent,
    "refused": refuses,
}


async def test_endpoints_that_are_not_well_go_out_and_come_back(bench: Bench) -> None:
    good = await bench.origin()
    bad = {name: await bench.origin() for name in NOT_WELL}
    gateway = await bench.gateway(*bad.values(), good, upstream=checked())
    everyone = len(bad) + 1
    assert await statuses(gateway, everyone) == {200}
    assert {len(origin.seen) for origin in (*bad.values(), good)} == {1}

    before = {name: len(origin.checks) for name, origin in bad.items()}
    for name, origin in bad.items():
        origin.health = NOT_WELL[name]
    await bad["refused"].stop()
    await until(lambda: gateway.up() == [False] * len(bad) + [True])
    for name, shown in zip(bad, gateway.upstream()["endpoints"], strict=False):
        assert shown["check"], name
        if name != "refused":
            assert len(bad[name].checks) - before[name] >= 3, name
    assert await statuses(gateway, 5) == {200}
    assert {name for name, origin in bad.items() if len(origin.seen) != 1} == set()
    assert len(good.seen) == 6

    for origin in bad.values():
        origin.health = well
    await bad["refused"].start()
    await until(lambda: all(gateway.up()))
    await until(lambda: not any("check" in one for one in gateway.upstream()["endpoints"]))
    assert await statuses(gateway, everyone) == {200}
    assert {name for name, origin in bad.items() if len(origin.seen) != 2} == set()


@pytest.mark.parametrize("status", ["204 No Content", "302 Found"])
async def test_any_2xx_and_3xx_is_well(bench: Bench, status: str) -> None:
    origin = await bench.origin()
    origin.health = answering(head(status))
    gateway = await bench.gateway(origin, upstream=checked())
    await until(lambda: len(origin.checks) >= 5)
    assert gateway.up() == [True]


async def test_fewer_failures_in_a_row_than_unhealthy_after_do_no_harm(bench: Bench) -> None:
    origin = await bench.origin()
    origin.health = in_turn(ILL, ILL, well, ILL, ILL, well)
    gateway = await bench.gateway(origin, upstream=checked(interval="100ms", timeout="100ms"))
    await until(lambda: len(origin.checks) >= 7 or not gateway.up()[0])
    assert gateway.up() == [True]


async def test_a_check_has_the_endpoints_own_host_and_path(bench: Bench) -> None:
    origin = await bench.origin()
    await bench.gateway(
        f"http://127.0.0.1:{origin.port}/base", upstream=checked(path="/healthz?deep=1")
    )
    await until(lambda: origin.checks)
    check = origin.checks[0]
    assert (check.method, check.target) == ("GET", "/base/healthz?deep=1")
    assert check.get("Host") == f"127.0.0.1:{origin.port}"
    assert (check.get("User-Agent") or "").startswith("sluicegate/")
    assert not check.all("Via")


async def test_a_check_over_a_unix_socket(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "origin"
    origin = await bench.origin(path=path)
    gateway = await bench.gateway(f"http+unix://{path}", upstream=checked())
    await until(lambda: len(origin.checks) >= 4)
    assert origin.checks[0].get("Host") == "localhost"
    assert gateway.up() == [True]
    origin.health = ILL
    await until(lambda: gateway.up() == [False])


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_check_over_tls(bench: Bench, tmp_path: Path, trusted: bool) -> None:
    authority, other = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    (authority if trusted else other).cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    origin = await bench.origin(tls=context)
    gateway = await bench.gateway(
        f"https://127.0.0.1:{origin.port}",
        upstream=checked(interval="200ms", timeout="200ms", unhealthy_after=2)
        | {"tls": {"ca": str(tmp_path / "ca.pem")}},
    )
    if trusted:
        await until(lambda: len(origin.checks) >= 3)
        assert gateway.up() == [True]
        assert origin.checks[0].get("Host") == f"127.0.0.1:{origin.port}"
    else:
        await until(lambda: gateway.up() == [False])
        assert origin.checks == []


async def test_with_none_up_requests_are_refused_at_once(bench: Bench) -> None:
    """Also where they would have to wait in line first; they are not tried again."""
    origin = await bench.origin(silent)
    gateway = await bench.gateway(
        origin,
        upstream=checked() | {"max_connections": 1, "queue_timeout": "20s"},
        retry={"on": ["connect_error", 503], "backoff": "5s", "backoff_max": "5s"},
    )
    async with await Wire.open(gateway.port) as holder:
        await holder.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: origin.seen)
        origin.health = ILL
        await until(lambda: gateway.up() == [False])
        before = time.monotonic()
        answer = await gateway.ask()
        assert time.monotonic() - before < 5
    assert (answer.status, answer.get("Retry-After")) == (503, "1")
    assert answer.json()["type"] == "urn:sluicegate:problem:no-endpoint"
    assert len(origin.seen) == 1


async def test_a_check_needs_no_slot_and_takes_no_connection(bench: Bench) -> None:
    origin = await bench.origin(in_turn(well, silent))
    gateway = await bench.gateway(
        origin, upstream=checked() | {"max_connections": 1, "idle_timeout": "60s"}
    )

    async def more_checks() -> None:
        there = len(origin.checks)
        await until(lambda: len(origin.checks) >= there + 4)
        assert gateway.up() == [True]

    assert (await gateway.ask()).status == 200
    await more_checks()
    assert gateway.upstream()["idle"] == 1  # the pooled connection is still there
    async with await Wire.open(gateway.port) as client:
        await client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: len(origin.seen) == 2)
        await more_checks()


async def test_a_reload_ends_the_old_checks_and_begins_the_new(bench: Bench) -> None:
    origin = await bench.origin()
    gateway = await bench.gateway(origin, upstream=checked())

    def asked(path: str) -> int:
        return sum(check.target == path for check in origin.checks)

    await until(lambda: asked("/healthz") >= 2)
    await gateway.reload(**checked(path="/healthz2"))
    await until(lambda: asked("/healthz2") >= 1)
    before = asked("/healthz")
    await until(lambda: asked("/healthz2") >= 5)
    assert asked("/healthz") == before

    assert checking() == 1

    await gateway.reload(health_check=None)
    await until(lambda: checking() == 0)


async def test_a_reload_that_does_not_change_the_upstream_keeps_what_is_known(
    bench: Bench,
) -> None:
    bad, good = await bench.origin(), await bench.origin()
    bad.health = ILL
    gateway = await bench.gateway(bad, good, upstream=checked())
    await until(lambda: gateway.up() == [False, True])
    await gateway.reload()
    assert gateway.up() == [False, True]
    assert checking() == 2
    bad.health = well
    await until(lambda: all(gateway.up()))  # and the checks go on


@pytest.mark.parametrize("path", ["/healthz", "/healthz2"])
async def test_a_reload_that_changes_the_upstream_forgets_no_endpoint(
    bench: Bench, path: str
) -> None:
    """One that is down stays down while the other one goes on; but by another check it is as good
    as any until that has failed often enough."""
    bad, good = await bench.origin(), await bench.origin()
    bad.health = ILL
    gateway = await bench.gateway(bad, good, upstream=checked())
    await until(lambda: gateway.up() == [False, True])
    await gateway.reload(read_timeout="29s", **checked(path=path, unhealthy_after=1000))
    assert gateway.up() == [path != "/healthz", True]
    await gateway.ask()
    await gateway.ask()
    assert len(bad.seen) == (path != "/healthz")
    bad.health = well
    await until(lambda: all(gateway.up()))


async def test_stopping_ends_a_check_under_way(bench: Bench) -> None:
    origin = await bench.origin()
    origin.health = silent
    gateway = await bench.gateway(origin, upstream=checked(interval="30s", timeout="30s"))
    await until(lambda: origin.checks)
    await gateway.gateway.stop()
    await until(lambda: origin.open == 0)
    await until(lambda: checking() == 0)


# Ejection: what requests meet.


async def test_an_endpoint_that_refuses_is_avoided_while_there_is_another(bench: Bench) -> None:
    port = free_port()
    good = await bench.origin()
    gateway = await bench.gateway(port, good)
    assert (await gateway.ask()).status == 502
    assert gateway.avoided() == [True, False]
    assert await statuses(gateway, 10) == {200}

    back = await bench.origin(port=port)
    await until(lambda: gateway.avoided() == [False, False])
    assert await statuses(gateway, 4) == {200}
    assert len(back.seen) == 2


async def test_after_an_ejection_one_request_tries_for_all(bench: Bench) -> None:
    """Where packets vanish, every request that tried would wait for connect_timeout."""
    good = await bench.origin()
    async with Relay(good.port) as relay:
        relay.suffer(Fault("connect", "ignore"))
        gateway = await bench.gateway(relay.port, good, upstream={"connect_timeout": "200ms"})
        assert (await gateway.ask()).status == 502
        await until(lambda: gateway.avoided() == [False, False])
        answers = await asyncio.gather(*(gateway.ask() for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [200] * 9 + [502]


async def test_an_ejection_outlives_a_reload(bench: Bench) -> None:
    port = free_port()
    good = await bench.origin()
    gateway = await bench.gateway(port, good)
    assert (await gateway.ask()).status == 502
    await gateway.reload(read_timeout="29s")
    assert gateway.avoided() == [True, False]
    assert await statuses(gateway, 5) == {200}


async def test_the_last_endpoint_is_tried_though_it_refused(bench: Bench) -> None:
    port = free_port()
    gateway = await bench.gateway(port)
    assert await statuses(gateway, 3) == {502}
    await bench.origin(port=port)
    assert (await gateway.ask()).status == 200


async def test_a_check_that_goes_well_ends_an_ejection(bench: Bench) -> None:
    port = free_port()
    good = await bench.origin()
    gateway = await bench.gateway(port, good, upstream=checked(unhealthy_after=1000))
    assert await statuses(gateway, 2) == {502, 200}
    await until(lambda: gateway.avoided() == [False, False])
    assert await statuses(gateway, 2) == {502, 200}
    before = time.monotonic()
    back: Origin = await bench.origin(port=port)
    await until(lambda: gateway.avoided() == [False, False])
    assert time.monotonic() - before < 1.95  # the second ejection alone lasts two seconds
    assert await statuses(gateway, 2) == {200}
    assert len(back.seen) == 1
