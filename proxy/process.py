"""A gateway in the foreground: its signals, its exit status, and the demo's example origin."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

from proxy import logs
from proxy.app import Gateway
from proxy.demo import curl_lines, start_origin
from proxy.loops import loop_factory
from proxy.policy.load import Loaded
from proxy.policy.problem import ConfigError
from proxy.resources import config_file
from proxy.workers.supervisor import Supervisor, read


def run(path: Path) -> int:
    """`sluicegate run`: the exit status."""
    return run_process(Process(path))


def demo() -> int:
    """`sluicegate demo`: an example origin, and the gateway in front of it."""
    return run_process(Process(config_file("demo.yaml"), demo=True))


class Process:
    """A gateway in the foreground: its signals, and the example origin of the demo."""

    def __init__(self, path: Path, *, demo: bool = False) -> None:
        self._path = path
        self._demo = demo
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[object]] = set()

    async def main(self) -> None:
        """Serves until SIGTERM or SIGINT.

        Raises ConfigError, OSError where an address cannot be bound, RuntimeError where a worker
        does not start.
        """
        loop = asyncio.get_running_loop()
        for stopping in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(stopping, self._on_stop, loop)
        loaded, sources = await asyncio.to_thread(read, self._path)
        gateway = self._gateway(loaded, sources)
        origin = await start_origin("127.0.0.1", 9001) if self._demo else None
        try:
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup, gateway)
            await gateway.start(loaded)
            snapshot = gateway.snapshot()
            if self._demo and snapshot is not None:
                print(curl_lines(f"http://{snapshot.server.listen}"), flush=True)
            await self._stop.wait()
        finally:
            await gateway.stop()
            if origin is not None:
                await origin.cleanup()

    def _gateway(self, loaded: Loaded, sources: dict[str, Any]) -> Gateway | Supervisor:
        workers = loaded.draft.server.section.workers
        return Supervisor(self._path, workers, sources) if workers > 1 else Gateway(self._path)

    def _on_stop(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._stop.is_set():  # asked twice: do not wait for the drain
            for task in asyncio.all_tasks(loop):
                task.cancel()
        self._stop.set()

    def _on_hangup(self, gateway: Gateway | Supervisor) -> None:
        if gateway.snapshot() is None:
            return  # starting: the watcher will see what changed meanwhile
        task: asyncio.Task[object] = asyncio.ensure_future(gateway.reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def run_process(process: Process) -> int:
    """Runs it to its end: the exit status."""
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(process.main())
    except ConfigError as failed:
        for problem in failed.problems:
            print(problem, file=sys.stderr)
        return 2
    except OSError as failed:
        # A file's error has the name beside the sentence; any other is whole without "[Errno 98]".
        sentence = failed.strerror if failed.filename is None else None
        print(f"sluicegate: {sentence or failed}", file=sys.stderr)
        return 1
    except RuntimeError as failed:
        print(f"sluicegate: {failed}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        return 1
    finally:
        logs.shutdown()
    return 0
