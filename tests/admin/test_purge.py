"""`POST /cache/purge`: what each selector means, and what is refused."""

from typing import Any

import pytest
from admin_kit import Gateway
from aiohttp import web
from aiohttp.test_utils import TestClient

from proxy.admin.answers import Refusal
from proxy.admin.purge import Asked, read_purge
from proxy.core.cache.keys import CacheKeyRule
from proxy.core.cache.urls import host_tag, target_tag
from proxy.store.ports import Purge, StoreError

Client = TestClient[web.Request, web.Application]

UNTRACKED = CacheKeyRule.parse(exclude=["utm_*"])
PATH_ONLY = CacheKeyRule.parse("none")
ALL = CacheKeyRule.parse()


@pytest.mark.parametrize(
    ("rule", "document", "asked"),
    [
        ("one tag", {"tags": ["users"]}, Asked(Purge(("users",)), "tag", 1)),
        ("tags once each", {"tags": ["a", "b", "a"]}, Asked(Purge(("a", "b")), "tag", 2)),
        ("no tags are nothing to do", {"tags": []}, Asked(Purge(()), "tag", 0)),
        ("a tag is its UTF-8", {"tags": ["é"]}, Asked(Purge(("Ã©",)), "tag", 1)),
        ("softly", {"tags": ["a"], "soft": True}, Asked(Purge(("a",), soft=True), "tag", 1)),
        ("a prefix", {"prefix": "/api/"}, Asked(Purge(prefix="/api/"), "prefix", 1)),
        ("a prefix as targets are spelled", {"prefix": "/%7eé"}, Asked(
            Purge(prefix="/~%C3%A9"), "prefix", 1)),
        ("everything", {"all": True}, Asked(Purge(prefix=""), "all", 1)),
        ("everything, softly", {"all": True, "soft": True}, Asked(
            Purge(prefix="", soft=True), "all", 1)),
    ],
)  # fmt: skip
def test_what_a_selector_means(rule: str, document: Any, asked: Asked) -> None:
    assert read_purge(document, ()) == asked


@pytest.mark.parametrize(
    ("rule", "url", "plains"),
    [
        (
            "a path is of every host",
            "/a?b=1",
            [("/a?b=1", ALL), ("/a?b=1", UNTRACKED), ("/a", PATH_ONLY)],
        ),
        ("a URL without a query", "/a", [("/a", ALL), ("/a", UNTRACKED), ("/a", PATH_ONLY)]),
        (
            "each key rule may file it elsewhere",
            "/a?utm_x=1&b=2",
            [("/a?utm_x=1&b=2", ALL), ("/a?b=2", UNTRACKED), ("/a", PATH_ONLY)],
        ),
    ],
)
def test_urls_are_found_through_hidden_tags(
    rule: str, url: str, plains: list[tuple[str, CacheKeyRule]]
) -> None:
    asked = read_purge({"urls": [url]}, (UNTRACKED, PATH_ONLY))
    assert set(asked.purge.tags) == {target_tag(by, plain) for plain, by in plains}, rule
    assert asked[1:] == ("url", 1)
    asked = read_purge({"urls": [f"http://A.example:80{url}"]}, (UNTRACKED, PATH_ONLY))
    assert set(asked.purge.tags) == {host_tag(by, "a.example", plain) for plain, by in plains}, rule


@pytest.mark.parametrize(
    ("document", "detail"),
    [
        (None, "the body must be an object with tags, urls, prefix or all"),
        (["a"], "the body must be an object with tags, urls, prefix or all"),
        ({}, "there is no selector: a purge has one of tags, urls, prefix or all"),
        ({"soft": True}, "there is no selector: a purge has one of tags, urls, prefix or all"),
        (
            {"tags": ["a"], "all": True},
            "there is more than one selector: a purge has one of tags, urls, prefix or all",
        ),
        ({"tag": ["a"]}, 'there is no member of this name; did you mean "tags"?'),
        ({"tags": "a"}, "tags must be a list of strings"),
        ({"tags": ["a", 1]}, "tags[1] must be a string"),
        ({"tags": ["a", ""]}, "tags[1] is no tag of 1 to 1024 bytes"),
        ({"tags": ["é" * 513]}, "tags[0] is no tag of 1 to 1024 bytes"),
        ({"tags": ["a\0b"]}, "tags[0] is no tag of 1 to 1024 bytes"),
        ({"tags": ["\ud800"]}, "tags[0] is no tag of 1 to 1024 bytes"),
        ({"urls": [None]}, "urls[0] must be a string"),
        *(
            ({"urls": [url]}, "urls[0] is neither an http or https URL nor a path with its query")
            for url in ("", "a", "ftp://a/b", "http://", "/a b", "/a#b", "/\ud800")
        ),
        ({"prefix": ["/a"]}, "prefix must be a string"),
        ({"prefix": "a"}, "prefix is no path"),
        ({"prefix": ""}, "prefix is no path"),
        ({"all": False}, "all must be true"),
        ({"all": 1}, "all must be true"),
        ({"all": True, "soft": 1}, "soft must be true or false"),
    ],
)
def test_what_is_refused(document: Any, detail: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_purge(document, ())
    assert (refused.value.status, refused.value.detail) == (422, detail)


async def test_the_call(admin: Client, gateway: Gateway) -> None:
    answer = await admin.post("/cache/purge", json={"tags": ["a", "b"], "soft": True})
    assert (answer.status, await answer.json()) == (200, {"purged": 2})
    answer = await admin.post("/cache/purge", json={"all": True})
    assert (answer.status, await answer.json()) == (200, {"purged": 1})
    assert gateway.purges == [Purge(("a", "b"), soft=True), Purge(prefix="")]
    assert gateway.metrics.purges == {"tag": 2, "all": 1}


@pytest.mark.parametrize(
    "body",
    [
        *("", "{", "tags=a", '{"tags": NaN}', '{"a": 1, "all": true}'),
        '{"tags": ["a"], "tags": ["b"]}',
    ],
)
async def test_a_body_that_is_none_is_422(admin: Client, gateway: Gateway, body: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await admin.post("/cache/purge", data=body, headers=headers)
    assert (answer.status, answer.content_type) == (422, "application/problem+json")
    assert gateway.purges == []


async def test_a_purge_that_nobody_hears_of_is_503(admin: Client, gateway: Gateway) -> None:
    gateway.purge_trouble = StoreError("down", "Connection refused")
    answer = await admin.post("/cache/purge", json={"tags": ["a"]})
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    problem = await answer.json(content_type="application/problem+json")
    assert problem["type"] == "urn:sluicegate:problem:store-unavailable"
    assert gateway.metrics.purges == {}
