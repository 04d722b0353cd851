"""Purging on an operator's word: by tags, URLs, a prefix, or everything."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from proxy.core.cache.tags import from_text
from proxy.core.cache.urls import QueryRule, parse_purge_prefix, parse_purge_url, url_tags
from proxy.metrics import Metrics
from proxy.stages.cache.caching import Caching
from proxy.store.ports import Purge

Kind = Literal["tags", "urls", "prefix", "all"]


@dataclass(frozen=True, slots=True)
class Selector:
    """What to purge: `values` are tags or URLs, one prefix, or nothing for `all`; text as an
    operator writes it. `soft` marks it stale."""

    kind: Kind
    values: tuple[str, ...] = ()
    soft: bool = False


class Purger:
    """Purges in this process and, where the cache is shared, everywhere. `rules`: the key rules
    of all caches there are now."""

    __slots__ = ("_caching", "_metrics", "_rules")

    def __init__(
        self, caching: Caching, metrics: Metrics, rules: Callable[[], Iterable[QueryRule]]
    ) -> None:
        self._caching = caching
        self._metrics = metrics
        self._rules = rules

    async def purge(self, selector: Selector) -> int:
        """How many selectors were applied: each tag and URL counts. Raises ValueError, a sentence,
        and StoreError where not everybody could be told; then nobody was."""
        purge = self._read(selector)
        await self._caching.purge(purge)
        count = len(selector.values) if selector.kind in ("tags", "urls") else 1
        purges = self._metrics.purges
        purges[selector.kind] = purges.get(selector.kind, 0) + count
        return count

    def _read(self, selector: Selector) -> Purge:
        values, soft = selector.values, selector.soft
        match selector.kind:
            case "tags":
                return Purge(tuple(dict.fromkeys(map(from_text, values))), soft=soft)
            case "urls":
                return Purge(self._url_tags(values), soft=soft)
            case "prefix":
                (text,) = values
                return Purge(prefix=parse_purge_prefix(text), soft=soft)
            case "all":
                return Purge(prefix="", soft=soft)

    def _url_tags(self, urls: Sequence[str]) -> tuple[str, ...]:
        rules = tuple(self._rules())
        found = [tag for url in urls for tag in url_tags(rules, *parse_purge_url(url))]
        return tuple(dict.fromkeys(found))
