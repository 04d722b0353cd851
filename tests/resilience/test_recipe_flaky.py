"""The README's recipe for a flaky service, run as it is written: with one of two endpoints hanging,
no client sees anything but a wait."""

import asyncio
import json
from pathlib import Path

from resilience_kit import Running, StartOrigin, silent

from proxy import logs

README = Path(__file__).resolve().parents[2] / "README.md"
AT_ONCE = 32
"""Requests, half of them to the endpoint that hangs: over the breaker's `minimum_requests`, within
the retries' budget."""


def recipe() -> list[str]:
    """Its policies and its gateway file."""
    _, _, after = README.read_text().partition("**A flaky service of your own.**")
    return [block.partition("```")[0] for block in after.split("```yaml\n")[1:3]]


async def test_one_hanging_endpoint_of_two_costs_a_wait_and_no_answer(
    start_origin: StartOrigin, tmp_path: Path
) -> None:
    hangs, well = await start_origin(silent), await start_origin()
    policies, config = recipe()
    config = config.replace("http://orders-1:8000", hangs.url)
    config = config.replace("http://orders-2:8000", well.url)
    running = Running(tmp_path, {}, {})
    for section in ("server", "admin", "log"):
        config += f"{section}: {json.dumps(running.config[section])}\n"
    running.path.write_text(config)
    (tmp_path / "policies.yaml").write_text(policies)
    await running.gateway.start()
    try:
        asked = [running.ask("/orders/a") for _ in range(AT_ONCE)]
        answers = await asyncio.gather(*asked)
        assert [answer.status for answer in answers] == [200] * AT_ONCE
        assert len(hangs.seen) > 1
        assert await running.is_("closed", "orders")
    finally:
        await running.gateway.stop()
        await asyncio.to_thread(logs.shutdown)
