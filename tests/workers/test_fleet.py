"""Several processes behind one port and one admin, on the wire: what dies is replaced, what is
reloaded is reloaded everywhere, what was counted stays counted, what runs is finished."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from fleet_kit import BIG, GET, Fleet, kill, left, lives, until
from rawhttp import Cut, Seen, Wire, echo

StartFleet = Callable[..., Awaitable[Fleet]]


async def rounds(fleet: Fleet) -> set[str | None]:
    """The configurations that answer."""
    return {answer.get("x-round") for answer in await fleet.get_many()}


async def test_both_workers_serve(start_fleet: StartFleet) -> None:
    fleet = await (await start_fleet()).until_ready()
    clients = [await Wire.open(fleet.port) for _ in range(32)]
    counts = [left(await client.ask(GET.format("/"))) for client in clients]
    assert counts.count(BIG - 1) == 2  # the first request of each
    status = (await fleet.ask_admin("/status")).json()
    assert status["connections"] == len(clients)
    assert status["routes"][0]["requests"] == len(clients)
    assert status["upstreams"][0]["idle"] > 0
    for client in clients:
        await client.close()
    assert [worker["restarts"] for worker in status["ready"]["workers"]] == [0, 0]
    build = await fleet.samples("sluicegate_build_info")
    assert [sample.value for sample in build] == [1]


async def test_a_killed_worker_is_replaced_and_nobody_is_refused(start_fleet: StartFleet) -> None:
    fleet = await (await start_fleet()).until_ready()
    done = asyncio.Event()
    answered = cut = 0

    async def load() -> None:
        nonlocal answered, cut
        while not done.is_set():
            async with await Wire.open(fleet.port) as client:  # ConnectionRefusedError fails it
                try:
                    answered += (await client.ask(GET.format("/"))).status == 200
                except (Cut, ConnectionResetError):
                    cut += 1

    before = await fleet.pids()
    clients = [asyncio.create_task(load()) for _ in range(8)]
    await until(lambda: true(answered > 50), "the load has begun")
    kill(before[0])
    await fleet.until_replaced(before[:1])
    then = answered
    await until(lambda: true(answered > then + 50), "the load goes on")
    done.set()
    await asyncio.gather(*clients)
    after = await fleet.pids()
    assert after[1] == before[1]
    assert cut <= 8  # at most what each client had in that worker
    assert {answer.status for answer in await fleet.get_many()} == {200}
    workers = (await fleet.ready())["workers"]
    assert [worker["restarts"] for worker in workers] == [1, 0]


async def true(value: bool) -> bool:
    return value


async def test_totals_outlive_a_worker(start_fleet: StartFleet) -> None:
    fleet = await (await start_fleet()).until_ready()
    await fleet.get_many(40)
    assert await fleet.requests() == 40
    pids = await fleet.pids()
    for pid in pids:
        kill(pid)
    await fleet.until_replaced(pids)
    assert await fleet.requests() == 40
    await fleet.get_many(24)
    assert await fleet.requests() == 64
    decisions = await fleet.samples("sluicegate_limit_decisions_total")
    assert {s.labels["decision"]: s.value for s in decisions}["allowed"] == 64
    counts = await fleet.samples("sluicegate_request_duration_seconds_count")
    assert {s.labels["route"]: s.value for s in counts} == {"none": 0, "all": 64}
    in_flight = await fleet.samples("sluicegate_in_flight_requests")
    assert [sample.value for sample in in_flight] == [0]


async def test_a_reload_reaches_every_worker(start_fleet: StartFleet) -> None:
    fleet = await (await start_fleet()).until_ready()
    open_before = [await Wire.open(fleet.port) for _ in range(16)]
    assert await rounds(fleet) == {"first"}
    fleet.write("second")
    answer = await fleet.ask_admin("/config/reload", "POST")
    assert answer.status == 200
    assert await rounds(fleet) == {"second"}
    for client in open_before:
        assert (await client.ask(GET.format("/"))).get("x-round") == "second"
        await client.close()

    fleet.write("third")
    fleet.signal(signal.SIGHUP)

    async def third() -> bool:
        return await rounds(fleet) == {"third"}

    await until(third, "a reload by signal")
    reloads = await fleet.samples("sluicegate_config_reloads_total")
    counts = {s.labels["outcome"]: s.value for s in reloads}
    assert counts["failed"] == 0
    assert 2 <= counts["ok"] <= 4  # whoever watches the files may have seen either change first


async def test_a_bad_reload_changes_nothing_anywhere(start_fleet: StartFleet) -> None:
    fleet = await (await start_fleet()).until_ready()
    fleet.write("second", listen="127.0.0.1:1")
    answer = await fleet.ask_admin("/config/reload", "POST")
    assert "cannot change while running" in str(answer.json()["errors"])
    assert await rounds(fleet) == {"first"}

    fleet.write("second")
    assert (await fleet.ask_admin("/config/reload", "POST")).status == 200
    fleet.write("third", server="  max_header_bytes: no")
    answer = await fleet.ask_admin("/config/reload", "POST")
    assert answer.status == 422
    assert "max_header_bytes" in str(answer.json()["errors"])
    assert await rounds(fleet) == {"second"}

    # A successor has what was checked, not what is on disk.
    for pid in await fleet.pids():
        kill(pid)
    # Nobody but the kernel listens now: these wait for the successors.
    assert await rounds(fleet) == {"second"}


async def test_the_log_says_what_is_served_and_when_a_bad_reload_is_mended(
    start_fleet: StartFleet,
) -> None:
    fleet = await (await start_fleet()).until_ready()
    fleet.write("second", server="  max_header_bytes: no")
    assert (await fleet.ask_admin("/config/reload", "POST")).status == 422
    fleet.write("second")
    assert (await fleet.ask_admin("/config/reload", "POST")).status == 200
    fleet.signal(signal.SIGTERM)
    _, log = await fleet.end()
    assert log.count("the configuration on disk is valid again") == 1
    assert f" listens on 127.0.0.1:{fleet.port} (admin 127.0.0.1:{fleet.admin}, store " in log


async def test_a_reset_reaches_every_worker(start_fleet: StartFleet) -> None:
    fleet = await (await start_fleet(rate=3)).until_ready()
    statuses = [answer.status for answer in await fleet.get_many()]
    assert statuses.count(200) == 6  # three in each process
    assert {answer.status for answer in await fleet.get_many()} == {429}
    assert (await fleet.ask_admin("/limits/counted?key=", "DELETE")).status == 422
    assert (await fleet.ask_admin("/limits/counted", "DELETE")).status == 204
    statuses = [answer.status for answer in await fleet.get_many()]
    assert statuses.count(200) == 6


async def test_a_drain_finishes_what_runs(start_fleet: StartFleet) -> None:
    release = asyncio.Event()
    waiting = 0

    async def script(wire: Wire, seen: Seen) -> None:
        nonlocal waiting
        waiting += 1
        await release.wait()
        await echo(wire, seen)

    fleet = await (
        await start_fleet(script, server="  drain_delay: 2s\n  health_path: /-/ready")
    ).until_ready()
    pids = await fleet.pids()
    clients = [await Wire.open(fleet.port) for _ in range(12)]
    for client in clients:
        await client.send(GET.format("/"))
    await until(lambda: true(waiting == 12), "all are in flight")
    fleet.signal(signal.SIGTERM)

    async def told() -> bool:
        return not await fleet.is_ready() and (await fleet.get("/-/ready")).status == 503

    await until(told, "readiness drops first")
    late = await asyncio.gather(*(fleet.get("/-/ready") for _ in range(16)))
    assert {answer.get("connection") for answer in late} == {"close"}

    async def refused() -> bool:
        try:
            await (await Wire.open(fleet.port)).close()
        except ConnectionRefusedError:
            return True
        except ConnectionError:  # came while the last worker closed its socket
            pass
        return False

    await until(refused, "the port is closed")
    assert (await fleet.ready())["reason"] == "draining"
    release.set()
    for client in clients:
        answer = await client.read_answer()
        assert (answer.status, answer.get("connection")) == (200, "close")
        await client.close()
    status, log = await fleet.end()
    assert (status, [pid for pid in pids if lives(pid)]) == (0, [])
    assert "ERROR" not in log


async def test_a_straggler_is_killed(start_fleet: StartFleet) -> None:
    """A worker that does not get to its drain must not keep the others."""
    fleet = await (await start_fleet(echo, "hasty", server="  drain_timeout: 0s")).until_ready()
    pids = await fleet.pids()
    os.kill(pids[0], signal.SIGSTOP)
    fleet.signal(signal.SIGTERM)
    assert (await fleet.end())[0] == 0
    assert [pid for pid in pids if lives(pid)] == []


async def test_asked_twice_it_does_not_wait(start_fleet: StartFleet) -> None:
    waiting = 0

    async def script(wire: Wire, seen: Seen) -> None:
        nonlocal waiting
        waiting += 1
        await asyncio.Event().wait()

    fleet = await (await start_fleet(script)).until_ready()
    pids = await fleet.pids()
    async with await Wire.open(fleet.port) as client:
        await client.send(GET.format("/"))
        await until(lambda: true(waiting == 1), "it is in flight")
        fleet.signal(signal.SIGTERM)

        async def draining() -> bool:
            return not await fleet.is_ready()

        await until(draining, "it drains")
        fleet.signal(signal.SIGTERM)
        status, _ = await fleet.end()
    assert status == 1
    # A process that was killed is there for as long as the kernel takes to clear it away.
    await until(lambda: true(not any(map(lives, pids))), "its workers are gone")


async def test_workers_end_with_their_supervisor(start_fleet: StartFleet) -> None:
    release = asyncio.Event()
    waiting = 0

    async def script(wire: Wire, seen: Seen) -> None:
        nonlocal waiting
        waiting += 1
        await release.wait()
        await echo(wire, seen)

    fleet = await (await start_fleet(script)).until_ready()
    pids = await fleet.pids()
    client = await Wire.open(fleet.port)
    await client.send(GET.format("/"))
    await until(lambda: true(waiting == 1), "it is in flight")
    fleet.signal(signal.SIGKILL)
    process = fleet.process
    assert process is not None
    await until(lambda: true(process.returncode is not None), "the supervisor is dead")
    release.set()
    assert (await client.read_answer()).status == 200
    await client.close()
    await until(lambda: true(not any(map(lives, pids))), "no worker is left")
    await fleet.end()


async def test_a_crash_loop_backs_off(start_fleet: StartFleet) -> None:
    fleet = await (await start_fleet()).until_ready()
    steady = (await fleet.pids())[1]
    loop = asyncio.get_running_loop()
    ends = loop.time() + 1.4
    killed = set()
    while loop.time() < ends:
        for pid in await fleet.pids():
            if pid != steady and pid not in killed:
                kill(pid)
                killed.add(pid)
        await asyncio.sleep(0.01)
    # The next come at once, then 0.25, 0.5 and 1 s later: at most the fourth dies within 1.4 s.
    assert 2 <= len(killed) <= 4
    state = await fleet.ready()
    assert (state["ready"], state["reason"]) == (False, "1 of 2 workers serve")
    await fleet.until_ready()
    assert {answer.status for answer in await fleet.get_many()} == {200}


async def test_workers_that_never_start_end_the_gateway(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(echo, "broken")
    status, log = await fleet.end()
    assert status == 1
    assert "did not start" in log


async def test_unix_socket(start_fleet: StartFleet, tmp_path: Path) -> None:
    path = tmp_path / "gate.sock"
    fleet = await (await start_fleet(listen=f"unix:{path}")).until_ready()
    for pid in await fleet.pids():
        kill(pid)
    async with Wire(*await asyncio.open_unix_connection(str(path))) as client:
        assert (await client.ask(GET.format("/"))).status == 200
    await fleet.until_ready()
    fleet.signal(signal.SIGTERM)
    assert (await fleet.end())[0] == 0
    assert not path.exists()
