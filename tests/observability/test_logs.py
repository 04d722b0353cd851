"""The logs: one record a line, nothing forged, nothing secret, and nobody waits for a reader."""

import asyncio
import fcntl
import json
import logging
import os
import re
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import pytest
from aiohttp.http import HttpProcessingError
from stage_plans import route_plan, snapshot

from proxy import logs
from proxy.core.fields import Fields
from proxy.exchange import Exchange
from proxy.logs import AccessLog, LineWriter
from proxy.policy.snapshot import LogPlan

SECRET = "s3cr3t-do-not-tell"


class Pipe:
    """A pipe whose other end is read by a thread, from the moment that `read` is called."""

    def __init__(self) -> None:
        self._read, self.fd = os.pipe()
        self._chunks: list[bytes] = []
        self._thread = threading.Thread(target=self._drain)

    def _drain(self) -> None:
        while data := os.read(self._read, 1 << 16):
            self._chunks.append(data)

    def read(self) -> "Pipe":
        self._thread.start()
        return self

    def text(self) -> str:
        """Everything written; closes the pipe."""
        os.close(self.fd)
        if self._thread.ident is None:
            self._thread.start()
        self._thread.join()
        os.close(self._read)
        return b"".join(self._chunks).decode()

    def lines(self) -> list[str]:
        return self.text().splitlines()


def plan(
    level: str = "info",
    form: Literal["plain", "json"] = "plain",
    access: Literal["off", "json"] = "off",
) -> LogPlan:
    return LogPlan(level=level, format=form, access=access)


@contextmanager
def application_log(*plans: LogPlan) -> Iterator[Pipe]:
    """The application log into a pipe; the text is whole once the block is left."""
    pipe = Pipe().read()
    logs.shutdown()  # what a gateway in this process has set up, and left with its own output
    for each in plans or (plan(),):
        logs.configure(each, fd=pipe.fd)
    try:
        yield pipe
    finally:
        logs.shutdown()
        logging.getLogger("proxy").setLevel(logging.NOTSET)
        logging.getLogger().setLevel(logging.WARNING)


def exchange(**facts: Any) -> Exchange:
    """A resolved GET of users-read, with secrets wherever a request may have them."""
    ex = Exchange(
        snapshot(),
        facts.pop("method", "GET"),
        facts.pop("target", f"/api/users/1?token={SECRET}"),
        11,
        Fields(
            [
                ("Host", "api.example.com"),
                ("Authorization", f"Bearer {SECRET}"),
                ("Cookie", f"session={SECRET}"),
                ("X-Api-Key", SECRET),
                ("Referer", f"https://app.example.com/?token={SECRET}"),
                ("User-Agent", facts.pop("agent", "curl/8")),
            ]
        ),
        authority="api.example.com",
        scheme="http",
        peer="10.0.0.9",
    )
    ex.host = "api.example.com"
    ex.client_ip = "198.51.100.7"
    ex.request_id = "req-1"
    ex.route = route_plan("users-read", upstream="users")
    for name, value in facts.items():
        setattr(ex, name, value)
    return ex


def access_lines(*written: Exchange, status: int = 200) -> list[dict[str, Any]]:
    pipe = Pipe().read()
    access = AccessLog(pipe.fd)
    access.configure(plan(access="json"))
    for ex in written:
        access.write(ex, status, 12, 0.0123456)
    access.close()
    return [json.loads(line) for line in pipe.lines()]


def fail_with(text: str) -> None:
    """Logs a ValueError that was really raised."""
    try:
        int(text, base=99)
    except ValueError as error:
        error.args = (text,)
        logging.getLogger("proxy").exception("it broke")


# The application log


def test_plain_line() -> None:
    with application_log() as pipe:
        logging.getLogger("proxy.app").info("listening on %s", "127.0.0.1:8080")
    pattern = (
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO proxy\.app: listening on 127\.0\.0\.1:8080\n"
    )
    assert re.fullmatch(pattern, pipe.text())


def test_json_line() -> None:
    with application_log(plan(form="json")) as pipe:
        logging.getLogger("proxy.app").warning('a "quoted"\nline')
    (line,) = pipe.lines()
    told = json.loads(line)
    assert re.fullmatch(r"[\d-]{10}T[\d:.]{12}Z", told.pop("time"))
    assert told == {"level": "WARNING", "logger": "proxy.app", "message": 'a "quoted"\nline'}


def test_utc_has_milliseconds() -> None:
    assert logs.utc(1_795_492_800.123) == "2026-11-24T04:00:00.123Z"
    assert logs.utc(0) == "1970-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("name", "level", "said", "heard"),
    [
        ("proxy.app", "info", logging.INFO, True),
        ("proxy.app", "info", logging.DEBUG, False),
        ("proxy.app", "debug", logging.DEBUG, True),
        ("proxy.app", "error", logging.WARNING, False),
        # Libraries show raw bytes below warning.
        ("aiohttp.client", "debug", logging.INFO, False),
        ("asyncio", "debug", logging.WARNING, True),
        ("asyncio", "error", logging.WARNING, False),
    ],
)
def test_level(name: str, level: str, said: int, heard: bool) -> None:
    with application_log(plan(level)) as pipe:
        logging.getLogger(name).log(said, "hello")
    assert bool(pipe.text()) is heard


