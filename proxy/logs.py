"""What the gateway writes: the application log to stderr, the access log to stdout.

Rules:
- Nothing here waits for a reader. Lines go to a thread that writes them; where a pipe is stuck,
  16 MiB are held, further lines are dropped and counted, and the log says how many.
- A normal shutdown writes out whatever is held (`close`).
- One record is one line: control characters are escaped, so no request can forge a line. Only a
  traceback takes further lines (plain format), all of them indented.
- No secrets: never a query, a header value other than User-Agent, a body or a key. Libraries are
  heard from `warning` up only, since their lower levels show raw bytes.
"""

import atexit
import json
import logging
import os
import select
import stat
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from aiohttp.http import HttpProcessingError

if TYPE_CHECKING:
    from proxy.exchange import Exchange
    from proxy.policy.snapshot import LogPlan

T = TypeVar("T")

HELD_BYTES: Final = 16 * 1024 * 1024
GATHER_SECONDS: Final = 0.02  # lines of so long go out in one write: one thread switch, not many
CLOSE_SECONDS: Final = 5.0  # for a reader that is stuck while we shut down
USER_AGENT_CHARS: Final = 256

_ITEM_OVERHEAD: Final = 500  # about what a held record weighs beside its longest texts

_log = logging.getLogger(__name__)

# C0, DEL, C1 and the two Unicode line ends: whatever a terminal or a log reader may act on.
_UNSAFE = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
}


def one_line(text: str) -> str:
    """The text with every control character and line end escaped."""
    return text if text.isascii() and text.isprintable() else text.translate(_UNSAFE)


def utc(seconds: float) -> str:
    """Seconds since the epoch as `2026-11-24T04:00:00.123Z`."""
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03d}Z"


class LineWriter(Generic[T]):
    """Puts items into lines and writes them to `fd`, all in a thread of its own, in order.

    `put` may be called from any thread and never waits; `format_line` runs in the writer's thread.
    """

    def __init__(self, fd: int, format_line: Callable[[T], str]) -> None:
        self._fd = fd
        self._is_file = _is_file(fd)
        self._format = format_line
        self._lock = threading.Lock()
        self._items: list[T] = []
        self._held = 0
        self._dropped = 0
        self._closed = False
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"log-fd{fd}", daemon=True)
        self._thread.start()

    def put(self, item: T, size: int) -> None:
        """Takes an item of about `size` bytes, or drops and counts it where too much is held."""
        with self._lock:
            if self._closed or self._held + size > HELD_BYTES:
                self._dropped += 1
                return
            self._items.append(item)
            self._held += size
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Writes what is held and ends; waits at most CLOSE_SECONDS for a stuck reader."""
        with self._lock:
            self._closed = True
        self._closing.set()
        self._wake.set()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._closing.wait(GATHER_SECONDS)
            self._wake.clear()
            closing = self._closing.is_set()  # after the clear, which may have taken its wake-up
            with self._lock:
                items, self._items = self._items, []
                held = self._held
            self._write("".join(map(self._line, items)).encode("utf-8", "backslashreplace"))
            with self._lock:
                self._held -= held
                dropped, self._dropped = self._dropped, 0
            if dropped:
                _log.warning("dropped %d log lines: fd %d is read too slowly", dropped, self._fd)
            if closing:
                return

    def _line(self, item: T) -> str:
        try:
            return self._format(item) + "\n"
        except Exception as error:  # the thread must outlive any record
            return (
                f"{utc(time.time())} ERROR {__name__}: unprintable record: {type(error).__name__}\n"
            )

    def _write(self, data: bytes) -> None:
        """Writes all of it, however long that takes; a reader that is gone loses it."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, self._piece(view)) :]
            except BlockingIOError:  # someone who shares the terminal made it non-blocking
                select.select([], [self._fd], [])
            except OSError:
                return

    def _piece(self, data: memoryview) -> memoryview:
        """What goes out in one write: all that a file takes, but to a pipe whole lines of no more
        than it takes at once (pipe(7), PIPE_BUF), as other workers write to the same one."""
        if self._is_file or len(data) <= select.PIPE_BUF:
            return data
        end = bytes(data[: select.PIPE_BUF]).rfind(b"\n")
        return data[: (end if end >= 0 else bytes(data).find(b"\n")) + 1]


