"""A configuration while it is checked: every section, as far as it could be read.

A Part is one named thing (a route, a limit, `server`) with its place in a file. A field that was
wrong is missing from its section, so that the other fields can still be checked: all errors in
one pass. Whoever reads a field of a Part asks `has` first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from proxy.policy.models.breakers import BreakerSection
from proxy.policy.models.caches import CacheSection
from proxy.policy.models.idempotency import IdempotencySection
from proxy.policy.models.leaves import Section
from proxy.policy.models.limits import LimitSection
from proxy.policy.models.retries import RetrySection
from proxy.policy.models.routes import RouteSection
from proxy.policy.models.server import AdminSection, LogSection, ServerSection
from proxy.policy.models.store import StoreSection
from proxy.policy.models.upstreams import UpstreamSection
from proxy.policy.problem import Loc, listing, suggest
from proxy.policy.reader import Document, Tree
from proxy.policy.scalars import Scalar
from proxy.policy.sources import Sources

S = TypeVar("S", bound=Section)


@dataclass(slots=True)
class Part(Generic[S]):
    """One section and where it stands."""

    section: S
    document: Document
    loc: Loc

    def has(self, *names: str) -> bool:
        """Whether these fields could be read."""
        return all(name in self.section.__dict__ for name in names)

    def error(self, message: str, *loc: str | int) -> None:
        """Notes an error at a place within the part."""
        self.document.add((*self.loc, *loc), message)

    def warn(self, message: str, *loc: str | int) -> None:
        """Notes a warning there; of the part itself, at its name."""
        self.document.add((*self.loc, *loc), message, warning=True, key=not loc)

    def is_given(self, *loc: str | int) -> bool:
        """Whether the file says something at this place, rather than leaving the default."""
        return (*self.loc, *loc) in self.document.values


@dataclass(slots=True)
class Draft:
    """Everything that the files say."""

    path: Path
    sources: Sources
    gateway: Document
    server: Part[ServerSection]
    log: Part[LogSection]
    admin: Part[AdminSection]
    store: Part[StoreSection]
    upstreams: dict[str, Part[UpstreamSection]] = field(default_factory=dict)
    routes: list[Part[RouteSection]] = field(default_factory=list)
    limits: dict[str, Part[LimitSection]] = field(default_factory=dict)
    caches: dict[str, Part[CacheSection]] = field(default_factory=dict)
    breakers: dict[str, Part[BreakerSection]] = field(default_factory=dict)
    retries: dict[str, Part[RetrySection]] = field(default_factory=dict)
    idempotency: dict[str, Part[IdempotencySection]] = field(default_factory=dict)
    documents: list[Document] = field(default_factory=list)
    """The gateway file and the policy files, in the order they were read."""
    unread: bool = False
    """Whether a policy file could not be read at all, so that names may be missing."""

    def resolve(self, path: str) -> Path:
        """A path as the YAML means it: relative to the gateway file."""
        return self.path.parent / path


def build(document: Document, loc: Loc, tree: Mapping[str, Tree], model: type[S]) -> Part[S]:
    """The section as far as it can be read; what cannot is noted in the document."""
    fields = model.model_fields
    for key in tree:
        if key not in fields:
            document.add((*loc, key), unknown_key(key, model), key=True)
    section = model.model_construct()
    for key, about in fields.items():
        if key not in tree and about.is_required():
            document.add((*loc, key), _missing(about.description))
            continue
        value = tree[key] if key in tree else about.get_default(call_default_factory=True)
        section.__dict__.pop(key, None)
        try:
            setattr(section, key, value)
        except ValidationError as error:
            report(document, loc, model, error)
    return Part(section, document, loc)


def report(document: Document, loc: Loc, model: type[Section], error: ValidationError) -> None:
    """Notes pydantic's errors in our words."""
    for found in error.errors(include_url=False):
        inner = found["loc"]
        place: Loc = (*loc, *(part for part in inner if part != "[key]"))
        message = _sentence(found, model)
        if found["type"] != "missing":
            # A short form (a text where a map may stand) has no places of its own below it.
            while place and place not in document.values:
                place = place[:-1]
        is_key = found["type"] == "extra_forbidden" or (inner and inner[-1] == "[key]")
        document.add(place, message, key=bool(is_key))


def _sentence(found: ErrorDetails, model: type[Section]) -> str:
    inner = found["loc"]
    match found["type"]:
        case "value_error":
            return str(found["ctx"]["error"])
        case "extra_forbidden":
            owner = _section_at(model, inner[:-1])
            return unknown_key(str(inner[-1]), owner) if owner else "unknown key"
        case "missing":
            owner = _section_at(model, inner[:-1])
            about = owner.model_fields.get(str(inner[-1])) if owner else None
            return _missing(about.description if about else None)
        case "list_type":
            return f"must be a list, not {describe(found['input'])}{_as_list(found['input'])}"
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"must be a map of keys, not {describe(found['input'])}"
    raise AssertionError(f"no words for {found['type']}")


def unknown_key(key: str, model: type[Section]) -> str:
    """The sentence for a key that `model` does not have."""
    known = list(model.model_fields)
    hint = suggest(key, known) or f"; the keys here are {listing(known, 'and')}"
    return f"unknown key{hint}"


def _missing(description: str | None) -> str:
    if not description:
        return "is missing"
    text = description.strip().removesuffix(".")
    return f"is missing: {text[0].lower()}{text[1:]}"


def describe(value: object) -> str:
    """What stands there, for a sentence."""
    if isinstance(value, Scalar):
        return f'"{value.text}"' if len(value.text) < 60 else "text"
    return "a list" if isinstance(value, list) else "a map"


def _as_list(value: object) -> str:
    return f': write ["{value.text}"]' if isinstance(value, Scalar) else ""


def _section_at(model: Any, loc: tuple[str | int, ...]) -> type[Section] | None:
    """The section that stands at `loc` below `model`: the annotations, followed."""
    here: Any = model
    for part in loc:
        if isinstance(here, type) and issubclass(here, Section):
            about = here.model_fields.get(str(part))
            here = _bare(about.annotation) if about else None
        elif get_origin(here) in (list, dict):
            here = _bare(get_args(here)[-1])
        else:
            return None
    return here if isinstance(here, type) and issubclass(here, Section) else None


def _bare(annotation: Any) -> Any:
    """An annotation without Annotated, None and words that may stand for the rest."""
    while True:
        if hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__
            continue
        some = [
            arg
            for arg in get_args(annotation)
            if arg is not type(None) and get_origin(arg) is not Literal
        ]
        if len(some) == 1 and get_origin(annotation) not in (list, dict):
            annotation = some[0]
            continue
        return annotation
