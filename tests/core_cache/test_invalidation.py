"""What an unsafe request invalidates, and how URLs are read for that and for purges."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from requests_kit import request

from proxy.core.cache import invalidation, tags, urls
from proxy.core.cache.keys import CacheKeyRule, implicit_tags
from proxy.core.cache.seen import target_origin
from proxy.core.fields import Fields, Lines

RULE = CacheKeyRule.parse()
HOME = ("h.test", "/a/b?q")


def invalidated(
    method: str = "POST", status: int = 200, *lines: tuple[str, str]
) -> invalidation.Invalidated:
    ex = request("/a/b?q", method=method)
    return invalidation.targets(ex, status, Fields(lines))


@pytest.mark.parametrize(
    ("rule", "method", "status", "goes"),
    [
        ("POST", "POST", 200, True),
        ("PUT", "PUT", 204, True),
        ("DELETE", "DELETE", 202, True),
        ("PATCH", "PATCH", 299, True),
        ("an unknown method", "M-SEARCH", 200, True),
        ("methods have case", "get", 200, True),
        ("a redirect is no error", "POST", 303, True),
        ("the last of them", "POST", 399, True),
        ("a client's error", "POST", 400, False),
        ("a server's error", "POST", 500, False),
        ("GET", "GET", 200, False),
        ("HEAD", "HEAD", 200, False),
        ("OPTIONS", "OPTIONS", 200, False),
        ("a registered safe method", "PROPFIND", 207, False),
    ],
)
def test_when_the_target_goes(rule: str, method: str, status: int, goes: bool) -> None:
    found = invalidated(method, status, ("Location", "/c"), ("Cache-Group-Invalidation", '"g"'))
    assert bool(found) is goes, rule
    assert found.urls == ((HOME, ("h.test", "/c")) if goes else ()), rule
    assert found.groups == (("g",) if goes else ()), rule


@pytest.mark.parametrize(
    ("rule", "reference", "found"),
    [
        ("a path", "/c", ("h.test", "/c")),
        ("a path with a query", "/c?d=1", ("h.test", "/c?d=1")),
        ("an empty query is kept", "/c?", ("h.test", "/c?")),
        ("a relative path", "c", ("h.test", "/a/c")),
        ("up and down", "../c/./d", ("h.test", "/c/d")),
        ("above the root", "../../../c", ("h.test", "/c")),
        ("a folder", "..", ("h.test", "/")),
        ("the same folder", ".", ("h.test", "/a/")),
        ("dots within a path", "/x/../y//z", ("h.test", "/y//z")),
        ("encoded dots", "/x/%2E%2e/y", ("h.test", "/y")),
        ("a query alone", "?r", ("h.test", "/a/b?r")),
        ("a fragment alone", "#f", HOME),
        ("nothing", "", HOME),
        ("a fragment goes", "/c#f", ("h.test", "/c")),
        ("absolute", "http://h.test/c", ("h.test", "/c")),
        ("the scheme has no case", "HTTP://h.test/c", ("h.test", "/c")),
        ("nor has the host", "http://H.Test/c", ("H.Test", "/c")),
        ("the default port", "http://h.test:80/c", ("h.test:80", "/c")),
        ("an empty port", "http://h.test:/c", ("h.test:", "/c")),
        ("no path", "http://h.test", ("h.test", "/")),
        ("a query without a path", "http://h.test?r", ("h.test", "/?r")),
        ("a host without a scheme", "//h.test/c", ("h.test", "/c")),
        ("dots of an absolute one", "http://h.test/c/../d", ("h.test", "/d")),
        ("another host", "http://i.test/c", None),
        ("another host without a scheme", "//i.test/c", None),
        ("another port", "http://h.test:81/c", None),
        ("another scheme", "https://h.test/c", None),
        ("its default port is another", "http://h.test:443/c", None),
        ("a user", "http://u@h.test/c", None),
        ("no host", "http:///c", None),
        ("a path behind a scheme", "http:c", None),
        ("no http URL", "mailto:a@h.test", None),
        ("a space", "/c d", None),
        ("a control", "/c\x01", None),
    ],
)
def test_references(rule: str, reference: str, found: tuple[str, str] | None) -> None:
    assert urls.resolve("http", *HOME, reference) == found, rule
    for name in ("Location", "Content-Location"):
        answer = invalidated("PUT", 201, (name, reference))
        expected = [HOME] if found in (None, HOME) else [HOME, found]
        assert list(answer.urls) == expected, rule


def test_nothing_is_relative_to_an_asterisk() -> None:
    assert urls.resolve("http", "h.test", "*", "c") is None
    assert urls.resolve("http", "h.test", "*", "?c") is None
    assert urls.resolve("http", "h.test", "*", "/c") == ("h.test", "/c")


def test_both_fields_and_all_their_lines() -> None:
    answer = invalidated(
        "POST", 201, ("Location", "/c"), ("content-location", "/d"), ("Location", "/c")
    )
    assert answer.urls == (HOME, ("h.test", "/c"), ("h.test", "/d"))


def test_the_origin_is_the_one_that_a_trusted_peer_names() -> None:
    lines: Lines = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "pub.test")]
    ex = request("/a", lines, method="POST", trusted=True)
    response = Fields([("Location", "https://pub.test/b"), ("Content-Location", "/c")])
    assert invalidation.targets(ex, 200, response).urls == (
        ("h.test", "/a"), ("pub.test", "/a"), ("pub.test", "/b"), ("h.test", "/c"),
        ("pub.test", "/c"),
    )  # fmt: skip


def test_what_is_stored_for_the_target_is_found() -> None:
    ex = request("/a/b?q", [("Accept", "x")])
    assert set(invalidated().tags([RULE])) & set(implicit_tags(RULE, ex))
    assert not set(invalidated("GET").tags([RULE]))
    none = CacheKeyRule.parse("none")
    assert set(invalidated().tags([RULE, none])) & set(implicit_tags(none, request("/a/b?other")))


def test_groups_of_the_same_origin_are_found() -> None:
    stored = tags.of(Fields([("Cache-Groups", '"g"')]), origin=target_origin(request("/z")))
    moved = invalidated("POST", 200, ("Cache-Group-Invalidation", '"g", "x"')).tags([RULE])
    assert stored is not None
    assert set(stored) & set(moved)
    elsewhere = target_origin(request("/z", authority="i.test"))
    other = tags.of(Fields([("Cache-Groups", '"g"')]), origin=elsewhere)
    assert other is not None
    assert not set(other) & set(moved)


@pytest.mark.parametrize(
    ("rule", "text", "found"),
    [
        ("a path is for every host", "/a", (None, "/a")),
        ("with its query", "/a?b=1", (None, "/a?b=1")),
        ("absolute", "http://h.test/a?b", ("h.test", "/a?b")),
        ("https", "https://H.test:8443/", ("H.test:8443", "/")),
        ("an IPv6 address", "http://[::1]:80/a", ("[::1]:80", "/a")),
        ("no path", "http://h.test", ("h.test", "/")),
        ("a query without a path", "http://h.test?a", ("h.test", "/?a")),
        ("non-ASCII is UTF-8", "/caf\u00e9", (None, "/caf%C3%A9")),
        ("escapes stay", "/a%2Fb", (None, "/a%2Fb")),
        ("two slashes begin a path", "//a", (None, "//a")),
    ],
)
def test_purge_urls(rule: str, text: str, found: tuple[str | None, str]) -> None:
    assert urls.parse_purge_url(text) == found, rule


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "?a", "http:/a", "http://", "http:///a", "http://u@h/a", "ftp://h/a",
        "http://h.test:99999/", "http://a b/", "/a b", "/a#f", "http://h/#f", "/\n", "/\0", "*",
        "mailto:a", "http://caf\u00e9/",
    ],
)  # fmt: skip
def test_no_purge_urls(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        urls.parse_purge_url(text)


def test_purge_prefixes() -> None:
    assert urls.parse_purge_prefix("/api/%7Ea/") == "/api/~a/"
    assert urls.parse_purge_prefix("/caf\u00e9") == "/caf%C3%A9"
    assert urls.keyed_target(RULE, "/api/%7ea/b?c").startswith(urls.parse_purge_prefix("/api/~a"))
    for text in ("", "api", "/a b", "/a#"):
        with pytest.raises(ValueError, match="beginning of a path"):
            urls.parse_purge_prefix(text)


@pytest.mark.parametrize(
    ("authority", "plain"),
    [
        ("H.Test", "h.test"),
        ("h.test.", "h.test"),
        ("h.test:80", "h.test"),
        ("h.test.:443", "h.test"),
        ("h.test:", "h.test"),
        ("h.test:080", "h.test"),
        ("h.test:8080", "h.test:8080"),
        ("[::1]", "[::1]"),
        ("[::A]:80", "[::a]"),
        ("[::1]:81", "[::1]:81"),
        ("", ""),
    ],
)
def test_plain_hosts(authority: str, plain: str) -> None:
    assert urls.plain_host(authority) == plain


def test_a_default_port_is_the_schemes() -> None:
    assert urls.origin("http", "h:80") == urls.origin("HTTP", "H") == "http://h"
    assert urls.origin("https", "h:80") == "https://h:80"


def without_dots(path: str) -> str:
    """RFC 3986 §5.2.4 to the letter, with its buffers."""
    out = ""
    while path:
        if path.startswith("/./") or path == "/.":
            path = "/" + path[3:]
        elif path.startswith("/../") or path == "/..":
            path = "/" + path[4:]
            out = out[: out.rfind("/")] if "/" in out else ""
        else:
            end = path.find("/", 1)
            end = len(path) if end < 0 else end
            out, path = out + path[:end], path[end:]
    return out


segments = st.sampled_from(["a", "b", ".", "..", "", "..."])
paths = st.lists(segments, max_size=6).map("/".join)


@given(paths, st.sampled_from(["", "?", "?q/../r"]), st.sampled_from(["", "#", "#f/.."]))
def test_references_by_the_letter(path: str, query: str, fragment: str) -> None:
    assume(path and not path.startswith("//"))  # which would begin a host
    found = urls.resolve("http", "h.test", "/x/y?z", path + query + fragment)
    merged = path if path.startswith("/") else f"/x/{path}"
    assert found == ("h.test", without_dots(merged) + query)


@given(st.text(alphabet="/.:?#%2E@[]ahtp \t\x01\xff", max_size=20))
def test_any_reference_can_be_read(reference: str) -> None:
    found = urls.resolve("http", "h.test", "/a", reference)
    if found is not None:
        assert urls.origin("http", found[0]) == "http://h.test"
        assert found[1].startswith("/")
