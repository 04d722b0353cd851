"""What a request is counted under: the parts of a limit's key, and the rules of an override.

Rules:
- A part that is missing is the one shared value "absent", distinct from empty. It never skips the
  limit and never becomes the address; only `a|b` falls back, where it says so.
- An address and a text that reads like it are different keys, or `header:X-Api-Key|ip` would let
  a caller spend the share of any address it can spell.
- `header:NAME` takes one line (`RepeatedHeader`): joined, a second line would make another key
  while the origin may read the first line alone. `header:NAME+` joins the lines with ", ".
- The scheme of Authorization is case-insensitive (RFC 9110 §11.1), as is the number of spaces
  behind it (§11.4): both are brought to one spelling. A value without a scheme stays as it is.
- The first query parameter or cookie counts. Query parameters (with "+" as a space) and captures
  are percent-decoded, so that no other spelling of the same value is another key.
- IPv4-mapped addresses are IPv4; IPv6 counts by /64, the least that a subscriber is given.
- What is stored is a 128-bit hash of length-prefixed parts: keys that differ cannot run together.

Text is latin-1 wire text, one character per byte, as everywhere in the gateway.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from hmac import digest as hmac_digest
from typing import Protocol
from urllib.parse import unquote_to_bytes

from proxy.core.addresses import AddressSet, address_key, parse_address
from proxy.core.fields import Fields


class RepeatedHeader(ValueError):
    """A header that is a part of a key came in several lines; the sentence is for the client."""

    def __init__(self, name: str) -> None:
        super().__init__(f"The request has several {name} fields where only one is allowed.")


class Named(Protocol):
    """Something with a name: a route."""

    @property
    def name(self) -> str: ...


class Subject(Protocol):
    """What keys read of a request; an Exchange is one."""

    @property
    def fields(self) -> Fields: ...
    @property
    def query(self) -> str | None: ...
    @property
    def client_ip(self) -> str: ...
    @property
    def captures(self) -> Mapping[str, str]: ...
    @property
    def route(self) -> Named | None: ...
    @property
    def method(self) -> str: ...
    @property
    def host(self) -> str: ...


Reader = Callable[[Subject], str | None]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CAPTURE_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_PARTS = "ip, header:NAME, query:NAME, cookie:NAME, path.NAME, route, method, host or global"

# How a resolved part goes into the hash: its kind, then its text.
_ABSENT = "-"
_ADDRESS = "a"
_TEXT = "t"

_HASH = blake2b(digest_size=16)
_address = lru_cache(maxsize=4096)(address_key)  # the same clients come again and again


def query_value(query: str | None, name: str) -> str | None:
    """The first parameter called `name`, percent-decoded to wire text; None where there is none.

    A parameter without "=" is there and empty.
    """
    if not query:
        return None
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if (_query_text(key) if "%" in key or "+" in key else key) == name:
            return _query_text(value)
    return None


def cookie_value(cookies: str | None, name: str) -> str | None:
    """The first cookie called `name` (case-sensitive), its value as sent; None where absent."""
    if cookies is None or name not in cookies:
        return None
    for pair in cookies.split(";"):
        key, mark, value = pair.partition("=")
        if mark and key.strip() == name:
            return value.strip()
    return None


def _query_text(text: str) -> str:
    return _percent_decoded(text.replace("+", " "))


def _percent_decoded(text: str) -> str:
    if "%" not in text:
        return text
    return unquote_to_bytes(text.encode("latin-1")).decode("latin-1")


def _wire_text(text: str) -> str:
    """Configuration text as it would stand on the wire: UTF-8, one character per byte."""
    return text.encode().decode("latin-1")


def header_read(part: str) -> str | None:
    """The name, lower case, of the header that a part without fallbacks reads; None for another
    kind of part."""
    return part[7:].removesuffix("+").lower() if part.startswith("header:") else None


def _headers_read(parts: Iterable[str]) -> frozenset[str]:
    names = [header_read(part) for part in parts]
    return frozenset([name for name in names if name is not None])


def _with_lower_scheme(credentials: str) -> str:
    """An Authorization value in the one spelling that counts."""
    scheme, space, rest = credentials.partition(" ")
    return f"{scheme.lower()} {rest.lstrip(' ')}" if space else credentials


def _compile_part(text: str, joins: bool) -> Reader:
    """A reader for one part without fallbacks; `joins` as in KeyTemplate. Raises ValueError, a
    sentence."""
    kind, colon, name = text.partition(":")
    if colon and kind in ("header", "query", "cookie"):
        bare = name.removesuffix("+") if kind == "header" else name
        if not bare or (kind != "query" and not _TOKEN.fullmatch(bare)):
            raise ValueError(f"{text!r} needs a name after the colon")
        if kind == "header":
            return _header_reader(bare, joins or bare != name)
        return _named_reader(kind, name)
    if text.startswith("path."):
        capture = text[5:]
        if not _CAPTURE_NAME.fullmatch(capture):
            raise ValueError(f"{text!r} needs the name of a capture after the dot")
        return lambda ex: (
            None if (raw := ex.captures.get(capture)) is None else _percent_decoded(raw)
        )
    match text:
        case "ip":
            return lambda ex: _address(ex.client_ip) if ex.client_ip else None
        case "route":
            return lambda ex: None if ex.route is None else ex.route.name
        case "method":
            return lambda ex: ex.method
        case "host":
            return lambda ex: ex.host
        case "global":
            return lambda ex: ""
    raise ValueError(f"{text!r} is not a key part: {_PARTS}")


def _header_reader(name: str, joins: bool) -> Reader:
    low = name.lower()

    def read_single(ex: Subject) -> str | None:
        fields = ex.fields
        value = fields.index.get(low)
        # The lengths differ where any field is repeated at all, which hardly any request has.
        if len(fields.index) != len(fields.lines) and value is not None and fields.repeats(low):
            raise RepeatedHeader(name)
        return value

    def read_joined(ex: Subject) -> str | None:
        return ex.fields.index.get(low)

    read = read_joined if joins else read_single
    if low != "authorization":
        return read
    return lambda ex: None if (value := read(ex)) is None else _with_lower_scheme(value)


def _named_reader(kind: str, name: str) -> Reader:
    if kind == "query":
        wire = _wire_text(name)
        return lambda ex: query_value(ex.query, wire)
    return lambda ex: cookie_value(ex.fields.index.get("cookie"), name)


class _Part:
    """One part with its fallbacks: the first that is there gives the value."""

    __slots__ = ("_choices", "fixed", "read")

    def __init__(self, text: str, joins: bool) -> None:
        self.fixed = text == "global"
        """Whether it is the same for every request."""
        self._choices = tuple((choice, _compile_part(choice, joins)) for choice in text.split("|"))
        self.read: Callable[[Subject], str] = lambda ex: _ABSENT
        """The part's value behind its kind, or `_ABSENT`."""
        for choice, read in reversed(self._choices):
            self.read = _tagged(read, _ADDRESS if choice == "ip" else _TEXT, self.read)

    def source(self, ex: Subject) -> str:
        for choice, read in self._choices:
            if read(ex) is not None:
                return choice
        return f"{'|'.join(choice for choice, _ in self._choices)} (absent)"


