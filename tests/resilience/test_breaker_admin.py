"""Circuits as an operator sees and steers them: `/breakers`, reloads, metrics, status, explain, and
the log."""

import asyncio
from typing import Any

import pytest
from resilience_kit import (
    BREAKER,
    BRIEF,
    Gate,
    Origin,
    Running,
    StartGateway,
    StartOrigin,
    ill,
    refused,
    respond,
    until,
    well,
)

MEMBERS = {"upstream", "state", "forced", "reason", "retry_in_s"}


# /breakers


async def test_every_circuit_is_told(
    start_gateway: StartGateway, origin: Origin, start_origin: StartOrigin
) -> None:
    bare, other = await start_origin(), await start_origin()
    gateway = await start_gateway(origin, others={"bare": bare, "other": (other, BREAKER)})
    lines = await gateway.circuits()
    assert [line["upstream"] for line in lines] == ["origin", "other"]
    for line in lines:
        assert set(line) >= MEMBERS
        assert (line["state"], line["forced"], line["reason"]) == ("closed", False, "")
        assert line["retry_in_s"] == 0
    await gateway.trip(origin)
    circuit = await gateway.circuit()
    assert (circuit["state"], circuit["forced"]) == ("open", False)
    assert circuit["reason"] == "2 failures in a row, the last: status 503"
    assert 50 < circuit["retry_in_s"] <= 66
    assert (await gateway.circuit("other"))["state"] == "closed"


async def test_kept_open_by_hand(start_gateway: StartGateway, origin: Origin) -> None:
    gateway = await start_gateway(origin, BRIEF)
    answer = await gateway.force("open")
    assert answer.status == 200
    assert set(answer.json()) >= MEMBERS
    assert (answer.json()["state"], answer.json()["forced"]) == ("open", True)
    first = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() < first + 0.4:  # open_for is 0.2 s, and ends nothing
        assert refused(await gateway.ask()) >= 1
        await asyncio.sleep(0.02)
    assert origin.asked == 0
    circuit = (await gateway.force("auto")).json()
    assert (circuit["state"], circuit["forced"]) == ("closed", False)
    assert (await gateway.ask()).status == 200


async def test_kept_closed_by_hand(start_gateway: StartGateway, origin: Origin) -> None:
    gateway = await start_gateway(origin)
    await gateway.trip(origin)
    circuit = (await gateway.force("closed")).json()
    assert (circuit["state"], circuit["forced"], circuit["retry_in_s"]) == ("closed", True, 0)
    origin.script = ill
    for _ in range(5):
        assert (await gateway.ask()).body == b"ill"
    assert (await gateway.circuit())["failed"] == 5
    await gateway.force("auto")
    for _ in range(2):  # what was counted by then is forgotten
        assert (await gateway.ask()).body == b"ill"
    refused(await gateway.ask())


@pytest.mark.parametrize("upstream", ["nobody", "bare", "orign"])
async def test_no_such_circuit(
    start_gateway: StartGateway, origin: Origin, start_origin: StartOrigin, upstream: str
) -> None:
    gateway = await start_gateway(origin, others={"bare": await start_origin()})
    answer = await gateway.force("open", upstream)
    assert answer.status == 404
    assert answer.get("Content-Type") == "application/problem+json"
    assert ("origin" in str(answer.json()["detail"])) == (upstream == "orign")


@pytest.mark.parametrize(
    "document",
    [
        {}, [], "open", None, {"state": "ajar"}, {"state": None}, {"state": ["open"]},
        {"state": "half-open"}, {"state": "open", "for": "5m"},
    ],
)  # fmt: skip
async def test_no_such_order(start_gateway: StartGateway, origin: Origin, document: Any) -> None:
    gateway = await start_gateway(origin)
    answer = await gateway.admin("/breakers/origin", "PUT", document)
    assert answer.status == 422
    assert (await gateway.circuit())["forced"] is False


# Reloads.


async def unrelated(gateway: Running, start_origin: StartOrigin) -> None:
    gateway.config["routes"][0]["response_headers"] = {"set": {"X-New": "1"}}


async def pool(gateway: Running, start_origin: StartOrigin) -> None:
    gateway.config["upstreams"]["origin"]["max_connections"] = 7


async def fallback(gateway: Running, start_origin: StartOrigin) -> None:
    gateway.policies["breakers"]["of-origin"]["fallback"] = {"status": 203, "body": "new"}


async def endpoints(gateway: Running, start_origin: StartOrigin) -> None:
    gateway.config["upstreams"]["origin"]["endpoints"] = [(await start_origin()).url]


async def terms(gateway: Running, start_origin: StartOrigin) -> None:
    gateway.policies["breakers"]["of-origin"]["consecutive_failures"] = 3


KEEPING, DROPPING = (unrelated, pool, fallback), (endpoints, terms)


@pytest.mark.parametrize("change", KEEPING)
async def test_a_reload_keeps_an_open_circuit(
    start_gateway: StartGateway, origin: Origin, start_origin: StartOrigin, change: Any
) -> None:
    gateway = await start_gateway(origin)
    await gateway.trip(origin)
    before = await gateway.circuit()
    await change(gateway, start_origin)
    await gateway.reload()
    answer = await gateway.ask()
    if change is fallback:
        assert (answer.status, answer.body) == (203, b"new")
    else:
        refused(answer)
    after = await gateway.circuit()
    assert 0 < after.pop("retry_in_s") <= before.pop("retry_in_s")
    assert after == before
    assert await gateway.metric("breaker_state", upstream="origin") == 2


