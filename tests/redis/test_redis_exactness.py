"""Four processes on one key: never more is admitted than the algorithm allows, nor less."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from hammer import LIMITS, NARROW, WIDE
from limits_kit import charge, limits_on

PROCESSES, REQUESTS = 4, 40
HAMMER = Path(__file__).with_name("hammer.py")


def hammered(port):
    command = [sys.executable, str(HAMMER), str(port), str(REQUESTS)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(PROCESSES)]
    total = Counter()
    for process in running:
        out, _ = process.communicate(timeout=50)
        assert process.returncode == 0
        total.update(json.loads(out))
    return total


def server_time(server):
    seconds, micros = server.call("TIME")
    return int(seconds) * 1_000_000 + int(micros)


async def test_four_processes_on_one_key(redis_server):
    begun = server_time(redis_server)
    total = await asyncio.to_thread(hammered, redis_server.port)
    elapsed = server_time(redis_server) - begun
    assert {name: total[name] for name in LIMITS} == dict.fromkeys(LIMITS, 50)
    assert 20 <= total["refilling"] <= 20 + 100 * elapsed // 1_000_000
    assert total["both"] == 50
    async with limits_on(redis_server) as store:
        decisions = await store.admit([charge(WIDE, cost=0), charge(NARROW, cost=0)])
    # A request that the narrow limit refused has charged the wide one nothing.
    assert [d.remaining for d in decisions] == [10_000 - 50, 0]
