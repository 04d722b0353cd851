"""Purges that are heard late, and out of order: a process may learn of a later one first, from what
it looks up in the shared tier."""

import pytest

from proxy.core.cache.record import Stored
from proxy.metrics import Metrics
from proxy.stages.cache import Caching
from proxy.store.memory.cache import Held
from proxy.store.memory.purges import MAX_PREFIXES, SOFT, VALID, VOID
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


@pytest.mark.parametrize("number", [50, 61])
def test_what_is_stale_is_not_made_stale_again(caching: Caching, number: int) -> None:
    one = held(caching, began=10)
    caching.purges.purged(Purge(("t",), soft=True), 40)
    caching.purges.reached(60)
    assert caching.purges.state(one) == SOFT
    stale = caching.soften(KEY, one, NOW)
    caching.purges.purged(Purge(("t",), soft=True), number)
    assert caching.purges.state(stale) == VALID
    assert stale.stored.left(NOW) == 0


BEGAN = NOW * 1000
"""The number of a purge of that moment."""


def softly(caching: Caching, *after: int, prefix: str | None = None) -> None:
    """Soft purges so many ms after BEGAN."""
    for ms in after:
        tags = () if prefix is not None else ("t",)
        caching.purges.purged(Purge(tags, prefix, soft=True), BEGAN + ms * 1000)


@pytest.mark.parametrize(
    ("before", "since", "stale_at"),
    [
        ([], [4_000], 4_000),
        ([-9_000], [4_000], 4_000),
        ([-9_000, -5_000], [4_000], 4_000),
        ([], [4_000, 9_000], 0),  # the first counts, and no more than the last two are known
        ([], [9_000, 4_000], 0),
        ([-5_000], [4_000, 6_000, 9_000], 0),
        ([-5_000, -6_000], [], None),
    ],
)
@pytest.mark.parametrize("prefix", [None, "/", ""])
def test_it_is_stale_since_the_first_soft_purge(
    caching: Caching, before: list[int], since: list[int], stale_at: int | None, prefix: str | None
) -> None:
    one = held(caching, began=BEGAN)
    softly(caching, *before, *since, prefix=prefix)
    assert caching.purges.state(one) == (VALID if stale_at is None else SOFT)
    if stale_at is not None:
        stale = caching.soften(KEY, one, NOW + 30_000)
        assert stale.stored.left(NOW + 30_000) == stale_at - 30_000


def test_the_earliest_of_its_tags_and_prefixes_counts(caching: Caching) -> None:
    one = held(caching, began=BEGAN)
    softly(caching, 9_000)
    softly(caching, 3_000, prefix="/")
    softly(caching, 6_000, prefix="")
    assert caching.purges.state(one) == SOFT
    assert one.stale_at == NOW + 3_000
    softly(caching, 12_000, prefix="/")  # the moment is known, and stays
    assert caching.purges.state(one) == SOFT
    assert one.stale_at == NOW + 3_000


def test_a_clock_that_is_behind_the_store_s(caching: Caching) -> None:
    one = held(caching, began=BEGAN)
    softly(caching, 5_000)
    assert caching.purges.state(one) == SOFT
    assert caching.soften(KEY, one, NOW + 1_000).stored.left(NOW + 1_000) == 0


def test_prefixes_that_are_told_apart_no_more(caching: Caching) -> None:
    """What is not known by name any more is a purge of everything, of the same moment."""
    one = held(caching, began=BEGAN)
    late = held(caching, began=BEGAN + 1_500_000)
    softly(caching, 1_000, 2_000, prefix="/first/")
    for ms in range(MAX_PREFIXES - 1):
        softly(caching, 3_000 + ms, prefix=f"/{ms}/")
    assert caching.purges.state(one) == caching.purges.state(late) == SOFT
    assert (one.stale_at, late.stale_at) == (0, NOW + 2_000)
