"""Leaves of the YAML: how one scalar is read, and how JSON Schema describes it.

A leaf takes a Scalar (or, for defaults and map keys, its text) and gives the value that the
gateway works with. What is wrong is one sentence that fits after the key's path. Where text is
wanted a plain number or boolean is taken as written: `X-Version: 1.10` is "1.10".
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from proxy.core import units
from proxy.policy.problem import listing, suggest
from proxy.policy.scalars import Scalar, type_plain

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LABEL = r"[A-Za-z0-9_-]{1,63}"  # longer ones no resolver takes (RFC 1035 §2.3.4)
HOST_NAME = re.compile(rf"(?=[A-Za-z0-9_]){_LABEL}(?<!-)(?:\.{_LABEL})*\.?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

LEAF = "x-leaf"
"""Marks leaves in the raw JSON Schema, for `policy.schema` to find."""


class Section(BaseModel):
    """A map of known keys."""

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        validate_default=True,
        arbitrary_types_allowed=True,
        use_attribute_docstrings=True,
    )


def default(text: str) -> Any:
    """A default as the YAML would have it; it is read like anything written there."""
    return Field(text)


def absent(section: type[Section]) -> Any:
    """The default of a section that may be left out: all its defaults."""
    return Field(default_factory=section)


def items(otherwise: Any = ..., *, least: int = 0) -> Any:
    """The default of a list without repeats. The bounds are for editors; `policy.checks` has the
    words for them."""
    bounds: dict[str, Any] = {"minItems": least} if least else {}
    return Field(otherwise, json_schema_extra={"uniqueItems": True, **bounds})


class Leaf:
    """Annotation of a field that is one scalar. `what` names it: "a duration such as 30s"."""

    def __init__(self, what: str, read: Callable[[Scalar], Any], **schema: Any) -> None:
        self.what = what
        self.read = read
        self.schema = schema

    def validate(self, raw: object) -> Any:
        if isinstance(raw, (dict, list)):
            found = "a map" if isinstance(raw, dict) else "a list"
            raise ValueError(f"must be {self.what}, not {found}")  # noqa: TRY004 pydantic's way
        if isinstance(raw, Scalar):
            return self.read(raw)
        text = str(raw).lower() if isinstance(raw, bool) else str(raw)
        value = type_plain(text)
        return self.read(Scalar(text, text if value is None else value))

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {LEAF: True, **self.schema}


class Choice(Leaf):
    """One of the words of a Literal."""

    def __init__(self) -> None:
        self.words: tuple[str, ...] = ()
        super().__init__("one word", self.choose)

    def choose(self, scalar: Scalar) -> str:
        if scalar.text in self.words:
            return scalar.text
        raise ValueError(
            f'must be {listing(self.words)}, not "{scalar.text}"{suggest(scalar.text, self.words)}'
        )

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        chosen = Choice()
        chosen.words = get_args(source)
        chosen.what = listing(chosen.words)
        self.schema = {"enum": list(chosen.words)}
        return core_schema.no_info_plain_validator_function(chosen.validate)


def whole(least: int = 0, most: int = 2**31 - 1) -> Leaf:
    """A whole number within bounds."""

    def read(scalar: Scalar) -> int:
        value = scalar.value
        if isinstance(value, bool) or not isinstance(value, int):
            quoted = isinstance(value, str) and isinstance(type_plain(value), int)
            hint = "; take the quotes away" if quoted else ""
            raise ValueError(f'must be a whole number, not "{scalar.text}"{hint}')  # noqa: TRY004
        if value < least:
            raise ValueError(f"must be at least {least}, not {value}")
        if value > most:
            raise ValueError(f"must be at most {most}, not {value}")
        return value

    return Leaf("a whole number", read, type="integer", minimum=least, maximum=most)


def _boolean(scalar: Scalar) -> bool:
    if isinstance(scalar.value, bool):
        return scalar.value
    hint = "; take the quotes away" if scalar.text in ("true", "false") else ""
    raise ValueError(f'must be true or false, not "{scalar.text}"{hint}')


def _above_nothing(read: Callable[[str], Any]) -> Callable[[Scalar], Any]:
    def positive(scalar: Scalar) -> Any:
        value = read(scalar.text)
        if value == 0:
            raise ValueError(f"must be more than {scalar.text}")
        return value

    return positive


def text(what: str, read: Callable[[str], Any] = str, **schema: Any) -> Leaf:
    """Text as written. A pattern or enum in `schema` replaces "any scalar"."""
    shape = schema or {"type": ["string", "number", "boolean"]}
    return Leaf(what, lambda scalar: read(scalar.text), **shape)


def filled(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    return value


def file_path(value: str) -> str:
    bad = _control(filled(value))
    if bad is not None:
        raise ValueError(f"holds the control character U+{ord(bad):04X}")
    return value


def name(value: str) -> str:
    """A name of something: it becomes a metric label, a header member and part of a URL."""
    if not _NAME.fullmatch(value):
        raise ValueError(
            f'is no name: "{value}" must be 1 to 64 letters, digits, ".", "_" or "-", '
            "and begin with a letter or digit"
        )
    return value


def header_name(value: str) -> str:
    if not TOKEN.fullmatch(value):
        raise ValueError(f'is no header name: "{value}" (RFC 9110 §5.1)')
    return value


def _control(value: str) -> str | None:
    return next((char for char in value if char < " " or char == "\x7f"), None)


def header_value(value: str) -> str:
    bad = _control(value.replace("\t", " "))
    if bad is not None:
        raise ValueError(f"holds the control character U+{ord(bad):04X}")
    return value.strip(" \t")


def _one_or_many(raw: object) -> object:
    return raw if isinstance(raw, list) else [raw]


class OneOrMany(BeforeValidator):
    """Annotation of a list that may also be written as its only item."""

    def __init__(self) -> None:
        super().__init__(_one_or_many)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        many = handler(schema)
        return {"anyOf": [many["items"], many]}


DURATION: dict[str, Any] = {"type": "string", "pattern": "^[0-9]{1,15}(ms|s|m|h|d)$"}
_SIZE: dict[str, Any] = {"type": "string", "pattern": "^[0-9]{1,15}([KMG]i?)?B$"}

Duration = Annotated[
    float, Leaf("a duration such as 30s", lambda s: units.duration(s.text), **DURATION)
]
Timeout = Annotated[
    float, Leaf("a duration such as 30s", _above_nothing(units.duration), **DURATION)
]
Size = Annotated[int, Leaf("a size such as 16KiB", _above_nothing(units.size), **_SIZE)]
Share = Annotated[
    float,
    text(
        "a share such as 50%",
        units.share,
        type="string",
        pattern="^(0?[0-9]{1,2}([.][0-9]{1,4})?|100([.]0{1,4})?)%$",
    ),
]
Count = Annotated[int, whole(0)]
Positive = Annotated[int, whole(1)]
Boolean = Annotated[bool, Leaf("true or false", _boolean, type="boolean")]
Text = Annotated[str, text("text", filled)]
FilePath = Annotated[str, text("a path", file_path)]
HeaderName = Annotated[
    str, text("a header name", header_name, type="string", pattern="^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
]
HeaderValue = Annotated[str, text("text", header_value)]
