"""What a stored answer is filed under.

A primary key is a 128-bit hash of length-prefixed parts, so two requests share one only where every
part is the same (core.cache.vary then tells the variants apart, under hashes of another domain).

Keyed:
- the cache's and the route's name: a route may be chosen by a header, and its upstream, rewriting
  and request_headers decide what is fetched;
- the key rule itself, so a changed rule begins anew instead of reading old keys otherwise;
- the scheme, and the Host as sent upstream (lower case; the port stays, as the upstream sees it);
- the raw path, and the query as the rule says: verbatim, where it is `all`; none is not empty;
- the rule's headers and cookies as the upstream sees them (core.cache.seen); absent is not empty;
- every field in CLAIMS that goes upstream: frameworks build URLs, redirects and even methods from
  them. Strangers' are taken off (the contract's list) or keyed; a trusted peer's are keyed, and of
  its Forwarded the host and proto parameters.

Forwarded, yet not keyed, and why that is sound:
- X-Forwarded-For, X-Real-IP and their like: they name the client, who cannot choose them; an origin
  that answers by address says so (Vary, private), and `Vary: X-Forwarded-For` works;
- Accept*, Origin, User-Agent, Prefer and any other field: RFC 9111 §4.1 makes the origin say Vary;
- Cookie and Authorization: core.cache.storing rules what may be stored; `cookies` can key some;
- Range and conditions: an entry is only filled by a fetch that has none, or by a 200;
- a body: a GET with one is never answered from the cache; Via, X-Request-Id, traceparent: traces.

Rules of the query:
- `exclude` compares names as they stand in the URL, `include` as an origin might read them
  (decoded, any case, PHP's "a.b" and "a[]"): in doubt a parameter is keyed.
- A parameter with ";" is always keyed: some origins part parameters there, so that `utm_x=1;id=2`
  would smuggle an id past a rule that ignores utm_*.
- A cookie counts wherever an origin might see it, all its values in order.
"""

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from proxy.core.cache.seen import Request, Seen, hosts
from proxy.core.cache.urls import host_tag, keyed_target, target_tag

CLAIMS: Final = frozenset(
    {
        "front-end-https", "x-envoy-original-path", "x-forwarded-host", "x-forwarded-method",
        "x-forwarded-path", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-proto",
        "x-forwarded-protocol", "x-forwarded-scheme", "x-forwarded-server", "x-forwarded-ssl",
        "x-forwarded-uri", "x-host", "x-http-host-override", "x-http-method",
        "x-http-method-override", "x-method-override", "x-original-host", "x-original-uri",
        "x-original-url", "x-rewrite-url", "x-scheme", "x-url-scheme",
    }
)  # fmt: skip
"""Fields by which a request may say that it is another one: always keyed where present."""

