"""A process that hammers one key of each algorithm at once, for test_redis_exactness.py.

    python hammer.py PORT REQUESTS

Asks each limit of `LIMITS` REQUESTS times, all in flight together, and prints how many each has
admitted. Then as many requests of two limits, of which the second is the narrow one.
"""

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from limits_kit import DAY, SECOND, charge, limits_on, variant
from redisservers import RedisServer

from proxy.core.limits.decision import Rate

AGES = 36_500 * DAY
LIMITS = {
    "fixed_window": variant("fixed_window", Rate(50, AGES)),
    "sliding_window": variant("sliding_window", Rate(50, AGES)),
    "sliding_log": variant("sliding_log", Rate(50, DAY)),
    "token_bucket": variant("token_bucket", Rate(1, DAY), 50),
    "leaky_bucket": variant("leaky_bucket", Rate(1, DAY), 49),
}
REFILLING = variant("token_bucket", Rate(100, SECOND), 20, space="refilling")
WIDE = variant("fixed_window", Rate(10_000, AGES), space="wide")
NARROW = variant("sliding_log", Rate(50, DAY), space="narrow")


async def hammer(port: int, requests: int) -> dict[str, int]:
    server = RedisServer(Path(), port=port)
    admitted = {}
    async with limits_on(server) as store:

        async def ask(name: str, *limits) -> None:
            decisions = await store.admit([charge(limit) for limit in limits])
            admitted[name] = admitted.get(name, 0) + all(d.allowed for d in decisions)

        todo = [ask(name, limit) for name, limit in LIMITS.items() for _ in range(requests)]
        todo += [ask("refilling", REFILLING) for _ in range(requests)]
        todo += [ask("both", WIDE, NARROW) for _ in range(requests)]
        await asyncio.gather(*todo)
    return admitted


if __name__ == "__main__":
    print(json.dumps(asyncio.run(hammer(int(sys.argv[1]), int(sys.argv[2])))))
