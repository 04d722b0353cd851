"""Cache-Status: what is said, and that it is a List as RFC 9651 has it."""

from typing import Any

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.cache import cache_status
from proxy.core.fields import Fields

REASONS = ("bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial")


@pytest.mark.parametrize(
    ("rule", "member", "text"),
    [
        ("a hit", cache_status.hit(37_000), "hit; ttl=37"),
        ("seconds are rounded down", cache_status.hit(37_999), "hit; ttl=37"),
        ("fresh for less than a second", cache_status.hit(1), "hit; ttl=0"),
        ("stale is negative", cache_status.hit(-1), "hit; ttl=-1"),
        ("long stale", cache_status.hit(-412_000), "hit; ttl=-412"),
        ("stored", cache_status.forwarded("uri-miss", stored=True), "fwd=uri-miss; stored"),
        ("validated", cache_status.forwarded("stale", status=304), "fwd=stale; fwd-status=304"),
        ("collapsed", cache_status.forwarded("uri-miss", collapsed=True),
         "fwd=uri-miss; collapsed"),
        ("not collapsed", cache_status.forwarded("miss", collapsed=False),
         "fwd=miss; collapsed=?0"),
        ("all in order",
         cache_status.forwarded("stale", status=304, ttl=60_000, stored=True, collapsed=False,
                                key="ab", detail="refreshed"),
         'fwd=stale; fwd-status=304; ttl=60; stored; collapsed=?0; key="ab"; detail=refreshed'),
        ("a sentence is a String", cache_status.hit(0, detail='a "b"'),
         'hit; ttl=0; detail="a \\"b\\""'),
    ],
)  # fmt: skip
def test_members(rule: str, member: str, text: str) -> None:
    assert member == f"sluicegate; {text}", rule


def test_ours_stands_last() -> None:
    lines = [("cache-status", "origin; hit"), ("X", "y"), ("Cache-Status", '"cdn"; fwd=miss')]
    found = cache_status.add(lines, cache_status.hit(1000))
    assert found[:3] == lines
    assert len(lines) == 3
    value = Fields(found).get("cache-status")
    assert value is not None
    names = [str(member[0]) for member in parsed(value)]
    assert names == ["origin", "cdn", "sluicegate"]


def parsed(value: str) -> Any:
    return http_sf.parse(value.encode("latin-1"), tltype="list")


printable = st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=10)


@given(
    st.sampled_from(REASONS),
    st.none() | st.integers(200, 599),
    st.none() | st.integers(-(10**14), 10**14),
    st.booleans(),
    st.none() | st.booleans(),
    st.none() | printable,
    st.none() | printable,
)
def test_any_member_reads_back(
    why: Any,
    status: int | None,
    ttl: int | None,
    stored: bool,
    collapsed: bool | None,
    key: str | None,
    detail: str | None,
) -> None:
    text = cache_status.forwarded(
        why, status=status, ttl=ttl, stored=stored, collapsed=collapsed, key=key, detail=detail
    )
    ((name, params),) = parsed(text)
    expected = {
        "fwd": why,
        "fwd-status": status,
        "ttl": None if ttl is None else ttl // 1000,
        "stored": stored or None,
        "collapsed": collapsed,
        "key": key,
        "detail": detail,
    }
    assert str(name) == "sluicegate"
    assert {k: str(v) if isinstance(v, http_sf.Token) else v for k, v in params.items()} == {
        k: v for k, v in expected.items() if v is not None
    }