_FORWARDED_PARTS = re.compile(
    r"(?<![0-9A-Za-z_-])(host|proto)[ \t]*=[ \t]*(\"(?:[^\"\\]|\\.)*\"?|[^;,\s]*)", re.IGNORECASE
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NAME_CHARS = r"!#$%&'*+.^_`|~0-9A-Za-z-"


def _part(value: str | None) -> str:
    """One part of a key: absent, or its length and itself, so that no part runs into the next."""
    return "-" if value is None else f"{len(value)}:{value}"


_HASH: Final = blake2b(digest_size=16)


def _digest(text: str) -> bytes:
    hashed = _HASH.copy()  # quicker than a new one with its parameter
    hashed.update(text.encode("latin-1"))
    return hashed.digest()


def _wire(text: str) -> str:
    """Configuration text as it would stand on the wire: UTF-8, one character per byte."""
    return text.encode().decode("latin-1")


def space(cache: str, route: str) -> str:
    """The space of a cache policy within a route: what `primary` wants; made once, at load."""
    return _part(_wire(cache)) + _part(_wire(route))


class _Globs:
    """Names, each perhaps with one `*` at its end."""

    __slots__ = ("_exact", "_prefixes")

    def __init__(self, names: set[str]) -> None:
        self._exact = frozenset(name for name in names if not name.endswith("*"))
        self._prefixes = tuple(name[:-1] for name in names if name.endswith("*"))

    def match(self, name: str) -> bool:
        return name in self._exact or name.startswith(self._prefixes)


def _require_globs(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        raise ValueError(f"{what} needs at least one parameter")
    for name in names:
        if not name or name == "*":
            raise ValueError(f"{name!r} is no parameter; query: all or none is for all of them")
        if "*" in name[:-1]:
            raise ValueError(f"{name!r}: a * can only stand at the end")
        if bad := next((char for char in name if char in "&=;#" or char < " "), None):
            raise ValueError(f"{name!r}: a parameter's name cannot hold {bad!r}")
    return [_wire(name) for name in names]


def _spellings(name: str) -> set[str]:
    """How a name stands in URLs: as it is, and percent-encoded as browsers do."""
    star = "*" if name.endswith("*") else ""
    return {name, quote(name.removesuffix("*").encode("latin-1"), safe="") + star}


def _read_name(name: str) -> str:
    """A parameter's name as the most generous origin might read it."""
    if "%" in name or "+" in name:
        name = unquote_to_bytes(name.replace("+", " ").encode("latin-1")).decode("latin-1")
    name = name.lstrip(" ").partition("\0")[0]
    return name.partition("[")[0].replace(".", "_").replace(" ", "_").lower()


class CacheKeyRule:
    """A cache's `key`, compiled. `text` is its one canonical spelling."""

    __slots__ = ("_cookies", "_exclude", "_head", "_include", "_no_query", "cookies", "headers",
                 "reading", "text")  # fmt: skip

    def __init__(
        self,
        query: str,
        include: list[str] | None,
        exclude: list[str] | None,
        headers: tuple[str, ...],
        cookies: tuple[str, ...],
    ) -> None:
        self.headers = headers
        """Lower case, sorted."""
        self.cookies = cookies
        """Case-sensitive, sorted."""
        self._no_query = query == "none"
        self._include = self._exclude = None
        if include is not None:
            query = "include" + "".join(map(_part, sorted(include)))
            self._include = _Globs(
                {n for name in include for n in (name, _read_name(name)) if n not in ("", "*")}
            )
        if exclude is not None:
            query = "exclude" + "".join(map(_part, sorted(exclude)))
            self._exclude = _Globs({n for name in exclude for n in _spellings(name)})
        self._cookies = tuple(
            (name, re.compile(f"(?<![{_NAME_CHARS}]){re.escape(name)}[ \t]*=")) for name in cookies
        )
        lists = "".join(
            f"{len(names)}," + "".join(map(_part, names)) for names in (headers, cookies)
        )
        self.reading = _part(query)
        """What it does to queries, in one canonical spelling."""
        self.text = f"{self.reading}{lists}"
        # "p" keeps primary keys apart from those of variants; the number is the format's.
        self._head = "p1" + _part(self.text)

    @classmethod
    def parse(
        cls,
        query: str = "all",
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        headers: Sequence[str] = (),
        cookies: Sequence[str] = (),
    ) -> "CacheKeyRule":
        """Reads a policy's `key`. `query` is "all" or "none"; `include` or `exclude` stand for the
        maps of that name. Raises ValueError, a sentence."""
        if query not in ("all", "none"):
            raise ValueError(f"query must be all, none, include or exclude, not {query!r}")
        if include is not None and exclude is not None:
            raise ValueError("query takes include or exclude, not both")
        for name in (*headers, *cookies):
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is not a name")
        return cls(
            query,
            None if include is None else _require_globs("include", include),
            None if exclude is None else _require_globs("exclude", exclude),
            tuple(sorted({name.lower() for name in headers})),
            tuple(sorted(set(cookies))),
        )

    def keyed_query(self, query: str | None) -> str | None:
        """What of a raw query is keyed; None where nothing is."""
        if query is None or self._no_query:
            return None
        if self._exclude is not None:
            exclude = self._exclude.match
            kept = [p for p in query.split("&") if ";" in p or not exclude(p.partition("=")[0])]
        elif self._include is not None:
            include = self._include.match
            kept = [
                pair
                for pair in query.split("&")
                if ";" in pair
                or include(name := pair.partition("=")[0])
                or include(_read_name(name))
            ]
        else:
            return query
        return "&".join(kept) if kept else None

    def preimage(self, space: str, ex: Request, seen: Seen | None = None) -> str:
        """What is hashed: injective in everything that the module says is keyed."""
        query = None if ex.query is None else self.keyed_query(ex.query)
        text = (
            f"{self._head}{len(space)}:{space}{ex.scheme}:{len(ex.authority)}:"
            f"{ex.authority.lower()}{len(ex.path)}:{ex.path}"
            + ("-" if query is None else f"{len(query)}:{query}")
        )
        index = ex.fields.index
        claims = not CLAIMS.isdisjoint(index) or (ex.trusted and "forwarded" in index)
        if not (claims or self.headers or self._cookies):
            return text
        seen = Seen(ex) if seen is None else seen
        text += "".join([_part(seen.get(name)) for name in self.headers])
        if self._cookies:
            sent = seen.get("cookie")
            text += "".join([_cookie(sent, name, pattern) for name, pattern in self._cookies])
        return text + _claims(ex, seen) if claims else text


def _claims(ex: Request, seen: Seen) -> str:
    """The part of CLAIMS and of a trusted Forwarded: nothing where the request has none."""
    index = ex.fields.index
    text = "".join(
        _part(name) + _part(index[name])
        for name in sorted(index.keys() & CLAIMS)
        if name not in seen.listed
    )
    if ex.trusted and "forwarded" in index and "forwarded" not in seen.listed:
        for name, value in _FORWARDED_PARTS.findall(index["forwarded"]):
            text += f"f{_part(name.lower())}{_part(value)}"
    return text


def _cookie(sent: str | None, name: str, pattern: re.Pattern[str]) -> str:
    """A cookie's part: every piece in which an origin could find it, in order."""
    if sent is None or name not in sent:
        return "-"
    if '"' in sent:
        # Some read a ";" within quotes as part of the value, some do not: all of it is keyed.
        return "q" + _part(sent)
    pieces = [piece.strip(" \t") for piece in sent.split(";") if pattern.search(piece)]
    return f"{len(pieces)}," + "".join(map(_part, pieces)) if pieces else "-"


def primary(rule: CacheKeyRule, space: str, ex: Request, seen: Seen | None = None) -> bytes:
    """The 16 bytes that a routed request is filed under. `space` comes from `keys.space`."""
    return _digest(rule.preimage(space, ex, seen))


def variant(primary: bytes, vary: Sequence[tuple[str, str | None]]) -> bytes:
    """The 16 bytes of one variant: its primary key, and the (name, value) pairs that Vary names."""
    pairs = "".join([_part(name) + _part(value) for name, value in vary])
    return _digest(f"v1{primary.decode('latin-1')}{pairs}")


def implicit_tags(rule: CacheKeyRule, ex: Request) -> tuple[str, ...]:
    """The hidden tags of what is stored for this request, by which its URL is purged."""
    plain = keyed_target(rule, ex.target)
    of_hosts = [host_tag(rule, host, plain) for host in hosts(ex)]
    return tuple(dict.fromkeys((target_tag(rule, plain), *of_hosts)))


def shown(rule: CacheKeyRule, ex: Request) -> str:
    """The key for a person: `https://h/p?q, header:x-lang=#a1b2c3d4e5f6, cookie:lang=(absent)`.
    What headers and cookies say may be a credential, so it is shown as a short hash."""
    seen = Seen(ex)
    query = rule.keyed_query(ex.query)
    said = [f"{ex.scheme}://{ex.authority.lower()}{ex.path}{'' if query is None else f'?{query}'}"]
    said += [f"header:{name}={_redacted(seen.get(name))}" for name in rule.headers]
    for name, pattern in rule._cookies:
        found = _cookie(seen.get("cookie"), name, pattern)
        said.append(f"cookie:{name}={_redacted(None if found == '-' else found)}")
    index = ex.fields.index
    for name in sorted(CLAIMS & index.keys() - seen.listed):
        said.append(f"header:{name}={_redacted(index[name])}")
    return ", ".join(said)


def _redacted(value: str | None) -> str:
    if value is None:
        return "(absent)"
    return "#" + blake2b(value.encode("latin-1"), digest_size=6).hexdigest()
