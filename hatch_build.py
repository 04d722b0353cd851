"""The compiled build: the modules that a request goes through, made into C extensions by mypyc.

Off unless asked for (`make compiled`, or HATCH_BUILD_HOOK_ENABLE_CUSTOM=true); which modules those
are stands in pyproject.toml. Not hatch-mypyc, as that leaves its extensions beside the sources, and
whoever ran the checkout from then on would run what was compiled last, whatever the sources say.
Here all is made in a directory of its own and goes into the wheel only.
"""

import os
import shutil
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Whole programs are checked by `make check`, against every dependency's types; here they are read
# for the types that are compiled by, and setuptools is kept from pyproject.toml, which is Hatch's.
_MYPY = ["--config-file=", "--explicit-package-bases", "--ignore-missing-imports"]
_FLAGS = [*_MYPY, "--follow-imports=silent", "--disable-error-code=no-untyped-call"]


class CompiledBuildHook(BuildHookInterface[Any]):
    """Adds the extensions to the wheel, beside the sources that they are made of."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or version == "editable":
            return
        missing = list(lacking())
        if missing:
            raise SystemExit(f"the compiled build lacks {', '.join(missing)}")
        self._made = TemporaryDirectory()
        made = Path(self._made.name)
        build(Path(self.root), self._modules(), made, self.config.get("opt-level", "1"))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for extension in made.rglob(f"*{sysconfig.get_config_var('EXT_SUFFIX')}"):
            build_data["force_include"][str(extension)] = str(extension.relative_to(made))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_made"):
            self._made.cleanup()

    def _modules(self) -> list[str]:
        """The paths below the root of what is to be compiled."""
        root = Path(self.root)

        def named(option: str) -> set[Path]:
            return {path for glob in self.config[option] for path in root.glob(glob)}

        chosen = named("compiled") - named("interpreted")
        return sorted(str(path.relative_to(root)) for path in chosen if path.stem != "__init__")


def lacking() -> Iterator[str]:
    """What a machine lacks to compile, and how it is had on Debian."""
    compiler = str(sysconfig.get_config_var("CC") or "gcc").split()[0]
    if shutil.which(os.environ.get("CC", compiler)) is None:
        yield f"a C compiler, {compiler} (apt-get install gcc libc6-dev)"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        yield "Python.h (apt-get install python3-dev)"
    if find_spec("mypyc") is None:
        yield "mypyc (a part of mypy, see pyproject.toml)"


def build(root: Path, modules: list[str], into: Path, opt_level: str) -> None:
    """Compiles modules (paths below the root) into extensions, laid out as they are imported."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    class BuildExt(build_ext):
        def build_extensions(self) -> None:
            _compile_side_by_side(self.compiler)
            super().build_extensions()

    with TemporaryDirectory() as work, chdir(root):
        made = mypycify(
            [*_FLAGS, f"--cache-dir={work}/mypy", *modules],
            opt_level=opt_level,
            debug_level="0",
            multi_file=True,
            target_dir=f"{work}/c",
            group_name="sluicegate",
        )
        os.chdir(work)  # setuptools would read our pyproject.toml, and not understand it
        command = BuildExt(Distribution({"name": "sluicegate", "ext_modules": made}))
        command.build_lib, command.build_temp = str(into), f"{work}/o"
        command.ensure_finalized()
        command.run()


def _compile_side_by_side(compiler: Any) -> None:
    """Has one extension's files compiled on all cores: nearly all of them are one extension's."""

    def compile(sources: list[str], **asked: Any) -> list[str]:
        _, objects, extra, preprocessor, build = compiler._setup_compile(
            *(asked["output_dir"], asked.get("macros"), asked.get("include_dirs"), sources),
            *(asked.get("depends"), asked.get("extra_postargs")),
        )
        options = compiler._get_cc_args(preprocessor, asked.get("debug", 0), None)

        def one(name: str) -> None:
            compiler._compile(name, *build[name], options, extra, preprocessor)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(one, build))
        return list(objects)

    compiler.compile = compile
