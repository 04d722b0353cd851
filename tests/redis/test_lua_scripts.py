"""The loader: includes, the header's contract, and what every shipped script keeps to."""

import re
from hashlib import sha1

import pytest

from proxy.resources import shipped
from proxy.store.scripts import ScriptError, read_script, script

HEADER = "-- For a test.\n-- KEYS 1+  some\n-- ARGV 2  others\n-- RETURNS 1\n-- O(1)\n"
SHIPPED = sorted(path.stem for path in shipped("lua").glob("*.lua"))
PARTS = sorted(shipped("lua").glob("include/*.lua"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "include").mkdir()
    return tmp_path


def write(folder, text, **parts):
    (folder / "a.lua").write_text(text)
    for name, part in parts.items():
        (folder / "include" / f"{name}.lua").write_text(part)
    return read_script("a", folder)


def test_includes_are_expanded_once_and_in_place(folder):
    made = write(
        folder,
        HEADER + "--@include b\n--@include c\nreturn b + c\n",
        b="--@include c\nlocal b = c\n",
        c="local c = 1\n",
    )
    assert made.source.decode() == HEADER + "local c = 1\nlocal b = c\nreturn b + c\n"
    assert made.sha == sha1(made.source).hexdigest()


def test_parts_that_include_each_other_end(folder):
    made = write(folder, HEADER + "--@include b\n", b="--@include c\n", c="--@include b\n")
    assert made.source.decode() == HEADER


def test_an_unknown_part_is_named(folder):
    with pytest.raises(ScriptError, match=r"no nothing\.lua"):
        write(folder, HEADER + "--@include nothing\n")


@pytest.mark.parametrize("gone", ["-- KEYS", "-- ARGV", "-- RETURNS", "-- O("])
def test_a_header_says_everything(folder, gone):
    with pytest.raises(ScriptError, match=r"a\.lua"):
        write(folder, HEADER.replace(gone, "-- something"))


def test_comments_below_the_code_are_no_header(folder):
    with pytest.raises(ScriptError):
        write(folder, "local a = 1\n" + HEADER)


@pytest.mark.parametrize(
    ("keys", "args", "fits"),
    [(1, 2, True), (2, 2, True), (0, 2, False), (1, 1, False), (1, 3, False)],
)
def test_a_call_that_does_not_fit_is_an_error(folder, keys, args, fits):
    made = write(folder, HEADER)
    if fits:
        made.check(keys, args)
    else:
        with pytest.raises(ValueError, match=r"a\.lua takes"):
            made.check(keys, args)


def test_a_fixed_number_of_keys_is_exact(folder):
    made = write(folder, HEADER.replace("1+", "1 ").replace("ARGV 2", "ARGV 0"))
    made.check(1, 0)
    with pytest.raises(ValueError, match="takes 1 KEYS, not 2"):
        made.check(2, 0)


@pytest.mark.parametrize("name", SHIPPED)
def test_arguments_are_named_in_the_first_lines(name):
    """Before any include, and nowhere else: only what follows them is read by place."""
    code = (shipped("lua") / f"{name}.lua").read_text()
    made = script(name)
    fixed = made._args
    opening = code[: code.find("--@include")] if "--@include" in code else code
    for place in range(1, fixed + 1):
        assert f"ARGV[{place}]" in opening
    assert len(re.findall(r"ARGV\[\d+\]", made.source.decode())) == fixed


@pytest.mark.parametrize("path", [*PARTS, *(shipped("lua") / f"{n}.lua" for n in SHIPPED)],
                         ids=lambda path: path.stem)  # fmt: skip
def test_what_no_script_does(path):
    code = "\n".join(line.partition("--")[0] for line in path.read_text().splitlines())
    for banned in ("tostring", "KEYS *", "'SCAN'", "'EVAL'", "loadstring", "'EXPIRE'", "'SETEX'"):
        assert banned not in code, banned
    # Every whole number that is written out is written so that no digit is lost.
    assert set(re.findall(r"%[0-9.]*[a-z]", code)) <= {"%.0f"}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_server_takes_it(every_redis, name):
    made = script(name)
    assert every_redis.call("SCRIPT", "LOAD", made.source).decode() == made.sha
