"""Three times what an upstream can do is offered to it: what is admitted is as much as it can do,
and is answered soon; the rest is refused at once.

Gateway, clients and origin are processes of their own (the origin is the test's).
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from overload_kit import WARM_UP
from rawhttp import RawOrigin, Seen, Wire, free_port

PLACES: Final = 10
SERVICE: Final = 0.05
CAPACITY: Final = PLACES / SERVICE
SECONDS: Final = 2.2
TURNS: Final = 3
"""Whoever else uses this machine can only make the figures worse: one turn of so many must come
close to what is possible. None may be beyond what a busy machine explains:"""
LEAST_GOODPUT: Final = 0.6
"""of what is possible,"""
MOST_DELAY: Final = 1.0
"""seconds more than it should be. Without a limit to the line the last would wait for 4.4 s."""

pytestmark = pytest.mark.asyncio(loop_scope="module")

TERMS: Final = {
    # The line is full before anyone has waited long: its length refuses.
    "length": {"queue": 100, "queue_timeout": "1s"},
    # The line is never full: the time in it refuses.
    "time": {"queue": 10000, "queue_timeout": "300ms"},
}
QUEUE_TIMEOUTS: Final = {"length": 1.0, "time": 0.3}


class Busy(RawOrigin):
    """Serves PLACES requests at a time, each for SERVICE seconds. `served` is how long each of
    them really took: a loop's clock is late, never early."""

    def __init__(self) -> None:
        super().__init__(self._serve_one)
        self._places = asyncio.Semaphore(PLACES)
        self.served: list[float] = []

    async def _serve_one(self, wire: Wire, seen: Seen) -> None:
        async with self._places:
            began = time.monotonic()
            await asyncio.sleep(SERVICE)
            await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            self.served.append(time.monotonic() - began)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def origin() -> AsyncIterator[Busy]:
    origin = Busy()
    await origin.start()
    yield origin
    await origin.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port(origin: Busy, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    port, admin = free_port(), free_port()
    upstreams = {
        name: {"endpoints": [f"http://127.0.0.1:{origin.port}"], "max_connections": PLACES} | terms
        for name, terms in TERMS.items()
    }
    routes = [{"name": n, "match": {"path": f"/{n}"}, "upstream": n} for n in TERMS]
    config = tmp_path_factory.mktemp("overload") / "gateway.yaml"
    config.write_text(
        json.dumps(
            {
                "server": {"listen": f"127.0.0.1:{port}"},
                "admin": {"listen": f"127.0.0.1:{admin}"},
                "log": {"level": "error"},
                "policies": [],
                "upstreams": upstreams,
                "routes": routes,
            }
        )
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", "run", "-c", str(config)
    )
    async with asyncio.timeout(30):
        while True:
            try:
                await (await Wire.open(port)).close()
                break
            except ConnectionError:
                await asyncio.sleep(0.05)
    yield port
    process.terminate()
    async with asyncio.timeout(10):
        await process.wait()


async def offer(port: int, target: str) -> dict[str, Any]:
    """What became of three times the capacity (see `overload_kit.Offered`)."""
    client = Path(__file__).with_name("overload_kit.py")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(client), str(port), target, str(3 * CAPACITY), str(SECONDS)),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    offered = json.loads(said)
    assert isinstance(offered, dict)
    return offered


def percentile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


@pytest.mark.parametrize("by", list(TERMS))
async def test_overload_is_refused_before_it_delays(
    by: str, origin: Busy, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(TURNS):
        origin.served.clear()
        offered = await offer(port, f"/{by}")
        good, refused = offered["good"], offered["refused"]
        goodput = offered["good_in_time"] / (SECONDS - WARM_UP)
        # What this origin could do on this machine today: 50 ms are 51 and more where it is busy.
        possible = PLACES * len(origin.served) / sum(origin.served)
        p99 = percentile(good, 0.99)
        with capsys.disabled():
            print(
                f"\noverload, refused by {by}: offered {3 * CAPACITY:.0f}/s (late by at most "
                f"{offered['lag'] * 1e3:.0f} ms), goodput {goodput:.0f}/s of {possible:.0f} "
                f"possible, admitted p50 {percentile(good, 0.5) * 1e3:.0f} ms, p99 "
                f"{p99 * 1e3:.0f} ms; {len(refused)} refused, p50 "
                f"{percentile(refused, 0.5) * 1e3:.0f} ms"
            )
        assert offered["other"] == []
        assert len(good) + len(refused) == int(3 * CAPACITY * SECONDS)
        longest = QUEUE_TIMEOUTS[by] + 3 * SERVICE
        assert goodput >= LEAST_GOODPUT * possible
        assert p99 < longest + MOST_DELAY
        if goodput >= 0.9 * possible and p99 < longest:
            return
    raise AssertionError(f"not once in {TURNS} turns")