def _tagged(
    read: Reader, kind: str, otherwise: Callable[[Subject], str]
) -> Callable[[Subject], str]:
    return lambda ex: otherwise(ex) if (value := read(ex)) is None else kind + value


def shown_key(salt: bytes, key: bytes) -> str:
    """A key's hash (`KeyTemplate.digest`) as it is shown, wherever it is: 128 bits of HMAC-SHA-256
    under a secret, in hex. Without the secret, whoever reads it could try out all addresses."""
    return hmac_digest(salt, key, "sha256")[:16].hex()


def _digest(parts: Iterable[str]) -> bytes:
    return _hash("".join([f"{len(part)}:{part}" for part in parts]))


def _hash(text: str) -> bytes:
    hashed = _HASH.copy()  # quicker than a new one with its parameters
    try:
        hashed.update(text.encode("latin-1"))
    except UnicodeEncodeError:  # a route's name may hold any character
        hashed.update(text.encode())
    return hashed.digest()


def _digester(parts: Sequence[_Part]) -> Callable[[Subject], bytes]:
    """`_digest` of what the parts read.

    A hash is not remembered by its text: what a client sends may be a credential.
    """
    reads = [part.read for part in parts]
    if all(part.fixed for part in parts):
        hashed = _digest([_TEXT for _ in parts])
        return lambda ex: hashed
    if len(parts) > 1:
        return lambda ex: _digest([read(ex) for read in reads])
    read = reads[0]

    def digest(ex: Subject) -> bytes:
        part = read(ex)
        return _hash(f"{len(part)}:{part}")

    return digest


