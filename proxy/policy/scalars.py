"""One YAML scalar: environment variables replaced, then typed by the YAML 1.2 core schema.

- Only `true` and `false` are booleans. `on`, `off`, `yes`, `no` are words, `1:30` is a word, and
  `010` is ten: YAML 1.1 read them as booleans, a number of seconds and an octal.
- `${NAME}` and `${NAME:-default}` are replaced, once: what a variable holds is not searched again.
  The default also stands in for an empty variable, as in a shell. `$${` is a literal `${`.
- A plain scalar is typed after that, so `${PORT}` can be a number; a quoted one stays a string.
- An empty value is None: left out.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Value = str | int | float | bool | None

_INT = re.compile(r"[-+]?[0-9]{1,300}")
_OCTAL = re.compile(r"0o[0-7]{1,300}")
_HEX = re.compile(r"0x[0-9a-fA-F]{1,300}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(?:(inf|Inf|INF)|(?:nan|NaN|NAN))")
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))

_VARIABLE = re.compile(r"\$\$\{|\$\{([^{}]*)(\})?")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:-)(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True, repr=False)
class Scalar:
    """A scalar that is there. `text` is as written (variables replaced), `value` as typed.

    Not printed by repr: it may hold a secret.
    """

    text: str
    value: str | int | float | bool

    @property
    def kind(self) -> str:
        """What it is, for a sentence."""
        if isinstance(self.value, bool):
            return "a boolean"
        return "text" if isinstance(self.value, str) else "a number"


def type_plain(text: str) -> Value:
    """What a plain scalar means in the YAML 1.2 core schema."""
    if text in _NULLS:
        return None
    if text == "true":
        return True
    if text == "false":
        return False
    if _INT.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEX.fullmatch(text):
        return int(text[2:], 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if special := _SPECIAL.fullmatch(text):
        return float(special.group(1) + "inf") if special.group(2) else float("nan")
    return text


# What is shorter may well stand in a sentence by itself, and is no secret.
_SECRET_LENGTH = 4


def read_scalar(
    text: str,
    plain: bool,
    env: Mapping[str, str],
    complain: Callable[[str], None],
    lent: list[tuple[str, str]],
) -> Scalar | None:
    """The scalar, or None where it is empty (left out). `complain` is told of bad variables,
    `lent` takes (what a variable held, how it was written)."""
    if "${" in text:
        text = _replace(text, env, complain, lent)
        if plain:
            text = text.strip()
    if not plain:
        return Scalar(text, text)
    value = type_plain(text)
    return None if value is None else Scalar(text, value)


def _replace(
    text: str,
    env: Mapping[str, str],
    complain: Callable[[str], None],
    lent: list[tuple[str, str]],
) -> str:
    def one(found: re.Match[str]) -> str:
        if found.group() == "$${":
            return "${"
        inside, closed = found.groups()
        if closed is None:
            complain('has a "${" without its "}"; write $${ for a literal ${')
            return ""
        named = _NAME.fullmatch(inside)
        if named is None:
            complain(f'cannot read "{found.group()}": write ${{NAME}} or ${{NAME:-default}}')
            return ""
        name, has_default, default = named.groups()
        held = env.get(name)
        if held is not None and len(held) >= _SECRET_LENGTH:
            lent.append((held, found.group()))
        if has_default:
            return held or default
        if held is None:
            complain(
                f"the environment variable {name} is not set; "
                f"${{{name}:-default}} would give it a default"
            )
            return ""
        return held

    return _VARIABLE.sub(one, text)
