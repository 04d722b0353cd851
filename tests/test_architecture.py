"""Holds the rooms apart: who may import whom, what `core` may know, how long a file may be.

Everything is read from the syntax trees; only `test_every_module_imports_alone` runs the code.
Imports under `if TYPE_CHECKING:` do not count: they are for the reader, not for the machine.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "proxy"

# Lower numbers know nothing of higher ones. Rooms on one floor do not know each other.
FLOORS = {
    "core": 0,
    "resources": 0,
    "loops": 0,
    "init": 1,
    "sockets": 0,
    "descriptors": 0,
    "exchange": 1,
    "buffer": 1,
    "metrics": 1,
    "logs": 1,
    "exposition": 2,
    "policy": 2,
    "store": 3,
    "stages": 4,
    "handler": 5,
    "edge": 6,
    "admin": 6,
    "demo": 7,
    "live": 7,
    "stores": 7,
    "app": 8,
    "workers": 9,
    "process": 10,
    "cli": 11,
    "__main__": 12,
}

# What pure code needs of the standard library. No clock, chance, I/O, logging or event loop.
CORE_MAY_IMPORT = {
    "array", "base64", "binascii", "bisect", "calendar", "collections", "collections.abc",
    "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "hashlib", "heapq",
    "hmac", "ipaddress", "itertools", "json", "math", "operator", "re", "string", "struct", "types",
    "typing", "urllib.parse", "http_sf",
}  # fmt: skip
CLOCK_CALLS = {"now", "utcnow", "today", "time", "monotonic", "perf_counter"}

MAY_PRINT = {"cli", "process", "demo", "init", "admin.explain", "policy.check", "__main__"}

MAX_LINES = 400
MAX_FUNCTION_LINES = 60


def modules() -> dict[str, Path]:
    """Dotted name below `proxy` → file; a package's `__init__` has the package's name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path
    return found


MODULES = modules()
TREES = {name: ast.parse(path.read_text(), str(path)) for name, path in MODULES.items()}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if is_type_checking(node):
            assert isinstance(node, ast.If)
            for other in node.orelse:
                yield other
                yield from running_nodes(other)
            continue
        yield node
        yield from running_nodes(node)


def imports(name: str) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of each import; `from a import b` gives a.b where that is a module."""
    for node in running_nodes(TREES[name]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"proxy/{name}: line {node.lineno}: relative import"
            assert node.module is not None
            for alias in node.names:
                dotted = f"{node.module}.{alias.name}"
                below = dotted.removeprefix("proxy.")
                yield node.lineno, dotted if below in MODULES else node.module


def inner_imports(name: str) -> Iterator[tuple[int, str]]:
    """Those of the project itself, without the leading `proxy.`."""
    for line, dotted in imports(name):
        if dotted.startswith("proxy."):
            yield line, dotted.removeprefix("proxy.")


def room(name: str) -> str:
    return name.partition(".")[0]


def stage(name: str) -> str:
    """The stage of a module; one that is a package is one stage."""
    return name.split(".")[1] if "." in name else ""


def test_every_module_has_a_floor() -> None:
    strangers = {room(name) for name in MODULES if name} - set(FLOORS)
    assert not strangers, f"say in FLOORS where these belong: {sorted(strangers)}"


def test_imports_go_one_way() -> None:
    wrong = [
        f"{MODULES[name].relative_to(ROOT)}:{line}: {room(name)} imports {target}"
        for name in MODULES
        if name
        for line, target in inner_imports(name)
        if room(target) != room(name) and FLOORS[room(target)] >= FLOORS[room(name)]
    ]
    assert wrong == []


def test_stages_never_import_each_other() -> None:
    wrong = [
        f"{MODULES[name].relative_to(ROOT)}:{line}: imports {target}"
        for name in MODULES
        if name.startswith("stages.")
        for line, target in inner_imports(name)
        if target.startswith("stages.") and stage(target) != stage(name)
    ]
    assert wrong == []


def test_core_imports_only_what_is_pure() -> None:
    wrong = [
        f"{MODULES[name].relative_to(ROOT)}:{line}: imports {dotted}"
        for name in MODULES
        if room(name) == "core"
        for line, dotted in imports(name)
        if not dotted.startswith("proxy.core") and dotted not in CORE_MAY_IMPORT
    ]
    assert wrong == []


def test_core_reads_no_clock_and_no_file() -> None:
    wrong = []
    for name in MODULES:
        if room(name) != "core":
            continue
        for node in running_nodes(TREES[name]):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called in {"open", "input"} or (
                isinstance(node.func, ast.Attribute)
                and node.func.attr in CLOCK_CALLS
                and called.startswith(("datetime.", "date."))
            ):
                wrong.append(f"{MODULES[name].relative_to(ROOT)}:{node.lineno}: {called}()")
    assert wrong == []


def test_core_never_awaits() -> None:
    """A pure step has nothing to wait for. Protocols may say that what they describe does."""
    wrong = [
        f"{MODULES[name].relative_to(ROOT)}:{node.lineno}"
        for name in MODULES
        if room(name) == "core"
        for node in running_nodes(TREES[name])
        if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith)
    ]
    assert wrong == []


def test_nothing_prints_but_the_commands() -> None:
    wrong = [
        f"{MODULES[name].relative_to(ROOT)}:{node.lineno}"
        for name in MODULES
        if name not in MAY_PRINT and room(name) not in MAY_PRINT
        for node in running_nodes(TREES[name])
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]
    assert wrong == []


def test_files_stay_short() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES.values()
    }
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


def test_functions_stay_short() -> None:
    long = [
        f"{MODULES[name].relative_to(ROOT)}:{node.lineno}: {node.name}: {length} lines"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert long == []


def before(name: str) -> set[str]:
    """The modules that must be whole before this one is: what it imports, and the packages that
    those are in, unless it is in them itself (a package that is being imported is there, and its
    modules can be taken from it)."""
    needed = set()
    for _, dotted in inner_imports(name):
        parts = dotted.split(".")
        needed |= {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    return {one for one in needed & MODULES.keys() if not f"{name}.".startswith(f"{one}.")}


def test_every_module_imports_alone() -> None:
    """Without a circle, whichever is imported first finds whole what it needs."""
    try:
        order = list(TopologicalSorter({name: before(name) for name in MODULES}).static_order())
    except CycleError as circle:
        pytest.fail(f"these import each other: {' <- '.join(circle.args[1])}")
    names = [f"proxy.{name}" if name else "proxy" for name in order if name != "__main__"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import " + ", ".join(names)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os", ["os"]),
        ("from time import time", ["time"]),
        ("from proxy.core import fields", ["proxy.core.fields"]),
        ("from proxy.core.fields import Fields", ["proxy.core.fields"]),
        ("def f():\n    import random", ["random"]),
        ("if TYPE_CHECKING:\n    import os\nelse:\n    import re", ["re"]),
        ("if typing.TYPE_CHECKING:\n    from proxy.edge import x", []),
    ],
)
def test_reads_imports(source: str, found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules above are only as good as this."""
    monkeypatch.setitem(TREES, "sample", ast.parse(source))
    assert [dotted for _, dotted in imports("sample")] == found
