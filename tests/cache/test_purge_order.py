"""Purges that are heard late, and out of order: a process may learn of a later one first, from what
it looks up in the shared tier."""

import pytest

from proxy.core.cache.record import Stored
from proxy.metrics import Metrics
from proxy.stages.cache import Caching
from proxy.store.memory.cache import Held
from proxy.store.memory.purges import SOFT, VALID, VOID
from proxy.store.ports import Purge

KEY = b"k" * 16
NOW = 1_700_000_000_000


@pytest.fixture
def caching() -> Caching:
    return Caching(Metrics(), 1 << 20, clock=lambda: NOW)


def held(caching: Caching, began: int) -> Held:
    stored = Stored(
        method="GET", status=200, reason="OK", lines=[], length=2, vary=(), date=NOW,
        requested=NOW, received=NOW, initial_age=0, lifetime=60_000, stale_while_revalidate=0,
        stale_if_error=0, no_cache=False, must_revalidate=False, immutable=False, etag=None,
        last_modified=None,
    )  # fmt: skip
    return Held(stored, b"ok", caching.purges.tagged(("t",)), "/a", began, [])


@pytest.mark.parametrize("late", [Purge(("t",)), Purge(prefix="/")])
def test_a_soft_purge_hides_no_hard_one(caching: Caching, late: Purge) -> None:
    """What a soft purge has made stale is void by a hard one since its fetch, heard when ever."""
    one = held(caching, began=10)
    caching.purges.purged(Purge(("t",), soft=True), 40)
    assert caching.purges.state(one) == SOFT
    caching.purges.reached(60)
    stale = caching.soften(KEY, one, NOW)
    assert caching.purges.state(stale) == VALID
    assert stale.stored.left(NOW) == 0
    caching.purges.purged(late, 50)
    assert caching.purges.state(stale) == VOID


@pytest.mark.parametrize(("number", "state"), [(50, VALID), (61, SOFT)])
def test_only_a_later_soft_purge_counts_again(caching: Caching, number: int, state: int) -> None:
    one = held(caching, began=10)
    caching.purges.purged(Purge(("t",), soft=True), 40)
    caching.purges.reached(60)
    stale = caching.soften(KEY, one, NOW)
    caching.purges.purged(Purge(("t",), soft=True), number)
    assert caching.purges.state(stale) == state
