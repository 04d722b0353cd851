"""One YAML scalar: environment variables replaced, then typed by the YAML 1.2 core schema.

- Only `true` and `false` are booleans. `on`, `off`, `yes`, `no` are words, `1:30` is a word, and
  `010` is ten: YAML 1.1 read them as booleans, a number of seconds and an octal.
- `${NAME}` and `${NAME:-default}` are replaced, once: what a variable holds is not searched again.
  The default also stands in for an empty variable, as in a shell. `$${` is a literal `${`.
- A plain scalar is typed after that, so `${PORT}` can be a number; a quoted one stays a string.
- A variable is one scalar, never a list or a map: a default that looks like one is refused.
- An empty value is None: left out.

A `${NAME}` is hidden from the YAML parser (`hide_variables`): inside `{ }` and `[ ]` its own braces
would end the value.
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
_WHOLE = re.compile(r"\$\{([^{}\n]*)\}")
_COLLECTION_DEFAULT = re.compile(
    r"\s*\$\{[A-Za-z_][A-Za-z0-9_]*:-\s*(?:\[.*\]\s*\}\s*|\{.*)", re.DOTALL
)
# As in a shell or a compose file. In the middle of a word a $ is more likely a literal one.
_BARE_NAME = re.compile(r"(?<![\w$])\$([A-Z_][A-Z0-9_]+)")

# What could end a plain scalar within a flow collection (YAML 1.2 §7.3.3).
_INDICATORS = "{}[],:#"


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


def hide_variables(text: str) -> tuple[str, dict[int, str]]:
    """Replaces the indicators in every `${…}` by private-use characters, one for one, so that all
    places in the text stay what they were. The second is for `str.translate`, to turn it back."""
    if not _WHOLE.search(text):
        return text, {}
    used = set(text)
    for first in range(0xF0000, 0xFFFF0, len(_INDICATORS)):
        stand_ins = [chr(first + place) for place in range(len(_INDICATORS))]
        if used.isdisjoint(stand_ins):
            break
    hiding = str.maketrans(_INDICATORS, "".join(stand_ins))
    showing = dict(zip(map(ord, stand_ins), _INDICATORS, strict=True))
    return _WHOLE.sub(lambda found: found.group().translate(hiding), text), showing


def bare_name(text: str) -> str | None:
    """The first environment-like `$NAME` without braces, which is not replaced."""
    found = _BARE_NAME.search(text)
    return found.group(1) if found else None


def read_scalar(
    text: str,
    plain: bool,
    env: Mapping[str, str],
    complain: Callable[[str], None],
    lent: list[tuple[str, str]],
) -> Scalar | None:
    """The scalar, or None where it is empty (left out). `complain` is called with what is wrong
    with a variable; `lent` takes (what a variable held, how it was written)."""
    if plain and _COLLECTION_DEFAULT.fullmatch(text):
        complain(
            "a variable is one value, never a list or a map: "
            "give each item a variable of its own, such as [${A:-a}, ${B:-b}]"
        )
        return None
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
