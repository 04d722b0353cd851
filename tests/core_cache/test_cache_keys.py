"""Cache keys: what is keyed, what is not, and that keys never run together."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests_kit import request

from proxy.core.cache import keys
from proxy.core.cache.keys import CLAIMS, CacheKeyRule, implicit_tags, primary, shown, variant
from proxy.core.cache.seen import Seen, forwarded_scheme, hosts
from proxy.core.cache.urls import url_tags
from proxy.core.fields import Fields
from proxy.core.headers import FORWARDING, apply_edits, forward_request_lines
from proxy.exchange import Exchange

ALL = CacheKeyRule.parse()
SPACE = keys.space("c", "r")

Lines = list[tuple[str, str]]


def key(ex: Exchange, **rule: Any) -> bytes:
    return primary(CacheKeyRule.parse(**rule), SPACE, ex)


# rule, key settings, one request, another: the same key?
HEADER = {"headers": ["X-Lang"]}
COOKIE = {"cookies": ["lang"]}
UTM = {"exclude": ["utm_*", "fbclid"]}
PAGE = {"include": ["page", "q*"]}


def with_lines(*lines: tuple[str, str], **more: Any) -> Exchange:
    return request("/a", list(lines), **more)


def cookie(*texts: str) -> Exchange:
    return with_lines(*(("Cookie", text) for text in texts))


@pytest.mark.parametrize(
    ("rule", "settings", "one", "other", "same"),
    [
        ("the path", {}, request("/a"), request("/b"), False),
        ("the path is raw", {}, request("/%61"), request("/a"), False),
        ("a path has case", {}, request("/a"), request("/A"), False),
        ("a trailing slash counts", {}, request("/a"), request("/a/"), False),
        ("the query", {}, request("/a?x=1"), request("/a?x=2"), False),
        ("an empty query is one", {}, request("/a?"), request("/a"), False),
        ("a query is verbatim", {}, request("/a?x=%31"), request("/a?x=1"), False),
        ("order of parameters counts", {}, request("/a?x&y"), request("/a?y&x"), False),
        ("a second ? is the query's", {}, request("/a?b?c"), request("/a%3Fb?c"), False),
        ("the host", {}, request(), request(authority="i.test"), False),
        ("a host has no case", {}, request(), request(authority="H.Test"), True),
        ("the port is seen upstream", {}, request(), request(authority="h.test:80"), False),
        ("the scheme", {}, request(), request(scheme="https"), False),
        ("the method is the entry's matter", {}, request(), request(method="HEAD"), True),
        ("no query", {"query": "none"}, request("/a?x=1"), request("/a"), True),
        ("an excluded parameter", UTM, request("/a?utm_x=1&b=2&fbclid=3"), request("/a?b=2"), True),
        ("only excluded ones is no query", UTM, request("/a?utm_x=1"), request("/a"), True),
        ("what is left keeps its order", UTM, request("/a?b&utm_x&c"), request("/a?c&b"), False),
        ("a longer name is not excluded", UTM, request("/a?fbclid2=1"), request("/a"), False),
        ("names are excluded as written", UTM, request("/a?utm%5Fx=1"), request("/a"), False),
        ("excluded names have case", UTM, request("/a?UTM_x=1"), request("/a"), False),
        ("a ; is never excluded", UTM, request("/a?utm_x=1;id=2"), request("/a?utm_x=1"), False),
        ("brackets, as browsers write them", {"exclude": ["f[x]"]},
         request("/a?f%5Bx%5D=1&f[x]=2"), request("/a"), True),
        ("an included parameter", PAGE, request("/a?page=1"), request("/a?page=2"), False),
        ("an included glob", PAGE, request("/a?query=1"), request("/a?query=2"), False),
        ("what is not included", PAGE, request("/a?page=1&z=1"), request("/a?page=1"), True),
        ("included names are decoded", PAGE, request("/a?p%61ge=1"), request("/a"), False),
        ("included names in any case", PAGE, request("/a?PAGE=1"), request("/a"), False),
        ("PHP's array is included", PAGE, request("/a?page[]=1"), request("/a"), False),
        ("PHP's dot is an underscore", {"include": ["a_b"]},
         request("/a?a.b=1"), request("/a"), False),
        ("a ; is always included", PAGE, request("/a?z=1;page=2"), request("/a?z=1"), False),
        ("an unkeyed header", {}, with_lines(("X-Lang", "a")), with_lines(("X-Lang", "b")), True),
        ("a key header", HEADER, with_lines(("X-Lang", "a")), with_lines(("x-lang", "b")), False),
        ("absent is not empty", HEADER, with_lines(("X-Lang", "")), with_lines(), False),
        ("lines of a header are joined", HEADER, with_lines(("X-Lang", "a"), ("X-Lang", "b")),
         with_lines(("X-Lang", "a, b")), True),
        ("a header that Connection takes off is absent", HEADER,
         with_lines(("X-Lang", "a"), ("Connection", "x-lang")), with_lines(), True),
        ("an unkeyed cookie", {}, cookie("lang=a"), cookie("lang=b"), True),
        ("a key cookie", COOKIE, cookie("lang=a"), cookie("lang=b"), False),
        ("other cookies do not count", COOKIE, cookie("x=1; lang=a"), cookie("lang=a; y=2"), True),
        ("a longer name is another cookie", COOKIE, cookie("xlang=a"), cookie("lang2=b"), True),
        ("a cookie has case", COOKIE, cookie("LANG=a"), cookie("x=1"), True),
        ("absent is not an empty cookie", COOKIE, cookie("lang="), cookie("x=1"), False),
        ("every value of a cookie counts", COOKIE, cookie("lang=a; lang=b"), cookie("lang=a"),
         False),
        ("some origins part cookies at spaces", COOKIE, cookie("x=1 lang=b"), cookie("x=1"), False),
        ("some at commas", COOKIE, cookie("x=1,lang=b"), cookie("x=1"), False),
        ("a ; in quotes is a value to some", COOKIE, cookie('lang="a;b"'), cookie('lang="a;c"'),
         False),
        ("cookies on several lines", COOKIE, cookie("x=1", "lang=a"), cookie("x=1; lang=a"), True),
        ("a claim that is let through", {}, with_lines(("X-Original-Uri", "/admin")), with_lines(),
         False),
        ("claims have values", {}, with_lines(("X-Host", "a"), trusted=True),
         with_lines(("X-Host", "b"), trusted=True), False),
        ("a claim that Connection takes off", {},
         with_lines(("X-Original-Uri", "/x"), ("Connection", "X-Original-Uri")), with_lines(),
         True),
        ("the client's address is not keyed", {},
         with_lines(("X-Forwarded-For", "1.2.3.4"), trusted=True),
         with_lines(("X-Forwarded-For", "1.2.3.5"), trusted=True), True),
        ("a trusted Forwarded's host", {}, with_lines(("Forwarded", "for=a;host=b"), trusted=True),
         with_lines(("Forwarded", "for=a;Host=c"), trusted=True), False),
        ("a trusted Forwarded's proto", {}, with_lines(("Forwarded", 'proto="a"'), trusted=True),
         with_lines(("Forwarded", 'proto="b"'), trusted=True), False),
        ("not a trusted Forwarded's for", {}, with_lines(("Forwarded", "for=a"), trusted=True),
         with_lines(("Forwarded", "for=b"), trusted=True), True),
    ],
)  # fmt: skip
def test_what_is_keyed(
    rule: str, settings: Mapping[str, Any], one: Exchange, other: Exchange, same: bool
) -> None:
    assert (key(one, **settings) == key(other, **settings)) is same, rule


def test_spaces_and_rules_do_not_share_keys() -> None:
    ex = request("/a")
    found = {
        primary(rule, space, ex)
        for rule in (ALL, CacheKeyRule.parse("none"), CacheKeyRule.parse(exclude=["x"]))
        for space in (keys.space("c", "r"), keys.space("c", "s"), keys.space("cr", ""))
    }
    assert len(found) == 9


def test_the_order_of_settings_does_not_count() -> None:
    one = CacheKeyRule.parse(exclude=["a", "b"], headers=["X", "y"], cookies=["m", "n"])
    other = CacheKeyRule.parse(exclude=["b", "a"], headers=["Y", "x", "X"], cookies=["n", "m"])
    assert one.text == other.text
    ex = request("/a", [("X", "1"), ("Y", "2"), ("Cookie", "m=1; n=2")])
    assert primary(one, SPACE, ex) == primary(other, SPACE, ex)


def test_a_key_is_16_bytes_and_a_variant_another_domain() -> None:
    ex = request("/a")
    first = primary(ALL, SPACE, ex)
    assert len(first) == 16
    found = [
        variant(first, pairs)
        for pairs in (
            (), (("a", None),), (("a", ""),), (("a", "b"),), (("ab", None),),
            (("a", "1:b"), ("c", None)), (("a", "1:b1:c-"),),
        )
    ]  # fmt: skip
    assert len({first, *found}) == 8
    assert {len(item) for item in found} == {16}


def test_claims_hold_every_field_that_redirects() -> None:
    """Of what the contract takes off strangers, only names of the client go unkeyed."""
    unkeyed = {
        "cf-connecting-ip", "forwarded", "true-client-ip", "x-client-ip", "x-cluster-client-ip",
        "x-forwarded-for", "x-real-ip",
    }  # fmt: skip
    assert unkeyed == FORWARDING - CLAIMS


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"query": "some"}, "query must be"),
        ({"include": ["a"], "exclude": ["b"]}, "not both"),
        ({"include": []}, "at least one"),
        ({"exclude": [""]}, "is no parameter"),
        ({"exclude": ["*"]}, "is no parameter"),
        ({"exclude": ["a*b"]}, "only stand at the end"),
        ({"exclude": ["a&b"]}, "cannot hold '&'"),
        ({"include": ["a;b"]}, "cannot hold ';'"),
        ({"headers": ["X Y"]}, "is not a name"),
        ({"cookies": [""]}, "is not a name"),
    ],
)
def test_what_no_rule_can_mean(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        CacheKeyRule.parse(**settings)


def test_shown_hides_what_may_be_a_credential() -> None:
    rule = CacheKeyRule.parse(exclude=["utm_*"], headers=["X-Key", "X-No"], cookies=["sid"])
    ex = request("/a?x=1&utm_y=2", [("X-Key", "secret"), ("Cookie", "sid=secret")])
    text = shown(rule, ex)
    assert text.startswith("http://h.test/a?x=1, header:x-key=#")
    assert "header:x-no=(absent)" in text
    assert "secret" not in text


# Text that tries to look like lengths, separators and marks of a key.
tricky = st.text(alphabet='-:0123,nfqp";=&?ab ', max_size=6)
paths = tricky.map(lambda text: "/" + text.replace("?", ""))
headers = st.lists(
    st.tuples(st.sampled_from(["X-A", "X-B", "X-Host", "X-Original-Url", "Other"]), tricky),
    max_size=4,
)


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    target = draw(paths) + draw(st.sampled_from(["", "?"]))
    if target.endswith("?"):
        target += draw(tricky)
    lines = [(name, value.strip(" ")) for name, value in draw(headers)]
    authority = draw(st.sampled_from(["a", "a:1", "a1", "1:a", ""]))
    return request(target, lines, authority=authority)


def meaning(rule: CacheKeyRule, space: str, ex: Exchange) -> Sequence[object]:
    """Everything that a key must tell apart, as values that cannot run together."""
    return (
        rule.text,
        space,
        ex.scheme,
        ex.authority.lower(),
        ex.path,
        rule.keyed_query(ex.query),
        [ex.fields.get(name) for name in rule.headers],
        [(name, value) for name in sorted(CLAIMS) if (value := ex.fields.get(name)) is not None],
    )


RULES = [
    ALL,
    CacheKeyRule.parse("none"),
    CacheKeyRule.parse(exclude=["a*"], headers=["X-A"]),
    CacheKeyRule.parse(include=["a", "b"], headers=["X-A", "X-B"]),
]
spaces = st.tuples(tricky, tricky).map(lambda pair: keys.space(*pair))
asked = st.tuples(st.sampled_from(RULES), spaces, exchanges())


@given(asked, asked)
def test_keys_are_injective(
    one: tuple[CacheKeyRule, str, Exchange], other: tuple[CacheKeyRule, str, Exchange]
) -> None:
    same = meaning(*one) == meaning(*other)
    texts = [rule.preimage(space, ex, Seen(ex)) for rule, space, ex in (one, other)]
    assert (texts[0] == texts[1]) is same


@given(asked)
def test_a_preimage_can_be_read_back(asked: tuple[CacheKeyRule, str, Exchange]) -> None:
    """The proof of injectivity: what can be decoded cannot have come from anything else."""
    rule, space, ex = asked
    rest = rule.preimage(space, ex, Seen(ex))

    def part() -> str | None:
        nonlocal rest
        if rest.startswith("-"):
            rest = rest[1:]
            return None
        length, _, rest = rest.partition(":")
        value, rest = rest[: int(length)], rest[int(length) :]
        return value

    assert rest.startswith("p1")
    rest = rest[2:]
    assert part() == rule.text
    assert part() == space
    scheme, _, rest = rest.partition(":")
    assert [scheme, part(), part()] == [ex.scheme, ex.authority.lower(), ex.path]
    assert part() == rule.keyed_query(ex.query)
    assert [part() for _ in rule.headers] == [ex.fields.get(name) for name in rule.headers]
    claims = {}
    while rest:
        name = part()
        claims[name] = part()
    assert claims == {name: ex.fields.get(name) for name in CLAIMS & ex.fields.index.keys()}


@given(st.text(alphabet="abut_m&;=%5F[].+ \0", max_size=20), st.sampled_from(RULES))
def test_any_query_is_keyed_by_pieces_of_itself(query: str, rule: CacheKeyRule) -> None:
    kept = rule.keyed_query(query)
    if kept is not None:
        pairs = query.split("&")
        assert all(pair in pairs for pair in kept.split("&"))
    assert rule.keyed_query(kept) == kept


@pytest.mark.parametrize("cookies", ['"', "lang", "lang=", ";;lang;", "lang =1", "=lang=", "\xff"])
def test_no_cookie_is_too_odd(cookies: str) -> None:
    assert len(key(with_lines(("Cookie", cookies)), cookies=["lang"])) == 16


# Seen: the fields as they go upstream.

SENT: Lines = [
    ("Accept", "a"), ("X-Gone", "b"), ("Connection", "x-gone, close"), ("X-Set", "c"),
    ("X-Removed", "d"), ("X-Forwarded-For", "203.0.113.5"), ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "pub.test"), ("Via", "1.1 x"), ("Keep-Alive", "1"), ("Te", "trailers"),
    ("X-Request-Id", "theirs"), ("Forwarded", "for=x"), ("Upgrade", "y"), ("Accept", "z"),
]  # fmt: skip


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
def test_seen_is_what_is_sent(trusted: bool, header: str) -> None:
    ex = request(
        "/a", SENT, trusted=trusted, header=header, set_fields=(("X-Set", "new"), ("X-Env", "p")),
        remove=frozenset({"x-removed", "via", "x-set"}),
    )  # fmt: skip
    edits = ex.route.request_headers if ex.route else None
    assert edits is not None
    sent = Fields(apply_edits(forward_request_lines(ex), edits.remove, edits.set))
    seen = Seen(ex)
    names = {name.lower() for name, _ in SENT} | set(sent.index) | {"x-absent", "content-length"}
    assert {name: seen.get(name) for name in names} == {name: sent.get(name) for name in names}


def test_seen_host_is_the_authority() -> None:
    assert Seen(request("/a", [("Host", "x")], authority="abs.test")).get("host") == "abs.test"


def test_the_target_uri_is_what_a_trusted_peer_says() -> None:
    lines = [("X-Forwarded-Proto", "HTTPS, http"), ("X-Forwarded-Host", "pub.test, x")]
    assert forwarded_scheme(request("/a", lines, trusted=True)) == "https"
    assert forwarded_scheme(request("/a", lines)) == "http"
    hop = [*lines, ("Connection", "x-forwarded-proto")]
    assert forwarded_scheme(request("/a", hop, trusted=True)) == "http"
    assert hosts(request("/a", lines, trusted=True)) == ("h.test", "pub.test")
    assert hosts(request("/a", lines)) == ("h.test",)


# Hidden tags: an object is found by its URL.


@pytest.mark.parametrize(
    ("rule", "settings", "ex", "authority", "target", "found"),
    [
        ("by its URL", {}, request("/a?x"), "h.test", "/a?x", True),
        ("on every host", {}, request("/a?x"), None, "/a?x", True),
        ("not by another target", {}, request("/a?x"), "h.test", "/a", False),
        ("not by another host", {}, request("/a"), "i.test", "/a", False),
        ("an empty query is one", {}, request("/a?"), None, "/a", False),
        ("any spelling of the host", {}, request(authority="H.test:80"), "h.TEST.:443", "/a", True),
        ("but for another port", {}, request(authority="h.test:81"), "h.test", "/a", False),
        ("any spelling of the path", {}, request("/%7Ea%c3"), None, "/~%61%C3", True),
        ("reserved characters stay", {}, request("/a%2Fb"), None, "/a/b", False),
        ("key headers do not matter", HEADER, with_lines(("X-Lang", "a")), None, "/a", True),
        ("ignored parameters do not", UTM, request("/a?utm_x=1"), None, "/a", True),
        ("nor in the purge", UTM, request("/a"), None, "/a?utm_x=1", True),
        ("with no query keyed any finds it", {"query": "none"}, request("/a?x"), None, "/a?y",
         True),
        ("the name that a trusted peer forwards", {},
         with_lines(("X-Forwarded-Host", "pub.test"), trusted=True), "pub.test", "/a", True),
    ],
)  # fmt: skip
def test_hidden_tags_find_by_url(
    rule: str,
    settings: Mapping[str, Any],
    ex: Exchange,
    authority: str | None,
    target: str,
    found: bool,
) -> None:
    chosen = CacheKeyRule.parse(**settings)
    purged = url_tags([ALL, chosen], authority, target)
    assert bool(set(purged) & set(implicit_tags(chosen, ex))) is found, rule
    assert all(tag.startswith("\0") for tag in purged)


@given(exchanges(), st.sampled_from(RULES), st.booleans())
def test_every_object_is_found_by_the_url_that_it_was_asked_for(
    ex: Exchange, rule: CacheKeyRule, everywhere: bool
) -> None:
    purged = url_tags([rule], None if everywhere else ex.authority, ex.target)
    assert set(purged) <= set(implicit_tags(rule, ex))
