"""Offers requests at a constant rate, whatever becomes of them, and says what became of them.

    python overload_kit.py URL-PORT TARGET RATE SECONDS

A closed loop, as of most load generators, slows down with what it tests and so hides an overload.
Here request N is due at N / RATE, on an idle connection or on a new one, and its time counts from
when it was due.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Final

WARM_UP: Final = 0.5
"""Seconds after which answers count: by then the line is as long as it gets."""

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Offered:
    """What became of the requests. Times in seconds."""

    good: list[float] = field(default_factory=list)
    """The times of all that were answered 200."""
    refused: list[float] = field(default_factory=list)
    """The times of all that were answered 503 `overloaded` with a Retry-After."""
    other: list[str] = field(default_factory=list)
    """What else came."""
    good_in_time: int = 0
    """Answers of 200 between the warm-up and the last request."""
    lag: float = 0.0
    """The longest that a request went out late."""


class Client:
    """Asks for one target on as many connections as it takes."""

    def __init__(self, port: int, target: str) -> None:
        self._port = port
        self._request = f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        self._idle: list[_Connection] = []
        self.offered = Offered()

    async def offer(self, rate: float, seconds: float) -> None:
        """Offers the requests, and waits for all answers."""
        began = time.monotonic()
        self._counts = began + WARM_UP, began + seconds
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                due = began + number / rate
                if (early := due - time.monotonic()) > 0:
                    await asyncio.sleep(early)
                group.create_task(self._one(due))
        for _, writer in self._idle:
            writer.close()

    async def _one(self, due: float) -> None:
        offered = self.offered
        offered.lag = max(offered.lag, time.monotonic() - due)
        try:
            connection = (
                self._idle.pop()
                if self._idle
                else await asyncio.open_connection("127.0.0.1", self._port)
            )
            connection[1].write(self._request)
            head = (await connection[0].readuntil(b"\r\n\r\n")).decode()
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
            body = await connection[0].readexactly(int(fields["content-length"]))
        except (OSError, asyncio.IncompleteReadError) as error:
            offered.other.append(repr(error))
            return
        self._idle.append(connection)
        now = time.monotonic()
        status = head.split(" ", 2)[1]
        if status == "200":
            offered.good.append(now - due)
            first, last = self._counts
            offered.good_in_time += first <= now < last
        elif status == "503" and fields.get("retry-after") == "1" and b":overloaded" in body:
            offered.refused.append(now - due)
        else:
            offered.other.append(head)


async def main(port: str, target: str, rate: str, seconds: str) -> None:
    client = Client(int(port), target)
    await client.offer(float(rate), float(seconds))
    print(json.dumps(asdict(client.offered)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
