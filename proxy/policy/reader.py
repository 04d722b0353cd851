"""YAML text → plain maps, lists and scalars, with the place of every key and value.

PyYAML's node graph is read here, not its constructor: `safe_load` keeps the last of two equal
keys, merges `<<`, types by YAML 1.1 and forgets where things stood. Refused with a place:
duplicate keys, lists, maps or null as keys, merge keys, tags, a second document, recursive
aliases, and aliases that unfold to more than `MOST_VALUES`. Everything wrong is reported at once,
but for the syntax, where nothing after the first error can be trusted.
"""

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from proxy.policy.problem import Loc, Problem, dotted
from proxy.policy.scalars import Scalar, bare_name, hide_variables, read_scalar, type_plain

Tree = dict[str, "Tree"] | list["Tree"] | Scalar

MOST_VALUES = 200_000
DEEPEST = 50

Mark = tuple[int, int]
"""Line and column, 1-based."""


@dataclass(slots=True)
class Document:
    """One file's content. `values` and `keys` say where each value and key stands."""

    file: str
    tree: dict[str, Tree] = field(default_factory=dict)
    values: dict[Loc, Mark] = field(default_factory=dict)
    keys: dict[Loc, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    blamed: set[Loc] = field(default_factory=set)
    lent: dict[Loc, list[tuple[str, str]]] = field(default_factory=dict)
    """What variables held, beside how they were written: no message may repeat it."""

    def add(self, loc: Loc, message: str, *, warning: bool = False, key: bool = False) -> None:
        """Notes a problem at the value of `loc`, or at its key; at the nearest that is there.

        One place has one error: what follows from the first would only hide it.
        """
        if loc in self.blamed:
            return
        self.note(loc, message, warning=warning, key=key)

    def note(self, loc: Loc, message: str, *, warning: bool = False, key: bool = False) -> None:
        """As `add`, also where there is an error already."""
        if not warning:
            self.blamed.add(loc)
        place = loc
        marks = self.keys if key else self.values
        while place not in marks and place:
            place, marks = place[:-1], self.values
        for held, written in self.lent.get(loc, ()):
            message = _hide(message, held, written)
        line, col = marks.get(place, (1, 1))
        self.problems.append(Problem(self.file, line, col, dotted(loc), message, warning))

    @property
    def broken(self) -> bool:
        return any(not problem.warning for problem in self.problems)


_ORDINARY = re.compile(r"[a-z_]+|[0-9]{4,5}")
_QUOTED = re.compile(r'"[^"]*"')


def _hide(message: str, held: str, written: str) -> str:
    """The message with what a variable held as it was written.

    An ordinary word may stand in the sentence by itself ("must be true or false"): where the value
    is quoted, only the quotation is touched.
    """
    if _ORDINARY.fullmatch(held):
        hidden = _QUOTED.sub(lambda quoted: quoted.group().replace(held, written), message)
        if hidden != message:
            return hidden
    return message.replace(held, written)


class _Loader(yaml.CSafeLoader):
    """Composes nodes without resolving tags, so that a tag seen later was written by hand."""

    def resolve(self, kind: object, value: object, implicit: object) -> str:
        return ""


def read(file: str, data: bytes, env: Mapping[str, str]) -> Document:
    """Reads one YAML file; what is wrong with it stands in the document's `problems`."""
    document = Document(file)
    text = _decode(document, data)
    if text is None:
        return document
    hidden, showing = hide_variables(text)
    try:
        if (mark := _too_deep(hidden)) is not None:
            document.problems.append(
                Problem(file, *mark, "", f"is nested more than {DEEPEST} levels deep")
            )
            return document
        root = yaml.compose(hidden, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        _syntax_problem(document, text, error)
        return document
    except yaml.reader.ReaderError as error:
        _control_problem(document, text, error)
        return document
    _Walk(document, text, showing, env).root(root)
    return document


def _too_deep(text: str) -> Mark | None:
    """Where the nesting goes too deep. libyaml's composer recurses in C, without a bound.

    Its scanner reads ahead of the events and has, since PyYAML 6.0.4, a bound of its own: where it
    fails, what stands before the failure is judged first. The failure itself is for the composer
    to report.
    """
    try:
        return _beyond_deepest(text)
    except yaml.MarkedYAMLError as error:
        if error.problem_mark is None:
            return None
        try:
            return _beyond_deepest(text[: error.problem_mark.index])
        except yaml.MarkedYAMLError:
            return None


def _beyond_deepest(text: str) -> Mark | None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                return _mark(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return None


def _decode(document: Document, data: bytes) -> str | None:
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        line, col = _place(before, len(before))
        message = f"is not UTF-8: byte 0x{data[error.start]:02x} here"
        document.problems.append(Problem(document.file, line, col, "", message))
        return None


def _place(text: str, index: int) -> Mark:
    head = text[:index]
    return head.count("\n") + 1, index - (head.rfind("\n") + 1) + 1


class _Walk:
    """One walk over a file's nodes."""

    def __init__(
        self, document: Document, text: str, showing: dict[int, str], env: Mapping[str, str]
    ) -> None:
        self.document = document
        self.text = text
        self.showing = showing
        self.env = env
        self.open: list[int] = []
        self.count = 0

    def root(self, node: yaml.Node | None) -> None:
        if node is None:
            return
        self.document.values[()] = _mark(node)
        if isinstance(node, yaml.MappingNode):
            tree = self.value((), node)
            assert isinstance(tree, dict)
            self.document.tree = tree
        elif not (isinstance(node, yaml.ScalarNode) and not node.style and node.value == ""):
            self.document.add((), "must hold a map of keys at its top, such as `routes:`")

    def value(self, loc: Loc, node: yaml.Node) -> Tree | None:
        """The node's value, or None where it is empty or was refused."""
        document = self.document
        document.values[loc] = _mark(node)
        self.count += 1
        if self.count > MOST_VALUES:
            if self.count == MOST_VALUES + 1:
                document.add(loc, f"aliases unfold to more than {MOST_VALUES:,} values")
            return None
        if id(node) in self.open:
            document.add(loc, "an alias stands inside its own anchor")
            return None
        if len(self.open) > DEEPEST:
            document.add(loc, f"aliases nest more than {DEEPEST} levels deep")
            return None
        self.refuse_tag(loc, node)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(loc, node)
        self.open.append(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(loc, node)
            items: list[Tree] = []
            for item in node.value:  # an empty item is left out, and the next takes its index
                value = self.value((*loc, len(items)), item)
                if value is not None:
                    items.append(value)
            return items
        finally:
            self.open.pop()

    def scalar(self, loc: Loc, node: yaml.ScalarNode) -> Scalar | None:
        document, text = self.document, node.value.translate(self.showing)
        lent: list[tuple[str, str]] = []
        scalar = read_scalar(
            text, not node.style, self.env, lambda message: document.note(loc, message), lent
        )
        if lent:
            document.lent[loc] = lent
        if (name := bare_name(text)) is not None:
            document.note(loc, f"${name} is taken as text; did you mean ${{{name}}}?", warning=True)
        return scalar

    def mapping(self, loc: Loc, node: yaml.MappingNode) -> dict[str, Tree]:
        tree: dict[str, Tree] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = self.key(loc, key_node)
            if key is None:
                continue
            place = (*loc, key)
            if key in first:
                line, col = _mark(key_node)
                message = f"is given twice; the first is on line {first[key]}"
                self.document.problems.append(
                    Problem(self.document.file, line, col, dotted(place), message)
                )
                continue
            first[key] = key_node.start_mark.line + 1
            self.document.keys[place] = _mark(key_node)
            value = self.value(place, value_node)
            if value is not None:
                tree[key] = value
        return tree

    def key(self, loc: Loc, node: yaml.Node) -> str | None:
        """A key's text as written, or None where it was refused."""
        message = None
        if not isinstance(node, yaml.ScalarNode):
            kind = "map" if isinstance(node, yaml.MappingNode) else "list"
            message = f"a {kind} cannot be a key" + (
                "; quote a text that begins with { or ${" if kind == "map" else ""
            )
        elif node.style in (None, "") and type_plain(node.value) is None:
            message = "an empty (null) key: a key needs a name; quote it if null is the name"
        elif node.style in (None, "") and node.value == "<<":
            message = "merge keys (<<) are not read: write the keys out, or alias single values"
        if message is not None:
            line, col = _mark(node)
            self.document.problems.append(
                Problem(self.document.file, line, col, dotted(loc), message)
            )
            return None
        self.refuse_tag(loc, node)
        return str(node.value.translate(self.showing))

    def refuse_tag(self, loc: Loc, node: yaml.Node) -> None:
        written = re.compile(r"(?:&\S+\s+)?(![^\s,\[\]{}]*)").match(
            self.text, node.start_mark.index
        )
        if node.tag or written:
            tag = written.group(1) if written else node.tag
            self.document.add(loc, f"tags are not read: take {tag} away")


def _mark(node: yaml.Node | yaml.Event) -> Mark:
    assert node.start_mark is not None
    return node.start_mark.line + 1, node.start_mark.column + 1


# libyaml's words → ours: in its context, in its problem, our sentence, whether the context is the
# place.
_SYNTAX = (
    ("alias", "alphabetic", 'a text that begins with * must be quoted: "*.example.com"', False),
    ("anchor", "alphabetic", "a text that begins with & must be quoted", False),
    ("quoted scalar", "end of stream", "the quotation mark opened here is never closed", True),
    ("quoted scalar", "escape", "an unknown escape: in double quotes write \\\\ for a \\", False),
    ("simple key", "expected ':'", 'a key needs ": " after it', True),
    ("flow mapping", "',' or '}'", "this { } is not closed or holds a bare brace", False),
    ("flow sequence", "',' or ']'", "this [ ] is not closed or holds a bare brace", False),
    ("block mapping", "expected key", "a key is expected here: is the indentation right?", False),
    ("block collection", "'-'", 'a list item ("- ") is expected here, at this indentation', False),
    ("single document", "another", "a second document begins here; a file is one document", False),
    ("", "undefined alias", "an alias (*name) without its anchor (&name) above it", False),
    ("duplicate anchor", "", "an anchor (&name) of a name that is taken already", False),
    ("", "mapping values", 'a second ": " in one line, or an indentation that is off', False),
)  # fmt: skip


def _syntax_problem(document: Document, text: str, error: yaml.MarkedYAMLError) -> None:
    context, problem = error.context or "", error.problem or ""
    mark = error.problem_mark or error.context_mark
    message = f"is not YAML: {problem}" + (f" ({context})" if context else "")
    for in_context, in_problem, sentence, at_context in _SYNTAX:
        if in_context in context and in_problem in problem:
            message = sentence
            if at_context and error.context_mark:
                mark = error.context_mark
            break
    else:
        if "cannot start any token" in problem and mark is not None:
            char = text[mark.index : mark.index + 1]
            message = f"a text cannot begin with {char}: put it in quotes"
            if char == "\t":
                message = "a tab cannot stand in front of a key or value: use spaces"
    if "bare brace" in message:
        message += "; put paths with {captures} in quotes there"
    line, col = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    document.problems.append(Problem(document.file, line, col, "", message))


def _control_problem(document: Document, text: str, error: yaml.reader.ReaderError) -> None:
    place = next((i for i, char in enumerate(text) if not _is_printable(char)), 0)
    line, col = _place(text, place)
    message = (
        f"holds a character that YAML does not allow: U+{ord(text[place : place + 1] or ' '):04X}"
    )
    document.problems.append(Problem(document.file, line, col, "", message))


def _is_printable(char: str) -> bool:
    # YAML 1.2 §5.1, c-printable.
    code = ord(char)
    return (
        code in (0x9, 0xA, 0xD, 0x85)
        or 0x20 <= code <= 0x7E
        or 0xA0 <= code <= 0xD7FF
        or (0xE000 <= code <= 0xFFFD and code != 0xFEFF)
        or code >= 0x10000
    )
