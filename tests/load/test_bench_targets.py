"""What bench/targets.py says can be relied upon: latencies count from when a request was due, a
target that is missed is told, and what is measured is the gateway with everything on."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import everything_on
from bench.constant_rate import Connection, differing, percentile, send
from bench.proxies import Place, Started
from bench.verdicts import Bound, Verdict, table, unmeasured

ANSWER = b"HTTP/1.1 200 OK\r\nServer: origin\r\ncontent-length: 5\r\n\r\nhello"
STALL = 0.3
"""Seconds."""


@contextmanager
def origin(answer: Callable[[int], bytes]) -> Iterator[tuple[str, int]]:
    """An origin for one connection: its answers, by the request's number."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listening.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            number = 0
            while connection.recv(65536):
                connection.sendall(answer(number))
                number += 1

    thread = threading.Thread(target=serve)
    thread.start()
    with listening:
        yield listening.getsockname()
        thread.join(10.0)
    assert not thread.is_alive()


def test_a_stall_is_counted_for_all_who_were_due_in_it() -> None:
    stalled = threading.Event()

    def answer(number: int) -> bytes:
        if number == 50:
            stalled.wait(STALL)  # nobody sets it: this is the stall
        return ANSWER

    with origin(answer) as address:
        timed = send(address, differing("a"), rate=200, seconds=1.0, connections=1)
    assert timed.requests == 200
    assert timed.seconds < 1.0 + STALL
    # By when it was sent only one of 200 would have been slow, and p99 would not show it.
    assert timed.p99 > STALL / 2 * 1e6
    assert timed.slowest >= STALL * 0.9 * 1e6


def test_requests_keep_to_their_times() -> None:
    with origin(lambda number: ANSWER) as address:
        timed = send(address, differing("a"), rate=500, seconds=0.5, connections=1)
    assert timed.requests == 250
    assert timed.seconds >= 0.49


def test_an_answer_may_come_in_pieces() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connection = Connection(listening.getsockname())
        theirs, _ = listening.accept()
        whole = []
        with theirs, connection.socket:
            for piece in (ANSWER[:20], ANSWER[20:-2], ANSWER[-2:], ANSWER):
                theirs.sendall(piece)
                whole.append(connection.read())
    assert whole == [False, False, True, True]


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER.replace(b"200 OK", b"503 No"),
        ANSWER.replace(b"content-length: 5", b"x-content-length: 5"),
        ANSWER + ANSWER,
    ],
)
def test_what_is_not_a_counted_200_ends_the_measurement(answer: bytes) -> None:
    with origin(lambda number: answer) as address, pytest.raises(ConnectionError):
        send(address, differing("a"), rate=100, seconds=0.1, connections=1)


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(1, 0.99, 1), (100, 0.5, 50), (100, 0.99, 99), (200, 0.99, 198), (1000, 0.999, 999)],
)
def test_percentiles_are_by_the_nearest_rank(count: int, share: float, expected: int) -> None:
    assert percentile(range(1, count + 1), share) == expected


@pytest.mark.parametrize(
    ("must", "aim", "figures", "expected"),
    [
        (Bound(0.7), Bound(1.0), [0.6, 0.8, 0.75], "must"),
        (Bound(0.7), Bound(1.0), [0.6, 0.8, 0.65], "**missed**"),
        (Bound(0.7), Bound(1.0), [1.0], "must and aim"),
        (Bound(2.0, most=True, unit="ms"), None, [2.0], "must"),
        (Bound(2.0, most=True, unit="ms"), None, [2.1], "**missed**"),
        (None, Bound(1.0), [0.9], "aim missed"),
        (None, Bound(1.0), [1.1], "aim"),
        (None, None, [1.1], ""),
        (Bound(0.7), Bound(1.0), [], "not measured"),
    ],
)
def test_the_median_is_judged(
    must: Bound | None, aim: Bound | None, figures: list[float], expected: str
) -> None:
    verdict = Verdict("work", "peer", "1", "2", figures, must, aim)
    assert verdict.judged() == expected
    assert verdict.missed == (expected == "**missed**")


def test_the_table() -> None:
    must = Bound(2.0, most=True, unit="ms")
    lines = [
        Verdict("hits", "nginx", "7 req/s", "10 req/s", [0.7, 0.65, 0.8], Bound(0.7), Bound(1.0)),
        Verdict("p99", "nginx", "2 ms", "1 ms", [1.0], must, None, "{:+.2f} ms"),
        unmeasured("hits", "Varnish", Bound(1.0), None),
    ]
    assert table(lines).splitlines()[2:] == [
        "| hits | nginx | 7 req/s | 10 req/s | 0.70 (0.65 to 0.80) | ≥ 0.7 | ≥ 1 | must |",
        "| p99 | nginx | 2 ms | 1 ms | +1.00 ms | ≤ +2 ms |  | must |",
        "| hits | Varnish |  |  |  | ≥ 1 |  | not measured |",
    ]


@pytest.mark.parametrize("name", ["gateway", "caching", "refusing", "in_redis", "two_workers"])
def test_the_gateway_under_test_is_told_well(name: str, tmp_path: Path) -> None:
    prepare: Callable[[Place, str], Started] = getattr(everything_on, name)
    command = prepare(Place(tmp_path, 1, 2, 3, 4), sys.executable).command
    check = ["check" if word == "run" else word for word in command]
    told = subprocess.run(check, capture_output=True, text=True, check=False, timeout=30)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "warning" not in told.stdout + told.stderr