@pytest.mark.parametrize("change", DROPPING)
async def test_a_reload_drops_a_circuit_of_other_settings(
    start_gateway: StartGateway, origin: Origin, start_origin: StartOrigin, change: Any
) -> None:
    gateway = await start_gateway(origin)
    await gateway.trip(origin)
    await change(gateway, start_origin)
    await gateway.reload()
    assert (await gateway.circuit())["state"] == "closed"
    assert await gateway.metric("breaker_state", upstream="origin") == 0
    assert (await gateway.ask()).status == 200


@pytest.mark.parametrize("change", [*KEEPING, *DROPPING])
@pytest.mark.parametrize("state", ["open", "closed"])
async def test_a_reload_keeps_what_is_forced(
    start_gateway: StartGateway, origin: Origin, start_origin: StartOrigin, change: Any, state: str
) -> None:
    gateway = await start_gateway(origin)
    await gateway.force(state)
    await change(gateway, start_origin)
    await gateway.reload()
    circuit = await gateway.circuit()
    assert (circuit["state"], circuit["forced"]) == (state, True)
    assert (await gateway.ask()).status == (
        200 if state == "closed" else 203 if change is fallback else 503
    )
    await gateway.force("auto")
    assert (await gateway.ask()).status == 200


async def test_a_reload_without_the_breaker(start_gateway: StartGateway, origin: Origin) -> None:
    gateway = await start_gateway(origin)
    await gateway.trip(origin)
    breaker = gateway.config["upstreams"]["origin"].pop("breaker")
    await gateway.reload()
    assert (await gateway.ask()).status == 200
    assert await gateway.circuits() == []
    assert (await gateway.force("open")).status == 404
    assert await gateway.metric("breaker_state", upstream="origin") == 0
    gateway.config["upstreams"]["origin"]["breaker"] = breaker
    await gateway.reload()
    assert (await gateway.ask()).status == 200


async def test_a_refused_reload_changes_nothing(
    start_gateway: StartGateway, origin: Origin
) -> None:
    gateway = await start_gateway(origin)
    await gateway.trip(origin)
    gateway.policies["breakers"]["of-origin"]["consecutive_failures"] = -1
    gateway.write()
    assert await gateway.gateway.reload() != []
    refused(await gateway.ask())


async def test_what_a_replaced_circuit_hears_is_nobodys_news(
    start_gateway: StartGateway, origin: Origin, start_origin: StartOrigin
) -> None:
    """Requests of before the reload end in the circuit that they began with: it may open, but it
    is not the upstream's any more."""
    gateway = await start_gateway(origin)
    origin.script = gate = Gate(respond("503 Busy"))
    old = [asyncio.create_task(gateway.ask()) for _ in range(3)]
    await until(lambda: gate.waiting == 3)
    await endpoints(gateway, start_origin)
    await gateway.reload()
    gate.open()
    assert [(await task).status for task in old] == [503] * 3
    assert (await gateway.ask()).status == 200
    assert await gateway.metric("breaker_state", upstream="origin") == 0
    assert (await gateway.transitions())["open"] == 0


# What is seen of it.


async def test_metrics(start_gateway: StartGateway, origin: Origin) -> None:
    gateway = await start_gateway(origin, BRIEF)

    async def state() -> float:
        return await gateway.metric("breaker_state", upstream="origin")

    await gateway.ask()
    assert await state() == 0
    assert await gateway.transitions() == {"closed": 0, "half-open": 0, "open": 0}
    await gateway.trip(origin)
    assert await state() == 2
    await gateway.until_due()
    assert await state() == 1  # as the next request finds it
    origin.script = gate = Gate()
    probe = asyncio.create_task(gateway.ask())
    await until(lambda: gate.waiting == 1)
    assert await state() == 1
    assert await gateway.transitions() == {"closed": 0, "half-open": 1, "open": 1}
    gate.open()
    await probe
    assert await state() == 0
    assert await gateway.transitions() == {"closed": 1, "half-open": 1, "open": 1}
    await gateway.force("open")
    assert await state() == 2
    assert await gateway.transitions() == {"closed": 1, "half-open": 1, "open": 2}
    refusals = await gateway.metric("requests_total", route="all", method="GET", status="503")
    await gateway.ask()
    assert refusals + 1 == await gateway.metric(
        "requests_total", route="all", method="GET", status="503"
    )


async def test_status_and_explain(start_gateway: StartGateway, origin: Origin) -> None:
    gateway = await start_gateway(origin)
    question = {"method": "GET", "target": "/a", "headers": [], "ip": "127.0.0.1"}
    for state in ("closed", "open"):
        if state == "open":
            await gateway.trip(origin)
        (line,) = (await gateway.admin("/status")).json()["breakers"]  # type: ignore[misc]
        assert (line["upstream"], line["state"]) == ("origin", state)
        explained = (await gateway.admin("/explain", "POST", question)).json()
        assert explained["breaker"] == {"name": "of-origin", "state": state}
    assert line["reason"] == "2 failures in a row, the last: status 503"


async def test_the_log(
    start_gateway: StartGateway, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start_gateway(origin, BRIEF, config={"log": {"level": "info"}})
    await gateway.trip(origin)
    await gateway.until_due()
    origin.script = well
    await gateway.ask()
    await gateway.force("open")
    said = [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name == "proxy.live"
    ]
    tripped = "breaker of origin: open, was closed: 2 failures in a row, the last: status 503; "
    assert said[0][0] == "WARNING"
    assert said[0][1].startswith(f"{tripped}asked again in 0.2 s")
    assert said[1:] == [
        ("INFO", "breaker of origin: half-open, was open: the open time is over"),
        ("INFO", "breaker of origin: closed, was half-open: 1 probe succeeded"),
        ("WARNING", "breaker of origin: is kept open by hand"),
        ("WARNING", "breaker of origin: open, was closed: forced open"),
    ]