def test_configuring_again_changes_level_and_format_and_doubles_nothing() -> None:
    with application_log(plan("error"), plan("debug", "json"), plan("debug", "json")) as pipe:
        logging.getLogger("proxy").debug("once")
    (line,) = pipe.lines()
    assert json.loads(line)["message"] == "once"


@pytest.mark.parametrize("form", ["plain", "json"])
@pytest.mark.parametrize(
    "forged",
    [
        "x\n2026-11-24T04:00:00.000Z ERROR proxy.app: forged",
        "x\r\nforged",
        "x\x0bforged",
        "x\x85forged",
        "x\u2028forged",
        "x\x1b[2Jforged",
        "x\x9b2Jforged",
        "x\x00forged",
    ],
)
def test_no_request_can_forge_a_line(form: Literal["plain", "json"], forged: str) -> None:
    with application_log(plan(form=form)) as pipe:
        logging.getLogger("proxy").info("bad value %s", forged)
    text = pipe.text()
    assert len(text.splitlines()) == 1
    assert text.rstrip("\n").isprintable()
    assert "forged" in text


def test_a_traceback_is_indented_so_that_its_text_forges_nothing() -> None:
    with application_log() as pipe:
        fail_with("x\n2026-11-24T04:00:00.000Z ERROR proxy.app: forged\x1b[2J")
    first, *rest = pipe.lines()
    assert first.endswith("ERROR proxy: it broke")
    assert any("Traceback" in line for line in rest)
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_a_traceback_in_json_is_a_member() -> None:
    with application_log(plan(form="json")) as pipe:
        fail_with("why")
    (line,) = pipe.lines()
    assert json.loads(line)["exception"].endswith("ValueError: why\n")


@contextmanager
def no_other_handlers() -> Iterator[None]:
    """Keeps the test runner's own handlers, which raise, from hearing what is wrong on purpose."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger(), "handlers", [])
        yield


def test_a_wrong_log_call_is_told_all_the_same() -> None:
    with no_other_handlers(), application_log() as pipe:
        logging.getLogger("proxy").info("%d of them", "many")
    assert pipe.text().endswith("INFO proxy: %d of them\n")


def test_an_exception_that_cannot_be_printed_ends_nothing() -> None:
    class UnprintableError(Exception):
        __notes__ = property(lambda self: 1 / 0)

    with no_other_handlers(), application_log() as pipe:
        logging.getLogger("proxy").error("first", exc_info=UnprintableError())
        logging.getLogger("proxy").error("second")
    first, second = pipe.lines()
    assert first.endswith("ERROR proxy.logs: unprintable record: ZeroDivisionError")
    assert second.endswith("ERROR proxy: second")


def test_broken_requests_are_not_told_with_their_bytes() -> None:
    broken = HttpProcessingError(code=400, message=f"Bad status line 'GET /?token={SECRET}'")
    with application_log(plan("debug")) as pipe:
        logging.getLogger("aiohttp.server").error("Error handling request", exc_info=broken)
    assert pipe.text() == ""


async def test_logging_an_exception_does_not_block_the_loop() -> None:
    """Formatting a traceback reads source files: it belongs to the writer's thread."""
    pipe = Pipe().read()
    logs.configure(plan(), fd=pipe.fd)
    fail_with("why")
    await asyncio.to_thread(logs.shutdown)
    text = await asyncio.to_thread(pipe.text)
    assert "ValueError: why" in text


def test_shutdown_twice_is_harmless() -> None:
    with application_log() as pipe:
        logs.shutdown()
    assert pipe.text() == ""


# The writer


def test_close_writes_every_line_in_order() -> None:
    pipe = Pipe().read()
    writer: LineWriter[int] = LineWriter(pipe.fd, str)
    for number in range(20_000):
        writer.put(number, 10)
    writer.close()
    assert pipe.lines() == [str(number) for number in range(20_000)]


