"""Paths: what is refused, what a pattern means, what captures hold, what is forwarded."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.fields import Fields
from proxy.core.matching import Match, PathPattern, Rewrite, RouteMatch, RouteTable, split_path


def found(pattern: str, path: str) -> dict[str, str] | None:
    """The captures of `pattern` on `path`, or None where it does not match."""
    table = RouteTable([(RouteMatch(PathPattern.parse(pattern)), "it")])
    match = table.find("GET", "h", path, Fields())
    return match.captures if isinstance(match, Match) else None


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("a dot segment", "/a/./b"),
        ("a double dot segment", "/a/../b"),
        ("at the end", "/a/.."),
        ("alone", "/.."),
        ("encoded", "/a/%2e%2E/b"),
        ("half encoded", "/a/.%2e/b"),
        ("with a parameter", "/a/..;x=1/b"),
        ("with an empty parameter", "/a/..;/b"),
        ("encoded, with a parameter", "/a/%2e%2e;jsessionid=1/b"),
        ("with an encoded parameter", "/a/..%3Bx/b"),
        ("a single dot with a parameter", "/a/.;x/b"),
        ("cut out by encoded slashes", "/a/..%2f..%2Fetc/passwd"),
        ("behind an encoded slash", "/a%2f../b"),
        ("a backslash", "/a\\b"),
        ("a backslash as separator", "/a/..\\b"),
        ("an encoded backslash", "/a%5Cb"),
        ("an encoded backslash, lower case", "/a/..%5c..%5cb"),
        ("an encoded NUL", "/a%00.png"),
        ("no leading slash", "a/b"),
        ("nothing", ""),
        ("the asterisk", "*"),
    ],
)
def test_refuses(rule: str, path: str) -> None:
    with pytest.raises(ValueError, match=r"^The path .*\.$"):
        split_path(path)


@pytest.mark.parametrize(
    ("rule", "path", "segments"),
    [
        ("the root is one empty segment", "/", ("",)),
        ("a trailing slash is an empty segment", "/a/", ("a", "")),
        ("double slashes are not folded", "/a//b", ("a", "", "b")),
        ("an encoded slash is no separator", "/a%2Fb/c", ("a%2Fb", "c")),
        ("segments are raw", "/%61%20", ("%61%20",)),
        ("a broken escape passes", "/a%", ("a%",)),
        ("another broken escape passes", "/a%zz/b%2", ("a%zz", "b%2")),
        ("three dots are a name", "/a/.../b", ("a", "...", "b")),
        ("a leading dot is a name", "/.well-known/x", (".well-known", "x")),
        ("a trailing dot is a name", "/a./b", ("a.", "b")),
        ("dots encoded twice are text", "/%252e%252e/x", ("%252e%252e", "x")),
        ("a parameter is text", "/a;v=1/b", ("a;v=1", "b")),
    ],
)
def test_splits(rule: str, path: str, segments: tuple[str, ...]) -> None:
    assert split_path(path) == segments


@pytest.mark.parametrize(
    ("rule", "pattern", "path", "captures"),
    [
        ("a literal is itself", "/a/b", "/a/b", {}),
        ("a literal is not a prefix", "/a", "/a/b", None),
        ("case matters", "/a", "/A", None),
        ("a trailing slash is another path", "/a", "/a/", None),
        ("a trailing slash in the pattern is asked for", "/a/", "/a", None),
        ("double slashes are another path", "/a/b", "/a//b", None),
        ("unreserved characters are decoded", "/a-b~", "/%61%2Db%7e", {}),
        ("also in the pattern", "/%61", "/a", {}),
        ("an encoded slash is not a slash", "/a/b", "/a%2Fb", None),
        ("hex digits have no case", "/a%2fb", "/a%2Fb", {}),
        ("reserved characters are not decoded", "/a@b", "/a%40b", None),
        ("decoding happens once", "/A", "/%2541", None),
        ("a pattern in UTF-8 asks for its escapes", "/café", "/caf%C3%A9", {}),
        ("a broken escape matches itself", "/a%", "/a%", {}),
        ("a capture is one segment", "/{id}", "/7", {"id": "7"}),
        ("a capture is raw", "/{id}", "/%37%2f", {"id": "%37%2f"}),
        ("a capture is not empty", "/x/{id}", "/x/", None),
        ("a capture is not two segments", "/{id}", "/a/b", None),
        ("digits", "/{id:int}", "/007", {"id": "007"}),
        ("encoded digits are digits, captured raw", "/{id:int}", "/%31", {"id": "%31"}),
        ("a sign is no digit", "/{id:int}", "/-1", None),
        ("an empty segment is no number", "/{id:int}", "/", None),
        ("other scripts' digits are no digits", "/{id:int}", "/\xb2", None),
        ("the remainder", "/x/{rest:path}", "/x/a//b/", {"rest": "a//b/"}),
        ("the remainder may be empty", "/x/{rest:path}", "/x/", {"rest": ""}),
        ("the remainder needs its slash", "/x/{rest:path}", "/x", None),
        ("the remainder of everything", "/{rest:path}", "/", {"rest": ""}),
        (
            "several captures",
            "/{a}/b/{c:int}/{d:path}",
            "/1/b/2/3/4",
            {"a": "1", "c": "2", "d": "3/4"},
        ),
    ],
)
def test_matches(rule: str, pattern: str, path: str, captures: dict[str, str] | None) -> None:
    assert found(pattern, path) == captures


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must begin with /"),
        ("a/b", "must begin with /"),
        ("/a?b", "cannot hold '\\?'"),
        ("/a#b", "cannot hold '#'"),
        ("/a b", "cannot hold ' '"),
        ("/a\\b", "cannot hold"),
        ("/a/../b", "dot segment"),
        ("/a/%2e/b", "dot segment"),
        ("/a-{id}", "whole segment"),
        ("/{id}.json", "whole segment"),
        ("/{a}{b}", "whole segment"),
        ("/{}", "not a capture"),
        ("/{1}", "not a capture"),
        ("/{a-b}", "not a capture"),
        ("/{id", "not a capture"),
        ("/id}", "not a capture"),
        ("/{id:str}", "no such kind"),
        ("/{id}/{id}", "appears twice"),
        ("/{rest:path}/x", "must come last"),
        ("/api/*", re.escape('"*" is no wildcard here: write /api/{rest:path}')),
    ],
)
def test_refuses_pattern(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PathPattern.parse(text)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("/*", "/{rest:path}"),
        ("/api/**", "/api/{rest:path}"),
        ("/api*", "/api/{rest:path}"),
        ("/a/*/b", "/a/{name}/b"),
        ("/a/*/b/*", "/a/{name}/b/{rest:path}"),
        ("/*/{name}/*.jpg", "/{name2}/{name}/{name3}"),
        ("/{rest}/*", "/{rest}/{rest2:path}"),
        ("/**/x", "/{name}/x"),
        ("/v{id}*", "/{name}"),
        ("/a*b*", "/{name}"),
    ],
)
def test_a_star_is_refused_with_what_to_write(text: str, written: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"write {written}") + "$"):
        PathPattern.parse(text)
    PathPattern.parse(written)


def test_names_keep_order_and_kind() -> None:
    pattern = PathPattern.parse("/{b}/{a:int}/{c:path}")
    assert list(pattern.names.items()) == [("b", "segment"), ("a", "int"), ("c", "path")]


@pytest.mark.parametrize(
    ("rule", "prefix", "path", "forwarded"),
    [
        ("cuts a segment", "/api", "/api/users", "/users"),
        ("cuts several", "/api/v1", "/api/v1/users", "/users"),
        ("leaves a slash", "/api", "/api", "/"),
        ("a trailing slash stays", "/api", "/api/", "/"),
        ("cuts whole segments only", "/api", "/apix/users", "/apix/users"),
        ("another path stays", "/api/v1", "/api", "/api"),
        ("an encoded spelling is cut too", "/api", "/%61pi/x", "/x"),
        ("the rest is raw", "/api", "/api/%61%2Fb%", "/%61%2Fb%"),
        ("double slashes stay", "/api", "/api//x", "//x"),
        ("a trailing slash of the prefix says nothing", "/api/", "/api/x", "/x"),
        ("a trailing slash of the prefix, alone", "/api/", "/api", "/"),
    ],
)
def test_strips(rule: str, prefix: str, path: str, forwarded: str) -> None:
    assert Rewrite.strip(prefix).apply(path, {}) == forwarded


@pytest.mark.parametrize(
    ("rule", "pattern", "template", "path", "forwarded"),
    [
        ("no capture", "/a", "/b", "/a", "/b"),
        ("a capture", "/u/{id}", "/v2/users/{id}", "/u/7", "/v2/users/7"),
        ("as received", "/u/{id}", "/v2/{id}/x", "/u/%37%2F", "/v2/%37%2F/x"),
        ("within a segment", "/u/{id}", "/u-{id}.json", "/u/7", "/u-7.json"),
        ("twice", "/u/{id}", "/{id}/{id}", "/u/7", "/7/7"),
        ("an empty remainder", "/u/{rest:path}", "/v/{rest}", "/u/", "/v/"),
        ("a remainder", "/u/{rest:path}", "/v/{rest}", "/u/a//b", "/v/a//b"),
        ("UTF-8 is escaped", "/u", "/é", "/u", "/%C3%A9"),
    ],
)
def test_rewrites(rule: str, pattern: str, template: str, path: str, forwarded: str) -> None:
    parsed = PathPattern.parse(pattern)
    captures = found(pattern, path)
    assert captures is not None
    assert Rewrite.template(template, parsed).apply(path, captures) == forwarded


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("v2", "must begin with /"),
        ("/{other}", "no capture"),
        ("/{id:int}", "without a kind"),
        ("/{id", "belongs to no capture"),
        ("/x?y={id}", "cannot hold"),
        ("/../{id}", "dot segment"),
        ("/.{id}", "dot segment"),
    ],
)
def test_refuses_template(template: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Rewrite.template(template, PathPattern.parse("/{id}"))


@pytest.mark.parametrize("prefix", ["", "api", "/", "/{x}", "/a?b", "/a/../b"])
def test_refuses_prefix(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Rewrite.strip(prefix)


# A model of a pattern that is plainly right: one regular expression over the decoded path.

LITERALS = ["a", "b", "A", "", "7", "a.b", "~"]
PARTS = st.sampled_from([*LITERALS, "{}", "{:int}"])
PATTERNS = st.builds(
    lambda parts, rest: "/" + "/".join(
        [f"{{c{n}{p[1:]}" if p.startswith("{") else p for n, p in enumerate(parts)]
        + (["{rest:path}"] if rest else [])
    ),
    st.lists(PARTS, min_size=1, max_size=4),
    st.booleans(),
)  # fmt: skip
SEGMENTS = st.sampled_from(
    ["a", "b", "A", "", "7", "42", "a.b", "~", "%61", "%7E", "%37", "a%2Fb", "%", "%2", "%zz", "c"]
)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=6).map(lambda parts: "/" + "/".join(parts))


def decoded(path: str) -> str:
    def one(escape: re.Match[str]) -> str:
        char = chr(int(escape[1], 16))
        return char if re.match(r"[A-Za-z0-9._~-]", char) else escape[0].upper()

    return re.sub("%([0-9A-Fa-f]{2})", one, path)


def expression(pattern: str) -> str:
    kinds = {None: "[^/]+", "int": "[0-9]+", "path": ".*"}
    pieces = re.split(r"\{(\w+)(?::(\w+))?\}", pattern)
    text = re.escape(pieces[0])
    for name, kind, literal in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        text += f"(?P<{name}>{kinds[kind]})" + re.escape(literal)
    return text


@given(PATTERNS, PATHS)
def test_agrees_with_a_regular_expression(pattern: str, path: str) -> None:
    expected = re.fullmatch(expression(pattern), decoded(path))
    captures = found(pattern, path)
    assert (captures is None) == (expected is None)
    if captures is not None and expected is not None:
        assert {name: decoded(raw) for name, raw in captures.items()} == expected.groupdict()
        assert all(raw in path for raw in captures.values())


@given(st.text(st.characters(max_codepoint=0xFF)))
def test_splitting_loses_nothing(text: str) -> None:
    try:
        segments = split_path("/" + text)
    except ValueError:
        return
    assert "/" + "/".join(segments) == "/" + text
    assert not {".", ".."} & set(segments)
