"""Reads the gateway file and its policy files, and checks them against each other.

`load` gives a Loaded without errors, or raises ConfigError with every error of every file. It
reads files, so it runs in a thread where an event loop is running.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from proxy.policy.checks import check_draft
from proxy.policy.draft import Draft, Part, build, describe, unknown_key
from proxy.policy.models.breakers import BreakerSection
from proxy.policy.models.caches import CacheSection
from proxy.policy.models.files import GatewayFile, PolicyFile
from proxy.policy.models.idempotency import IdempotencySection
from proxy.policy.models.leaves import Section, name
from proxy.policy.models.limits import LimitSection
from proxy.policy.models.retries import RetrySection
from proxy.policy.models.routes import RouteSection
from proxy.policy.models.server import AdminSection, LogSection, ServerSection
from proxy.policy.models.store import StoreSection
from proxy.policy.models.upstreams import UpstreamSection
from proxy.policy.problem import ConfigError, Loc, Problem
from proxy.policy.reader import Document, Tree, read
from proxy.policy.sources import Sources

S = TypeVar("S", bound=Section)


@dataclass(slots=True)
class Loaded:
    """A configuration without errors."""

    draft: Draft
    warnings: list[Problem]

    @property
    def sources(self) -> Sources:
        return self.draft.sources


def load(
    path: Path, env: Mapping[str, str] | None = None, sources: Sources | None = None
) -> Loaded:
    """Loads the gateway file at `path` and everything it names, by way of `sources` where they
    are given (fresh ones). Raises ConfigError."""
    env = os.environ if env is None else env
    sources = Sources() if sources is None else sources
    gateway = _read(sources, path, str(path), env)
    if gateway.tree or not gateway.broken:
        draft = _read_gateway(path, sources, gateway)
        _read_policies(draft, env)
        check_draft(draft)
        documents = draft.documents
    else:
        documents = [gateway]
    problems = [
        problem
        for document in documents
        for problem in sorted(document.problems, key=lambda p: (p.line, p.col))
    ]
    if any(not problem.warning for problem in problems):
        raise ConfigError(problems, sources)
    return Loaded(draft, problems)


def survey(path: Path) -> Sources:
    """What the configuration is read from, as it is now, whether or not it is sound."""
    try:
        return load(path).sources
    except ConfigError as failed:
        return failed.sources


def _read(sources: Sources, path: Path, shown: str, env: Mapping[str, str]) -> Document:
    try:
        data = sources.read(path)
    except OSError as error:
        document = Document(shown)
        document.add((), f"cannot be read: {error.strerror}")
        return document
    return read(shown, data, env)


def _read_gateway(path: Path, sources: Sources, document: Document) -> Draft:
    _refuse_unknown(document, GatewayFile, PolicyFile, "a policy file (see policies)")
    return Draft(
        path,
        sources,
        document,
        _section(document, "server", ServerSection),
        _section(document, "log", LogSection),
        _section(document, "admin", AdminSection),
        _section(document, "store", StoreSection),
        _named(document, "upstreams", UpstreamSection),
        _routes(document),
        documents=[document],
    )


def _refuse_unknown(
    document: Document, model: type[Section], other: type[Section], place: str
) -> None:
    for key in document.tree:
        if key not in model.model_fields:
            message = unknown_key(key, model)
            if key in other.model_fields:
                message = f"unknown key here: it belongs in {place}"
            document.add((key,), message, key=True)


def _map(document: Document, loc: Loc, value: Tree | None) -> dict[str, Tree]:
    if isinstance(value, dict) or value is None:
        return value or {}
    document.add(loc, f"must be a map of keys, not {describe(value)}")
    return {}


def _section(document: Document, key: str, model: type[S]) -> Part[S]:
    return build(document, (key,), _map(document, (key,), document.tree.get(key)), model)


def _named(document: Document, key: str, model: type[S]) -> dict[str, Part[S]]:
    """The entries of a map of names. One with a bad name is kept, so that it is found."""
    parts = {}
    for entry, value in _map(document, (key,), document.tree.get(key)).items():
        loc: Loc = (key, entry)
        try:
            name(entry)
        except ValueError as error:
            document.add(loc, str(error), key=True)
        parts[entry] = build(document, loc, _map(document, loc, value), model)
    return parts


def _routes(document: Document) -> list[Part[RouteSection]]:
    routes = document.tree.get("routes", [])
    if not isinstance(routes, list):
        document.add(("routes",), 'must be a list: each route begins with "- name: "')
        return []
    parts = []
    for index, value in enumerate(routes):
        loc: Loc = ("routes", index)
        parts.append(build(document, loc, _map(document, loc, value), RouteSection))
    return parts


def _read_policies(draft: Draft, env: Mapping[str, str]) -> None:
    for path, shown in _policy_paths(draft):
        document = _read(draft.sources, path, shown, env)
        draft.documents.append(document)
        draft.unread = draft.unread or (document.broken and not document.tree)
        _refuse_unknown(document, PolicyFile, GatewayFile, "the gateway file")
        _add_named(draft.limits, document, _named(document, "limits", LimitSection))
        _add_named(draft.caches, document, _named(document, "caches", CacheSection))
        _add_named(draft.breakers, document, _named(document, "breakers", BreakerSection))
        _add_named(draft.retries, document, _named(document, "retries", RetrySection))
        _add_named(draft.idempotency, document, _named(document, "idempotency", IdempotencySection))


def _add_named(known: dict[str, Part[S]], document: Document, parts: dict[str, Part[S]]) -> None:
    """Adds a policy file's entries of one kind to those of the files before."""
    for entry, part in parts.items():
        first = known.setdefault(entry, part)
        if first is not part:
            line, _ = first.document.keys[first.loc]
            message = f"is defined already in {first.document.file}, line {line}"
            document.add(part.loc, message, key=True)


def _policy_paths(draft: Draft) -> list[tuple[Path, str]]:
    """The policy files, in order: each as it is opened and as it is shown."""
    gateway = draft.gateway
    given = gateway.tree.get("policies")
    part = build(gateway, (), {} if given is None else {"policies": given}, GatewayFile)
    if not part.has("policies"):
        draft.unread = True
        return []
    found: list[tuple[Path, str]] = []
    seen = {draft.path.resolve()}  # the gateway file may lie in the policies folder
    for index, entry in enumerate(part.section.policies):
        loc: Loc = ("policies", index) if isinstance(given, list) else ("policies",)
        for path in _expand(draft, draft.resolve(entry), loc, optional=given is None):
            real = path.resolve()
            if real not in seen:
                found.append((path, os.path.normpath(path)))
            elif isinstance(given, list):
                gateway.add(loc, f"names {os.path.normpath(path)} again")
            seen.add(real)
    return found


def _expand(draft: Draft, path: Path, loc: Loc, *, optional: bool) -> list[Path]:
    """The files that one entry of `policies` stands for."""
    try:
        if draft.sources.is_file(path):
            return [path]
        return [path / file for file in draft.sources.policy_files(path)]
    except OSError as error:
        if not optional:
            message = f"{os.path.normpath(path)} cannot be read: {error.strerror}"
            draft.gateway.add(loc, message)
            draft.unread = True
        return []