class KeyTemplate:
    """A key's parts, compiled. `parts` are their texts as written.

    `joins`: every `header:NAME` joins repeated lines, as `header:NAME+` does. For keys that nobody
    gains from spelling in another way. Else what reads a request raises RepeatedHeader.
    """

    __slots__ = ("_parts", "captures", "digest", "headers", "inputs", "parts")

    def __init__(self, parts: tuple[str, ...], joins: bool = False) -> None:
        self.parts = parts
        self._parts = tuple(_Part(part, joins) for part in parts)
        self.digest = _digester(self._parts)
        """The 16 bytes that this request is counted under."""
        choices = [choice for part in parts for choice in part.split("|")]
        self.captures = frozenset(c[5:] for c in choices if c.startswith("path."))
        """Names of the captures that a route must have."""
        self.headers = _headers_read(choices)
        """Names of the headers read, lower case."""
        self.inputs = tuple(part for part in parts if part != "global")
        """The parts that `digest_values` wants a value for."""

    @classmethod
    def parse(cls, parts: Sequence[str], joins: bool = False) -> "KeyTemplate":
        """Reads the parts of a key. Raises ValueError, a sentence."""
        if not parts:
            raise ValueError("a key needs at least one part; global counts everybody together")
        if len(set(parts)) != len(parts):
            raise ValueError("a key names the same part twice")
        return cls(tuple(parts), joins)

    def values(self, ex: Subject) -> tuple[str | None, ...]:
        """Each part's text, in order; None where it is absent ("" for global)."""
        found = [part.read(ex) for part in self._parts]
        return tuple(None if text == _ABSENT else text[1:] for text in found)

    def is_absent(self, ex: Subject) -> bool:
        """Whether the request has none of the parts; global is always there."""
        return all(part.read(ex) == _ABSENT for part in self._parts)

    def sources(self, ex: Subject) -> list[str]:
        """Where each part's value comes from, in order: `header:X-Api-Key`, or of its fallbacks the
        one that is there. It tells nothing of the value."""
        return [part.source(ex) for part in self._parts]

    def digest_values(self, values: Sequence[str | None]) -> bytes:
        """The 16 bytes for given values of `inputs`, in order; None is absent.

        Where a part falls back to ip, a value that is an address (or a /64) is taken as one.
        Raises ValueError where the number of values is not that of `inputs`.
        """
        if len(values) != len(self.inputs):
            wanted = ", ".join(self.inputs) or "none: the key is global"
            raise ValueError(f"{len(values)} key values given, the parts are: {wanted}")
        given = iter(values)
        return _digest(_TEXT if p == "global" else _tag_value(p, next(given)) for p in self.parts)


def _tag_value(part: str, value: str | None) -> str:
    if value is None:
        return _ABSENT
    if any(header_read(choice) == "authorization" for choice in part.split("|")):
        value = _with_lower_scheme(value)
    if part == "ip":
        return _ADDRESS + address_key(value.removesuffix("/64"))
    if "ip" in part.split("|"):
        try:
            parse_address(value.removesuffix("/64"))
        except ValueError:
            return _TEXT + value
        return _ADDRESS + address_key(value.removesuffix("/64"))
    return _TEXT + value


class WhenRule:
    """An override's condition: every entry must match. Values are exact; `ip` takes CIDRs. Repeated
    header lines are joined."""

    __slots__ = ("_tests", "captures", "entries", "headers")

    def __init__(self, entries: tuple[tuple[str, tuple[str, ...]], ...]) -> None:
        self.entries = entries
        self._tests = tuple(_compile_test(part, values) for part, values in entries)
        self.captures = frozenset(p[5:] for p, _ in entries if p.startswith("path."))
        self.headers = _headers_read([part for part, _ in entries])

    @classmethod
    def parse(cls, entries: Mapping[str, Sequence[str]]) -> "WhenRule":
        """Reads `{part: [values]}`. Raises ValueError, a sentence."""
        if not entries:
            raise ValueError("when needs at least one entry; without one it would match everything")
        return cls(tuple((part, tuple(values)) for part, values in entries.items()))

    def matches(self, ex: Subject) -> bool:
        """Whether every entry holds; an absent part matches nothing."""
        return all(test(ex) for test in self._tests)


def _compile_test(part: str, values: tuple[str, ...]) -> Callable[[Subject], bool]:
    if not values:
        raise ValueError(f"{part} lists no values, so it would never match")
    if part == "global" or "|" in part:
        raise ValueError(f"{part!r} cannot be a condition: name one part")
    if part == "ip":
        within = AddressSet.parse(values).holds
        return lambda ex: within(ex.client_ip)
    read = _compile_part(part, joins=True)
    if part == "route":
        wanted = frozenset(values)
    elif header_read(part) == "authorization":
        wanted = frozenset(_with_lower_scheme(_wire_text(value)) for value in values)
    elif part == "host":
        wanted = frozenset(value.lower().removesuffix(".") for value in values)
    else:
        wanted = frozenset(_wire_text(value) for value in values)
    return lambda ex: read(ex) in wanted