def _is_file(fd: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:  # closed: what is written is lost, which is no error
        return False


class _Record(NamedTuple):
    """What is kept of a LogRecord until the writer formats it."""

    created: float
    level: str
    logger: str
    message: str
    error: BaseException | None


def _plain(record: _Record) -> str:
    head = f"{utc(record.created)} {record.level} {record.logger}: {one_line(record.message)}"
    if record.error is None:
        return head
    trace = "".join(traceback.format_exception(record.error)).rstrip("\n")
    return "\n".join([head, *("    " + one_line(line) for line in trace.split("\n"))])


def _json(record: _Record) -> str:
    document: dict[str, Any] = {
        "time": utc(record.created),
        "level": record.level,
        "logger": record.logger,
        "message": record.message,
    }
    if record.error is not None:
        document["exception"] = "".join(traceback.format_exception(record.error))
    return json.dumps(document)


class _ApplicationHandler(logging.Handler):
    """Hands records to a LineWriter. The format may change while it runs."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.json = False
        self._writer: LineWriter[_Record] = LineWriter(fd, self._line)

    def _line(self, record: _Record) -> str:
        return _json(record) if self.json else _plain(record)

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if record.name == "aiohttp.server" and isinstance(error, HttpProcessingError):
            return  # a client's broken request, told with its raw bytes: no fault of ours
        try:
            message = record.getMessage()
        except Exception:  # a wrong log call must not end a request
            message = str(record.msg)
        entry = _Record(record.created, record.levelname, record.name, message, error)
        self._writer.put(entry, len(message) + _ITEM_OVERHEAD)

    def close(self) -> None:
        self._writer.close()
        super().close()


_handler: _ApplicationHandler | None = None


def configure(plan: "LogPlan", fd: int = 2) -> None:
    """Sets the application log up, or changes its level and format: call it on every reload."""
    global _handler
    if _handler is None:
        _handler = _ApplicationHandler(fd)
        logging.getLogger().addHandler(_handler)
        atexit.register(shutdown)
    _handler.json = plan.format == "json"
    level = logging.getLevelNamesMapping()[plan.level.upper()]
    logging.getLogger("proxy").setLevel(level)
    logging.getLogger().setLevel(max(level, logging.WARNING))


def shutdown() -> None:
    """Writes out what the application log holds and takes it down; harmless twice."""
    global _handler
    if _handler is not None:
        atexit.unregister(shutdown)
        logging.getLogger().removeHandler(_handler)
        _handler.close()
        _handler = None


class _Access(NamedTuple):
    """One answered request, as the access log tells it. Names are the JSON's members."""

    time: float
    client_ip: str
    status: int
    bytes: int
    duration_ms: float
    request_id: str | None = None
    method: str | None = None
    host: str | None = None
    path: str | None = None
    route: str | None = None
    upstream: str | None = None
    user_agent: str | None = None
    denied: tuple[str, ...] = ()
    shadow_denied: tuple[str, ...] = ()


def _access_line(access: _Access) -> str:
    document = access._asdict()
    document["time"] = utc(access.time)
    document["duration_ms"] = round(access.duration_ms, 3)
    for member in ("denied", "shadow_denied"):
        if not document[member]:
            del document[member]
    return json.dumps(document)


class AccessLog:
    """One JSON line per answered request, where `log.access` is json.

    Ask `on` before measuring anything for it. `path` is raw and without the query; `denied` and
    `shadow_denied` name the limits that refused, where any did.
    """

    __slots__ = ("_fd", "_writer", "on")

    def __init__(self, fd: int = 1) -> None:
        self.on = False
        self._fd = fd
        self._writer: LineWriter[_Access] | None = None

    def configure(self, plan: "LogPlan") -> None:
        """Turns it on or off: call it on every reload."""
        self.on = plan.access == "json"
        if self.on and self._writer is None:
            self._writer = LineWriter(self._fd, _access_line)

    def write(self, ex: "Exchange", status: int, sent: int, seconds: float) -> None:
        """Tells of one request: `sent` bytes of body, `seconds` from the head to the last byte."""
        route = ex.route
        agent = ex.fields.get("user-agent")
        self._put(
            _Access(
                time.time(),
                ex.client_ip or ex.peer,
                status,
                sent,
                seconds * 1000,
                request_id=ex.request_id or None,
                method=ex.method,
                host=ex.host or None,
                path=ex.path,
                route=None if route is None else route.name,
                upstream=None if route is None or ex.denied else route.upstream.name,
                user_agent=None if agent is None else agent[:USER_AGENT_CHARS],
                denied=ex.denied,
                shadow_denied=ex.shadow_denied,
            )
        )

    def refused(self, peer: str, status: int, sent: int, seconds: float) -> None:
        """Tells of bytes that were no request: nothing of them is repeated."""
        self._put(_Access(time.time(), peer, status, sent, seconds * 1000))

    def _put(self, access: _Access) -> None:
        if self.on and self._writer is not None:
            self._writer.put(access, len(access.path or "") + _ITEM_OVERHEAD)

    def close(self) -> None:
        """Writes out what is held; nothing is taken afterwards."""
        self.on = False
        if self._writer is not None:
            self._writer.close()
            self._writer = None
