"""The body of `POST /cache/purge`: which stored answers go, read from one selector.

Texts become wire text, that is UTF-8 with one character per byte, as tags and targets are kept.
A refusal says where a text stands, never what it says.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, TypeVar

from proxy.admin.answers import Refusal
from proxy.core.cache.keys import CacheKeyRule
from proxy.core.cache.tags import MAX_TAG, from_text
from proxy.core.cache.urls import QueryRule, parse_purge_prefix, parse_purge_url, url_tags
from proxy.policy.problem import listing, suggest
from proxy.store.ports import Purge

T = TypeVar("T")

_SELECTORS: Final = ("tags", "urls", "prefix", "all")
_MEMBERS: Final = (*_SELECTORS, "soft")
_VERBATIM: Final = CacheKeyRule.parse()


class Asked(NamedTuple):
    """A purge, read: what goes, by which kind of selector (as metrics call it), and how many of
    them were given."""

    purge: Purge
    selector: str
    number: int


def read_purge(document: Any, rules: Iterable[QueryRule]) -> Asked:
    """Reads `{"tags": […]}`, `{"urls": […]}`, `{"prefix": "…"}` or `{"all": true}`, perhaps with
    `"soft": true`. `rules` are the key rules of all caches, as a URL may be filed under each.
    Raises Refusal 422.
    """
    if not isinstance(document, dict):
        raise Refusal(422, f"the body must be an object with {listing(_SELECTORS)}")
    for member in document:
        if member not in _MEMBERS:
            raise Refusal(422, f"there is no member of this name{suggest(member, _MEMBERS)}")
    given = [selector for selector in _SELECTORS if selector in document]
    if len(given) != 1:
        how = "more than one selector" if given else "no selector"
        raise Refusal(422, f"there is {how}: a purge has one of {listing(_SELECTORS)}")
    soft = document.get("soft", False)
    if not isinstance(soft, bool):
        raise Refusal(422, "soft must be true or false")
    match given[0]:
        case "tags":
            tags = _texts(document, "tags", from_text, f"no tag of 1 to {MAX_TAG} bytes")
            return Asked(Purge(tags=tags, soft=soft), "tag", len(tags))
        case "urls":
            wanted = "neither an http or https URL nor a path with its query"
            urls = _texts(document, "urls", parse_purge_url, wanted)
            rules = (*rules, _VERBATIM)
            hidden = dict.fromkeys(tag for url in urls for tag in url_tags(rules, *url))
            return Asked(Purge(tags=tuple(hidden), soft=soft), "url", len(urls))
        case "prefix":
            prefix = _text(document["prefix"], "prefix", parse_purge_prefix, "no path")
            return Asked(Purge(prefix=prefix, soft=soft), "prefix", 1)
    if document["all"] is not True:
        raise Refusal(422, "all must be true")
    return Asked(Purge(prefix="", soft=soft), "all", 1)


def _texts(
    document: dict[str, Any], member: str, read: Callable[[str], T], wanted: str
) -> tuple[T, ...]:
    """The texts of a list, each once."""
    texts = document[member]
    if not isinstance(texts, list):
        raise Refusal(422, f"{member} must be a list of strings")
    found = (_text(text, f"{member}[{i}]", read, wanted) for i, text in enumerate(texts))
    return tuple(dict.fromkeys(found))


def _text(text: Any, place: str, read: Callable[[str], T], wanted: str) -> T:
    if not isinstance(text, str):
        raise Refusal(422, f"{place} must be a string")
    try:
        return read(text)
    except ValueError:  # also half a surrogate pair, which no wire carries
        raise Refusal(422, f"{place} is {wanted}") from None
