"""Who is told of a purge: one worker where the store tells the others, else each of them."""

from typing import Any

import pytest

from proxy.store.ports import Purge, StoreError
from proxy.workers.channel import Lost, Refused
from proxy.workers.purges import packed, purge, unpacked

PURGE = Purge(("a", "\0url:0", "Ã©"), "/x", soft=True)


class Post:
    """A worker that answers, or fails as it is told."""

    def __init__(self, *, ready: bool = True, fails: Exception | None = None) -> None:
        self.ready = ready
        self.fails = fails
        self.told: list[Purge] = []

    async def ask(self, what: str, timeout: float, **order: Any) -> None:
        assert what == "purge"
        if self.fails is not None:
            raise self.fails
        self.told.append(unpacked(order))


GONE, SILENT, CANNOT = Lost(), TimeoutError(), Refused("timeout: no reply in time")


@pytest.mark.parametrize(
    ("rule", "shared", "posts", "told"),
    [
        ("each has its own", False, [Post(), Post()], [1, 1]),
        ("what is gone has nothing left", False, [Post(fails=GONE), Post()], [0, 1]),
        ("what is not there yet has nothing", False, [Post(ready=False), Post()], [0, 1]),
        ("the store tells the others", True, [Post(), Post()], [1, 0]),
        ("the next where one is gone", True, [Post(fails=GONE), Post(), Post()], [0, 1, 0]),
        ("or not there", True, [Post(ready=False), Post()], [0, 1]),
    ],
)
async def test_who_is_told(rule: str, shared: bool, posts: list[Post], told: list[int]) -> None:
    await purge(posts, PURGE, shared=shared)
    assert [post.told for post in posts] == [[PURGE] * count for count in told]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("fails", "reason"), [(SILENT, "timeout"), (CANNOT, "down")])
async def test_what_is_not_certain_is_told(shared: bool, fails: Exception, reason: str) -> None:
    with pytest.raises(StoreError) as trouble:
        await purge([Post(fails=fails), Post()], PURGE, shared=shared)
    assert trouble.value.reason == reason


async def test_nobody_there_to_tell_the_store() -> None:
    with pytest.raises(StoreError):
        await purge([Post(ready=False), Post(fails=GONE)], PURGE, shared=True)


def test_an_order_carries_all_of_it() -> None:
    assert unpacked(packed(PURGE)) == PURGE
    assert unpacked(packed(Purge(prefix=""))) == Purge(prefix="")