def test_a_close_between_wait_and_clear_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer has waited for more lines and is about to write when the close comes."""

    class Meanwhile(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited = super().wait(timeout)
            if timeout is not None and not waited and not closer.ident:
                writer._wake.clear()
                closer.start()
                writer._wake.wait()
            return waited

    pipe = Pipe().read()
    writer: LineWriter[str] = LineWriter(pipe.fd, str)
    monkeypatch.setattr(writer, "_closing", Meanwhile())
    closer = threading.Thread(target=writer.close)
    writer.put("a", 1)
    writer._thread.join(2.0)
    assert not writer._thread.is_alive()
    closer.join()
    assert pipe.lines() == ["a"]


def test_many_threads_lose_nothing() -> None:
    pipe = Pipe().read()
    writer: LineWriter[str] = LineWriter(pipe.fd, str)

    def work(name: int) -> None:
        for number in range(1000):
            writer.put(f"{name}-{number}", 10)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert sorted(pipe.lines()) == sorted(f"{a}-{b}" for a in range(4) for b in range(1000))


def test_a_stuck_reader_costs_lines_never_time(caplog: pytest.LogCaptureFixture) -> None:
    pipe = Pipe()  # nobody reads yet
    writer: LineWriter[str] = LineWriter(pipe.fd, str)
    size = 64 * 1024
    fitting = logs.HELD_BYTES // size
    for _ in range(fitting + 100):
        writer.put("x" * (size - 1), size)  # a put that waited would never come back
    pipe.read()
    writer.close()
    assert len(pipe.lines()) == fitting
    assert [r.getMessage() for r in caplog.records] == [
        f"dropped 100 log lines: fd {pipe.fd} is read too slowly"
    ]


def test_a_nonblocking_pipe_gets_everything() -> None:
    """Whoever shares our terminal or pipe may have made it non-blocking."""
    pipe = Pipe()
    flags = fcntl.fcntl(pipe.fd, fcntl.F_GETFL)
    fcntl.fcntl(pipe.fd, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    writer: LineWriter[str] = LineWriter(pipe.fd, str)
    for _ in range(100):
        writer.put("x" * 9999, 10_000)
    pipe.read()
    writer.close()
    assert pipe.lines() == ["x" * 9999] * 100


def test_other_processes_may_write_to_the_same_pipe() -> None:
    """A packet pipe shows each write: whole lines, and no more than goes out in one (pipe(7))."""
    read, write = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
    writer: LineWriter[str] = LineWriter(write, str)
    lines = [f"{n:04}" * (1 + 7 * n) for n in range(40)] + ["a" * 5000, "b"]
    for line in lines:
        writer.put(line, len(line))
    writer.close()
    os.close(write)
    packets = []
    while packet := os.read(read, 65536):
        packets.append(packet)
    os.close(read)
    assert b"".join(packets).decode().splitlines() == lines
    broken = [packet for packet in packets if not packet.endswith(b"\n")]
    assert [len(packet) for packet in broken] == [select.PIPE_BUF]  # the one that is too long


def test_a_reader_that_left_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    writer: LineWriter[str] = LineWriter(write, str)
    writer.put("lost", 4)
    writer.close()
    writer.put("late", 4)
    os.close(write)


# The access log


def test_access_line() -> None:
    (line,) = access_lines(exchange())
    assert re.fullmatch(r"[\d-]{10}T[\d:.]{12}Z", line.pop("time"))
    assert line == {
        "client_ip": "198.51.100.7",
        "status": 200,
        "bytes": 12,
        "duration_ms": 12.346,
        "request_id": "req-1",
        "method": "GET",
        "host": "api.example.com",
        "path": "/api/users/1",
        "route": "users-read",
        "upstream": "users",
        "user_agent": "curl/8",
    }


def test_a_denied_request_names_its_limits_and_no_upstream() -> None:
    (line,) = access_lines(exchange(denied=("per-key",), shadow_denied=("trial",)), status=429)
    assert (line["denied"], line["shadow_denied"], line["upstream"]) == (
        ["per-key"],
        ["trial"],
        None,
    )


def test_a_request_without_a_route() -> None:
    (line,) = access_lines(exchange(route=None, client_ip="", request_id=""), status=404)
    assert (line["route"], line["upstream"], line["request_id"]) == (None, None, None)
    assert line["client_ip"] == "10.0.0.9"


def test_secrets_stay_out() -> None:
    (line,) = access_lines(exchange(), status=401)
    assert SECRET not in json.dumps(line)
    assert "token" not in json.dumps(line)


def test_latin1_and_controls_are_escaped_on_one_line() -> None:
    pipe = Pipe().read()
    access = AccessLog(pipe.fd)
    access.configure(plan(access="json"))
    access.write(exchange(target="/caf\xe9\x85", agent='x"\x0b}\xff'), 200, 0, 0.0)
    access.close()
    text = pipe.text()
    assert text.isascii()
    assert text.rstrip("\n").isprintable()
    assert json.loads(text)["path"] == "/caf\xe9\x85"


def test_a_long_user_agent_is_cut() -> None:
    (line,) = access_lines(exchange(agent="a" * 10_000))
    assert line["user_agent"] == "a" * logs.USER_AGENT_CHARS


def test_bytes_that_were_no_request() -> None:
    pipe = Pipe().read()
    access = AccessLog(pipe.fd)
    access.configure(plan(access="json"))
    access.refused("203.0.113.5", 400, 150, 0.001)
    access.close()
    line = json.loads(pipe.text())
    assert (line["client_ip"], line["status"], line["method"]) == ("203.0.113.5", 400, None)


def test_off_writes_nothing_and_a_reload_turns_it_on_and_off() -> None:
    pipe = Pipe().read()
    access = AccessLog(pipe.fd)
    for number, mode in enumerate(("off", "json", "off", "json")):
        access.configure(plan(access=cast(Any, mode)))
        assert access.on is (mode == "json")
        access.write(exchange(request_id=str(number)), 200, 0, 0.0)
    access.close()
    access.write(exchange(request_id="late"), 200, 0, 0.0)
    assert [json.loads(line)["request_id"] for line in pipe.lines()] == ["1", "3"]
