"""Every target of the express lane in one run: the gateway with everything on, beside its peers.

    python -m bench.targets [--rounds 5] [--seconds 3] [--connections 32] [--rows NAME ...]
                            [--compiled PYTHON]

With the Python of an environment that has the compiled build, that is the gateway under test, and
the interpreted one a peer of hits and pass-through; else the one of this Python is, as it is.

The gateway has what a user has on (bench/everything_on.py), the peers a limit per key. The proxy
under test has one core; origin, Redis and what makes the load share the other. 1,000 different
requests go over and over. The contestants of a row take turns in every round; a ratio is made
within a round, and the table has its median, lowest and highest. The second table says how far the
rounds of each lie apart; that, the load average, and what a busy process gets of each core between
the rows, are the noise of the machine. What is missing is left out, and stands as not measured.
Exits with 1 where something that must be is not, or where a row failed.
"""

import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.contest import LOAD_CORE, ask, tell_conditions, tell_noise
from bench.target_rows import ROWS, Ground
from bench.tools import nginx_origin, redis_server
from bench.verdicts import Verdict, spreads, table


def build(program: str) -> str:
    """Which build of the gateway a Python runs."""
    told = "import proxy.handler as flow; print(flow.__file__)"
    command = [program, "-P", "-c", told]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return "interpreted" if found.endswith(".py") else "compiled"


def main() -> int:
    asked = ask(str(__doc__), seconds=3, rows=tuple(ROWS), builds=True)
    program = asked.compiled or sys.executable
    tell_conditions(asked)
    which = build(program)
    print(f"Sluicegate, {which}", flush=True)
    if asked.compiled and which != "compiled":
        print(f"{program} does not run a compiled build", file=sys.stderr)
        return 2
    tell_noise("start")
    verdicts: list[Verdict] = []
    failed: list[str] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o711)  # nginx's workers are another user, where this one is root
        places = {name: folder / name for name in ("plain", "fresh", "checked", "redis")}
        for place in places.values():
            place.mkdir()
        fields = {"Cache-Control": "max-age=600"}
        ground = Ground(
            asked,
            folder,
            stack.enter_context(nginx_origin(places["plain"], LOAD_CORE)),
            stack.enter_context(nginx_origin(places["fresh"], LOAD_CORE, fields)),
            stack.enter_context(nginx_origin(places["checked"], LOAD_CORE, fields)),
            stack.enter_context(redis_server(places["redis"], LOAD_CORE)),
            program,
        )
        for name in asked.rows:
            print(f"measuring {name}", file=sys.stderr, flush=True)
            try:
                verdicts += ROWS[name](ground)
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                failed.append(f"{name}: {error}")  # the other rows are worth having
            tell_noise(f"end of {name}")
    print(f"\n{table(verdicts)}")
    if ground.spreads:
        print(f"\nNoise: how far the rounds lie apart\n\n{spreads(ground.spreads)}\n")
    for remark in ground.remarks:
        print(f"- {remark}")
    for one in failed:
        print(f"could not be measured: {one}", file=sys.stderr)
    missed = [f"{line.workload}, {line.peer}".rstrip(", ") for line in verdicts if line.missed]
    for one in missed:
        print(f"missed: {one}", file=sys.stderr)
    return 1 if missed or failed else 0


if __name__ == "__main__":
    sys.exit(main())
