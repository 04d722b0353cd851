"""Do we have it: the cache, one stage of the flow."""

from proxy.stages.cache.caching import Caching
from proxy.stages.cache.hit import hit
from proxy.stages.cache.through import through

__all__ = ["Caching", "hit", "through"]
